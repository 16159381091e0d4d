//! Machines of this computer, for `hythe up`: daemons that join as any machine does, with a token.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use model::MachineId;
use store::{NewRegistration, Store, StoreError};

use crate::host::{Host, agent_program};
use crate::local_agent::{self, Listening, LocalAgent};

/// What they are called in `machines.type`.
const MACHINE_TYPE: &str = "local";
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// Starts so many machines, joining those that are new. Those that run, and the first failure.
pub async fn start(host: &Host, count: usize) -> (Vec<LocalAgent>, Option<anyhow::Error>) {
    if let Err(error) = host.data_dir.folder("machines", false) {
        return (Vec::new(), Some(error));
    }
    let started = futures_util::future::join_all((1..=count).map(|number| start_one(host, number))).await;
    let (mut running, mut failed) = (Vec::new(), None);
    for result in started {
        match result {
            Ok(machine) => running.push(machine),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    (running, failed)
}

async fn start_one(host: &Host, number: usize) -> anyhow::Result<LocalAgent> {
    let name = format!("local-{number}");
    let data_dir = host.data_dir.folder(&format!("machines/{name}"), false)?;
    let machine = match known_machine(&host.store, &data_dir).await? {
        Some(machine) => machine,
        None => join(host, &name, &data_dir).await?,
    };
    let options = local_agent::Options {
        name: name.clone(),
        program: agent_program()?,
        data_dir,
        listen: "127.0.0.1:0".to_owned(),
        workload_user: "auto".to_owned(),
        stop_workloads_on_exit: true,
    };
    let (store, runtime) = (host.store.clone(), tokio::runtime::Handle::current());
    // Each start takes another free port.
    let on_listening = move |listening: Listening| {
        let store = store.clone();
        runtime.spawn(async move {
            let updated = store.machine_update_address(machine, &listening.address, listening.port).await;
            if let Err(error) = updated {
                tracing::error!(%machine, %error, "a machine's new port was not written down");
            }
        });
    };
    LocalAgent::start(options, on_listening).await
}

/// The machine that this folder joined as, where the database still has it.
async fn known_machine(store: &Store, data_dir: &std::path::Path) -> anyhow::Result<Option<MachineId>> {
    let file = data_dir.join("identity.json");
    let Ok(text) = std::fs::read(&file) else { return Ok(None) };
    let identity: agent_api::RegistrationResponse =
        serde_json::from_slice(&text).with_context(|| format!("can't read {}", file.display()))?;
    let id = identity.machine_id.parse().with_context(|| format!("can't read {}", file.display()))?;
    match store.machine_get(id).await {
        Ok(machine) if machine.retired_at.is_none() => Ok(Some(id)),
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn join(host: &Host, name: &str, data_dir: &PathBuf) -> anyhow::Result<MachineId> {
    let token = host
        .store
        .registration_create(NewRegistration {
            name: Some(name.to_owned()),
            machine_type: MACHINE_TYPE.to_owned(),
            labels: BTreeMap::new(),
            owner: None,
            ttl: TOKEN_TTL,
        })
        .await?;
    // An identity of a machine that the database no longer knows is of no use.
    std::fs::remove_file(data_dir.join("identity.json")).ok();
    let output = tokio::process::Command::new(agent_program()?)
        .arg("join")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--host", &format!("http://{}", host.api_address), "--token", &token])
        .args(["--name", name, "--address", "127.0.0.1"])
        .output()
        .await
        .context("hythe-agent can't be started: is it beside hythe?")?;
    if !output.status.success() {
        bail!("the machine {name} did not join: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    known_machine(&host.store, data_dir)
        .await?
        .with_context(|| format!("the machine {name} joined and is not known"))
}
