//! kill -9 of everything, in the middle of everything: the wanted state is reached, and nothing runs twice.

use anyhow::{Result, ensure};
use model::{Health, Seen};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;
use test_kit::host::{HostOptions, glob_postmaster};
use test_kit::process::{eventually, is_alive, signal};

use crate::worlds::World;

/// Every point at which the host may die in the middle of an operation.
const POINTS: [&str; 7] = [
    "reconciler.leased",
    "reconciler.before_begin",
    "reconciler.before_call",
    "host.before_send",
    "host.after_send",
    "reconciler.after_call",
    "reconciler.before_record",
];

/// The host dies at `point` while it starts a deployment; the next one ends it.
async fn host_dies_in_start(runtime: &'static str, point: &str) -> Result<()> {
    let options = HostOptions {
        faults: Some(format!("{point}=SIGKILL")),
        short_leases: true,
        ..HostOptions::default()
    };
    let mut world = World::new(runtime, options).await?;
    // The host may die before it answers.
    let _ = world.deploy().await;
    world.host.process().ended().await?;
    world.host.restart().await?;
    let made = world.host.only_deployment("app").await?;
    let running = world.host.healthy(made.id).await?;
    ensure!(running.incarnation == 1, "the same incarnation goes on: {running:?}");
    ensure!(world.starts(&running).await? == 1, "it was started once");
    ensure!(world.get(&running, "/").await?.status() == StatusCode::OK, "it answers");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_dies_while_it_starts_a_process() {
    for point in POINTS {
        host_dies_in_start("process", point).await.unwrap_or_else(|error| panic!("{point}: {error:#}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_dies_while_it_starts_on_a_machine() {
    for point in ["host.before_claim", "host.after_claim", "host.after_send"] {
        host_dies_in_start("machine", point).await.unwrap_or_else(|error| panic!("{point}: {error:#}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_dies_while_it_starts_steps() {
    for point in
        ["host.after_send", "host.before_set_locator", "host.after_set_locator", "reconciler.after_record"]
    {
        host_dies_in_start("steps", point).await.unwrap_or_else(|error| panic!("{point}: {error:#}"));
    }
}

/// The host dies in the middle of a stop or destroy: a second host run with the fault, the third ends it.
async fn host_dies_in(
    runtime: &'static str,
    method: Method,
    verb: &str,
    point: &str,
    end: Seen,
) -> Result<()> {
    let options = HostOptions { short_leases: true, ..HostOptions::default() };
    let mut world = World::new(runtime, options).await?;
    let made = world.deploy().await?;
    let running = world.host.healthy(made.id).await?;
    let pids: Vec<u32> = match world.things {
        Some(_) => Vec::new(),
        None => world.read(&running, "starts").await?.lines().filter_map(|pid| pid.parse().ok()).collect(),
    };
    world.host.kill().await?;
    world.host.restart_with_faults(&format!("{point}=SIGKILL")).await?;
    // The fault may come before the answer, or before the wish is written down: then it is said again.
    let path = format!("/v1/deployments/{}{verb}", made.id);
    let asked = world.host.send(method.clone(), &path, None).await;
    world.host.process().ended().await?;
    world.host.restart().await?;
    if asked.is_err() {
        world.host.send(method, &path, None).await?;
    }
    world.host.wait(made.id, "the end", |deployment| deployment.state == end).await?;
    for pid in pids {
        ensure!(!is_alive(pid), "process {pid} is left");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_dies_while_it_stops() {
    for point in ["reconciler.before_call", "host.after_send", "reconciler.before_record"] {
        for runtime in ["process", "steps"] {
            host_dies_in(runtime, Method::POST, "/stop", point, Seen::Stopped)
                .await
                .unwrap_or_else(|error| panic!("{runtime} {point}: {error:#}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_dies_while_it_destroys() {
    for (runtime, point) in [
        ("process", "host.after_send"),
        ("machine", "host.before_release"),
        ("machine", "host.after_release"),
        ("steps", "host.after_send"),
    ] {
        host_dies_in(runtime, Method::DELETE, "", point, Seen::Destroyed)
            .await
            .unwrap_or_else(|error| panic!("{runtime} {point}: {error:#}"));
    }
}

/// A daemon that dies leaves its workload running; the next one finds it.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_beside_dies() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let made = world.deploy().await?;
    let running = world.host.healthy(made.id).await?;
    let before = world.read(&running, "starts").await?;
    let pid = world.host.agent_pid("beside")?;
    signal(pid, Signal::KILL)?;
    // The host starts another, which adopts what runs.
    eventually("another daemon", async || Ok((world.host.agent_pid("beside")? != pid).then_some(()))).await?;
    eventually("commands to run again", async || {
        let starts = world.read(&running, "starts").await?;
        Ok((starts == before).then_some(()))
    })
    .await?;
    let after = world.host.healthy(made.id).await?;
    ensure!(after.incarnation == 1, "the same incarnation runs on: {after:?}");
    ensure!(world.get(&after, "/").await?.status() == StatusCode::OK, "it answers");
    world.host.stop().await?;
    for pid in before.lines() {
        ensure!(!is_alive(pid.parse()?), "process {pid} is left after the host has stopped");
    }
    Ok(())
}

/// A machine's daemon that dies in the middle of traffic: the same workload, new tunnels.
#[tokio::test(flavor = "multi_thread")]
async fn a_machines_daemon_dies() -> Result<()> {
    let mut world = World::new("machine", HostOptions::default()).await?;
    let made = world.deploy().await?;
    let running = world.host.healthy(made.id).await?;
    ensure!(world.get(&running, "/").await?.status() == StatusCode::OK, "it answers");
    world.machines[0].kill().await?;
    world.machines[0].run().await?;
    eventually("it to answer again", async || {
        Ok((world.get(&running, "/").await?.status() == StatusCode::OK).then_some(()))
    })
    .await?;
    ensure!(world.starts(&running).await? == 1, "it was started once");
    Ok(())
}

/// The workload itself dies: the daemon brings it back, in the same incarnation.
#[tokio::test(flavor = "multi_thread")]
async fn the_workload_dies() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let made = world.deploy().await?;
    let running = world.host.healthy(made.id).await?;
    let pid: u32 = world.read(&running, "starts").await?.trim().parse()?;
    signal(pid, Signal::KILL)?;
    eventually("a second start", async || Ok((world.starts(&running).await? == 2).then_some(()))).await?;
    eventually("it to answer again", async || {
        Ok((world.get(&running, "/").await?.status() == StatusCode::OK).then_some(()))
    })
    .await?;
    let after = world.host.healthy(made.id).await?;
    ensure!(after.incarnation == 1, "a supervised restart is no incarnation: {after:?}");
    Ok(())
}

/// One that ends at once, again and again, is shown as failed, and tried again as the next incarnation.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_is_shown() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let mut wanted = world.deployment();
    wanted["spec"] = json!({
        "command": ["sh", "-c", "echo the reason; exit 7"],
        "restart": { "maxAttempts": 1, "backoffMs": 10, "maxBackoffMs": 10 },
    });
    let made = world.host.deploy("app", wanted).await?;
    let failed = world.host.wait(made.id, "failed", |deployment| deployment.state == Seen::Failed).await?;
    let detail = format!("{:?} {:?}", failed.detail, failed.operation);
    ensure!(detail.contains("the reason"), "the last output is shown: {detail}");
    world.host.wait(made.id, "another try", |deployment| deployment.incarnation >= 2).await?;
    Ok(())
}

/// The database dies in the middle of operations: known routes serve on, and the operation ends afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_dies() -> Result<()> {
    let mut world =
        World::new("process", HostOptions { short_leases: true, ..HostOptions::default() }).await?;
    let made = world.deploy().await?;
    let running = world.host.healthy(made.id).await?;
    ensure!(world.get(&running, "/").await?.status() == StatusCode::OK, "it answers");
    let folder = world.host.data_dir().join("postgres");
    let pid = glob_postmaster(&folder).expect("a postmaster");
    // In the middle of a restart.
    let restart = format!("/v1/deployments/{}/restart", made.id);
    let _ = world.host.send(Method::POST, &restart, None).await?;
    signal(pid, Signal::KILL)?;
    let back = world
        .host
        .wait(made.id, "the restart to end", |deployment| {
            deployment.incarnation == 2 && deployment.health == Health::Healthy
        })
        .await;
    if back.is_err() {
        // The cluster was not brought back by the running host: a new one must.
        world.host.kill().await?;
        world.host.restart().await?;
    }
    let back =
        world.host.wait(made.id, "the restart to end", |deployment| deployment.incarnation == 2).await?;
    ensure!(world.starts(&back).await? == 2, "each incarnation was begun once");
    Ok(())
}

/// While the database is away, what is known is served.
#[tokio::test(flavor = "multi_thread")]
async fn known_routes_serve_without_a_database() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let made = world.deploy().await?;
    let running = world.host.healthy(made.id).await?;
    ensure!(world.get(&running, "/").await?.status() == StatusCode::OK, "it answers");
    let pid = glob_postmaster(&world.host.data_dir().join("postgres")).expect("a postmaster");
    signal(pid, Signal::STOP)?;
    for _ in 0..50 {
        let status = world.get(&running, "/healthz").await?.status();
        ensure!(status == StatusCode::OK, "{status} while the database is frozen");
    }
    signal(pid, Signal::CONT)?;
    Ok(())
}
