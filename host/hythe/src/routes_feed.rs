//! Keeps the route table, the daemons' clients and the reconciler in step with the database.

use std::sync::Arc;

use ingress::{Alias, AliasTarget, DeploymentRoute, OldMachine, Routes};
use model::ServiceSelector;
use reconciler::Machines;
use store::{Change, Hostname, HostnameTarget, RouteRow, Store, StoreError};
use tokio::sync::{Notify, broadcast};

use crate::activity_feed::IdleDeployments;

/// Reads all routes.
///
/// # Errors
/// Those of the store; the table stays as it was.
pub async fn load(store: &Store, routes: &Routes, idle: &IdleDeployments) -> Result<(), StoreError> {
    let rows = store.route_list().await?;
    let hosts = store.host_route_list().await?;
    let machines = store.old_machine_list().await?;
    idle.replace(rows.iter().filter(|row| row.has_idle_timeout).map(|row| row.deployment));
    routes.replace_machines(machines.into_iter().map(old_machine));
    routes.replace_all(rows.into_iter().map(route).collect(), hosts.into_iter().filter_map(alias).collect());
    Ok(())
}

/// Follows changes for ever.
pub async fn follow(
    store: Store,
    routes: Arc<Routes>,
    idle: Arc<IdleDeployments>,
    machines: Machines,
    signal: Arc<Notify>,
    mut changes: broadcast::Receiver<Change>,
) {
    loop {
        let change = match changes.recv().await {
            Ok(change) => change,
            // Too many at once: read all.
            Err(broadcast::error::RecvError::Lagged(_)) => Change::Resync,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if let Err(error) = apply(&store, &routes, &idle, &machines, &signal, change).await {
            // A hint was lost, and with it a row: all is read again once the database is back.
            tracing::warn!(%error, "a change of routes could not be read; routes stay as they are for now");
            while load(&store, &routes, &idle).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn apply(
    store: &Store,
    routes: &Routes,
    idle: &IdleDeployments,
    machines: &Machines,
    signal: &Notify,
    change: Change,
) -> Result<(), StoreError> {
    match change {
        Change::Deployments(id) => {
            signal.notify_one();
            match store.route_get(id).await? {
                Some(row) => {
                    idle.set(id, row.has_idle_timeout);
                    routes.upsert(route(row));
                }
                None => {
                    idle.set(id, false);
                    routes.remove(id);
                }
            }
        }
        Change::Projects(project) => {
            for row in store.route_list_of_project(project).await? {
                routes.upsert(route(row));
            }
        }
        Change::Machines(machine) => {
            machines.forget(machine);
            signal.notify_one();
        }
        Change::Hostnames(host) => match store.host_route_get(&host).await?.and_then(alias) {
            Some(alias) => routes.upsert_alias(alias),
            None => routes.remove_alias(&host),
        },
        Change::OldMachines(machine) => match store.old_machine_get(machine).await? {
            Some(known) => routes.upsert_machine(old_machine(known)),
            None => routes.remove_machine(machine),
        },
        Change::Resync => {
            machines.forget_all();
            signal.notify_one();
            load(store, routes, idle).await?;
        }
        Change::Events(_) => {}
    }
    Ok(())
}

fn route(row: RouteRow) -> DeploymentRoute {
    DeploymentRoute {
        deployment: row.deployment,
        project: row.project,
        slug: row.slug,
        is_primary: row.is_primary,
        incarnation: row.incarnation,
        seen: row.seen,
        wanted: row.wanted,
        health: row.health,
        wake: row.wake_policy,
        services: row.services,
    }
}

fn old_machine(row: store::OldMachine) -> OldMachine {
    OldMachine { machine: row.machine, deployment: row.deployment }
}

/// None where the row names a service that can't be one.
fn alias(hostname: Hostname) -> Option<Alias> {
    let service = match &hostname.service {
        None => None,
        Some(service) => Some(match service.parse::<u16>() {
            Ok(port) => ServiceSelector::Port(port),
            Err(_) => ServiceSelector::Name(service.parse().ok()?),
        }),
    };
    let target = match hostname.target {
        HostnameTarget::Gone => AliasTarget::Gone,
        HostnameTarget::Project(project) => AliasTarget::Project(project),
        HostnameTarget::Deployment(deployment) => AliasTarget::Deployment(deployment),
    };
    Some(Alias { host: hostname.host, target, service })
}
