//! Waits: they end by what is seen of the start that they name.

use axum::http::StatusCode;
use model::{DeploymentId, Health, Seen};
use serde_json::{Value, json};

use crate::world::World;

fn wait(world: &World, id: DeploymentId, query: &str) -> tokio::task::JoinHandle<Value> {
    let call = world.get(&format!("/v1/deployments/{id}/wait?{query}"));
    let sent = call.detached();
    tokio::spawn(async move {
        let answer = sent.await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.json()
    })
}

#[tokio::test]
async fn a_wait_ends_with_the_start_that_it_names() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let first = wait(&world, id, "state=running&timeout=600");
    let healthy = wait(&world, id, "state=healthy&timeout=600");
    world.observe(id, Seen::Starting, 1, Health::Unknown).await;
    world.observe(id, Seen::Running, 1, Health::Unknown).await;
    let reached = first.await.unwrap();
    assert_eq!((&reached["reached"], &reached["outcome"]), (&json!(true), &json!("reached")));
    assert_eq!(
        (&reached["deployment"]["state"], &reached["deployment"]["incarnation"]),
        (&json!("running"), &json!(1))
    );
    world.observe(id, Seen::Running, 1, Health::Healthy).await;
    assert_eq!(healthy.await.unwrap()["deployment"]["health"], "healthy");

    // The second start's wait is not content with the first start, which still runs.
    world.post(&format!("/v1/deployments/{id}/restart"), json!({})).is(StatusCode::ACCEPTED).await;
    let second = wait(&world, id, "state=running&incarnation=2&timeout=600");
    let outdated = wait(&world, id, "state=running&incarnation=1&timeout=600").await.unwrap();
    assert_eq!(outdated["outcome"], "reached", "the first start still runs");
    world.observe(id, Seen::Running, 1, Health::Unhealthy).await;
    world.observe(id, Seen::Running, 2, Health::Unknown).await;
    assert_eq!(second.await.unwrap()["deployment"]["incarnation"], 2);
    let superseded = wait(&world, id, "state=running&incarnation=1&timeout=600").await.unwrap();
    assert_eq!((&superseded["reached"], &superseded["outcome"]), (&json!(false), &json!("superseded")));
}

#[tokio::test]
async fn a_wait_that_can_not_be_fulfilled_ends_early() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let running = wait(&world, id, "state=running&timeout=600");
    world.observe(id, Seen::Failed, 1, Health::Unknown).await;
    assert_eq!(running.await.unwrap()["outcome"], "failed");

    let id = world.deployment("shop").await;
    let running = wait(&world, id, "state=running&timeout=600");
    let destroyed = wait(&world, id, "state=destroyed&timeout=600");
    world.delete(&format!("/v1/deployments/{id}")).is(StatusCode::ACCEPTED).await;
    world.observe(id, Seen::Destroyed, 0, Health::Unknown).await;
    assert_eq!(running.await.unwrap()["outcome"], "destroyed");
    assert_eq!(destroyed.await.unwrap()["outcome"], "reached");
}

#[tokio::test]
async fn a_wait_ends_with_its_time_or_its_host() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let over = wait(&world, id, "state=running&timeout=0").await.unwrap();
    assert_eq!((&over["reached"], &over["outcome"]), (&json!(false), &json!("timedOut")));
    let long = wait(&world, id, "state=running&timeout=600");
    world.shutdown.cancel();
    assert_eq!(long.await.unwrap()["outcome"], "timedOut");

    world
        .get(&format!("/v1/deployments/{id}/wait?state=running&timeout=601"))
        .fails("invalid_request")
        .await
        .names("?timeout", "600");
    world.get(&format!("/v1/deployments/{id}/wait")).fails("invalid_request").await.says("state");
}
