//! `domains`: list, add, remove.

use api_types::{AddDomain, Domain};
use chrono::Utc;
use model::Slug;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Context;
use crate::args::{DomainProject, DomainsCommand};
use crate::failure::Failure;
use crate::output::{Field, Tone};
use crate::target::Target;
use crate::words::ago;

pub(super) async fn run(context: &Context, command: Option<DomainsCommand>) -> Result<(), Failure> {
    match command.unwrap_or(DomainsCommand::Ls(DomainProject { project: None })) {
        DomainsCommand::Ls(of) => list(context, &project(context, &of)?).await,
        DomainsCommand::Add { domain, project: of, deployment, service } => {
            let deployment_id = match deployment.as_deref().map(|id| Target::parse(Some(id), &context.folder))
            {
                None => None,
                Some(target) => match target? {
                    Target::Deployment(id) => Some(id),
                    Target::Project(slug) => {
                        return Err(Failure::usage(format!("{slug} is a project, not a deployment"))
                            .hint("`--deployment` takes an id (dep_\u{2026}); `hythe ps` lists them"));
                    }
                },
            };
            let slug = project(context, &of)?;
            let body = AddDomain { domain, deployment_id, service };
            let made: Domain = context.client.create(&format!("/v1/projects/{slug}/domains"), &body).await?;
            if context.output.is_json() {
                return context.output.document(&made);
            }
            context.output.line(&format!("{}  {}", made.domain, target(&made)))?;
            context.output.note(&format!(
                "let the domain's DNS lead to this host's ingress; until then nothing of it arrives here ({slug})"
            ));
            Ok(())
        }
        DomainsCommand::Rm { domain, project: of } => {
            let slug = project(context, &of)?;
            let escaped = utf8_percent_encode(&domain, NON_ALPHANUMERIC);
            context.client.delete(&format!("/v1/projects/{slug}/domains/{escaped}")).await?;
            if context.output.is_json() {
                context.output.document(&serde_json::json!({ "removed": domain }))
            } else {
                context.output.line(&format!("{domain} leads nowhere now"))
            }
        }
    }
}

fn project(context: &Context, of: &DomainProject) -> Result<Slug, Failure> {
    match Target::parse(of.project.as_deref(), &context.folder)? {
        Target::Project(slug) => Ok(slug),
        Target::Deployment(id) => Err(Failure::usage(format!("{id} is a deployment, not a project"))),
    }
}

fn target(domain: &Domain) -> String {
    let to = domain.deployment_id.map_or_else(|| "primary".to_owned(), |id| id.to_string());
    match &domain.service {
        Some(service) => format!("{to} ({service})"),
        None => to,
    }
}

async fn list(context: &Context, slug: &Slug) -> Result<(), Failure> {
    let domains: Vec<Domain> = context.client.all(&format!("/v1/projects/{slug}/domains")).await?;
    if context.output.is_json() {
        return context.output.document(&domains);
    }
    if domains.is_empty() {
        context.output.note(&format!("{slug} has no domain; `hythe domains add DOMAIN` gives it one"));
        return Ok(());
    }
    let row = |domain: &Domain| -> Vec<Field> {
        vec![
            domain.domain.clone().into(),
            target(domain).into(),
            Field::toned(ago(Utc::now(), domain.created_at), Tone::Faint),
        ]
    };
    context.output.table(&["domain", "leads to", "added"], domains.iter().map(row).collect())
}
