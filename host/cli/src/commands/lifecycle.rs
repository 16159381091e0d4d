//! `start`, `stop`, `restart`, `rm`, `promote`: says the wish, then waits until it has come true.

use std::time::Duration;

use api_types::{DeleteQuery, Deployment, Project, WaitState};

use super::{Context, watch};
use crate::args::{LifecycleArgs, RmArgs, TargetArgs};
use crate::client::query;
use crate::failure::Failure;
use crate::target::{Prefer, Target};

pub(super) async fn start(context: &Context, args: LifecycleArgs) -> Result<(), Failure> {
    let deployment = wish(context, args, "start", WaitState::Running).await?;
    answer(context, &deployment)
}

pub(super) async fn stop(context: &Context, args: LifecycleArgs) -> Result<(), Failure> {
    let deployment = wish(context, args, "stop", WaitState::Stopped).await?;
    answer(context, &deployment)
}

pub(super) async fn restart(context: &Context, args: LifecycleArgs) -> Result<(), Failure> {
    let deployment = wish(context, args, "restart", WaitState::Running).await?;
    answer(context, &deployment)
}

pub(super) async fn promote(context: &Context, args: &TargetArgs) -> Result<(), Failure> {
    let deployment = context.deployment(args, Prefer::Newest).await?;
    let path = format!("/v1/deployments/{}", deployment.id);
    let _: Project = context.client.post(&format!("{path}/promote")).await?;
    answer(context, &context.client.get(&path).await?)
}

pub(super) async fn remove(context: &Context, args: RmArgs) -> Result<(), Failure> {
    let target = Target::parse(Some(&args.target), &context.folder)?;
    let deployment = target.deployment(&context.client, Prefer::Primary).await?;
    let deployment = delete(context, &deployment, args.force).await?;
    if args.no_wait {
        return answer(context, &deployment);
    }
    let timeout = Duration::from_secs(args.timeout);
    let gone = watch::until(context, &deployment, WaitState::Destroyed, timeout).await?;
    if context.output.is_json() {
        context.output.document(&gone)
    } else {
        context.output.line(&format!("{} is gone", gone.id))
    }
}

/// Says that it shall go. A deployment that is gone already is one more success.
pub(super) async fn delete(
    context: &Context,
    deployment: &Deployment,
    force: bool,
) -> Result<Deployment, Failure> {
    let how = DeleteQuery { force: force.then_some(true) };
    let path = format!("/v1/deployments/{}{}", deployment.id, query(&how));
    let answer = context.client.delete(&path).await?;
    // The answer says what is wanted now; without one, what was known has to do.
    Ok(answer.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_else(|| deployment.clone()))
}

async fn wish(
    context: &Context,
    args: LifecycleArgs,
    verb: &str,
    state: WaitState,
) -> Result<Deployment, Failure> {
    let deployment = context.deployment(&args.target, Prefer::Primary).await?;
    let deployment = post(context, &deployment, verb).await?;
    if args.no_wait {
        return Ok(deployment);
    }
    watch::until(context, &deployment, state, Duration::from_secs(args.timeout)).await
}

/// What can be said twice at no harm, and a restart, of which the host remembers the key.
async fn post(context: &Context, deployment: &Deployment, verb: &str) -> Result<Deployment, Failure> {
    context.client.post(&format!("/v1/deployments/{}/{verb}", deployment.id)).await
}

fn answer(context: &Context, deployment: &Deployment) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.document(deployment);
    }
    let url = deployment.main_url().map_or_else(String::new, |url| format!("  {}", url.url));
    context.output.line(&format!("{}  {}{url}", deployment.id, deployment.state))
}
