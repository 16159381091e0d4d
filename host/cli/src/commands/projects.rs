//! `projects`: list, create, show, remove.

use std::time::Duration;

use api_types::{CreateProject, Deployment, Project, WaitState};
use chrono::Utc;
use model::{Seen, Slug};

use super::{Context, lifecycle, watch};
use crate::args::ProjectsCommand;
use crate::failure::Failure;
use crate::output::{Field, Tone};
use crate::target::Target;
use crate::words::ago;

/// For each deployment that goes with its project.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn run(context: &Context, command: Option<ProjectsCommand>) -> Result<(), Failure> {
    match command.unwrap_or(ProjectsCommand::Ls) {
        ProjectsCommand::Ls => list(context).await,
        ProjectsCommand::Create { slug } => {
            let project: Project =
                context.client.create("/v1/projects", &CreateProject { slug: parse(&slug)? }).await?;
            answer(context, &project)
        }
        ProjectsCommand::Show { slug } => show(context, slug.as_deref()).await,
        ProjectsCommand::Rm { slug, force } => remove(context, &parse(&slug)?, force).await,
    }
}

fn parse(slug: &str) -> Result<Slug, Failure> {
    slug.parse().map_err(|error| Failure::usage(format!("{error}")))
}

fn url(project: &Project) -> String {
    project.urls.iter().find(|url| url.is_default).map_or_else(String::new, |url| url.url.clone())
}

fn answer(context: &Context, project: &Project) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.document(project);
    }
    context.output.line(format!("{}  {}", project.slug, url(project)).trim_end())
}

async fn list(context: &Context) -> Result<(), Failure> {
    let projects: Vec<Project> = context.client.all("/v1/projects").await?;
    if context.output.is_json() {
        return context.output.document(&projects);
    }
    if projects.is_empty() {
        context.output.note("there is no project; `hythe deploy DIR` makes one");
        return Ok(());
    }
    let row = |project: &Project| -> Vec<Field> {
        vec![
            project.slug.to_string().into(),
            project.primary_deployment_id.map_or_else(|| "-".to_owned(), |id| id.to_string()).into(),
            Field::toned(ago(Utc::now(), project.created_at), Tone::Faint),
            url(project).into(),
        ]
    };
    context
        .output
        .table(&["project", "primary deployment", "created", "url"], projects.iter().map(row).collect())
}

async fn show(context: &Context, slug: Option<&str>) -> Result<(), Failure> {
    let slug = match slug {
        Some(slug) => parse(slug)?,
        None => match Target::parse(None, &context.folder)? {
            Target::Project(slug) => slug,
            Target::Deployment(id) => {
                return Err(Failure::usage(format!("{id} is a deployment, not a project")));
            }
        },
    };
    let project: Project = context.client.get(&format!("/v1/projects/{slug}")).await?;
    let deployments = deployments(context, &slug).await?;
    if context.output.is_json() {
        let document = serde_json::json!({ "project": project, "deployments": deployments });
        return context.output.document(&document);
    }
    let mut facts: Vec<(&str, Field)> =
        vec![("project", project.slug.to_string().into()), ("id", project.id.to_string().into())];
    facts.extend(project.urls.iter().map(|url| ("url", url.url.clone().into())));
    facts.push(("created", ago(Utc::now(), project.created_at).into()));
    for deployment in &deployments {
        let primary = if deployment.is_primary { ", primary" } else { "" };
        let text = format!("{}  {}, {}{primary}", deployment.id, deployment.runtime_type, deployment.state);
        facts.push(("deployment", text.into()));
    }
    context.output.facts(facts)
}

async fn deployments(context: &Context, slug: &Slug) -> Result<Vec<Deployment>, Failure> {
    let mut deployments: Vec<Deployment> =
        context.client.all(&format!("/v1/projects/{slug}/deployments")).await?;
    deployments.retain(|deployment| deployment.state != Seen::Destroyed);
    deployments.sort_by_key(|deployment| std::cmp::Reverse(deployment.id));
    Ok(deployments)
}

async fn remove(context: &Context, slug: &Slug, force: bool) -> Result<(), Failure> {
    if force {
        // All are told first, so that they go at the same time.
        let mut going = Vec::new();
        for deployment in deployments(context, slug).await? {
            going.push(lifecycle::delete(context, &deployment, false).await?);
        }
        for deployment in &going {
            watch::until(context, deployment, WaitState::Destroyed, DESTROY_TIMEOUT).await?;
        }
    }
    let removed = context.client.delete(&format!("/v1/projects/{slug}")).await;
    removed.map_err(|failure| {
        if failure.code.as_deref() == Some(api_types::code::IN_USE) {
            failure.hint(format!("`hythe projects rm {slug} --force` destroys its deployments first"))
        } else {
            failure
        }
    })?;
    if context.output.is_json() {
        context.output.document(&serde_json::json!({ "removed": slug }))
    } else {
        context.output.line(&format!("{slug} is gone"))
    }
}
