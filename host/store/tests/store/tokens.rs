//! API tokens and idempotency keys.

use std::time::Duration;

use serde_json::json;
use store::Idempotency;

use crate::support::{Fixture, MINUTE, refused};

#[tokio::test]
async fn the_admins_token_is_shown_once() {
    let fixture = Fixture::new().await;
    let asking = (0..8).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.api_token_ensure_admin().await.unwrap() })
    });
    let given: Vec<String> =
        futures_util::future::join_all(asking).await.into_iter().filter_map(|token| token.unwrap()).collect();
    assert_eq!(given.len(), 1);
    let check = async |token: &str| fixture.store.api_token_check(token).await.unwrap();
    assert_eq!(check(&given[0]).await.unwrap().name, "admin");
    assert_eq!(check("hyt_other").await, None);
    let replaced = fixture.store.api_token_replace("admin").await.unwrap();
    assert_eq!(check(&given[0]).await, None);
    assert_eq!(check(&replaced).await.unwrap().name, "admin");
    let rows: Vec<String> = sqlx::query_scalar("SELECT t::text FROM api_tokens t")
        .fetch_all(&mut fixture.database.connect().await)
        .await
        .unwrap();
    assert!(rows.iter().all(|row| !row.contains(&replaced[4..])), "{rows:?}");
}

#[tokio::test]
async fn tokens_expire_and_are_voided() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let expired = store.api_token_create("old", Some(Duration::ZERO)).await.unwrap();
    let good = store.api_token_create("ci", Some(MINUTE)).await.unwrap();
    refused(store.api_token_create("ci", None).await, "token-name-taken");
    assert_eq!(store.api_token_check(&expired).await.unwrap(), None);
    assert!(store.api_token_check(&good).await.unwrap().unwrap().expires_at.is_some());
    store.api_token_delete("ci").await.unwrap();
    assert_eq!(store.api_token_check(&good).await.unwrap(), None);
    let names: Vec<_> = store.api_token_list().await.unwrap().into_iter().map(|token| token.name).collect();
    assert_eq!(names, ["old"]);
    refused(store.api_token_delete("ci").await, "not-found");
}

#[tokio::test]
async fn a_request_under_a_key_is_carried_out_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (one, other) = ([1; 32], [2; 32]);
    let begin = async |request| store.idempotency_begin("admin POST /x", "k", request).await.unwrap();
    let at_once = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.idempotency_begin("admin POST /x", "k", &[1; 32]).await.unwrap() })
    });
    let states = futures_util::future::join_all(at_once).await;
    let fresh = states.iter().filter(|state| matches!(state, Ok(Idempotency::Fresh))).count();
    assert_eq!(fresh, 1);
    assert!(matches!(begin(&one).await, Idempotency::InProgress { .. }));
    store.idempotency_finish("admin POST /x", "k", 201, &json!({"id": "x"})).await.unwrap();
    // Finished: there is nothing to forget.
    store.idempotency_forget("admin POST /x", "k").await.unwrap();
    assert_eq!(begin(&one).await, Idempotency::Replay { status: 201, response: json!({"id": "x"}) });
    assert_eq!(begin(&other).await, Idempotency::Mismatch);
    assert_eq!(store.idempotency_begin("another scope", "k", &other).await.unwrap(), Idempotency::Fresh);
    store.idempotency_forget("another scope", "k").await.unwrap();
    assert_eq!(store.idempotency_begin("another scope", "k", &other).await.unwrap(), Idempotency::Fresh);
    assert_eq!(store.idempotency_prune(MINUTE).await.unwrap(), 0);
    assert_eq!(store.idempotency_prune(Duration::ZERO).await.unwrap(), 2);
    refused(store.idempotency_finish("admin POST /x", "k", 201, &json!(null)).await, "not-found");
}
