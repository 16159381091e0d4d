#![expect(clippy::todo, unused_variables, reason = "signatures first")]
use crate::*;
use chrono::{DateTime, Utc};
use model::{DeploymentId, Fence, MachineId, ProjectId, Slug, Wanted};
use std::time::Duration;
use uuid::Uuid;

impl Store {
    // projects
    pub async fn project_create(&self, slug: &Slug) -> Result<Project, StoreError> {
        todo!()
    }
    pub async fn project_get(&self, id: ProjectId) -> Result<Project, StoreError> {
        todo!()
    }
    pub async fn project_by_slug(&self, slug: &Slug) -> Result<Project, StoreError> {
        todo!()
    }
    pub async fn project_list(&self, page: PageRequest) -> Result<Page<Project>, StoreError> {
        todo!()
    }
    pub async fn project_delete(&self, id: ProjectId) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn project_set_primary(
        &self,
        project: ProjectId,
        deployment: DeploymentId,
        grace: Duration,
    ) -> Result<Project, StoreError> {
        todo!()
    }
    // deployments
    pub async fn deployment_create(&self, new: NewDeployment) -> Result<Deployment, StoreError> {
        todo!()
    }
    pub async fn deployment_get(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        todo!()
    }
    pub async fn deployment_list(
        &self,
        filter: DeploymentFilter,
        page: PageRequest,
    ) -> Result<Page<Deployment>, StoreError> {
        todo!()
    }
    pub async fn deployment_want(
        &self,
        id: DeploymentId,
        wanted: Wanted,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        todo!()
    }
    pub async fn deployment_destroy(
        &self,
        id: DeploymentId,
        force: bool,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        todo!()
    }
    pub async fn deployment_restart(
        &self,
        id: DeploymentId,
        expected_generation: Option<u64>,
    ) -> Result<Deployment, StoreError> {
        todo!()
    }
    pub async fn deployment_wake(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        todo!()
    }
    // reconciling
    pub async fn deployment_lease_due(
        &self,
        holder: Uuid,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Leased>, StoreError> {
        todo!()
    }
    pub async fn deployment_next_due(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        todo!()
    }
    pub async fn deployment_lease_renew(
        &self,
        lease: &Lease,
        duration: Duration,
    ) -> Result<Lease, StoreError> {
        todo!()
    }
    pub async fn deployment_release(&self, lease: &Lease) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn deployment_release_all(&self, holder: Uuid) -> Result<u64, StoreError> {
        todo!()
    }
    pub async fn operation_begin(
        &self,
        lease: &Lease,
        kind: OperationKind,
        generation: u64,
        incarnation: u64,
    ) -> Result<Fence, StoreError> {
        todo!()
    }
    pub async fn operation_try(&self, lease: &Lease) -> Result<i32, StoreError> {
        todo!()
    }
    pub async fn deployment_observe(
        &self,
        lease: &Lease,
        observation: Observation,
    ) -> Result<Deployment, StoreError> {
        todo!()
    }
    pub async fn deployment_set_locator(
        &self,
        lease: &Lease,
        locator: Option<&str>,
    ) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn deployment_expire_due(&self) -> Result<Vec<DeploymentId>, StoreError> {
        todo!()
    }
    // routes
    pub async fn route_list(&self) -> Result<Vec<RouteRow>, StoreError> {
        todo!()
    }
    pub async fn route_list_of_project(&self, project: ProjectId) -> Result<Vec<RouteRow>, StoreError> {
        todo!()
    }
    pub async fn route_get(&self, deployment: DeploymentId) -> Result<Option<RouteRow>, StoreError> {
        todo!()
    }
    // hostnames
    pub async fn hostname_put(
        &self,
        host: &str,
        target: HostnameTarget,
        service: Option<&str>,
    ) -> Result<Hostname, StoreError> {
        todo!()
    }
    pub async fn hostname_list(&self) -> Result<Vec<Hostname>, StoreError> {
        todo!()
    }
    pub async fn hostname_delete(&self, host: &str) -> Result<(), StoreError> {
        todo!()
    }
    // machines
    pub async fn registration_create(&self, new: NewRegistration) -> Result<String, StoreError> {
        todo!()
    }
    pub async fn machine_register(
        &self,
        token: &str,
        machine: NewMachine,
    ) -> Result<(MachineId, SharedKey), StoreError> {
        todo!()
    }
    pub async fn machine_list(
        &self,
        filter: MachineFilter,
        page: PageRequest,
    ) -> Result<Page<Machine>, StoreError> {
        todo!()
    }
    pub async fn machine_get(&self, id: MachineId) -> Result<Machine, StoreError> {
        todo!()
    }
    pub async fn machine_remove(&self, id: MachineId) -> Result<Machine, StoreError> {
        todo!()
    }
    pub async fn machine_claim(
        &self,
        lease: &Lease,
        requirements: &Requirements,
    ) -> Result<Machine, StoreError> {
        todo!()
    }
    pub async fn machine_release(&self, lease: &Lease) -> Result<Option<MachineId>, StoreError> {
        todo!()
    }
    pub async fn machine_of_deployment(
        &self,
        deployment: DeploymentId,
    ) -> Result<Option<Machine>, StoreError> {
        todo!()
    }
    pub async fn machine_connection(&self, id: MachineId) -> Result<MachineConnection, StoreError> {
        todo!()
    }
    pub async fn machine_seen(&self, id: MachineId, reachable: bool) -> Result<Machine, StoreError> {
        todo!()
    }
    pub async fn machine_update_address(
        &self,
        id: MachineId,
        address: &str,
        port: u16,
    ) -> Result<Machine, StoreError> {
        todo!()
    }
    // adapters
    pub async fn adapter_mirror(&self, adapters: Vec<AdapterRow>) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn adapter_list(&self) -> Result<Vec<Adapter>, StoreError> {
        todo!()
    }
    pub async fn adapter_get(&self, name: &str) -> Result<Adapter, StoreError> {
        todo!()
    }
    // sources
    pub async fn source_record(&self, sha256: &str, size_bytes: u64) -> Result<Source, StoreError> {
        todo!()
    }
    pub async fn source_get(&self, sha256: &str) -> Result<Option<Source>, StoreError> {
        todo!()
    }
    // events
    pub async fn event_append(&self, event: NewEvent) -> Result<i64, StoreError> {
        todo!()
    }
    pub async fn events_after(
        &self,
        seq: i64,
        filter: EventFilter,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        todo!()
    }
    pub async fn events_latest(&self, filter: EventFilter, limit: u32) -> Result<Vec<Event>, StoreError> {
        todo!()
    }
    pub async fn event_prune(&self, older_than: Duration) -> Result<u64, StoreError> {
        todo!()
    }
    // tokens
    pub async fn api_token_ensure_admin(&self) -> Result<Option<String>, StoreError> {
        todo!()
    }
    pub async fn api_token_create(&self, name: &str, ttl: Option<Duration>) -> Result<String, StoreError> {
        todo!()
    }
    pub async fn api_token_replace(&self, name: &str) -> Result<String, StoreError> {
        todo!()
    }
    pub async fn api_token_delete(&self, name: &str) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn api_token_list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        todo!()
    }
    pub async fn api_token_check(&self, token: &str) -> Result<Option<TokenInfo>, StoreError> {
        todo!()
    }
    // idempotency
    pub async fn idempotency_begin(
        &self,
        scope: &str,
        key: &str,
        request_sha256: &[u8; 32],
    ) -> Result<Idempotency, StoreError> {
        todo!()
    }
    pub async fn idempotency_finish(
        &self,
        scope: &str,
        key: &str,
        status: u16,
        response: &serde_json::Value,
    ) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn idempotency_forget(&self, scope: &str, key: &str) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn idempotency_prune(&self, older_than: Duration) -> Result<u64, StoreError> {
        todo!()
    }
}
