//! The same life for every runtime: start, serve, stop, start, restart, crash, destroy.

use anyhow::{Result, ensure};
use model::{Health, Seen};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use test_kit::host::HostOptions;
use test_kit::process::eventually;

use crate::worlds::World;

async fn post(world: &World, id: impl std::fmt::Display, verb: &str) -> Result<Value> {
    world.host.call(Method::POST, &format!("/v1/deployments/{id}/{verb}"), None).await
}

async fn life(runtime: &'static str) -> Result<()> {
    let world = World::new(runtime, HostOptions::default()).await?;
    let made = world.deploy().await?;
    ensure!(made.incarnation == 0 && made.wanted_incarnation == 1, "nothing has started: {made:?}");
    let first = world.host.healthy(made.id).await?;
    ensure!(first.incarnation == 1, "the first start: {first:?}");
    ensure!(world.get(&first, "/").await?.status() == StatusCode::OK, "its own host answers");
    // It was told to become primary when healthy.
    let primary = world.host.wait(made.id, "primary", |deployment| deployment.is_primary).await?;
    eventually("the project's host to answer", async || {
        let answer = world.host.browse(Method::GET, "app.localhost", "/")?.send().await?;
        Ok((answer.status() == StatusCode::OK).then_some(()))
    })
    .await?;
    ensure!(world.starts(&primary).await? == 1, "it was started once");

    // Starting what runs changes nothing.
    post(&world, made.id, "start").await?;
    ensure!(world.host.deployment(made.id).await?.wanted_incarnation == 1, "start is idempotent");

    post(&world, made.id, "stop").await?;
    let stopped = world.host.wait(made.id, "stopped", |deployment| deployment.state == Seen::Stopped).await?;
    ensure!(stopped.health == Health::Unknown, "what is stopped is not healthy");
    eventually("a stopped deployment to be refused", async || {
        let status = world.get(&stopped, "/").await?.status();
        Ok((status == StatusCode::SERVICE_UNAVAILABLE).then_some(()))
    })
    .await?;
    post(&world, made.id, "stop").await?;

    post(&world, made.id, "start").await?;
    let second = world.host.healthy(made.id).await?;
    ensure!(second.incarnation == 2, "a start is another incarnation: {second:?}");
    post(&world, made.id, "restart").await?;
    let third = world
        .host
        .wait(made.id, "the restart", |deployment| {
            deployment.incarnation == 3 && deployment.health == Health::Healthy
        })
        .await?;
    ensure!(world.starts(&third).await? == 3, "each incarnation was begun once");
    ensure!(world.get(&third, "/").await?.status() == StatusCode::OK, "it answers after the restart");

    let path = format!("/v1/deployments/{}", made.id);
    let (status, _) = world.host.send(Method::DELETE, &path, None).await?;
    ensure!(status.is_success(), "destroy answers {status}");
    world.host.wait(made.id, "destroyed", |deployment| deployment.state == Seen::Destroyed).await?;
    let refused = world.host.refused(Method::POST, &format!("{path}/start"), None).await?;
    ensure!(refused.code == "invalid_state", "destroyed is final: {refused:?}");
    if let Some(things) = &world.things {
        ensure!(things.count() == 0, "nothing is left of it");
    }
    for machine in &world.machines {
        let left = std::fs::read_dir(machine.data_dir.join("workloads")).map_or(0, Iterator::count);
        ensure!(left == 0, "{left} workloads' folders are left on the machine");
    }
    world.host.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn process_lives() {
    life("process").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_lives() {
    life("machine").await.unwrap();
}

/// A runtime that does not use our daemon, and whose service loses every fifth answer.
#[tokio::test(flavor = "multi_thread")]
async fn steps_live() {
    life("steps").await.unwrap();
}

/// What broke by itself comes back as the next incarnation.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_comes_back() -> Result<()> {
    let world = World::new("steps", HostOptions::default()).await?;
    let made = world.deploy().await?;
    world.host.healthy(made.id).await?;
    world.things.as_ref().unwrap().break_all();
    let back = world
        .host
        .wait(made.id, "the next incarnation", |deployment| {
            deployment.incarnation == 2 && deployment.health == Health::Healthy
        })
        .await?;
    ensure!(world.starts(&back).await? == 2, "each was begun once");
    Ok(())
}

async fn exec_and_logs(runtime: &'static str) -> Result<()> {
    let world = World::new(runtime, HostOptions::default()).await?;
    let made = world.deploy().await?;
    let deployment = world.host.healthy(made.id).await?;
    let script = "echo out; echo err >&2; echo $WORD; pwd; exit 3";
    let request = json!({ "argv": ["sh", "-c", script], "env": { "WORD": "fünf" } });
    let result = world.exec(&deployment, request).await?;
    ensure!(result["exit"] == json!({ "kind": "code", "value": 3 }), "{result}");
    ensure!(result["stderr"] == "err\n", "{result}");
    ensure!(result["stdout"].as_str().is_some_and(|out| out.starts_with("out\nfünf\n/")), "{result}");
    let result = world.exec(&deployment, json!({ "argv": ["sleep", "100"], "timeoutMs": 200 })).await?;
    ensure!(result["exit"]["kind"] == "timedOut", "{result}");
    // The same id runs once.
    let id = model::ExecutionId::new();
    let once = json!({ "argv": ["sh", "-c", "echo x >> once; cat once"], "executionId": id });
    let (a, b) = tokio::join!(world.exec(&deployment, once.clone()), world.exec(&deployment, once.clone()));
    ensure!(a?["stdout"] == "x\n" && b?["stdout"] == "x\n", "an execution ran twice");
    // The workload runs as a user that reads neither the host's key nor its database.
    if rustix::process::geteuid().is_root() {
        for secret in ["master.key", "admin-token", "postgres"] {
            let path = world.host.data_dir().join(secret);
            let result = world
                .exec(&deployment, json!({ "argv": ["ls", "-l", format!("{}/", path.display())] }))
                .await?;
            ensure!(result["exit"]["value"] != 0, "a workload reads {secret}: {result}");
            let result = world.exec(&deployment, json!({ "argv": ["cat", path] })).await?;
            ensure!(result["exit"]["value"] != 0, "a workload reads {secret}: {result}");
        }
    }
    let logs = format!("/v1/deployments/{}/logs?lines=50", made.id);
    eventually("the log to have what was printed", async || {
        let (status, text) = world.host.send(Method::GET, &logs, None).await?;
        Ok((status.is_success() && text.contains("\"origin\"")).then_some(()))
    })
    .await?;
    world.host.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn process_runs_commands() {
    exec_and_logs("process").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_runs_commands() {
    exec_and_logs("machine").await.unwrap();
}

/// A request wakes what sleeps, once for all who wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_wakes() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let mut wanted = world.deployment();
    wanted["wakePolicy"] = json!("blocking");
    let made = world.host.deploy("app", wanted).await?;
    let running = world.host.healthy(made.id).await?;
    post(&world, made.id, "stop").await?;
    world.host.wait(made.id, "stopped", |deployment| deployment.state == Seen::Stopped).await?;
    let asks = (0..20).map(|_| world.get(&running, "/healthz"));
    for answer in futures_util::future::join_all(asks).await {
        ensure!(answer?.status() == StatusCode::OK, "a waiting request was not served");
    }
    let woken = world.host.deployment(made.id).await?;
    ensure!(woken.incarnation == 2, "it was started once for all: {woken:?}");
    world.host.stop().await
}
