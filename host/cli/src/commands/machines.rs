//! `machines`: list, show, remove, and tokens with which new ones join.

use std::collections::BTreeMap;

use api_types::{CreateRegistration, Machine, Registration};
use chrono::Utc;
use model::{MachineId, MachineStatus};

use super::Context;
use crate::args::MachinesCommand;
use crate::failure::{ExitStatus, Failure};
use crate::output::{Field, Tone};
use crate::words::{ago, size};

pub(super) async fn run(context: &Context, command: Option<MachinesCommand>) -> Result<(), Failure> {
    match command.unwrap_or(MachinesCommand::Ls) {
        MachinesCommand::Ls => list(context).await,
        MachinesCommand::Show { machine } => show(context, &machine).await,
        MachinesCommand::Rm { machine } => {
            let machine = find(context, &machine).await?;
            context.client.delete(&format!("/v1/machines/{}", machine.id)).await?;
            if context.output.is_json() {
                context.output.document(&serde_json::json!({ "removed": machine.id }))
            } else {
                context.output.line(&format!("{} ({}) is gone", machine.id, machine.name))
            }
        }
        MachinesCommand::Token { name, label } => token(context, name, &label).await,
    }
}

/// By id, or by a name that only one has.
async fn find(context: &Context, machine: &str) -> Result<Machine, Failure> {
    if let Ok(id) = machine.parse::<MachineId>() {
        return context.client.get(&format!("/v1/machines/{id}")).await;
    }
    let machines: Vec<Machine> = context.client.all("/v1/machines").await?;
    let mut named = machines.into_iter().filter(|found| found.name == machine && found.retired_at.is_none());
    match (named.next(), named.next()) {
        (Some(found), None) => Ok(found),
        (Some(first), Some(second)) => Err(Failure::usage(format!(
            "several machines are named {machine:?}: {}, {}, …",
            first.id, second.id
        ))
        .hint("name one by its id")),
        (None, _) => Err(Failure::new(ExitStatus::NotFound, format!("there is no machine {machine:?}"))
            .hint("`hythe machines` lists them")),
    }
}

fn holder(machine: &Machine) -> Option<String> {
    let deployment = machine.current_deployment_id.map(|id| id.to_string());
    deployment.or_else(|| machine.current_agent_id.map(|id| id.to_string()))
}

fn status(machine: &Machine) -> Field {
    let tone = match machine.status {
        MachineStatus::Ready | MachineStatus::InUse => Tone::Good,
        MachineStatus::Launching => Tone::Passing,
        MachineStatus::Offline => Tone::Bad,
        MachineStatus::Retired => Tone::Faint,
    };
    Field::toned(machine.status.to_string(), tone)
}

fn system(machine: &Machine) -> String {
    let parts = [machine.os.as_deref(), machine.arch.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

async fn list(context: &Context) -> Result<(), Failure> {
    let machines: Vec<Machine> = context.client.all("/v1/machines").await?;
    if context.output.is_json() {
        return context.output.document(&machines);
    }
    if machines.is_empty() {
        context.output.note("there is no machine; `hythe machines token` lets one join");
        return Ok(());
    }
    let row = |machine: &Machine| -> Vec<Field> {
        vec![
            machine.name.clone().into(),
            machine.id.to_string().into(),
            machine.r#type.clone().into(),
            status(machine),
            system(machine).into(),
            machine.cpu_count.map_or_else(String::new, |count| count.to_string()).into(),
            machine.memory_bytes.map_or_else(String::new, size).into(),
            holder(machine).unwrap_or_else(|| "-".to_owned()).into(),
            machine.last_seen_at.map_or_else(|| "never".to_owned(), |at| ago(Utc::now(), at)).into(),
        ]
    };
    let header = ["name", "machine", "type", "status", "system", "cpus", "memory", "held by", "seen"];
    context.output.table(&header, machines.iter().map(row).collect())
}

async fn show(context: &Context, machine: &str) -> Result<(), Failure> {
    let machine = find(context, machine).await?;
    if context.output.is_json() {
        return context.output.document(&machine);
    }
    let now = Utc::now();
    let address =
        machine.address.as_ref().map_or_else(String::new, |address| format!("{address}:{}", machine.port));
    let labels: Vec<String> = machine.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let never = || "never".to_owned();
    let mut facts: Vec<(&str, Field)> = vec![
        ("machine", machine.id.to_string().into()),
        ("name", machine.name.clone().into()),
        ("type", machine.r#type.clone().into()),
        ("status", machine.status.to_string().into()),
        ("address", address.into()),
        ("system", system(&machine).into()),
        ("cpus", machine.cpu_count.map_or_else(String::new, |count| count.to_string()).into()),
        ("memory", machine.memory_bytes.map_or_else(String::new, size).into()),
        ("labels", labels.join(", ").into()),
        ("held by", holder(&machine).unwrap_or_else(|| "-".to_owned()).into()),
        ("seen", machine.last_seen_at.map_or_else(never, |at| ago(now, at)).into()),
    ];
    facts.push(("created", ago(now, machine.created_at).into()));
    context.output.facts(facts)
}

async fn token(context: &Context, name: Option<String>, labels: &[String]) -> Result<(), Failure> {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|label| pair(label, "--label")).collect::<Result<_, _>>()?;
    let wanted = CreateRegistration { name, labels, ..CreateRegistration::default() };
    let registration: Registration = context.client.create("/v1/machine-registrations", &wanted).await?;
    if context.output.is_json() {
        return context.output.document(&registration);
    }
    context.output.note(&format!(
        "run this on the machine, before {}; the token is good once and not shown again:",
        registration.expires_at.to_rfc3339()
    ));
    context.output.line(&registration.command)
}

/// `NAME=VALUE` of an option.
pub(super) fn pair(text: &str, option: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{text:?} is not NAME=VALUE")).at(option)),
    }
}
