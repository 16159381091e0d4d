//! `Idempotency-Key`: at most once, whatever happens to the client.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::fakes::Gate;
use crate::world::{World, archive};

#[tokio::test]
async fn a_repeated_request_gives_the_first_answer() {
    let world = World::new().await;
    let create = |slug: &str| world.post("/v1/projects", json!({"slug": slug}));
    let first = create("shop").key("a").send().await;
    assert_eq!((first.status, first.headers.get("idempotency-replayed")), (StatusCode::CREATED, None));
    let second = create("shop").key("a").send().await;
    assert_eq!((second.status, second.json()), (StatusCode::CREATED, first.json()));
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.headers["location"], first.headers["location"]);

    create("blog").key("a").fails("idempotency_key_reused").await.says("new key");
    create("shop").key("b").fails("conflict").await.says("shop");
    create("blog")
        .key("with space")
        .fails("invalid_request")
        .await
        .names("#idempotency-key", "visible ASCII");
    let listed = world.get("/v1/projects").is(StatusCode::OK).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_is_carried_out() {
    let world = World::new().await;
    world.project("shop").await;
    let body = json!({"runtimeType": "process", "spec": {"command": ["serve"]}});
    let calls = (0..20).map(async |_| {
        loop {
            let answer = world.post("/v1/projects/shop/deployments", body.clone()).key("k").send().await;
            if answer.status == StatusCode::CREATED {
                return answer.json()["id"].as_str().unwrap().to_owned();
            }
            assert_eq!(answer.json()["code"], "idempotency_in_progress");
            assert_eq!(answer.headers["retry-after"], "1");
        }
    });
    assert_eq!(join_all(calls).await.into_iter().collect::<BTreeSet<_>>().len(), 1);
    let listed = world.get("/v1/deployments").is(StatusCode::OK).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_is_carried_out_to_its_end_when_its_client_goes() {
    let world = World::new().await;
    world.project("shop").await;
    let entered = Arc::new(Semaphore::new(0));
    let (leave, gate) = mpsc::channel();
    *world.catalog.gate.lock().unwrap() = Some(Gate { entered: entered.clone(), leave: gate });
    let body = json!({"runtimeType": "waits", "spec": {"command": ["serve"]}});
    let create = || world.post("/v1/projects/shop/deployments", body.clone()).key("k");

    let first = tokio::spawn(create().detached());
    entered.acquire().await.unwrap().forget();
    create().fails("idempotency_in_progress").await.says("ask again");
    first.abort();
    assert!(first.await.is_err());
    leave.send(()).unwrap();
    let replayed = loop {
        let answer = create().send().await;
        if answer.status == StatusCode::CREATED {
            break answer;
        }
        assert_eq!(answer.json()["code"], "idempotency_in_progress");
    };
    assert_eq!(replayed.headers["idempotency-replayed"], "true");
    let listed = world.get("/v1/deployments").is(StatusCode::OK).await;
    assert_eq!(listed["items"], json!([replayed.json()]));
}

#[tokio::test]
async fn a_refused_request_may_be_sent_again_with_its_key() {
    let world = World::new().await;
    world.project("shop").await;
    let (bytes, digest) = archive("later");
    let body =
        json!({"runtimeType": "process", "spec": {"command": ["serve"]}, "sourceSha256": digest.to_string()});
    let create = || world.post("/v1/projects/shop/deployments", body.clone()).key("k");
    create().fails("source_missing").await;
    world
        .request("PUT".parse().unwrap(), &format!("/v1/sources/{digest}"))
        .bytes(bytes)
        .is(StatusCode::CREATED)
        .await;
    let made = create().is(StatusCode::CREATED).await;
    assert_eq!(create().is(StatusCode::CREATED).await, made);
}

#[tokio::test]
async fn a_restart_is_repeated_once() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let restart = || world.post(&format!("/v1/deployments/{id}/restart"), json!({})).key("k");
    let first = restart().is(StatusCode::ACCEPTED).await;
    assert_eq!(restart().is(StatusCode::ACCEPTED).await, first);
    let shown = world.get(&format!("/v1/deployments/{id}")).is(StatusCode::OK).await;
    assert_eq!(shown["wantedIncarnation"], first["wantedIncarnation"]);
}

#[tokio::test]
async fn a_secret_is_given_again_to_its_client_only() {
    let world = World::new().await;
    let create = || world.post("/v1/machine-registrations", json!({})).key("k");
    let first = create().is(StatusCode::CREATED).await;
    assert_eq!(create().is(StatusCode::CREATED).await, first);
    // Another token is another caller.
    let other = world.store.api_token_create("other", None).await.unwrap();
    let another = create().header("authorization", &format!("Bearer {other}")).is(StatusCode::CREATED).await;
    assert_ne!(another["token"], first["token"]);
}
