//! Waits until a deployment is as wished, and tells on the way how it goes.

use std::time::{Duration, Instant};

use api_types::{Deployment, LogLine, LogsQuery, WaitOutcome, WaitQuery, WaitResult, WaitState};
use reqwest::Method;

use super::Context;
use crate::client::{may_repeat, pause, query};
use crate::failure::{ExitStatus, Failure};
use crate::stream::Lines;

/// How long the host holds one request: state changes are told this often, in seconds.
const STEP: u64 = 2;
/// What the host may take over its answer beyond that.
const SLACK: Duration = Duration::from_secs(30);
/// Lines of the log that are shown when a deployment failed.
const TAIL: u32 = 30;

/// Waits for a state of one start. A host that is away for a moment (a restart) is asked again.
///
/// # Errors
/// Where it will not come ([`ExitStatus::DeploymentFailed`], with the end of the log on stderr), or
/// has not come in time.
pub(super) async fn until(
    context: &Context,
    deployment: &Deployment,
    state: WaitState,
    timeout: Duration,
) -> Result<Deployment, Failure> {
    let (id, incarnation) = (deployment.id, deployment.wanted_incarnation);
    let progress = context.output.spinner(format!("until it is {}", word(state)));
    let begun = Instant::now();
    let mut said = String::new();
    let mut tries = 0;
    let mut last = deployment.clone();
    loop {
        let now = describe(&last);
        if now != said {
            progress.suspend(|| context.output.note(&format!("  {now}")));
            said = now;
        }
        let left = timeout.saturating_sub(begun.elapsed());
        // Rounded up: less than a second left is no reason to ask without end.
        let step = left.as_secs_f64().ceil().min(STEP as f64) as u64;
        let wait = WaitQuery { state, incarnation: Some(incarnation), timeout: Some(step) };
        let path = format!("/v1/deployments/{id}/wait{}", query(&wait));
        let request = context.client.request(Method::GET, &path)?.timeout(SLACK + Duration::from_secs(STEP));
        let result: WaitResult = match context.client.json(request).await {
            Ok(result) => result,
            Err(failure) if is_passing(&failure) && !left.is_zero() => {
                tries += 1;
                pause(tries).await;
                continue;
            }
            // Gone altogether is what was wished.
            Err(failure) if failure.exit == ExitStatus::NotFound && state == WaitState::Destroyed => {
                return Ok(last);
            }
            Err(failure) => return Err(failure),
        };
        tries = 0;
        last = result.deployment;
        match result.outcome {
            WaitOutcome::Reached => {
                let now = describe(&last);
                if now != said {
                    progress.suspend(|| context.output.note(&format!("  {now}")));
                }
                return Ok(last);
            }
            WaitOutcome::TimedOut if left.is_zero() => {
                return Err(Failure::new(
                    ExitStatus::TimedOut,
                    format!("{id} is not {} after {} s: {}", word(state), timeout.as_secs(), describe(&last)),
                )
                .hint(format!("the host goes on with it: see `hythe status {id}` and `hythe logs {id}`")));
            }
            WaitOutcome::TimedOut => {}
            WaitOutcome::Failed => {
                drop(progress);
                tail(context, &last).await;
                return Err(Failure::new(
                    ExitStatus::DeploymentFailed,
                    format!("the deployment {id} failed: {}", reason(&last)),
                )
                .hint(format!("`hythe logs {id}` has more; `hythe start {id}` tries again")));
            }
            WaitOutcome::Destroyed => {
                return Err(Failure::new(
                    ExitStatus::DeploymentFailed,
                    format!("the deployment {id} was destroyed meanwhile"),
                ));
            }
            WaitOutcome::Superseded => {
                return Err(Failure::other(format!(
                    "something else was wished of {id} meanwhile: {}",
                    describe(&last)
                ))
                .hint(format!("see `hythe events {id}`")));
            }
        }
    }
}

/// A host that was there and is not now may be back in a moment.
fn is_passing(failure: &Failure) -> bool {
    failure.exit == ExitStatus::Unreachable || may_repeat(failure)
}

fn word(state: WaitState) -> &'static str {
    match state {
        WaitState::Running => "running",
        WaitState::Healthy => "healthy",
        WaitState::Stopped => "stopped",
        WaitState::Failed => "failed",
        WaitState::Destroyed => "destroyed",
    }
}

fn describe(deployment: &Deployment) -> String {
    let mut text = deployment.state.to_string();
    if deployment.health != model::Health::Unknown {
        text.push_str(&format!(", {}", deployment.health));
    }
    let error = deployment.operation.as_ref().and_then(|operation| operation.last_error.as_ref());
    for detail in [deployment.detail.as_ref(), deployment.health_detail.as_ref(), error].into_iter().flatten()
    {
        if !detail.is_empty() && !text.contains(detail.as_str()) {
            text.push_str(&format!(": {detail}"));
        }
    }
    text
}

fn reason(deployment: &Deployment) -> String {
    let error = deployment.operation.as_ref().and_then(|operation| operation.last_error.clone());
    deployment.detail.clone().or(error).unwrap_or_else(|| "its runtime says no reason".to_owned())
}

/// The end of the log, on stderr. A log that can't be had is not worth a second error.
async fn tail(context: &Context, deployment: &Deployment) {
    let wanted = LogsQuery { lines: Some(TAIL), ..LogsQuery::default() };
    let path = format!("/v1/deployments/{}/logs{}", deployment.id, query(&wanted));
    let Ok(request) = context.client.request(Method::GET, &path) else { return };
    let Ok(response) = context.client.send(request.timeout(SLACK)).await else { return };
    let mut lines = Lines::of(response);
    let mut first = true;
    while let Ok(Some(Ok(line))) = lines.next_json::<LogLine>().await {
        if first {
            context.output.note("  the end of its log:");
            first = false;
        }
        context.output.note(&format!("  | {}", line.text));
    }
}
