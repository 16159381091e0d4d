//! The store's rows as clients see them.

use api_types::{
    Adapter, Deployment, Domain, Event, Grant, Hostname, Machine, Operation, OperationKind, Project, Source,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::{MachineHolder, Seen};
use store::HostnameTarget;

use crate::api::ControlApi;
use crate::failure::Failure;

/// Machines that are looked up at once for a page of deployments.
const LOOKUPS: usize = 4;

pub(crate) fn project(api: &ControlApi, row: store::Project) -> Project {
    let urls = api.urls.of_project(&row.slug);
    let store::Project { id, slug, primary_deployment_id, created_at } = row;
    Project { id, slug, primary_deployment_id, urls, created_at }
}

/// The deployment, with the machine that it holds.
pub(crate) async fn deployment(api: &ControlApi, row: store::Deployment) -> Result<Deployment, Failure> {
    let machine_id = match row.seen {
        // Nothing claimed yet, or nothing any more.
        Seen::Destroyed => None,
        _ => api.store.machine_of_deployment(row.id).await?.map(|machine| machine.id),
    };
    let names = row.services.iter().map(|service| &service.name);
    let urls = match row.seen {
        Seen::Destroyed => Vec::new(),
        _ => api.urls.of_deployment(&row.slug, row.id, row.is_primary, names),
    };
    let operation = row.current_operation.as_ref().map(|operation| Operation {
        kind: match operation.kind {
            model::OperationKind::Start => OperationKind::Start,
            model::OperationKind::Stop => OperationKind::Stop,
            model::OperationKind::Restart => OperationKind::Restart,
            model::OperationKind::Destroy => OperationKind::Destroy,
        },
        started_at: operation.started_at,
        tries: operation.tries.try_into().unwrap_or(0),
        last_error: row.last_error.clone(),
        next_try_at: row.next_action_at,
    });
    Ok(Deployment {
        id: row.id,
        project_id: row.project_id,
        project_slug: row.slug,
        runtime_type: row.runtime_type,
        spec: row.spec,
        services: row.services.into_iter().map(Into::into).collect(),
        source_sha256: row.source_sha256,
        wake_policy: row.wake_policy,
        idle_timeout_seconds: row.idle_timeout_seconds,
        promote_when_healthy: row.promote_when_healthy,
        wanted_state: row.wanted,
        stop_reason: row.stop_reason,
        wanted_incarnation: row.wanted_incarnation,
        generation: row.generation,
        state: row.seen,
        incarnation: row.seen_incarnation,
        // Without an operation under way, the last error is why it is as it is.
        detail: row.seen_detail.or(row.last_error),
        seen_at: row.seen_at,
        health: row.health,
        health_detail: row.health_detail,
        is_primary: row.is_primary,
        operation,
        urls,
        machine_id,
        created_at: row.created_at,
        expires_at: row.expires_at,
    })
}

pub(crate) async fn deployments(
    api: &ControlApi,
    rows: Vec<store::Deployment>,
) -> Result<Vec<Deployment>, Failure> {
    stream::iter(rows).map(|row| deployment(api, row)).buffered(LOOKUPS).try_collect().await
}

pub(crate) fn machine(row: store::Machine) -> Machine {
    let (current_agent_id, current_deployment_id) = match row.holder {
        None => (None, None),
        Some(MachineHolder::Agent(id)) => (Some(id), None),
        Some(MachineHolder::Deployment(id)) => (None, Some(id)),
    };
    Machine {
        id: row.id,
        r#type: row.machine_type,
        provider_machine_id: row.provider_machine_id,
        name: row.name,
        status: row.status,
        owner_id: row.owner_id,
        address: row.address,
        ipv4: row.ipv4.map(|address| address.to_string()),
        port: row.port,
        certificate_sha256: row.certificate_sha256,
        os: row.os,
        arch: row.arch,
        cpu_count: row.cpu_count,
        memory_bytes: row.memory_bytes,
        labels: row.labels,
        current_agent_id,
        current_deployment_id,
        claimed_at: row.claimed_at,
        last_seen_at: row.last_seen_at,
        created_at: row.created_at,
        retired_at: row.retired_at,
    }
}

pub(crate) fn adapter(store::Adapter { id, row, updated_at }: store::Adapter) -> Adapter {
    let grant = |store::GrantRow { name, target, methods, paths }| Grant { name, target, methods, paths };
    Adapter {
        id,
        name: row.name.to_string(),
        component_sha256: row.component_sha256,
        version: row.version,
        summary: row.summary,
        exports: row.exports,
        spec_schema: row.spec_schema,
        is_default: row.is_default,
        grants: row.grants.into_iter().map(grant).collect(),
        updated_at,
    }
}

pub(crate) fn event(row: store::Event) -> Event {
    Event {
        seq: row.seq.try_into().unwrap_or(0),
        at: row.at,
        name: row.name,
        project_id: row.project_id,
        deployment_id: row.deployment_id,
        machine_id: row.machine_id,
        incarnation: row.incarnation,
        data: row.data,
    }
}

pub(crate) fn hostname(row: store::Hostname) -> Hostname {
    let (project_id, deployment_id) = match row.target {
        HostnameTarget::Gone => (None, None),
        HostnameTarget::Project(id) => (Some(id), None),
        HostnameTarget::Deployment(id) => (None, Some(id)),
    };
    Hostname { host: row.host, project_id, deployment_id, service: row.service, created_at: row.created_at }
}

pub(crate) fn domain(row: store::ProjectDomain) -> Domain {
    let store::ProjectDomain { domain, project, deployment, service, created_at } = row;
    Domain { domain: domain.to_string(), project_id: project, deployment_id: deployment, service, created_at }
}

pub(crate) fn source(store::Source { sha256, size_bytes, created_at }: store::Source) -> Source {
    Source { sha256, size_bytes, created_at }
}
