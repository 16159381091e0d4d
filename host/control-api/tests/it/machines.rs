//! How machines join, are shown and go.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::{CERTIFICATE, World};

fn registration(token: &Value) -> Value {
    json!({
        "token": token,
        "facts": {"name": "loft", "os": "linux", "arch": "x86_64", "cpuCount": 4, "memoryBytes": 8_589_934_592_u64},
        "address": "192.0.2.7",
        "port": 9911,
        "certificateSha256": "ab".repeat(32),
    })
}

#[tokio::test]
async fn a_machine_joins_with_its_one_time_token() {
    let world = World::new().await;
    let made = world
        .post("/v1/machine-registrations", json!({"labels": {"zone": "attic"}}))
        .is(StatusCode::CREATED)
        .await;
    let token = &made["token"];
    assert_eq!(made["command"], format!("hythe-agent join --token {}", token.as_str().unwrap()));

    // As the daemon does: without a token of the API.
    let register = |body: Value| world.post("/v1/machines/register", body).header("authorization", "");
    let joined = register(registration(token)).key("first-try").is(StatusCode::CREATED).await;
    assert_eq!(joined["hostCertificateSha256"], CERTIFICATE);
    let key = joined["sharedKey"].as_str().unwrap();
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()));
    // The answer was lost: the same daemon asks again.
    assert_eq!(register(registration(token)).key("first-try").is(StatusCode::CREATED).await, joined);
    // Another one may not.
    register(registration(token)).fails("registration_refused").await.says("used already: make another");
    register(registration(&json!("amt_nonsense"))).fails("registration_refused").await;

    let id = joined["machineId"].as_str().unwrap();
    let answer = world.get(&format!("/v1/machines/{id}")).send().await;
    assert!(!String::from_utf8(answer.body.clone()).unwrap().contains(key));
    let machine = answer.json();
    let expected = json!({
        "id": id, "type": "custom", "name": "loft", "status": "ready", "address": "192.0.2.7", "ipv4": "192.0.2.7",
        "port": 9911, "os": "linux", "arch": "x86_64", "cpuCount": 4, "memoryBytes": 8_589_934_592_u64,
        "labels": {"zone": "attic"}, "certificateSha256": "ab".repeat(32),
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&machine[field], value, "{field}");
    }
    let listed = world.get("/v1/machines?type=custom").is(StatusCode::OK).await;
    assert_eq!(listed["items"], json!([machine]));
    assert_eq!(world.get("/v1/machines?status=offline").is(StatusCode::OK).await["items"], json!([]));

    let gone = world.delete(&format!("/v1/machines/{id}")).is(StatusCode::OK).await;
    assert_eq!(gone["status"], "retired");
    assert_eq!(world.get("/v1/machines").is(StatusCode::OK).await["items"], json!([]));
    assert_eq!(
        world.get("/v1/machines?includeRetired=true").is(StatusCode::OK).await["items"],
        json!([gone])
    );
}

#[tokio::test]
async fn what_can_not_be_reached_does_not_join_and_keeps_its_token() {
    let world = World::new().await;
    let made = world.post("/v1/machine-registrations", json!({})).is(StatusCode::CREATED).await;
    let mut wrong = registration(&made["token"]);
    for (pointer, value) in [
        ("/address", json!("0.0.0.0")),
        ("/port", json!(0)),
        ("/facts/name", json!("")),
        ("/certificateSha256", json!("AB")),
    ] {
        *wrong.pointer_mut(pointer).unwrap() = value;
    }
    world
        .post("/v1/machines/register", wrong)
        .fails("validation_failed")
        .await
        .names("/address", "reach the machine's daemon")
        .names("/port", "0 is no port")
        .names("/facts/name", "1 to 100")
        .names("/certificateSha256", "64 lower-case");
    world.post("/v1/machines/register", registration(&made["token"])).is(StatusCode::CREATED).await;
}

#[tokio::test]
async fn a_registrations_fields_are_checked() {
    let world = World::new().await;
    let body =
        json!({"type": "Custom", "ttlSeconds": 100_000, "labels": {"a/b": "x".repeat(200)}, "name": ""});
    world
        .post("/v1/machine-registrations", body)
        .fails("validation_failed")
        .await
        .names("/type", "a-z")
        .names("/ttlSeconds", "86400")
        .names("/labels/a~1b", "longer")
        .names("/name", "1 to 100");
}
