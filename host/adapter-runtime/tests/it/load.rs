//! What is no adapter is refused, with what is wrong and what to do; what is one is described.

use adapter_runtime::{AdapterRuntime, Limits, RuntimeConfig};
use serde_json::json;

use crate::fake_host::{component, limits, load, runtime_with};

fn runtime() -> AdapterRuntime {
    let limits = Limits { calls: 2, ..limits() };
    AdapterRuntime::new(RuntimeConfig { limits, ..RuntimeConfig::default() }).unwrap()
}

#[track_caller]
fn assert_says(error: &str, expected: &[&str]) {
    for part in expected {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

async fn refused(bytes: &[u8], expected: &[&str]) {
    let error = runtime().load("mine", bytes).await.unwrap_err().to_string();
    assert!(error.starts_with("adapter `mine` can't be loaded: "), "{error}");
    assert_says(&error, expected);
}

/// A component with one text in place of another of the same length.
fn patched(name: &str, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = component(name);
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{name} has no {from:?}");
    bytes
}

#[tokio::test]
async fn what_is_not_webassembly() {
    refused(b"#!/bin/sh\n", &["not WebAssembly", "`#!/bin/s`"]).await;
    refused(b"", &["not WebAssembly", "it is empty"]).await;
}

#[tokio::test]
async fn a_core_module() {
    refused(&wat::parse_str("(module)").unwrap(), &["a core module", "wasm32-wasip2"]).await;
}

#[tokio::test]
async fn a_truncated_component() {
    let whole = component("bad");
    refused(&whole[..whole.len() / 2], &["truncated or damaged at byte"]).await;
    refused(&whole[..6], &["truncated or damaged at byte"]).await;
}

#[tokio::test]
async fn a_component_that_is_too_large() {
    let limits = Limits { component_bytes: 1000, calls: 2, ..limits() };
    let runtime = AdapterRuntime::new(RuntimeConfig { limits, ..RuntimeConfig::default() }).unwrap();
    let error = runtime.load("mine", &component("bad")).await.unwrap_err().to_string();
    assert_says(&error, &["bytes: at most 1000 are allowed"]);
}

#[tokio::test]
async fn the_wrong_world() {
    let nothing = wat::parse_str("(component)").unwrap();
    refused(&nothing, &["does not export hythe:deployment/project-deployment@0.1.x (it exports nothing)"])
        .await;
    let other = wat::parse_str(
        r#"(component (instance $i) (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
    );
    refused(&other.unwrap(), &["it exports wasi:http/incoming-handler@0.2.0", "runtime-adapter"]).await;
}

#[tokio::test]
async fn the_wrong_version() {
    let newer = patched(
        "bad",
        "hythe:deployment/project-deployment@0.1.0",
        "hythe:deployment/project-deployment@0.2.0",
    );
    refused(
        &newer,
        &[
            "it exports hythe:deployment/project-deployment@0.2.0, this host serves 0.1.x",
            "hythe:deployment@0.1.x",
        ],
    )
    .await;
    let newer = patched("bad", "hythe:deployment/host@0.1.0", "hythe:deployment/host@0.3.0");
    refused(&newer, &["it imports hythe:deployment/host@0.3.0, this host serves 0.1.x"]).await;
}

#[tokio::test]
async fn a_later_version_of_the_same_track_loads() {
    let later = patched("bad", "@0.1.0", "@0.1.7");
    let adapter = runtime().load("mine", &later).await.unwrap();
    assert_eq!(adapter.exports(), ["health-check", "control", "logs", "http-routing"]);
    assert!(adapter.routing().is_some());
}

#[tokio::test]
async fn an_import_that_is_not_provided() {
    let sockets = patched("bad", "wasi:cli/stderr@0.2.", "wasi:sockets/tc@0.2.");
    refused(&sockets, &["it imports wasi:sockets/tc@0.2.", "which this host does not provide", "grant"])
        .await;
    let unknown = wat::parse_str(
        r#"(component
            (import "hythe:deployment/secrets@0.1.0" (instance))
            (instance $i) (export "hythe:deployment/project-deployment@0.1.0" (instance $i)))"#,
    );
    refused(
        &unknown.unwrap(),
        &["it imports hythe:deployment/secrets@0.1.0, which this host does not provide"],
    )
    .await;
}

#[tokio::test]
async fn a_function_that_is_missing_or_of_another_shape() {
    let empty = wat::parse_str(
        r#"(component (instance $i) (export "hythe:deployment/project-deployment@0.1.0" (instance $i)))"#,
    );
    refused(&empty.unwrap(), &["does not fit hythe:deployment@0.1.x", "describe"]).await;
    // The functions' names in the export, not the record fields.
    let other = patched("bad", "\u{b}get-fetcher", "\u{b}got-fetcher");
    refused(&other, &["does not fit hythe:deployment@0.1.x", "get-fetcher"]).await;
}

#[tokio::test]
async fn a_description_that_is_no_good() {
    let schema = patched("bad", r#""type": "object""#, r#""type": "objekt""#);
    refused(&schema, &["spec-schema is not a JSON Schema (2020-12): at \"/type\""]).await;
    let schema = patched("bad", r#""additionalProperties": false"#, r#""additionalProperties" false "#);
    refused(&schema, &["spec-schema is not JSON", "line"]).await;
}

#[tokio::test]
async fn adapters_describe_themselves() {
    let runtime = runtime_with(limits());
    let process = load(&runtime, "process").await;
    assert_eq!(process.name(), "process");
    assert_eq!(process.descriptor().runtime_type.as_str(), "process");
    assert_eq!(process.descriptor().grants[0].0, "local");
    assert_eq!(process.exports(), ["health-check", "control", "logs"]);
    assert_eq!(process.sha256().len(), 64);
    let steps = load(&runtime, "steps-adapter").await;
    assert!(steps.exports().is_empty() && steps.routing().is_none());
}

#[tokio::test]
async fn a_spec_that_breaks_the_schema_names_the_field() {
    let runtime = runtime_with(limits());
    let machine = load(&runtime, "machine").await;
    let good = json!({
        "command": ["node", "server.js"], "env": {"NODE_ENV": "production"},
        "machine": {"type": "custom", "minCpuCount": 2, "labels": {"zone": "a"}}
    });
    assert_eq!(machine.validate_spec(&good), Ok(()));
    let bad = json!({
        "comand": ["node"], "env": {"1A": "x"}, "limits": {"memoryMb": "much"}, "machine": {"cpus": 2},
        "setup": [[]]
    });
    let mut found: Vec<String> =
        machine.validate_spec(&bad).unwrap_err().iter().map(ToString::to_string).collect();
    found.sort();
    let expected = [
        "spec.comand: is not a known field",
        "spec.command: is missing",
        "spec.env: ",
        "spec.limits.memoryMb: ",
        "spec.machine.cpus: is not a known field",
        "spec.setup.0: ",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} for {expected:?}");
    }
    // A value may be a secret.
    assert!(!found.join("").contains("much"), "{found:?}");
}
