//! Projects and deployments, from making to going.

use axum::http::StatusCode;
use model::{Health, Seen};
use serde_json::json;

use crate::world::{World, archive};

#[tokio::test]
async fn a_project_and_its_deployment_are_made_and_shown() {
    let world = World::new().await;
    let project = world.project("shop").await;
    assert_eq!(project["urls"][0]["url"], "http://shop.localhost:8080/");

    let (bytes, digest) = archive("<h1>shop</h1>");
    let answer =
        world.request("PUT".parse().unwrap(), &format!("/v1/sources/{digest}")).bytes(bytes).send().await;
    assert_eq!(answer.status, StatusCode::CREATED);

    let body = json!({
        "runtimeType": "process",
        "spec": {"command": ["node", "server.js"]},
        "services": [{"name": "web", "port": 3000}, {"name": "admin", "port": 3001, "scheme": "h2c"}],
        "sourceSha256": digest.to_string(),
        // As it was written before there were three.
        "wakePolicy": "on-request", "idleTimeoutSeconds": 900,
    });
    let made = world.post("/v1/projects/shop/deployments", body).send().await;
    assert_eq!(made.status, StatusCode::CREATED);
    let deployment = made.json();
    let id = deployment["id"].as_str().unwrap().to_owned();
    assert_eq!(made.headers["location"], format!("/v1/deployments/{id}"));
    let expected = json!({
        "projectId": project["id"], "projectSlug": "shop", "runtimeType": "process",
        "wantedState": "running", "wantedIncarnation": 1, "state": "created", "incarnation": 0, "health": "unknown",
        "isPrimary": false, "promoteWhenHealthy": true, "wakePolicy": "dynamic", "idleTimeoutSeconds": 900,
        "sourceSha256": digest.to_string(),
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&deployment[field], value, "{field}");
    }
    let label = id.replace('_', "-");
    let urls: Vec<_> = deployment["urls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|url| (url["service"].clone(), url["url"].clone()))
        .collect();
    assert_eq!(
        urls,
        [
            (json!("web"), json!(format!("http://{label}.localhost:8080/"))),
            (json!("admin"), json!(format!("http://admin--{label}.localhost:8080/"))),
        ]
    );

    // By id and by slug.
    let by_id = format!("/v1/projects/{}", project["id"].as_str().unwrap());
    assert_eq!(world.get(&by_id).is(StatusCode::OK).await["slug"], "shop");
    assert_eq!(world.get(&format!("/v1/deployments/{id}")).is(StatusCode::OK).await, deployment);
    let listed = world.get(&format!("{by_id}/deployments")).is(StatusCode::OK).await;
    assert_eq!(listed["items"], json!([deployment]));
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_written() {
    let world = World::new().await;
    let slug = "a".repeat(50);
    world.project(&slug).await;
    let path = format!("/v1/projects/{slug}/deployments");
    let body = json!({
        "runtimeType": "process",
        "spec": {"command": ["", 5]},
        "services": [
            {"name": "web", "port": 3000},
            {"name": "web", "port": 3000},
            {"name": "administration", "port": 0},
        ],
        "sourceSha256": "xyz",
    });
    world
        .post(&path, body)
        .fails("validation_failed")
        .await
        .names("/spec/command/0", "at least 1 character")
        .names("/spec/command/1", "5 is not a text")
        .names("/services/1/name", "another service")
        .names("/services/1/port", "another service")
        .names("/services/2/port", "0 is no port")
        .names("/services/2/name", &format!("administration--{slug}"))
        .names("/services/2/name", "longer than 63")
        .names("/sourceSha256", "64 lower-case hex digits")
        .says("`/spec/command/0`: ");
    let good = json!({"runtimeType": "process", "spec": {"command": ["serve"]}});
    let with = |field: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    let digest = archive("x").1.to_string();
    world
        .post(&path, with("sourceSha256", json!(digest)))
        .fails("source_missing")
        .await
        .says("PUT /v1/sources/");
    world
        .post(&path, with("runtimeType", json!("docker")))
        .fails("unknown_runtime")
        .await
        .says("this host has: machine, process")
        .names("/runtimeType", "docker");
    world.post(&path, with("spec", json!({}))).fails("validation_failed").await.names("/spec", "is required");
    world
        .post(&path, with("services", json!([{"name": "Web", "port": 1}])))
        .fails("validation_failed")
        .await
        .names("/services/0/name", "'W' at character 1");
    world
        .post(&path, with("services", json!([{"name": "web", "port": 70000}])))
        .fails("validation_failed")
        .await
        .names("/services/0/port", "70000");
    world
        .post(&path, with("wakePolicy", json!("sometimes")))
        .fails("validation_failed")
        .await
        .names("/wakePolicy", "blocking");
    world
        .post(&path, with("idleTimeoutSeconds", json!(4)))
        .fails("validation_failed")
        .await
        .names("/idleTimeoutSeconds", "5 to 31536000");
    world
        .post(&path, with("wake", json!("never")))
        .fails("validation_failed")
        .await
        .says("unknown field `wake`");
    world
        .post(&path, with("spec", json!({"command": ["a\0b"]})))
        .fails("validation_failed")
        .await
        .names("/spec/command/0", "U+0000");

    let listed = world.get("/v1/deployments?includeDestroyed=true").is(StatusCode::OK).await;
    assert_eq!(listed, json!({"items": []}));
}

#[tokio::test]
async fn what_is_wanted_is_changed_by_its_verbs() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let path = |verb: &str| format!("/v1/deployments/{id}{verb}");
    let post = async |verb: &str| world.post(&path(verb), json!({})).is(StatusCode::ACCEPTED).await;
    assert_eq!(post("/stop").await["wantedState"], "stopped");
    assert_eq!(post("/stop").await["wantedState"], "stopped");
    let started = post("/start").await;
    assert_eq!(started["wantedState"], "running");
    let incarnation = started["wantedIncarnation"].as_u64().unwrap();
    world.observe(id, Seen::Running, incarnation, Health::Healthy).await;
    // Running already: no other start.
    assert_eq!(post("/start").await["wantedIncarnation"], incarnation);
    assert_eq!(post("/restart").await["wantedIncarnation"], incarnation + 1);

    let report = world.get(&path("/health")).is(StatusCode::OK).await;
    assert_eq!((&report["health"], &report["detail"]), (&json!("unhealthy"), &json!("answered 500")));

    let project = world.post(&path("/promote"), json!({})).is(StatusCode::OK).await;
    assert_eq!(project["primaryDeploymentId"], id.to_string());
    let shown = world.get(&path("")).is(StatusCode::OK).await;
    assert_eq!(
        (&shown["isPrimary"], &shown["urls"][0]["url"]),
        (&json!(true), &json!("http://shop.localhost:8080/"))
    );

    let gone = world.delete(&path("?force=true")).is(StatusCode::ACCEPTED).await;
    assert_eq!(gone["wantedState"], "destroyed");
    world.post(&path("/start"), json!({})).fails("invalid_state").await.says("destroyed");
}

#[tokio::test]
async fn a_created_deployment_need_not_start() {
    let world = World::new().await;
    world.project("shop").await;
    let body = json!({"runtimeType": "process", "spec": {"command": ["serve"]}, "start": false, "promoteWhenHealthy": false});
    let made = world.post("/v1/projects/shop/deployments", body).is(StatusCode::CREATED).await;
    assert_eq!((&made["wantedState"], &made["promoteWhenHealthy"]), (&json!("stopped"), &json!(false)));
    assert_eq!(made["urls"], json!([]));
}

#[tokio::test]
async fn a_project_goes_when_nothing_of_it_is_left() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    world.delete("/v1/projects/shop").fails("in_use").await;
    world.delete(&format!("/v1/deployments/{id}")).is(StatusCode::ACCEPTED).await;
    world.observe(id, Seen::Destroyed, 0, Health::Unknown).await;
    assert_eq!(world.delete("/v1/projects/shop").send().await.status, StatusCode::NO_CONTENT);
    world.get("/v1/projects/shop").fails("not_found").await.says("shop");
}
