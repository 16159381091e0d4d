//! What a host says, as JSON.

use serde_json::{Value, json};

pub const DEPLOYMENT: &str = "dep_01h455vb4pex5vsknk084sn02q";
pub const PROJECT: &str = "prj_01h455vb4pex5vsknk084sn02q";

pub fn deployment(state: &str, health: &str, is_primary: bool) -> Value {
    let own = json!({
        "service": "web", "isDefault": true, "kind": "deployment",
        "host": "dep-01h455vb4pex5vsknk084sn02q.localhost",
        "url": "http://dep-01h455vb4pex5vsknk084sn02q.localhost:8080/",
    });
    let of_project = json!({
        "service": "web", "isDefault": true, "kind": "project", "host": "shop.localhost",
        "url": "http://shop.localhost:8080/",
    });
    let urls = if is_primary { json!([of_project, own]) } else { json!([own]) };
    json!({
        "id": DEPLOYMENT, "projectId": PROJECT, "projectSlug": "shop", "runtimeType": "steps", "spec": {},
        "services": [{"name": "web", "port": 3000, "scheme": "http"}], "wakePolicy": "none",
        "promoteWhenHealthy": true, "wantedState": "running", "wantedIncarnation": 1, "generation": 1,
        "state": state, "incarnation": 1, "health": health, "isPrimary": is_primary, "urls": urls,
        "createdAt": "2026-11-21T20:00:00Z",
    })
}

pub fn with(mut value: Value, key: &str, field: &str) -> Value {
    value[key] = field.into();
    value
}

pub fn project() -> Value {
    json!({
        "id": PROJECT, "slug": "shop", "primaryDeploymentId": DEPLOYMENT, "urls": [],
        "createdAt": "2026-11-21T20:00:00Z",
    })
}

pub fn adapter(name: &str) -> Value {
    json!({
        "id": "adp_01h455vb4pex5vsknk084sn02q", "name": name, "componentSha256": "00", "version": "0.1.0",
        "summary": format!("Runs things by {name}."),
        "exports": ["hythe:deployment/project-deployment@0.1.0", "hythe:deployment/logs@0.1.0"],
        "specSchema": {}, "grants": [], "updatedAt": "2026-11-21T20:00:00Z",
    })
}

pub fn page(items: &[Value]) -> Value {
    json!({ "items": items })
}

pub fn wait(outcome: &str, deployment: &Value) -> Value {
    json!({ "reached": outcome == "reached", "outcome": outcome, "deployment": deployment })
}

pub fn log(at_ms: u64, text: &str) -> String {
    format!("{}\n", json!({ "atMs": at_ms, "origin": "stdout", "text": text }))
}

pub fn stdout(data: &str, cursor: u64) -> String {
    format!("{}\n", json!({ "type": "stdout", "data": data, "encoding": "utf8", "cursor": cursor }))
}

pub fn exit(exit: &Value) -> String {
    format!("{}\n", json!({ "type": "exit", "exit": exit }))
}
