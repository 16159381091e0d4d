//! WASI 0.2 for routing instances: enough for ordinary toolchain output to load and to fail with a word.
//! Clocks and randomness answer, standard output and error go to a bounded buffer, there are no files, no
//! environment and no input; everything else, and so whatever could wait, traps when it is called.

use std::time::{SystemTime, UNIX_EPOCH};

use wasmtime::StoreContextMut;
use wasmtime::component::{
    Component, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};

use super::state::RoutingState;
use crate::error::CallCause;

/// At most so many random bytes a call.
const MAX_RANDOM: u64 = 4096;

/// All handles are of one type: the linker takes a stub's type from its own, and only streams mean anything.
type Handle = Resource<()>;
type Cx<'a> = StoreContextMut<'a, RoutingState>;

/// What a handle's number says.
const INPUT: u32 = 0;
const OUTPUT: u32 = 1;
const READY: u32 = 2;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Handle),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Links all that the component imports.
pub(crate) fn link(linker: &mut Linker<RoutingState>, component: &Component) -> wasmtime::Result<()> {
    let imports: Vec<String> =
        component.component_type().imports(linker.engine()).map(|(name, _)| name.to_owned()).collect();
    for name in &imports {
        let interface = name.split_once('@').map_or(name.as_str(), |(interface, _)| interface);
        if interface.starts_with("wasi:") {
            answer(interface, &mut linker.instance(name)?)?;
        }
    }
    linker.define_unknown_imports_as_traps(component)
}

/// What an interface answers, where it does.
fn answer(interface: &str, linker: &mut LinkerInstance<'_, RoutingState>) -> wasmtime::Result<()> {
    match interface {
        "wasi:cli/environment" => {
            linker.func_wrap("get-environment", |cx: Cx<'_>, ()| none::<Vec<(String, String)>>(cx))?;
            linker.func_wrap("get-arguments", |cx: Cx<'_>, ()| none::<Vec<String>>(cx))?;
            linker.func_wrap("initial-cwd", |cx: Cx<'_>, ()| none::<Option<String>>(cx))
        }
        "wasi:cli/exit" => linker.func_wrap("exit", |mut cx: Cx<'_>, (status,): (Result<(), ()>,)| {
            let code = u8::from(status.is_err());
            cx.data_mut().trip::<()>(CallCause::Trap(format!("it ended itself with the exit code {code}")))
        }),
        "wasi:cli/stdin" => linker.func_wrap("get-stdin", |cx: Cx<'_>, ()| handle(cx, INPUT)),
        "wasi:cli/stdout" => linker.func_wrap("get-stdout", |cx: Cx<'_>, ()| handle(cx, OUTPUT)),
        "wasi:cli/stderr" => linker.func_wrap("get-stderr", |cx: Cx<'_>, ()| handle(cx, OUTPUT)),
        "wasi:cli/terminal-stdin" => {
            linker.func_wrap("get-terminal-stdin", |cx: Cx<'_>, ()| none::<Option<Handle>>(cx))
        }
        "wasi:cli/terminal-stdout" => {
            linker.func_wrap("get-terminal-stdout", |cx: Cx<'_>, ()| none::<Option<Handle>>(cx))
        }
        "wasi:cli/terminal-stderr" => {
            linker.func_wrap("get-terminal-stderr", |cx: Cx<'_>, ()| none::<Option<Handle>>(cx))
        }
        "wasi:filesystem/preopens" => {
            linker.func_wrap("get-directories", |cx: Cx<'_>, ()| none::<Vec<(Handle, String)>>(cx))
        }
        "wasi:clocks/wall-clock" => {
            linker.func_wrap("now", |mut cx: Cx<'_>, ()| {
                cx.data_mut().enter()?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok((Datetime { seconds: now.as_secs(), nanoseconds: now.subsec_nanos() },))
            })?;
            linker.func_wrap("resolution", |mut cx: Cx<'_>, ()| {
                cx.data_mut().enter()?;
                Ok((Datetime { seconds: 0, nanoseconds: 1_000 },))
            })
        }
        "wasi:clocks/monotonic-clock" => {
            linker.func_wrap("now", |mut cx: Cx<'_>, ()| {
                cx.data_mut().enter()?;
                Ok((u64::try_from(cx.data().since_beginning().as_nanos()).unwrap_or(u64::MAX),))
            })?;
            linker.func_wrap("resolution", |mut cx: Cx<'_>, ()| {
                cx.data_mut().enter()?;
                Ok((1_000_u64,))
            })
        }
        "wasi:random/random" => {
            linker.func_wrap("get-random-bytes", |cx: Cx<'_>, (count,): (u64,)| random_bytes(cx, count))?;
            linker.func_wrap("get-random-u64", |cx: Cx<'_>, ()| Ok((random(cx)?,)))
        }
        "wasi:random/insecure" => {
            linker.func_wrap("get-insecure-random-bytes", |cx: Cx<'_>, (count,): (u64,)| {
                random_bytes(cx, count)
            })?;
            linker.func_wrap("get-insecure-random-u64", |cx: Cx<'_>, ()| Ok((random(cx)?,)))
        }
        "wasi:random/insecure-seed" => linker.func_wrap("insecure-seed", |mut cx: Cx<'_>, ()| {
            use wasmtime::AsContextMut as _;
            Ok(((random(cx.as_context_mut())?, random(cx)?),))
        }),
        "wasi:io/streams" => streams(linker),
        "wasi:io/poll" => poll(linker),
        _ => Ok(()),
    }
}

fn streams(linker: &mut LinkerInstance<'_, RoutingState>) -> wasmtime::Result<()> {
    for resource in ["input-stream", "output-stream"] {
        linker.resource(resource, ResourceType::host::<()>(), |mut cx, _| {
            cx.data_mut().give_handle();
            Ok(())
        })?;
    }
    for read in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        linker.func_wrap(read, |mut cx: Cx<'_>, _: (Handle, u64)| {
            cx.data_mut().enter()?;
            Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
        })?;
    }
    linker.func_wrap("[method]output-stream.check-write", |mut cx: Cx<'_>, _: (Handle,)| {
        cx.data_mut().enter()?;
        Ok((Ok::<_, StreamError>(64 * 1024_u64),))
    })?;
    for write in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        linker.func_wrap(write, |mut cx: Cx<'_>, (_, bytes): (Handle, Vec<u8>)| {
            cx.data_mut().enter()?;
            cx.data_mut().print(&bytes);
            Ok((Ok::<_, StreamError>(()),))
        })?;
    }
    for subscribe in ["[method]input-stream.subscribe", "[method]output-stream.subscribe"] {
        linker.func_wrap(subscribe, |cx: Cx<'_>, _: (Handle,)| handle(cx, READY))?;
    }
    for flush in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        linker.func_wrap(flush, |mut cx: Cx<'_>, _: (Handle,)| {
            cx.data_mut().enter()?;
            Ok((Ok::<_, StreamError>(()),))
        })?;
    }
    Ok(())
}

/// There are no pollables but those of streams, which are always ready: those of clocks are not given.
fn poll(linker: &mut LinkerInstance<'_, RoutingState>) -> wasmtime::Result<()> {
    linker.resource("pollable", ResourceType::host::<()>(), |mut cx, _| {
        cx.data_mut().give_handle();
        Ok(())
    })?;
    linker.func_wrap("[method]pollable.ready", |mut cx: Cx<'_>, _: (Handle,)| {
        cx.data_mut().enter()?;
        Ok((true,))
    })?;
    linker.func_wrap("[method]pollable.block", |mut cx: Cx<'_>, _: (Handle,)| {
        cx.data_mut().enter()?;
        Ok(())
    })?;
    linker.func_wrap("poll", |mut cx: Cx<'_>, (all,): (Vec<Handle>,)| {
        cx.data_mut().enter()?;
        Ok(((0_u32..).take(all.len()).collect::<Vec<_>>(),))
    })
}

/// An empty answer.
fn none<T: Default>(mut cx: Cx<'_>) -> wasmtime::Result<(T,)> {
    cx.data_mut().enter()?;
    Ok((T::default(),))
}

fn handle(mut cx: Cx<'_>, number: u32) -> wasmtime::Result<(Handle,)> {
    cx.data_mut().enter()?;
    cx.data_mut().take_handle()?;
    Ok((Resource::new_own(number),))
}

fn random(mut cx: Cx<'_>) -> wasmtime::Result<u64> {
    cx.data_mut().enter()?;
    getrandom::u64().map_err(wasmtime::Error::from)
}

fn random_bytes(mut cx: Cx<'_>, count: u64) -> wasmtime::Result<(Vec<u8>,)> {
    cx.data_mut().enter()?;
    if count > MAX_RANDOM {
        return cx.data_mut().trip(CallCause::Trap(format!(
            "it asked for {count} random bytes: {MAX_RANDOM} are given at once"
        )));
    }
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
    getrandom::fill(&mut bytes).map_err(wasmtime::Error::from)?;
    Ok((bytes,))
}
