//! An adapter that misbehaves when it is told to, for the host's tests. Its spec says how and where:
//! `{"misbehave": "trap", "in": "start"}`; without that it is a good one that keeps nothing: a deployment is
//! `running` from its first `start` on, and its service is the grant `service`. Decisions about requests go
//! wrong as the request's path says, where the spec has `"routed": true`.

#![expect(unsafe_code, reason = "what `export!` makes")]

mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/deployment",
        inline: "
            package hythe:bad;
            world bad {
                include hythe:deployment/full-runtime-adapter@0.1.0;
                export hythe:deployment/http-routing@0.1.0;
            }
        ",
        generate_all,
    });
}

mod routing;

use bindings::exports::hythe::deployment::control::{Command, Execution, Exit, Guest as Control, Output};
use bindings::exports::hythe::deployment::health_check::{Guest as HealthCheck, Health};
use bindings::exports::hythe::deployment::logs::{Guest as Logs, Line, Source, Tail};
use bindings::exports::hythe::deployment::project_deployment::{Descriptor, Guest as ProjectDeployment};
use bindings::hythe::deployment::host::{self, Deployment, Level};
use bindings::hythe::deployment::types::{
    Body, Error, Fetcher, Phase, Place, Request, Scheme, Status, Upstream,
};
use serde::Deserialize;

const GRANT: &str = "service";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Misbehaviour {
    /// The `unreachable` instruction, without a word.
    Trap,
    /// A panic, which says why on standard error.
    Panic,
    /// Computes for ever.
    Loop,
    /// Takes memory for ever.
    Memory,
    /// Calls the host for ever.
    HostCalls,
    /// One request that the other side answers late or never.
    SlowHostCall,
    /// Answers what the contract does not allow.
    Lie,
    /// Answers with 16 MiB.
    HugeOutput,
    /// Prints 100,000 lines, and is well otherwise.
    Flood,
    /// Ends itself with the exit code 3.
    Exit,
}

#[derive(Deserialize)]
struct Spec {
    misbehave: Option<Misbehaviour>,
    #[serde(default = "start")]
    r#in: String,
    #[serde(default)]
    routed: bool,
}

fn start() -> String {
    "start".to_owned()
}

/// What is to go wrong in the answer itself.
#[derive(PartialEq)]
enum Wrong {
    Nothing,
    Lie,
    Huge,
}

const HUGE: usize = 16 << 20;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the fault that is asked for")]
fn misbehave(d: &Deployment, function: &str) -> Result<Wrong, Error> {
    let spec: Spec = serde_json::from_str(&d.spec()).map_err(|error| Error::Invalid(error.to_string()))?;
    let Some(misbehaviour) = spec.misbehave.filter(|_| spec.r#in == function) else {
        return Ok(Wrong::Nothing);
    };
    match misbehaviour {
        Misbehaviour::Trap => trap(),
        Misbehaviour::Panic => panic!("told to panic in {function}"),
        Misbehaviour::Loop => {
            let mut number = 0_u64;
            loop {
                number = std::hint::black_box(number.wrapping_add(1));
            }
        }
        Misbehaviour::Memory => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1; 1 << 20]));
            }
        }
        Misbehaviour::HostCalls => loop {
            std::hint::black_box(host::now_ms());
        },
        Misbehaviour::SlowHostCall => {
            let request = Request {
                method: "GET".to_owned(),
                path: "/slow".to_owned(),
                headers: Vec::new(),
                body: Body::None,
                timeout_ms: None,
            };
            host::send(GRANT, &request)?;
        }
        Misbehaviour::Lie => return Ok(Wrong::Lie),
        Misbehaviour::HugeOutput => return Ok(Wrong::Huge),
        Misbehaviour::Flood => (0..50_000).for_each(|number| {
            println!("flood {number}");
            eprintln!("flood {number}");
        }),
        Misbehaviour::Exit => std::process::exit(3),
    }
    Ok(Wrong::Nothing)
}

#[cfg(target_arch = "wasm32")]
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() -> ! {
    std::process::abort()
}

/// `lie` is a phase that the function never answers.
fn answer(wrong: Wrong, phase: Phase, lie: Phase) -> Status {
    let phase = if wrong == Wrong::Lie { lie } else { phase };
    let detail = (wrong == Wrong::Huge).then(|| "x".repeat(HUGE));
    Status { phase, detail, poll_after_ms: None, extensions: Vec::new() }
}

struct Bad;

impl ProjectDeployment for Bad {
    fn describe() -> Descriptor {
        Descriptor {
            runtime_type: "bad".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Misbehaves when it is told to.".to_owned(),
            spec_schema: r#"{
                "type": "object",
                "properties": {
                    "misbehave": {"enum": ["trap", "panic", "loop", "memory", "host-calls", "slow-host-call", "lie", "huge-output", "flood", "exit"]},
                    "in": {"enum": ["start", "stop", "restart", "destroy", "inspect", "get-fetcher", "check-health", "exec", "attach", "read-logs"]},
                    "routed": {"type": "boolean"}
                },
                "additionalProperties": false
            }"#
            .to_owned(),
            grants: vec![(GRANT.to_owned(), "What deployments are served from.".to_owned())],
            extensions: Vec::new(),
        }
    }

    fn start(d: &Deployment) -> Result<Status, Error> {
        let wrong = misbehave(d, "start")?;
        host::log(Level::Info, "started", &[("deployment".to_owned(), d.id())]);
        d.set_locator(Some("started"))?;
        Ok(answer(wrong, Phase::Running, Phase::Destroyed))
    }

    fn stop(d: &Deployment, _grace_ms: u32) -> Result<Status, Error> {
        let wrong = misbehave(d, "stop")?;
        d.set_locator(Some("stopped"))?;
        Ok(answer(wrong, Phase::Stopped, Phase::Starting))
    }

    fn restart(d: &Deployment, _grace_ms: u32) -> Result<Status, Error> {
        let wrong = misbehave(d, "restart")?;
        d.set_locator(Some("started"))?;
        Ok(answer(wrong, Phase::Running, Phase::Created))
    }

    fn destroy(d: &Deployment) -> Result<Status, Error> {
        let wrong = misbehave(d, "destroy")?;
        Ok(answer(wrong, Phase::Destroyed, Phase::Running))
    }

    fn inspect(d: &Deployment) -> Result<Status, Error> {
        let wrong = misbehave(d, "inspect")?;
        let phase = match d.locator().as_deref() {
            None => Phase::Created,
            Some("stopped") => Phase::Stopped,
            Some(_) => Phase::Running,
        };
        // Any phase may be seen, but an extension must be JSON.
        let broken = ("lie".to_owned(), "{not json".to_owned());
        let extensions = if wrong == Wrong::Lie { vec![broken] } else { Vec::new() };
        Ok(Status { extensions, ..answer(wrong, phase, phase) })
    }

    fn get_fetcher(d: &Deployment, _service: String) -> Result<Fetcher, Error> {
        let wrong = misbehave(d, "get-fetcher")?;
        let port = (wrong == Wrong::Lie).then_some(0);
        let routed = serde_json::from_str::<Spec>(&d.spec()).is_ok_and(|spec| spec.routed);
        let host_header = (wrong == Wrong::Huge).then(|| "x".repeat(HUGE));
        Ok(Fetcher {
            upstream: Upstream::Granted(Place { grant: GRANT.to_owned(), address: None, port }),
            scheme: Scheme::Http,
            host_header,
            set_headers: Vec::new(),
            ttl_ms: None,
            extensions: vec![("http-routing".to_owned(), routed.to_string())],
        })
    }
}

impl HealthCheck for Bad {
    fn check_health(d: &Deployment) -> Result<Health, Error> {
        match misbehave(d, "check-health")? {
            Wrong::Nothing => Ok(Health::Healthy),
            Wrong::Lie => Ok(Health::Unhealthy("it says so".to_owned())),
            Wrong::Huge => Ok(Health::Unhealthy("x".repeat(HUGE))),
        }
    }
}

impl Control for Bad {
    fn exec(d: &Deployment, _execution_id: String, command: Command) -> Result<Execution, Error> {
        let stdout = match misbehave(d, "exec")? {
            Wrong::Huge => vec![b'x'; HUGE],
            Wrong::Lie | Wrong::Nothing => command.argv.join(" ").into_bytes(),
        };
        Ok(Execution::Finished(Output { exit: Exit::Code(0), stdout, stderr: Vec::new() }))
    }

    fn attach(d: &Deployment, _execution_id: String, _cursor: u64) -> Result<Execution, Error> {
        misbehave(d, "attach")?;
        Err(Error::NotFound)
    }
}

impl Logs for Bad {
    fn read_logs(d: &Deployment, _tail: Tail) -> Result<Source, Error> {
        let text = match misbehave(d, "read-logs")? {
            Wrong::Huge => "x".repeat(HUGE),
            Wrong::Lie | Wrong::Nothing => "nothing happened".to_owned(),
        };
        Ok(Source::Finished(vec![Line { at_ms: None, origin: "bad".to_owned(), text }]))
    }
}

bindings::export!(Bad with_types_in bindings);
