//! Commands and logs.

use axum::http::StatusCode;
use model::ExecutionId;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_command_answers_with_its_end_and_its_outputs() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let path = format!("/v1/deployments/{id}/exec");
    let exec = async |argv: Value| world.post(&path, json!({"argv": argv})).is(StatusCode::OK).await;

    let printed = exec(json!(["print", "hello"])).await;
    assert!(printed["executionId"].as_str().unwrap().starts_with("exec_"));
    assert_eq!((&printed["stdout"], &printed["stderr"]), (&json!("hello done"), &json!("a warning")));
    assert_eq!(
        (&printed["exit"], &printed["encoding"]),
        (&json!({"kind": "code", "value": 0}), &json!("utf8"))
    );
    assert_eq!(exec(json!(["exit", "3"])).await["exit"], json!({"kind": "code", "value": 3}));
    let binary = exec(json!(["binary"])).await;
    assert_eq!((&binary["stdout"], &binary["encoding"]), (&json!("//4="), &json!("base64")));
    let flood = exec(json!(["flood", "9000000"])).await;
    assert_eq!((&flood["truncated"], &flood["encoding"]), (&json!(true), &json!("utf8")));
    assert_eq!(flood["stdout"].as_str().unwrap().len(), 4 << 20);

    let body = json!({"argv": ["print"], "cwd": "src", "env": {"A": "1"}, "timeoutMs": 5000});
    world.post(&path, body).is(StatusCode::OK).await;
    let last = world.control.runs.lock().unwrap().last().cloned().unwrap();
    assert_eq!(
        (last.cwd.as_deref(), last.env["A"].as_str(), last.timeout_ms),
        (Some("src"), "1", Some(5000))
    );

    world.post(&path, json!({"argv": []})).fails("validation_failed").await.names("/argv", "name a program");
    world.post(&path, json!({"argv": "ls"})).fails("validation_failed").await.names("/argv", "invalid type");
    world
        .post(&path, json!({"argv": ["ls"], "timeoutMs": 0}))
        .fails("validation_failed")
        .await
        .names("/timeoutMs", "at least 1");
    world.post(&path, json!({"argv": ["cut"]})).fails("unavailable").await.says("at cursor 10");
}

#[tokio::test]
async fn a_command_streams_and_is_found_again() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let execution = ExecutionId::new();
    let exec = || {
        let body = json!({"argv": ["print", "hello"], "executionId": execution.to_string()});
        world.post(&format!("/v1/deployments/{id}/exec"), body).header("accept", "application/x-ndjson")
    };
    let answer = exec().send().await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let frames = answer.lines();
    assert_eq!(frames[0], json!({"type": "started", "executionId": execution.to_string()}));
    assert_eq!(frames[1], json!({"type": "stdout", "data": "hello ", "encoding": "utf8", "cursor": 11}));
    assert_eq!(frames[2], json!({"type": "stderr", "data": "a warning", "encoding": "utf8", "cursor": 25}));
    assert_eq!(frames[4], json!({"type": "exit", "exit": {"kind": "code", "value": 0}}));

    // Asked again with the same id: the same execution.
    assert_eq!(exec().send().await.lines(), frames);
    assert_eq!(world.control.runs.lock().unwrap().len(), 1);

    let attach =
        |cursor: u64| world.get(&format!("/v1/deployments/{id}/executions/{execution}?cursor={cursor}"));
    assert_eq!(attach(0).send().await.lines(), frames);
    for (cursor, read) in [(11, 2), (25, 3)] {
        let rest = attach(cursor).send().await.lines();
        assert_eq!((&rest[0], &rest[1..]), (&frames[0], &frames[read..]), "{cursor}");
    }
    let unknown = format!("/v1/deployments/{id}/executions/{}", ExecutionId::new());
    world.get(&unknown).fails("not_found").await.says("execution");
    world.get(&format!("/v1/deployments/{id}/executions/{id}")).fails("invalid_id").await.says("`exec_");
}

#[tokio::test]
async fn a_stream_that_breaks_says_so() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let call = world.post(&format!("/v1/deployments/{id}/exec"), json!({"argv": ["cut"]}));
    let answer = call.header("accept", "application/x-ndjson").send().await;
    let frames = answer.lines();
    let last = frames.last().unwrap();
    assert_eq!((&last["type"], &last["problem"]["code"]), (&json!("error"), &json!("unavailable")));
    assert!(last["problem"]["detail"].as_str().unwrap().contains("at cursor 10"), "{last}");
    assert_eq!(last["problem"]["requestId"], answer.headers["x-request-id"].to_str().unwrap());

    *world.control.log_fails.lock().unwrap() = true;
    let path = format!("/v1/deployments/{id}/logs");
    let answer = world.get(&path).send().await;
    assert!(!answer.is_whole);
    let lines = answer.lines();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["origin"], "hythe");
    assert!(lines[3]["text"].as_str().unwrap().contains("its machine went away"), "{}", lines[3]);
    let mut events = world.get(&path).header("accept", "text/event-stream").stream().await;
    for expected in ["one", "two", "three"] {
        assert_eq!(events.event().await.unwrap().1["text"], expected);
    }
    assert_eq!(events.event().await.unwrap().1["code"], "unavailable");
    assert_eq!(events.event().await, None);
}

#[tokio::test]
async fn logs_are_read_as_lines_or_events_and_followed() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let path = format!("/v1/deployments/{id}/logs");
    let answer = world.get(&format!("{path}?lines=3&since=2023-11-14T22:13:20Z")).send().await;
    assert_eq!((answer.status, answer.is_whole), (StatusCode::OK, true));
    assert_eq!(answer.lines()[1], json!({"atMs": 1_700_000_000_000_u64, "origin": "stdout", "text": "two"}));
    let query = world.control.queries.lock().unwrap().pop().unwrap();
    assert_eq!((query.lines, query.follow, query.since_ms), (3, false, Some(1_700_000_000_000)));

    let mut lines = world.get(&format!("{path}?follow=true")).stream().await;
    for expected in ["one", "two", "three"] {
        assert_eq!(lines.line().await.unwrap()["text"], expected);
    }
    world.shutdown.cancel();
    assert_eq!(lines.line().await.unwrap()["origin"], "hythe");

    world.get(&format!("{path}?lines=100001")).fails("invalid_request").await.names("?lines", "100000");
    world.get(&format!("{path}?since=yesterday")).fails("invalid_request").await.names("?since", "input");
}
