//! `ps` and `status`: how deployments are.

use api_types::{Deployment, DeploymentFilter};
use chrono::Utc;
use model::{Health, Seen, Slug};

use super::Context;
use crate::args::{PsArgs, TargetArgs};
use crate::client::query;
use crate::failure::Failure;
use crate::output::{Field, Tone};
use crate::target::Prefer;
use crate::words::ago;

const HEADER: [&str; 7] = ["project", "deployment", "runtime", "state", "health", "created", "url"];

pub(super) async fn run(context: &Context, args: PsArgs) -> Result<(), Failure> {
    let project = match args.project {
        Some(project) => {
            let slug: Slug = project.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            // An unknown project is an error, not an empty list.
            let _: api_types::Project = context.client.get(&format!("/v1/projects/{slug}")).await?;
            Some(slug.to_string())
        }
        None => None,
    };
    let filter = DeploymentFilter {
        project,
        include_destroyed: args.all.then_some(true),
        ..DeploymentFilter::default()
    };
    let mut deployments: Vec<Deployment> =
        context.client.all(&format!("/v1/deployments{}", query(&filter))).await?;
    deployments
        .sort_by(|a, b| (&a.project_slug, b.is_primary, b.id).cmp(&(&b.project_slug, a.is_primary, a.id)));
    if context.output.is_json() {
        return context.output.document(&deployments);
    }
    if deployments.is_empty() {
        context.output.note("there is no deployment; `hythe deploy DIR` makes one");
        return Ok(());
    }
    context.output.table(&HEADER, deployments.iter().map(row).collect())
}

fn row(deployment: &Deployment) -> Vec<Field> {
    let marked = if deployment.is_primary { " *" } else { "" };
    vec![
        format!("{}{marked}", deployment.project_slug).into(),
        deployment.id.to_string().into(),
        deployment.runtime_type.to_string().into(),
        state(deployment),
        health(deployment),
        Field::toned(ago(Utc::now(), deployment.created_at), Tone::Faint),
        deployment.main_url().map_or_else(String::new, |url| url.url.clone()).into(),
    ]
}

fn state(deployment: &Deployment) -> Field {
    let tone = match deployment.state {
        Seen::Running => Tone::Good,
        Seen::Failed => Tone::Bad,
        Seen::Created | Seen::Starting | Seen::Stopping => Tone::Passing,
        Seen::Stopped | Seen::Destroyed => Tone::Faint,
    };
    Field::toned(deployment.state.as_str(), tone)
}

fn health(deployment: &Deployment) -> Field {
    match deployment.health {
        Health::Unknown => Field::toned("-", Tone::Faint),
        Health::Healthy => Field::toned("healthy", Tone::Good),
        Health::Unhealthy => Field::toned("unhealthy", Tone::Bad),
    }
}

pub(super) async fn status(context: &Context, args: &TargetArgs) -> Result<(), Failure> {
    let deployment = context.deployment(args, Prefer::Primary).await?;
    if context.output.is_json() {
        return context.output.document(&deployment);
    }
    context.output.facts(facts(&deployment))
}

fn facts(deployment: &Deployment) -> Vec<(&'static str, Field)> {
    let now = Utc::now();
    let primary = if deployment.is_primary { " (primary)" } else { "" };
    let seen = deployment.seen_at.map_or_else(String::new, |at| format!(", seen {}", ago(now, at)));
    let mut facts: Vec<(&str, Field)> = vec![
        ("deployment", format!("{}{primary}", deployment.id).into()),
        ("project", deployment.project_slug.to_string().into()),
        ("runtime", deployment.runtime_type.to_string().into()),
        ("wanted", format!("{}, start {}", deployment.wanted_state, deployment.wanted_incarnation).into()),
        ("state", format!("{}, start {}{seen}", deployment.state, deployment.incarnation).into()),
    ];
    if let Some(detail) = &deployment.detail {
        facts.push(("", detail.clone().into()));
    }
    facts.push(("health", deployment.health.as_str().into()));
    if let Some(detail) = &deployment.health_detail {
        facts.push(("", detail.clone().into()));
    }
    if let Some(operation) = &deployment.operation {
        let kind = serde_json::to_value(operation.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or("operation");
        let since = ago(now, operation.started_at);
        facts.push(("doing", format!("{kind}, begun {since}, try {}", operation.tries).into()));
        if let Some(error) = &operation.last_error {
            facts.push(("", format!("last error: {error}").into()));
        }
    }
    if let Some(machine) = &deployment.machine_id {
        facts.push(("machine", machine.to_string().into()));
    }
    for service in &deployment.services {
        facts.push(("service", format!("{} on {} ({})", service.name, service.port, service.scheme).into()));
    }
    for url in &deployment.urls {
        facts.push(("url", url.url.clone().into()));
    }
    facts.push(("created", ago(now, deployment.created_at).into()));
    if let Some(at) = deployment.expires_at {
        facts.push(("goes", format!("{} (replaced by another primary)", at.to_rfc3339()).into()));
    }
    facts
}
