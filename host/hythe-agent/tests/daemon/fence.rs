//! Late calls are refused, for good.

use agent_api::{WorkloadPhase, error_code};
use http::{Method, StatusCode};

use crate::machine::{Machine, forever, refusal};

#[tokio::test]
async fn a_lower_operation_is_refused_whatever_it_asks_also_after_a_crash() {
    let mut machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment.operation = 10;
    deployment.up_forever(1).await;
    let ticket = deployment.ticket();
    for round in 0..2 {
        let mut late = machine.again(ticket);
        late.operation = 9;
        late.incarnation = 2;
        for refused in [late.put(&forever()).await, late.stop(0).await, late.delete().await] {
            let (status, problem) = refusal(refused);
            assert_eq!((status, problem.code.as_str()), (StatusCode::CONFLICT, error_code::SUPERSEDED));
        }
        let status = late.status().await.unwrap();
        assert_eq!((status.phase, status.incarnation, status.operation), (WorkloadPhase::Running, 1, 10));
        if round == 0 {
            machine.kill();
            machine.run().await;
        }
    }
    assert_eq!(machine.again(ticket).noted().0.len(), 1);
}

#[tokio::test]
async fn a_repeated_operation_gets_the_same_answer_and_does_nothing_twice() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let first = deployment.up_forever(1).await;
    for _ in 0..3 {
        assert_eq!(deployment.put(&forever()).await.unwrap(), first);
    }
    assert_eq!(deployment.noted().0.len(), 1);
}

#[tokio::test]
async fn an_incarnation_is_never_started_again_whatever_became_of_it() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment.up_forever(1).await;
    deployment.operation += 1;
    deployment.stop(0).await.unwrap();
    deployment.until(WorkloadPhase::Stopped).await;
    deployment.operation += 1;
    let answer = deployment.put(&forever()).await.unwrap();
    assert_eq!((answer.phase, answer.operation), (WorkloadPhase::Stopped, 3));
    let mut older = machine.again(deployment.ticket());
    older.operation += 1;
    older.incarnation = 0;
    assert_eq!(refusal(older.put(&forever()).await).1.code, error_code::SUPERSEDED);
    assert_eq!(deployment.noted().0.len(), 1);
    // The next one is.
    deployment.operation += 1;
    deployment.incarnation += 1;
    deployment.up_forever(2).await;
}

#[tokio::test]
async fn a_higher_incarnation_ends_the_older_one_first() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    // Ends in its own time, and says when.
    let mut old = forever();
    old.command = crate::machine::shell(
        "echo $$ >> pids; trap 'echo old >> order; exit' TERM; while :; do sleep 0.01; done",
    );
    deployment.up(&old).await;
    deployment.file("pids", |text| text.ends_with('\n')).await;
    let mut new = forever();
    new.command = crate::machine::shell("echo new >> order; echo $$ >> pids; exec sleep 1000000");
    deployment.operation += 1;
    deployment.incarnation += 1;
    assert_eq!(deployment.put(&new).await.unwrap().phase, WorkloadPhase::Starting);
    deployment.until(WorkloadPhase::Running).await;
    assert_eq!(deployment.file("order", |text| text.lines().count() == 2).await, "old\nnew\n");
    assert_eq!(deployment.noted().1, 1);
}

#[tokio::test]
async fn a_stop_on_the_way_to_the_next_incarnation_is_about_the_present_one() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment.up_forever(1).await;
    // A restart as adapters make it: one operation, both calls with the new incarnation.
    deployment.operation += 1;
    deployment.incarnation += 1;
    assert_eq!(deployment.stop(0).await.unwrap().incarnation, 1);
    assert_eq!(deployment.until(WorkloadPhase::Stopped).await.incarnation, 1);
    let status = deployment.up_forever(2).await;
    assert_eq!((status.incarnation, deployment.noted().1), (2, 1));
}

#[tokio::test]
async fn a_tombstone_refuses_a_late_start_also_after_a_restart() {
    let mut machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment.operation = 5;
    deployment.up_forever(1).await;
    deployment.operation = 6;
    deployment.delete().await.unwrap();
    deployment.until(WorkloadPhase::Destroyed).await;
    assert!(!deployment.folder().exists());
    let ticket = deployment.ticket();
    machine.kill();
    machine.run().await;
    let mut late = machine.again(ticket);
    late.operation = 5;
    assert_eq!(refusal(late.put(&forever()).await).1.code, error_code::SUPERSEDED);
    // Gone already is success.
    late.operation = 7;
    assert_eq!(late.delete().await.unwrap().phase, WorkloadPhase::Destroyed);
    assert!(machine.client().status().await.unwrap().workloads.is_empty());
}

#[tokio::test]
async fn what_never_was_is_stopped_and_gone_and_that_is_remembered() {
    let machine = Machine::start().await;
    let mut stopped = machine.deployment();
    assert_eq!(refusal(stopped.status().await).0, StatusCode::NOT_FOUND);
    stopped.operation = 4;
    assert_eq!(stopped.stop(0).await.unwrap().phase, WorkloadPhase::Stopped);
    stopped.operation = 3;
    assert_eq!(refusal(stopped.put(&forever()).await).1.code, error_code::SUPERSEDED);
    let mut gone = machine.deployment();
    gone.operation = 4;
    assert_eq!(gone.delete().await.unwrap().phase, WorkloadPhase::Destroyed);
    gone.operation = 3;
    assert_eq!(refusal(gone.put(&forever()).await).1.code, error_code::SUPERSEDED);
}

#[tokio::test]
async fn a_change_without_a_fence_or_with_anothers_is_refused() {
    let machine = Machine::start().await;
    let (one, other) = (machine.deployment(), machine.deployment());
    let crossed =
        one.call(Method::DELETE, agent_api::path::workload(&other.id.to_string()), Vec::new()).await;
    let (status, problem) = refusal(crossed);
    assert_eq!((status, problem.code.as_str()), (StatusCode::BAD_REQUEST, error_code::INVALID));
    let request = agent_client::Request {
        method: Method::DELETE,
        path: agent_api::path::workload(&one.id.to_string()),
        ..agent_client::Request::default()
    };
    let bare = machine.client().send(request).await.unwrap().accepted().await;
    assert_eq!(refusal(bare).0, StatusCode::BAD_REQUEST);
}
