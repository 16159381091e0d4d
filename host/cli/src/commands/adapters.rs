//! `adapters`: what runtimes there are, and what each takes.

use api_types::Adapter;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::args::AdaptersCommand;
use crate::client::encoded;
use crate::failure::Failure;
use crate::output::Field;

/// An adapter, with whether the host prefers it for a deployment that names no runtime. Hosts that do
/// not say it prefer none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    #[serde(flatten)]
    pub adapter: Adapter,
    #[serde(default)]
    pub is_default: bool,
}

pub(super) async fn run(context: &Context, command: Option<AdaptersCommand>) -> Result<(), Failure> {
    match command.unwrap_or(AdaptersCommand::Ls) {
        AdaptersCommand::Ls => list(context).await,
        AdaptersCommand::Show { name } => show(context, &name).await,
    }
}

pub(super) async fn all(context: &Context) -> Result<Vec<Listed>, Failure> {
    context.client.all("/v1/adapters").await
}

async fn list(context: &Context) -> Result<(), Failure> {
    let adapters = all(context).await?;
    if context.output.is_json() {
        return context.output.document(&adapters);
    }
    if adapters.is_empty() {
        context.output.note("the host has no adapter: its configuration declares them");
        return Ok(());
    }
    let row = |listed: &Listed| -> Vec<Field> {
        let adapter = &listed.adapter;
        let marked = if listed.is_default { " *" } else { "" };
        vec![
            format!("{}{marked}", adapter.name).into(),
            adapter.version.clone().into(),
            abilities(adapter).join(", ").into(),
            adapter.summary.clone().into(),
        ]
    };
    context.output.table(&["runtime", "version", "can", "summary"], adapters.iter().map(row).collect())
}

/// The optional interfaces, by their bare names.
fn abilities(adapter: &Adapter) -> Vec<&str> {
    let bare = |name: &'_ str| -> Option<usize> { name.rfind('/').map(|slash| slash + 1) };
    let names = adapter.exports.iter().map(|export| {
        let name = bare(export).map_or(export.as_str(), |start| &export[start..]);
        name.split('@').next().unwrap_or(name)
    });
    names.filter(|name| *name != "project-deployment").collect()
}

async fn show(context: &Context, name: &str) -> Result<(), Failure> {
    let listed: Listed = context.client.get(&format!("/v1/adapters/{}", encoded(name))).await?;
    if context.output.is_json() {
        return context.output.document(&listed);
    }
    let adapter = &listed.adapter;
    let mut facts: Vec<(&str, Field)> = vec![
        ("runtime", adapter.name.clone().into()),
        ("version", adapter.version.clone().into()),
        ("summary", adapter.summary.clone().into()),
        ("component", format!("sha256:{}", adapter.component_sha256).into()),
    ];
    facts.extend(adapter.exports.iter().map(|export| ("exports", export.clone().into())));
    for grant in &adapter.grants {
        let limits = [("methods", &grant.methods), ("paths", &grant.paths)];
        let limits: Vec<String> = limits
            .iter()
            .filter_map(|(what, list)| list.as_ref().map(|list| format!(", {what} {}", list.join(" "))))
            .collect();
        facts.push(("may reach", format!("{}: {}{}", grant.name, grant.target, limits.concat()).into()));
    }
    context.output.facts(facts)?;
    let schema = serde_json::to_string_pretty(&adapter.spec_schema)
        .map_err(|error| Failure::other(format!("the schema can't be shown: {error}")))?;
    context.output.line(&format!("\nschema of a deployment's spec:\n{schema}"))
}
