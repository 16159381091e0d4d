//! Every problem: who may call, what is no request, what is not there, what breaks.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use model::{DeploymentId, ProjectId};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn tokens_are_asked_for_and_told_apart() {
    let world = World::new().await;
    let get = || world.get("/v1/projects");
    let missing = get()
        .header("authorization", "")
        .fails("token_missing")
        .await
        .says("Bearer hyt_")
        .says("first start");
    assert_eq!(missing.headers["www-authenticate"], "Bearer realm=\"hythe\"");
    for malformed in ["hyt_x", "Basic aHl0Og==", "Bearer", "Bearer abc", "Bearer hyt_a b", "Bearer hyt_\"x\""]
    {
        get().header("authorization", malformed).fails("token_malformed").await.says("expected");
    }
    let unknown =
        get().header("authorization", &format!("Bearer hyt_{}", "0".repeat(48))).fails("token_unknown").await;
    assert_eq!(unknown.headers["www-authenticate"], "Bearer realm=\"hythe\", error=\"invalid_token\"");
    // The store does not tell expired tokens from unknown ones; `auth` would.
    let expired = world.store.api_token_create("ci", Some(Duration::ZERO)).await.unwrap();
    let refused = get().header("authorization", &format!("Bearer {expired}")).send().await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.json()["detail"].as_str().unwrap().contains("expired"), "{}", refused.json());

    // Wherever one is asked for, it is asked for first.
    world.post("/v1/projects", json!("nonsense")).header("authorization", "").fails("token_missing").await;
    for open in ["/v1/health", "/v1/openapi.json", "/v1/docs/"] {
        assert_eq!(world.get(open).header("authorization", "").send().await.status, StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn bodies_that_can_not_be_read_are_refused_with_their_place() {
    let world = World::new().await;
    let send = |body: &str| {
        world
            .request(Method::POST, "/v1/projects")
            .header("content-type", "application/json")
            .bytes(body.to_owned())
    };
    send("").fails("invalid_json").await.says("empty");
    send("{\"slug\": \n shop}").fails("invalid_json").await.says("line 2 column");
    send("{\"slug\": \"shop\"} x").fails("invalid_json").await.says("trailing");
    send("[]").fails("validation_failed").await.says("invalid");
    send("{}").fails("validation_failed").await.says("missing field `slug`");
    send("{\"slug\": \"shop\", \"Slug\": 1}")
        .fails("validation_failed")
        .await
        .says("unknown field `Slug`")
        .says("column");
    send("{\"slug\": 5}").fails("validation_failed").await.names("/slug", "invalid type");
    send("{\"slug\": \"org\"}").fails("validation_failed").await.names("/slug", "reserved");
    send("{\"slug\": \"my--shop\"}").fails("validation_failed").await.names("/slug", "--");
    send(&format!("{{\"slug\": \"{}\"}}", "a".repeat(51)))
        .fails("validation_failed")
        .await
        .names("/slug", "at most 50");
    send(&format!("{{\"slug\": \"{}\"}}", "a".repeat(1 << 20))).fails("too_large").await.says("1048576");
    send("{}")
        .header("content-type", "text/plain")
        .fails("unsupported_media_type")
        .await
        .says("application/json");
    send("{}").header("content-type", "").fails("unsupported_media_type").await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let project = ProjectId::new();
    world.get("/v1/nowhere").fails("not_found").await.says("/v1/openapi.json");
    world.get("/").fails("not_found").await;
    world.get("/v1/projects/").fails("not_found").await;
    let other = world.request(Method::PATCH, "/v1/projects").fails("method_not_allowed").await.says("PATCH");
    let allowed = other.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");

    let stranger = DeploymentId::new();
    for path in [
        "",
        "/wait?state=running",
        "/events",
        "/logs",
        "/health",
        "/executions/exec_01h455vb4pex5vsknk084sn02q",
    ] {
        world.get(&format!("/v1/deployments/{stranger}{path}")).fails("not_found").await;
        world
            .get(&format!("/v1/deployments/{project}{path}"))
            .fails("invalid_id")
            .await
            .says("expected `dep_`");
    }
    for verb in ["start", "stop", "restart", "promote"] {
        world
            .post(&format!("/v1/deployments/{stranger}/{verb}"), json!({}))
            .fails("not_found")
            .await
            .says(&stranger.to_string());
    }
    world.delete(&format!("/v1/deployments/{stranger}")).fails("not_found").await;
    world.get(&format!("/v1/projects/{project}")).fails("not_found").await.says(&project.to_string());
    world.get(&format!("/v1/projects/{id}")).fails("invalid_id").await.says("`prj_");
    world.get("/v1/projects/Shop").fails("invalid_id").await.says("neither");
    world.get(&format!("/v1/machines/{id}")).fails("invalid_id").await.says("`mach_");
    world.get("/v1/machines/mach_01h455vb4pex5vsknk084sn02q").fails("not_found").await;
    world.get("/v1/adapters/adp_01h455vb4pex5vsknk084sn02q").fails("not_found").await;
    world.get("/v1/projects/%ff").fails("invalid_request").await;
    world.request(Method::PUT, "/v1/sources/abc").fails("invalid_id").await.says("64 lower-case");
}

#[tokio::test]
async fn what_the_parts_below_say_keeps_its_meaning() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let refuse =
        |kind: &str| world.post(&format!("/v1/deployments/{id}/exec"), json!({"argv": ["refuse", kind]}));
    refuse("not-running").fails("not_running").await.says("start it first");
    refuse("unsupported").fails("unsupported").await.says("hythe:deployment/control");
    let unavailable = refuse("unavailable").fails("unavailable").await.says("does not answer");
    assert_eq!(unavailable.headers["retry-after"], "1");
    refuse("invalid").fails("validation_failed").await.says("nowhere");
    let internal = refuse("internal").fails("internal").await;
    assert!(!internal.problem.detail.contains("secret"));

    let body = json!({"runtimeType": "panics", "spec": {}});
    let panicked = world
        .post("/v1/projects/shop/deployments", body.clone())
        .fails("internal")
        .await
        .says("request's id");
    assert!(!panicked.problem.detail.contains("catalog"));
    // In a task of its own too; and what it did is not known.
    world.post("/v1/projects/shop/deployments", body.clone()).key("k").fails("internal").await;
    world.post("/v1/projects/shop/deployments", body).key("k").fails("idempotency_in_progress").await;

    let mine = world.get("/v1/nowhere").header("x-request-id", "my-id_1").fails("not_found").await;
    assert_eq!(mine.problem.request_id, "my-id_1");
    let forged = world.get("/v1/nowhere").header("x-request-id", "a b\"").fails("not_found").await;
    assert!(forged.problem.request_id.starts_with("req_"));
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be() {
    let world = World::new().await;
    let healthy = world.get("/v1/health").is(StatusCode::OK).await;
    assert_eq!((&healthy["status"], &healthy["database"]), (&json!("ok"), &json!("ok")));
    let metrics = world.get("/v1/metrics").send().await;
    assert_eq!((metrics.status, metrics.body.as_slice()), (StatusCode::OK, b"hythe_up 1\n".as_slice()));
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    world.store.close().await;
    let away = world.get("/v1/health").is(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!((&away["status"], &away["database"]), (&json!("unavailable"), &json!("unavailable")));
    world.get("/v1/projects").fails("unavailable").await.says("try again");
}

/// A code without a test would be one that nobody has seen.
#[test]
fn every_code_is_tested() {
    let tests = [
        include_str!("../../src/auth.rs"),
        include_str!("deployments.rs"),
        include_str!("events.rs"),
        include_str!("exec.rs"),
        include_str!("idempotency.rs"),
        include_str!("lists.rs"),
        include_str!("machines.rs"),
        include_str!("problems.rs"),
        include_str!("sources.rs"),
    ];
    for (code, ..) in api_types::code::ALL {
        let forms =
            ["fails(", "json!(", "[\"code\"], ", ".code(), "].map(|before| format!("{before}\"{code}\""));
        let tested = tests.iter().any(|test| forms.iter().any(|form| test.contains(form)));
        assert!(tested, "no test for {code}");
    }
}
