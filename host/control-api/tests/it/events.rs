//! Events: pages and streams, none missed and none twice.

use axum::http::StatusCode;
use serde_json::{Value, json};
use store::NewEvent;

use crate::world::{Streamed, World};

async fn append(world: &World, name: &str) -> i64 {
    world.store.event_append(NewEvent { name: name.to_owned(), ..Default::default() }).await.unwrap()
}

async fn read(stream: &mut Streamed, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let (id, event) = stream.event().await.unwrap();
        assert_eq!(id, event["seq"].to_string());
        names.push(event["name"].as_str().unwrap().to_owned());
    }
    names
}

#[tokio::test]
async fn pages_go_on_behind_the_last_number() {
    let world = World::new().await;
    for number in 1..=5 {
        append(&world, &format!("test.{number}")).await;
    }
    let names = |page: &Value| {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first = world.get("/v1/events?limit=3").is(StatusCode::OK).await;
    assert_eq!(names(&first), ["test.1", "test.2", "test.3"]);
    let after = first["nextCursor"].as_str().unwrap();
    let second = world.get(&format!("/v1/events?limit=3&after={after}")).is(StatusCode::OK).await;
    assert_eq!(
        (names(&second), second.get("nextCursor")),
        (vec!["test.4".to_owned(), "test.5".to_owned()], None)
    );
    let last = world.get("/v1/events?last=2").is(StatusCode::OK).await;
    assert_eq!(names(&last), ["test.4", "test.5"]);
    world.get("/v1/events?last=2&after=1").fails("invalid_request").await.names("?last", "either");
}

#[tokio::test]
async fn a_stream_that_is_opened_again_misses_none() {
    let world = World::new().await;
    append(&world, "test.1").await;
    append(&world, "test.2").await;
    let mut stream = world.get("/v1/events?follow=true").stream().await;
    assert_eq!(
        (stream.status, stream.headers["content-type"].to_str().unwrap()),
        (StatusCode::OK, "text/event-stream")
    );
    assert_eq!(read(&mut stream, 2).await, ["test.1", "test.2"]);
    let third = append(&world, "test.3").await;
    assert_eq!(read(&mut stream, 1).await, ["test.3"]);
    drop(stream);

    append(&world, "test.4").await;
    append(&world, "test.5").await;
    let call = world.get("/v1/events?after=1").header("accept", "text/event-stream");
    let mut stream = call.header("last-event-id", &third.to_string()).stream().await;
    assert_eq!(read(&mut stream, 2).await, ["test.4", "test.5"]);
    // Many at once, while it is read.
    for number in 6..300 {
        append(&world, &format!("test.{number}")).await;
    }
    let expected: Vec<_> = (6..300).map(|number| format!("test.{number}")).collect();
    assert_eq!(read(&mut stream, 294).await, expected);

    let mut newest = world.get("/v1/events?follow=true&last=0").stream().await;
    append(&world, "test.newest").await;
    assert_eq!(read(&mut newest, 1).await, ["test.newest"]);

    world.shutdown.cancel();
    assert_eq!(newest.event().await, None);
    world
        .get("/v1/events")
        .header("last-event-id", "x")
        .fails("invalid_request")
        .await
        .names("#last-event-id", "number");
}

#[tokio::test]
async fn a_deployments_events_are_its_own() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let other = world.deployment("shop").await;
    for (deployment, name) in [(id, "test.mine"), (other, "test.other"), (id, "test.mine-too")] {
        let event = NewEvent { name: name.to_owned(), deployment_id: Some(deployment), ..Default::default() };
        world.store.event_append(event).await.unwrap();
    }
    let page = world.get(&format!("/v1/deployments/{id}/events?limit=200")).is(StatusCode::OK).await;
    let events = page["items"].as_array().unwrap();
    assert!(events.iter().all(|event| event["deploymentId"] == json!(id.to_string())));
    let mine = events.iter().filter(|event| event["name"].as_str().unwrap().starts_with("test.")).count();
    assert_eq!(mine, 2);

    let last = events.last().unwrap()["seq"].to_string();
    let mut stream =
        world.get(&format!("/v1/deployments/{id}/events?follow=true&after={last}")).stream().await;
    for (deployment, name) in [(other, "test.other"), (id, "test.third")] {
        let event = NewEvent { name: name.to_owned(), deployment_id: Some(deployment), ..Default::default() };
        world.store.event_append(event).await.unwrap();
    }
    assert_eq!(read(&mut stream, 1).await, ["test.third"]);
}
