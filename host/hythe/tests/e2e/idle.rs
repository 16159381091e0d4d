//! Idle stops and wakes, domains: through the whole host.

use anyhow::{Result, ensure};
use api_types::Deployment;
use model::{Seen, StopReason, Wanted};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use test_kit::host::HostOptions;
use test_kit::process::eventually;

use crate::worlds::World;

async fn deploy(world: &World, slug: &str) -> Result<Deployment> {
    let mut wanted = world.deployment();
    wanted["wakePolicy"] = json!("dynamic");
    wanted["idleTimeoutSeconds"] = json!(5);
    let made = world.host.deploy(slug, wanted).await?;
    world.host.healthy(made.id).await?;
    world.host.wait(made.id, "the primary deployment", |deployment| deployment.is_primary).await
}

fn is_idle(deployment: &Deployment) -> bool {
    deployment.wanted_state == Wanted::Stopped && deployment.stop_reason == Some(StopReason::Idle)
}

async fn is_served(world: &World, deployment: &Deployment) -> Result<()> {
    let status = world.get(deployment, "/healthz").await?.status();
    ensure!(status == StatusCode::OK, "a request was answered with {status}");
    Ok(())
}

/// An open stream keeps a deployment running; what nothing goes on at is stopped, and woken by the next request,
/// which is served whenever it comes.
#[tokio::test(flavor = "multi_thread")]
async fn idle_deployments_stop_and_wake() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let busy = deploy(&world, "busy").await?;
    let stream = world.get(&busy, "/api/events").await?;
    ensure!(stream.status() == StatusCode::OK, "no stream: {}", stream.status());
    let quiet = deploy(&world, "quiet").await?;
    world.host.wait(quiet.id, "stopped", |it| it.state == Seen::Stopped && is_idle(it)).await?;
    // It has run for longer than the other one.
    let with_stream = world.host.deployment(busy.id).await?;
    ensure!(with_stream.state == Seen::Running && !is_idle(&with_stream), "{with_stream:?}");
    ensure!(with_stream.incarnation == 1, "{with_stream:?}");
    drop(stream);
    // A request that meets the stop on its way calls it off, or starts it anew: it is served either way.
    world.host.wait(busy.id, "to be stopped", is_idle).await?;
    is_served(&world, &busy).await?;
    world.host.wait(busy.id, "to be stopped again", is_idle).await?;
    world.host.wait(busy.id, "stopped", |it| it.state == Seen::Stopped).await?;
    let asleep = world.host.deployment(busy.id).await?;
    let asks = (0..10).map(|_| is_served(&world, &busy));
    for answer in futures_util::future::join_all(asks).await {
        answer?;
    }
    let woken = world.host.deployment(busy.id).await?;
    ensure!(woken.incarnation == asleep.incarnation + 1 && woken.stop_reason.is_none(), "{woken:?}");
    let events: Value =
        world.host.call(Method::GET, &format!("/v1/deployments/{}/events?last=200", quiet.id), None).await?;
    ensure!(events.to_string().contains("deployment.idle-stop-requested"), "{events}");
    world.host.stop().await
}

/// A domain leads to its project as soon as it is given, and nowhere when it is taken away.
#[tokio::test(flavor = "multi_thread")]
async fn domains_lead_to_projects() -> Result<()> {
    let world = World::new("process", HostOptions::default()).await?;
    let made = world.deploy().await?;
    world.host.healthy(made.id).await?;
    world.host.wait(made.id, "the primary deployment", |deployment| deployment.is_primary).await?;
    let status = async |host: &str| -> Result<u16> {
        Ok(world.host.browse(Method::GET, host, "/healthz")?.send().await?.status().as_u16())
    };
    ensure!(status("app.example.com").await? == 404, "nobody has it");
    for domain in ["app.example.com", "*.app.example.com"] {
        let _: Value = world
            .host
            .call(Method::POST, "/v1/projects/app/domains", Some(json!({ "domain": domain })))
            .await?;
    }
    for host in ["app.example.com", "3000.app.example.com", "web--app.example.com", "any.app.example.com"] {
        eventually(host, async || Ok((status(host).await? == 200).then_some(()))).await?;
    }
    let (taken, _) =
        world.host.send(Method::DELETE, "/v1/projects/app/domains/app.example.com", None).await?;
    ensure!(taken == StatusCode::NO_CONTENT, "{taken}");
    eventually("the domain leads nowhere", async || {
        Ok((status("app.example.com").await? == 404).then_some(()))
    })
    .await?;
    world.host.stop().await
}
