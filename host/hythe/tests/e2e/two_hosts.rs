//! Two hosts on one database, one frozen at each side effect until its lease has passed, then resumed.

use std::time::Duration;

use anyhow::{Result, ensure};
use model::{Health, Seen};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;
use test_kit::database::TestDatabase;
use test_kit::host::{HostOptions, TestHost};

use crate::worlds::World;

/// The first host stops itself at `point` in the middle of a start. The second ends the start, then stops
/// the deployment; the first wakes up and does what is late.
async fn frozen_at(runtime: &'static str, point: &str) -> Result<()> {
    let database = TestDatabase::create().await;
    let options = HostOptions {
        database_url: Some(database.url().to_owned()),
        short_leases: true,
        faults: Some(format!("{point}=SIGSTOP")),
        ..HostOptions::default()
    };
    let mut world = World::new(runtime, options).await?;
    // The host may freeze before it answers.
    let _ = tokio::time::timeout(Duration::from_secs(3), world.deploy()).await;
    world.host.process().stopped().await?;

    let mut config = String::new();
    if let Some(things) = &world.things {
        config = format!(
            "[adapters.steps]\ncomponent = \"steps-adapter.wasm\"\n[adapters.steps.grants.service]\naddress = \"http://{}\"\n",
            things.address
        );
    }
    let mut second = TestHost::start(HostOptions {
        database_url: Some(database.url().to_owned()),
        short_leases: true,
        config,
        share_identity: Some(world.host.data_dir()),
        ..HostOptions::default()
    })
    .await?;
    second.set_token(world.host.token());
    let made = second.only_deployment("app").await?;
    let running = second.healthy(made.id).await?;
    ensure!(running.incarnation == 1, "the start went on: {running:?}");
    let stop = format!("/v1/deployments/{}/stop", made.id);
    let (status, text) = second.send(Method::POST, &stop, None).await?;
    ensure!(status == StatusCode::OK || status == StatusCode::ACCEPTED, "{status} {text}");
    second.wait(made.id, "stopped", |deployment| deployment.state == Seen::Stopped).await?;

    world.host.process().signal(Signal::CONT)?;
    // The first host is awake when it answers; what it had in hand is over when it takes something new.
    let (status, _) = world.host.send(Method::GET, "/v1/projects", None).await?;
    ensure!(status.is_success(), "the first host answers again: {status}");
    world.host.wait(made.id, "still stopped", |deployment| deployment.state == Seen::Stopped).await?;
    // The late call was refused, or never sent: nothing runs, and the incarnation was begun once.
    let (status, text) =
        second.send(Method::POST, &format!("/v1/deployments/{}/start", made.id), Some(json!(null))).await?;
    ensure!(status.is_success(), "{status} {text}");
    let back = second
        .wait(made.id, "the second incarnation", |deployment| {
            deployment.incarnation == 2 && deployment.health == Health::Healthy
        })
        .await?;
    let starts =
        if world.things.is_some() { world.starts(&back).await? } else { starts_of(&second, &back).await? };
    ensure!(starts == 2, "two incarnations, each begun once, and not {starts}");
    Ok(())
}

async fn starts_of(host: &TestHost, deployment: &api_types::Deployment) -> Result<usize> {
    let path = format!("/v1/deployments/{}/exec", deployment.id);
    let result: serde_json::Value =
        host.call(Method::POST, &path, Some(json!({ "argv": ["cat", "starts"] }))).await?;
    Ok(result["stdout"].as_str().unwrap_or_default().lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_host_does_nothing_late_on_a_machine() {
    for point in [
        "reconciler.before_begin",
        "reconciler.before_call",
        "host.before_claim",
        "host.after_claim",
        "host.before_send",
        "host.after_send",
        "reconciler.after_call",
        "reconciler.before_record",
    ] {
        frozen_at("machine", point).await.unwrap_or_else(|error| panic!("{point}: {error:#}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_host_does_nothing_late_elsewhere() {
    for point in ["host.before_send", "host.after_send", "host.before_set_locator", "host.after_set_locator"]
    {
        frozen_at("steps", point).await.unwrap_or_else(|error| panic!("{point}: {error:#}"));
    }
}
