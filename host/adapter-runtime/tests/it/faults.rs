//! A guest that misbehaves ends its own call, with an error that names adapter, function and cause; nothing
//! else notices. All on one thread: what keeps it, keeps everything.

use std::sync::Arc;
use std::time::Duration;

use adapter_runtime::{
    AdapterRuntime, CallCause, CallError, Command, Execution, Exit, Fetcher, Health, HostError, Level,
    Limits, LogSource, Request, Response, Status, Tail,
};
use async_trait::async_trait;
use model::Phase;
use serde_json::json;

use crate::fake_host::{Answers, FakeHost, Nobody, Stamp, limits, load, runtime_with};

fn host(misbehave: &str, function: &str) -> Arc<FakeHost> {
    Arc::new(FakeHost::new(&json!({"misbehave": misbehave, "in": function}), Arc::new(Nobody)))
}

fn good_host() -> Arc<FakeHost> {
    Arc::new(FakeHost::new(&json!({}), Arc::new(Nobody)))
}

async fn ends_with(runtime: &AdapterRuntime, misbehave: &str) -> CallError {
    let bad = load(runtime, "bad").await;
    let other = runtime.load("other", &crate::fake_host::component("bad")).await.unwrap();
    // Polled in turns on this one thread: the good calls end while the bad one is under way.
    let good = async {
        for _ in 0..5 {
            assert_eq!(other.start(good_host()).await.unwrap().phase, Phase::Running);
        }
    };
    let (answer, ()) = tokio::join!(bad.start(host(misbehave, "start")), good);
    let error = answer.unwrap_err();
    assert_eq!((error.adapter.as_str(), error.function), ("bad", "start"));
    assert!(error.is_fault(), "{error}");
    // And the same adapter goes on.
    assert_eq!(bad.start(good_host()).await.unwrap().phase, Phase::Running);
    error
}

async fn check(misbehave: &str, expected: &str) {
    let error = ends_with(&runtime_with(limits()), misbehave).await;
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[tokio::test]
async fn a_trap() {
    check("trap", "adapter `bad`: `start` trapped: wasm `unreachable` instruction executed").await;
}

#[tokio::test]
async fn a_panic_says_why() {
    let error = ends_with(&runtime_with(limits()), "panic").await;
    let CallCause::Trap(why) = &error.cause else { panic!("{error}") };
    assert!(why.contains("told to panic in start"), "{why}");
}

#[tokio::test]
async fn an_endless_loop() {
    check("loop", "adapter `bad`: `start` computed for more than 0.4 s and was ended").await;
}

#[tokio::test]
async fn a_loop_that_the_time_of_the_whole_call_ends() {
    let limits =
        Limits { call: Duration::from_millis(700), computing: Duration::from_secs(60), ..Limits::default() };
    let runtime = runtime_with(limits);
    let bad = load(&runtime, "bad").await;
    let error = bad.start(host("loop", "start")).await.unwrap_err();
    assert_eq!(error.cause, CallCause::Timeout { limit: Duration::from_millis(700) });
}

#[tokio::test]
async fn a_memory_bomb() {
    check("memory", "adapter `bad`: `start` wanted more than 64 MiB of memory and was ended").await;
}

#[tokio::test]
async fn a_flood_of_host_calls() {
    check("host-calls", "adapter `bad`: `start` called the host more than 1000 times and was ended").await;
}

#[tokio::test]
async fn an_exit() {
    check("exit", "adapter `bad`: `start` trapped: it ended itself with the exit code").await;
}

#[tokio::test]
async fn a_lie() {
    check(
        "lie",
        "adapter `bad`: `start` gave an answer that the contract does not allow: the phase `destroyed`",
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_is_too_large() {
    check(
        "huge-output",
        "adapter `bad`: `start` gave an answer that the contract does not allow: more than 4096 KiB",
    )
    .await;
}

/// Answers when the test is over.
struct Never;

#[async_trait]
impl Answers for Never {
    async fn answer(&self, _: &str, _: &Stamp, _: Request) -> Result<Response, HostError> {
        std::future::pending().await
    }
}

/// Gives up when the request's time is over, as a host does.
struct GivesUp;

#[async_trait]
impl Answers for GivesUp {
    async fn answer(&self, _: &str, _: &Stamp, request: Request) -> Result<Response, HostError> {
        let limit = request.timeout.expect("a request has a time-out");
        let _ = tokio::time::timeout(limit, std::future::pending::<()>()).await;
        Err(HostError::Unavailable("no answer".to_owned()))
    }
}

async fn slow(answers: Arc<dyn Answers>) -> CallError {
    let runtime = runtime_with(Limits { call: Duration::from_secs(1), ..Limits::default() });
    let bad = load(&runtime, "bad").await;
    let spec = json!({"misbehave": "slow-host-call", "in": "inspect"});
    let slow = bad.inspect(Arc::new(FakeHost::new(&spec, answers)));
    let (slow, good) = tokio::join!(slow, bad.inspect(good_host()));
    assert_eq!(good.unwrap().phase, Phase::Created);
    slow.unwrap_err()
}

#[tokio::test]
async fn a_host_call_that_never_ends_is_ended_from_outside() {
    let error = slow(Arc::new(Never)).await;
    assert_eq!(error.cause, CallCause::Timeout { limit: Duration::from_secs(1) });
    assert_eq!(error.to_string(), "adapter `bad`: `inspect` took longer than 1 s and was ended");
}

#[tokio::test]
async fn a_request_has_less_time_than_its_call() {
    let error = slow(Arc::new(GivesUp)).await;
    assert_eq!(error.answered(), Some(&HostError::Unavailable("no answer".to_owned())));
    assert!(!error.is_fault());
}

#[tokio::test]
async fn a_flood_of_lines_is_cut_and_counted() {
    let runtime = runtime_with(Limits { computing: Duration::from_secs(20), ..limits() });
    let bad = load(&runtime, "bad").await;
    let host = host("flood", "start");
    assert_eq!(bad.start(host.clone()).await.unwrap().phase, Phase::Running);
    let log = &host.kept.lock().unwrap().log;
    assert_eq!(log.len(), 257);
    assert_eq!(log[0], (Level::Info, "flood 0".to_owned()));
    let (level, last) = &log[256];
    // 100,000 printed and one logged.
    assert_eq!((*level, last.as_str()), (Level::Warn, "99745 more lines of this call's log were dropped"));
}

#[tokio::test]
async fn every_function_ends_alike() {
    let runtime = runtime_with(limits());
    let bad = load(&runtime, "bad").await;
    let trap = |function: &str| host("trap", function);
    let tail = Tail { lines: 1, follow: false, since_ms: None };
    let errors = [
        bad.start(trap("start")).await.map(|_: Status| ()),
        bad.stop(trap("stop"), 0).await.map(|_: Status| ()),
        bad.restart(trap("restart"), 0).await.map(|_: Status| ()),
        bad.destroy(trap("destroy")).await.map(|_: Status| ()),
        bad.inspect(trap("inspect")).await.map(|_: Status| ()),
        bad.get_fetcher(trap("get-fetcher"), "web").await.map(|_: Fetcher| ()),
        bad.check_health(trap("check-health")).await.map(|_: Health| ()),
        bad.exec(trap("exec"), "exec_1", Command::default()).await.map(|_: Execution| ()),
        bad.attach(trap("attach"), "exec_1", 0).await.map(|_: Execution| ()),
        bad.read_logs(trap("read-logs"), tail).await.map(|_: LogSource| ()),
    ];
    let expected = [
        "start",
        "stop",
        "restart",
        "destroy",
        "inspect",
        "get-fetcher",
        "check-health",
        "exec",
        "attach",
        "read-logs",
    ];
    for (answer, function) in errors.into_iter().zip(expected) {
        let error = answer.unwrap_err();
        assert_eq!(error.function, function);
        assert!(matches!(error.cause, CallCause::Trap(_)), "{error}");
    }
}

#[tokio::test]
async fn lies_in_other_functions() {
    let runtime = runtime_with(limits());
    let bad = load(&runtime, "bad").await;
    let lie = |function: &str| host("lie", function);
    let answers = [
        (bad.stop(lie("stop"), 0).await.map(|_| ()), "the phase `starting`"),
        (bad.destroy(lie("destroy")).await.map(|_| ()), "the phase `running`"),
        (bad.inspect(lie("inspect")).await.map(|_| ()), "the extension \"lie\" is not JSON"),
        (bad.get_fetcher(lie("get-fetcher"), "web").await.map(|_| ()), "port 0"),
    ];
    for (answer, expected) in answers {
        let CallCause::Answer(what) = answer.unwrap_err().cause else { panic!("for {expected}") };
        assert!(what.starts_with(expected), "{what}");
    }
}

#[tokio::test]
async fn optional_functions_answer_or_are_not_there() {
    let runtime = runtime_with(limits());
    let bad = load(&runtime, "bad").await;
    assert_eq!(bad.check_health(good_host()).await.unwrap(), Health::Healthy);
    let command = Command { argv: vec!["echo".to_owned(), "hi".to_owned()], ..Command::default() };
    let Execution::Finished(output) = bad.exec(good_host(), "exec_1", command.clone()).await.unwrap() else {
        panic!("attached");
    };
    assert_eq!((output.exit, output.stdout), (Exit::Code(0), b"echo hi".to_vec()));
    let steps = load(&runtime, "steps-adapter").await;
    let error = steps.exec(good_host(), "exec_1", command).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "adapter `steps-adapter`: `exec` needs the interface `control`, which the adapter does not export"
    );
}

#[tokio::test]
async fn one_adapters_calls_do_not_keep_anothers_waiting() {
    let runtime = runtime_with(Limits { call: Duration::from_secs(2), ..Limits::default() });
    let bad = load(&runtime, "bad").await;
    let other = runtime.load("other", &crate::fake_host::component("bad")).await.unwrap();
    let spec = json!({"misbehave": "slow-host-call", "in": "start"});
    // More than the runtime has places for in all.
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let (bad, host) = (Arc::clone(&bad), Arc::new(FakeHost::new(&spec, Arc::new(Never))));
            tokio::spawn(async move { bad.start(host).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(other.start(good_host()).await.unwrap().phase, Phase::Running);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error.cause, CallCause::Timeout { .. } | CallCause::Internal(_)), "{error}");
    }
}

#[tokio::test]
async fn the_benchmark_runs() {
    let runtime = runtime_with(limits());
    let bad = load(&runtime, "bad").await;
    for instances in [adapter_runtime::Instances::Fresh, adapter_runtime::Instances::Warm] {
        bad.bench_calls(good_host(), 3, instances).await.unwrap();
    }
}
