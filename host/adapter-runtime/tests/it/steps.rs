//! The lifecycle of an adapter that owes nothing to our daemon: whatever fails between its steps, what is
//! wanted comes about and nothing is made twice.

use std::sync::Arc;

use adapter_runtime::{Adapter, CallError, HostError, Status, Upstream};
use model::Phase;
use serde_json::json;

use crate::fake_host::{FakeHost, limits, load, runtime_with};
use crate::things::{Fault, Things};

/// Many more than any of these operations needs.
const TRIES: usize = 40;

async fn adapter() -> Arc<Adapter> {
    load(&runtime_with(limits()), "steps-adapter").await
}

fn deployment(things: &Arc<Things>) -> Arc<FakeHost> {
    Arc::new(FakeHost::new(&json!({"greeting": "hello"}), things.clone()))
}

/// Repeats a call while its answer is a passing one, or an error that passes.
async fn until<F: Future<Output = Result<Status, CallError>>>(mut call: impl FnMut() -> F) -> Status {
    for _ in 0..TRIES {
        match call().await {
            Ok(status) if matches!(status.phase, Phase::Starting | Phase::Stopping) => {
                assert!(status.poll_after.is_some(), "{status:?}");
            }
            Ok(status) => return status,
            Err(error) => assert!(matches!(error.answered(), Some(HostError::Unavailable(_))), "{error}"),
        }
    }
    panic!("still under way after {TRIES} calls");
}

#[tokio::test]
async fn a_whole_life() {
    let (adapter, things) = (adapter().await, Arc::new(Things::default()));
    let host = deployment(&things);
    assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Created);
    assert_eq!(adapter.start(host.clone()).await.unwrap().phase, Phase::Starting);
    let busy = adapter.get_fetcher(host.clone(), "web").await.unwrap_err();
    assert!(matches!(busy.answered(), Some(HostError::Busy(_))), "{busy}");
    assert_eq!(until(|| adapter.start(host.clone())).await.phase, Phase::Running);
    assert_eq!(things.0.lock().unwrap().things["thing-1"].greeting, "hello");
    assert_eq!(
        host.kept.lock().unwrap().events,
        [("thing-made".to_owned(), r#"{"id":"thing-1"}"#.to_owned())]
    );

    let fetcher = adapter.get_fetcher(host.clone(), "web").await.unwrap();
    let Upstream::Granted(place) = &fetcher.upstream else { panic!("{fetcher:?}") };
    assert_eq!((place.grant.as_str(), place.port), ("service", Some(7000)));
    assert_eq!(fetcher.set_headers[0].value, b"thing-1");
    let none = adapter.get_fetcher(host.clone(), "rpc").await.unwrap_err();
    assert_eq!(none.answered(), Some(&HostError::NotFound));

    let host = host.next(1);
    assert_eq!(until(|| adapter.stop(host.clone(), 1000)).await.phase, Phase::Stopped);
    assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Stopped);
    // What was started and stopped is not started again by the same incarnation, but by the next.
    assert_eq!(until(|| adapter.start(host.clone())).await.phase, Phase::Stopped);
    let host = host.next(2);
    assert_eq!(until(|| adapter.start(host.clone())).await.phase, Phase::Running);
    let host = host.next(3);
    assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Unknown);
    assert_eq!(until(|| adapter.restart(host.clone(), 1000)).await.phase, Phase::Running);
    let host = host.next(3);
    assert_eq!(until(|| adapter.destroy(host.clone())).await.phase, Phase::Destroyed);
    assert_eq!(until(|| adapter.destroy(host.clone())).await.phase, Phase::Destroyed);
    let service = things.0.lock().unwrap();
    assert_eq!((service.made, service.activations, service.things.len()), (1, 3, 0));
}

/// Fails one request after the other, in both ways, and once every second one.
#[tokio::test]
async fn whatever_fails_between_the_steps_nothing_is_done_twice() {
    let adapter = adapter().await;
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for at in 0..8 {
            let mut plan = vec![None; at];
            plan.push(Some(fault));
            life_with(&adapter, plan).await;
        }
        let plan = (0..24).map(|at| (at % 2 == 1).then_some(fault)).collect();
        life_with(&adapter, plan).await;
    }
}

async fn life_with(adapter: &Adapter, faults: Vec<Option<Fault>>) {
    let things = Arc::new(Things::default());
    things.0.lock().unwrap().faults = faults.clone();
    let host = deployment(&things);
    assert_eq!(until(|| adapter.start(host.clone())).await.phase, Phase::Running, "{faults:?}");
    {
        let service = things.0.lock().unwrap();
        assert_eq!((service.made, service.activations), (1, 1), "{faults:?}");
    }
    things.0.lock().unwrap().faults = faults.clone();
    let host = host.next(1);
    assert_eq!(until(|| adapter.stop(host.clone(), 0)).await.phase, Phase::Stopped, "{faults:?}");
    things.0.lock().unwrap().faults = faults.clone();
    let host = host.next(1);
    assert_eq!(until(|| adapter.destroy(host.clone())).await.phase, Phase::Destroyed, "{faults:?}");
    assert!(things.0.lock().unwrap().things.is_empty(), "{faults:?}");
}

#[tokio::test]
async fn a_late_call_of_an_earlier_incarnation_does_nothing() {
    let (adapter, things) = (adapter().await, Arc::new(Things::default()));
    let first = deployment(&things);
    until(|| adapter.start(first.clone())).await;
    let second = first.next(2);
    until(|| adapter.restart(second.clone(), 0)).await;
    let late = adapter.start(first.clone()).await.unwrap_err();
    assert_eq!(late.answered(), Some(&HostError::Superseded));
    assert_eq!(things.0.lock().unwrap().activations, 2);
}

#[tokio::test]
async fn a_thing_that_is_lost_is_said_to_be() {
    let (adapter, things) = (adapter().await, Arc::new(Things::default()));
    let host = deployment(&things);
    until(|| adapter.start(host.clone())).await;
    things.0.lock().unwrap().things.clear();
    assert_eq!(adapter.inspect(host.clone()).await.unwrap().phase, Phase::Stopped);
    assert_eq!(adapter.start(host.clone()).await.unwrap().phase, Phase::Failed);
    things.0.lock().unwrap().faults = vec![Some(Fault::AnswerLost)];
    let unknown = adapter.inspect(host).await.unwrap_err();
    assert!(matches!(unknown.answered(), Some(HostError::Unavailable(_))), "{unknown}");
}
