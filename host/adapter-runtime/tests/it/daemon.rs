//! The two adapters that ship, against a daemon in memory: the same life under both.

use std::sync::Arc;

use adapter_runtime::{
    Adapter, Body, CallError, Command, Execution, Framing, Health, HostError, LogSource, Place, Status, Tail,
    Transport, Upstream,
};
use agent_api::WorkloadPhase;
use model::{Phase, Scheme};
use serde_json::json;

use crate::fake_daemon::FakeDaemon;
use crate::fake_host::{FakeHost, limits, load, runtime_with};

const BOTH: [&str; 2] = ["process", "machine"];
const TRIES: usize = 20;

struct Case {
    name: &'static str,
    adapter: Arc<Adapter>,
    daemon: Arc<FakeDaemon>,
    host: Arc<FakeHost>,
}

async fn cases() -> Vec<Case> {
    let runtime = runtime_with(limits());
    let mut cases = Vec::new();
    for name in BOTH {
        let daemon = Arc::new(FakeDaemon::default());
        let spec = json!({"command": ["node", "server.js"], "env": {"A": "b"}});
        let host = FakeHost::new(&spec, daemon.clone()).with_pool(&["one"]).with_source(&"ab".repeat(32));
        cases.push(Case { name, adapter: load(&runtime, name).await, daemon, host: Arc::new(host) });
    }
    cases
}

async fn until<F: Future<Output = Result<Status, CallError>>>(mut call: impl FnMut() -> F) -> Status {
    for _ in 0..TRIES {
        let status = call().await.unwrap();
        if !matches!(status.phase, Phase::Starting | Phase::Stopping) {
            return status;
        }
        assert!(status.poll_after.is_some(), "{status:?}");
    }
    panic!("still under way after {TRIES} calls");
}

fn port_at(name: &str, port: u16) -> Upstream {
    match name {
        "machine" => Upstream::Machine(port),
        _ => Upstream::Granted(Place { grant: "local".to_owned(), address: None, port: Some(port) }),
    }
}

fn daemon_at(name: &str) -> Upstream {
    match name {
        "machine" => Upstream::Agent,
        _ => Upstream::Granted(Place { grant: "local".to_owned(), address: None, port: None }),
    }
}

#[tokio::test]
async fn a_whole_life() {
    for Case { name, adapter, daemon, host } in cases().await {
        assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Created, "{name}");
        assert_eq!(adapter.stop(host.clone(), 0).await.unwrap().phase, Phase::Stopped, "{name}");
        assert_eq!(until(|| adapter.start(host.clone())).await.phase, Phase::Running, "{name}");
        {
            let state = daemon.0.lock().unwrap();
            let workload = state.workloads.values().next().unwrap();
            assert_eq!(workload.spec.command, ["node", "server.js"]);
            assert_eq!(workload.spec.services.len(), 2);
            assert_eq!(state.sources.len(), 1);
            assert_eq!(state.starts, 1);
        }
        let web = adapter.get_fetcher(host.clone(), "web").await.unwrap();
        assert_eq!((web.upstream, web.scheme, web.ttl), (port_at(name, 40_000), Scheme::Http, None));
        let rpc = adapter.get_fetcher(host.clone(), "4000").await.unwrap();
        assert_eq!((rpc.upstream, rpc.scheme), (port_at(name, 40_001), Scheme::H2c));
        // A development server's own port, that no service declares.
        let own = adapter.get_fetcher(host.clone(), "5173").await.unwrap();
        assert_eq!((own.upstream, own.scheme), (port_at(name, 5173), Scheme::Http));
        for nowhere in ["admin", "9999", "../../v1/status", ""] {
            let error = adapter.get_fetcher(host.clone(), nowhere).await.unwrap_err();
            assert_eq!(error.answered(), Some(&HostError::NotFound), "{nowhere}");
        }
        assert_eq!(adapter.check_health(host.clone()).await.unwrap(), Health::Healthy);

        let host = host.next(1);
        assert_eq!(until(|| adapter.stop(host.clone(), 1500)).await.phase, Phase::Stopped, "{name}");
        assert_eq!(daemon.0.lock().unwrap().graces[0], 1500);
        assert!(matches!(adapter.check_health(host.clone()).await.unwrap(), Health::Unhealthy(_)));
        let busy = adapter.get_fetcher(host.clone(), "web").await.unwrap_err();
        assert!(matches!(busy.answered(), Some(HostError::Busy(_))), "{busy}");

        let host = host.next(2);
        assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Stopped);
        assert_eq!(until(|| adapter.start(host.clone())).await.phase, Phase::Running, "{name}");

        let host = host.next(3);
        assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Unknown);
        assert_eq!(until(|| adapter.restart(host.clone(), 700)).await.phase, Phase::Running, "{name}");
        {
            let state = daemon.0.lock().unwrap();
            assert_eq!(state.graces.iter().filter(|grace| **grace == 700).count(), 1, "{:?}", state.graces);
            assert_eq!(state.starts, 3);
        }

        let host = host.next(3);
        assert_eq!(until(|| adapter.destroy(host.clone())).await.phase, Phase::Destroyed, "{name}");
        assert_eq!(until(|| adapter.destroy(host.clone())).await.phase, Phase::Destroyed, "{name}");
        assert_eq!(host.kept.lock().unwrap().machine, None);
    }
}

#[tokio::test]
async fn a_source_that_is_there_is_not_sent_again() {
    for Case { name, adapter, daemon, host } in cases().await {
        daemon.0.lock().unwrap().sources.insert("ab".repeat(32));
        until(|| adapter.start(host.clone())).await;
        let requests = &daemon.0.lock().unwrap().requests;
        assert!(!requests.iter().any(|request| request.contains("/v1/sources/")), "{name}: {requests:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_is_away_is_not_a_workload_that_is_gone() {
    for Case { name, adapter, daemon, host } in cases().await {
        until(|| adapter.start(host.clone())).await;
        daemon.0.lock().unwrap().away = true;
        let answers = [
            adapter.inspect(host.clone()).await,
            adapter.start(host.clone()).await,
            adapter.stop(host.clone(), 0).await,
            adapter.destroy(host.clone()).await,
        ];
        for answer in answers {
            let error = answer.unwrap_err();
            let away = HostError::Unavailable("connection refused".to_owned());
            assert_eq!(error.answered(), Some(&away), "{name}");
        }
        // What may still run there is not given to another.
        assert_eq!(host.kept.lock().unwrap().machine.is_some(), name == "machine");
        {
            let mut state = daemon.0.lock().unwrap();
            state.away = false;
            state.workloads.clear();
        }
        let gone = adapter.inspect(host).await.unwrap();
        assert_eq!(gone.phase, Phase::Stopped);
        assert!(gone.detail.unwrap().contains("knows nothing of it"), "{name}");
    }
}

#[tokio::test]
async fn a_machine_that_can_not_be_told_is_not_given_back() {
    let Some(Case { adapter, host, daemon, .. }) = cases().await.pop() else { panic!("no case") };
    until(|| adapter.start(host.clone())).await;
    host.kept.lock().unwrap().ignorant = true;
    for answer in [adapter.destroy(host.clone()).await, adapter.stop(host.clone(), 0).await] {
        let away = HostError::Unavailable("the database is away".to_owned());
        assert_eq!(answer.unwrap_err().answered(), Some(&away));
    }
    assert!(host.kept.lock().unwrap().machine.is_some());
    assert_eq!(daemon.0.lock().unwrap().workloads.len(), 1);
}

#[tokio::test]
async fn a_late_call_is_superseded() {
    for Case { name, adapter, host, .. } in cases().await {
        until(|| adapter.start(host.clone())).await;
        let later = host.next(2);
        until(|| adapter.restart(later.clone(), 0)).await;
        for late in [adapter.start(host.clone()).await, adapter.inspect(host.clone()).await] {
            assert_eq!(late.unwrap_err().answered(), Some(&HostError::Superseded), "{name}");
        }
    }
}

#[tokio::test]
async fn what_has_failed_is_said_with_the_daemons_words() {
    for Case { name, adapter, daemon, host } in cases().await {
        until(|| adapter.start(host.clone())).await;
        for workload in daemon.0.lock().unwrap().workloads.values_mut() {
            workload.status.phase = WorkloadPhase::Failed;
            workload.status.detail = Some("exited with 1".to_owned());
            workload.status.attempts = 5;
        }
        let status = adapter.start(host.clone()).await.unwrap();
        assert_eq!(
            (status.phase, status.detail.as_deref()),
            (Phase::Failed, Some("exited with 1")),
            "{name}"
        );
        assert_eq!(status.extensions["attempts"], 5);
        assert_eq!(adapter.check_health(host).await.unwrap(), Health::Unhealthy("exited with 1".to_owned()));
    }
}

#[tokio::test]
async fn streams_are_the_daemons() {
    for Case { name, adapter, host, .. } in cases().await {
        until(|| adapter.start(host.clone())).await;
        let id = adapter_runtime::DeploymentHost::view(&*host).id;
        let command = Command {
            argv: vec!["ls".to_owned(), "-l".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            timeout: Some(std::time::Duration::from_secs(5)),
            ..Command::default()
        };
        let Execution::Attached(exec) = adapter.exec(host.clone(), "exec_1", command.clone()).await.unwrap()
        else {
            panic!("finished");
        };
        assert_eq!(
            (&exec.upstream, exec.transport, exec.framing),
            (&daemon_at(name), Transport::HttpStream, Framing::Hythe)
        );
        assert_eq!((exec.request.method.as_str(), exec.request.timeout), ("POST", None));
        assert_eq!(exec.request.path, format!("/v1/workloads/{id}/executions/exec_1"));
        let Body::Inline(body) = &exec.request.body else { panic!("{:?}", exec.request.body) };
        let sent: agent_api::ExecRequest = serde_json::from_slice(body).unwrap();
        assert_eq!((sent.argv, sent.timeout_ms), (vec!["ls".to_owned(), "-l".to_owned()], Some(5000)));

        let Execution::Attached(again) = adapter.attach(host.clone(), "exec_1", 42).await.unwrap() else {
            panic!("finished");
        };
        assert_eq!(again.request.path, format!("/v1/workloads/{id}/executions/exec_1?cursor=42"));

        let tail = Tail { lines: 10, follow: true, since_ms: Some(7) };
        let LogSource::Attached(logs) = adapter.read_logs(host.clone(), tail).await.unwrap() else {
            panic!("finished");
        };
        assert_eq!(logs.request.path, format!("/v1/workloads/{id}/logs?lines=10&follow=true&sinceMs=7"));
        assert_eq!(logs.upstream, daemon_at(name));

        let tty = Command { tty: Some((80, 24)), ..command };
        let error = adapter.exec(host.clone(), "exec_2", tty).await.unwrap_err();
        assert_eq!(error.answered(), Some(&HostError::Unsupported));
        let error = adapter.exec(host, "exec_3", Command::default()).await.unwrap_err();
        assert!(matches!(error.answered(), Some(HostError::Invalid(_))), "{error}");
    }
}

#[tokio::test]
async fn a_machine_is_claimed_as_the_spec_wants_it() {
    let adapter = load(&runtime_with(limits()), "machine").await;
    let daemon = Arc::new(FakeDaemon::default());
    let spec =
        json!({"command": ["x"], "machine": {"type": "custom", "minMemoryGb": 4, "labels": {"zone": "a"}}});
    let host = Arc::new(FakeHost::new(&spec, daemon.clone()));
    let none = adapter.start(host.clone()).await.unwrap_err();
    assert_eq!(none.answered(), Some(&HostError::Exhausted("no machine is ready".to_owned())));
    assert!(daemon.0.lock().unwrap().requests.is_empty());
    // Nothing was begun.
    assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Created);
    assert_eq!(adapter.destroy(host.clone()).await.unwrap().phase, Phase::Destroyed);
    let kept = host.kept.lock().unwrap();
    let wanted = &kept.wanted[0];
    assert_eq!(wanted.machine_type.as_deref(), Some("custom"));
    assert_eq!((wanted.min_cpu_count, wanted.min_memory_gb), (None, Some(4)));
    assert_eq!(wanted.labels, [("zone".to_owned(), "a".to_owned())]);
}
