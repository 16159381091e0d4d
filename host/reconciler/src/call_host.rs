//! What an adapter reaches in one call: its deployment's row, machine and grants.

use std::sync::Arc;

use adapter_runtime::{
    DeploymentHost, DeploymentView, HostError, Level, MachineRef, Request, Requirements, Response,
};
use async_trait::async_trait;
use fail::fail_point;
use model::{Fence, MachineId};
use parking_lot::Mutex;
use store::{Deployment, NewEvent, StoreError};

use crate::adapters::LoadedAdapter;
use crate::executor::Context;
use crate::lease_guard::LeaseGuard;

/// One call's view of the world. With an [`Operation`] it may change things, without one it may ask.
pub(crate) struct CallHost {
    context: Arc<Context>,
    adapter: Arc<LoadedAdapter>,
    deployment: Deployment,
    view: DeploymentView,
    operation: Option<Operation>,
    locator: Mutex<Option<String>>,
    events: Mutex<Vec<NewEvent>>,
    /// The machine that this call may reach: a handle is good only while the machine is held.
    reach: Mutex<Option<MachineId>>,
}

/// The right to change things, and what it is for.
#[derive(Clone)]
pub(crate) struct Operation {
    pub lease: Arc<LeaseGuard>,
    pub fence: Fence,
}

impl CallHost {
    pub fn new(
        context: Arc<Context>,
        adapter: Arc<LoadedAdapter>,
        deployment: &Deployment,
        incarnation: u64,
        operation: Option<Operation>,
    ) -> Arc<Self> {
        let fence = operation.as_ref().map_or(
            Fence {
                deployment: deployment.id,
                generation: deployment.generation,
                incarnation,
                operation: deployment.operation,
            },
            |operation| operation.fence,
        );
        Arc::new(Self {
            context,
            adapter,
            view: DeploymentView {
                id: deployment.id,
                project_id: deployment.project_id,
                incarnation,
                spec: deployment.spec.to_string(),
                services: deployment.services.clone(),
                source: deployment.source_sha256.clone(),
                idempotency_key: fence.idempotency_key(),
            },
            locator: Mutex::new(deployment.locator.clone()),
            deployment: deployment.clone(),
            operation,
            events: Mutex::default(),
            reach: Mutex::default(),
        })
    }

    /// Writes the events that the adapter appended.
    pub async fn flush_events(&self) {
        let events = std::mem::take(&mut *self.events.lock());
        for event in events {
            if let Err(error) = self.context.store.event_append(event).await {
                tracing::warn!(deployment = %self.view.id, %error, "an adapter's event was lost");
            }
        }
    }

    /// Where tests stop a host that is about to change something.
    fn before_send(&self) {
        if self.operation.is_some() {
            fail_point!("host.before_send");
        }
    }

    /// Where tests stop a host that has just changed something.
    fn after_send(&self) {
        if self.operation.is_some() {
            fail_point!("host.after_send");
        }
    }

    /// The operation, where this call may change things and its lease still holds.
    fn may_change(&self) -> Result<&Operation, HostError> {
        let Some(operation) = &self.operation else {
            return Err(HostError::Invalid("this call may ask but not change anything".to_owned()));
        };
        if operation.lease.holds() { Ok(operation) } else { Err(HostError::Superseded) }
    }

    /// The fence of a request, where the call is part of an operation.
    fn fence(&self) -> Result<Option<Fence>, HostError> {
        match &self.operation {
            Some(_) => Ok(Some(self.may_change()?.fence)),
            None => Ok(None),
        }
    }
}

fn host_error(error: StoreError) -> HostError {
    match error {
        StoreError::LeaseLost | StoreError::Superseded => HostError::Superseded,
        StoreError::Exhausted { .. } => HostError::Exhausted(error.to_string()),
        StoreError::NotFound { .. } => HostError::NotFound,
        error => {
            tracing::warn!(%error, "the store failed under an adapter's call");
            HostError::Unavailable(if error.is_passing() {
                "the host's database is away".to_owned()
            } else {
                format!("the host can't go on here ({}): its log says why", error.code())
            })
        }
    }
}

fn machine_ref(machine: &store::Machine) -> MachineRef {
    MachineRef { id: machine.id.to_string(), name: machine.name.clone() }
}

#[async_trait]
impl DeploymentHost for CallHost {
    fn view(&self) -> &DeploymentView {
        &self.view
    }

    fn locator(&self) -> Option<String> {
        self.locator.lock().clone()
    }

    async fn set_locator(&self, locator: Option<String>) -> Result<(), HostError> {
        let operation = self.may_change()?;
        fail_point!("host.before_set_locator");
        self.context
            .store
            .deployment_set_locator(&operation.lease.lease(), locator.as_deref())
            .await
            .map_err(host_error)?;
        fail_point!("host.after_set_locator");
        *self.locator.lock() = locator;
        Ok(())
    }

    async fn held_machine(&self) -> Result<Option<MachineRef>, HostError> {
        let machine = self.context.store.machine_of_deployment(self.view.id).await.map_err(host_error)?;
        *self.reach.lock() = machine.as_ref().map(|machine| machine.id);
        Ok(machine.as_ref().map(machine_ref))
    }

    async fn acquire_machine(&self, want: Requirements) -> Result<MachineRef, HostError> {
        let operation = self.may_change()?;
        let requirements = store::Requirements {
            machine_type: want.machine_type,
            min_cpu: want.min_cpu_count,
            min_memory: want.min_memory_gb.map(|gb| u64::from(gb) << 30),
            labels: want.labels.into_iter().collect(),
        };
        fail_point!("host.before_claim");
        let machine = self
            .context
            .store
            .machine_claim(&operation.lease.lease(), &requirements)
            .await
            .map_err(host_error)?;
        fail_point!("host.after_claim");
        *self.reach.lock() = Some(machine.id);
        Ok(machine_ref(&machine))
    }

    async fn release_machine(&self) -> Result<(), HostError> {
        let operation = self.may_change()?;
        fail_point!("host.before_release");
        *self.reach.lock() = None;
        self.context.store.machine_release(&operation.lease.lease()).await.map_err(host_error)?;
        fail_point!("host.after_release");
        Ok(())
    }

    async fn send_machine(&self, machine_id: &str, request: Request) -> Result<Response, HostError> {
        let machine: MachineId = machine_id.parse().map_err(|_| HostError::NotFound)?;
        if *self.reach.lock() != Some(machine) {
            return Err(HostError::NotFound);
        }
        let fence = self.fence()?;
        let client = self.context.machines.client(machine).await.map_err(host_error)?;
        self.before_send();
        let answer = grants::send_to_agent(&client, request, fence, &self.context.artifacts).await;
        self.after_send();
        answer
    }

    async fn send_grant(&self, grant: &str, request: Request) -> Result<Response, HostError> {
        let fence = self.fence()?;
        self.before_send();
        let answer = self.adapter.grants.send(grant, request, fence, &self.context.artifacts).await;
        self.after_send();
        answer
    }

    fn event(&self, name: &str, data: &str) {
        let data = match serde_json::from_str(data) {
            Ok(serde_json::Value::Object(data)) => data,
            Ok(other) => serde_json::Map::from_iter([("value".to_owned(), other)]),
            Err(_) => serde_json::Map::new(),
        };
        self.events.lock().push(NewEvent {
            name: format!("adapter.{name}"),
            project_id: Some(self.view.project_id),
            deployment_id: Some(self.view.id),
            incarnation: Some(self.view.incarnation),
            data,
            ..NewEvent::default()
        });
    }

    fn log(&self, level: Level, message: &str, fields: &[(String, String)]) {
        let adapter = self.deployment.runtime_type.as_str();
        let deployment = &self.view.id;
        match level {
            Level::Trace => tracing::trace!(adapter, %deployment, ?fields, "{message}"),
            Level::Debug => tracing::debug!(adapter, %deployment, ?fields, "{message}"),
            Level::Info => tracing::info!(adapter, %deployment, ?fields, "{message}"),
            Level::Warn => tracing::warn!(adapter, %deployment, ?fields, "{message}"),
            // ERROR means that a human must act; an adapter can't know that.
            Level::Error => {
                tracing::warn!(adapter, %deployment, ?fields, adapter.level = "error", "{message}")
            }
        }
    }
}
