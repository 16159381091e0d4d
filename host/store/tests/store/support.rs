//! What tests begin with.

use std::time::Duration;

use model::{Health, ProjectId, Seen, Service, Slug, WakePolicy, Wanted};
use serde_json::json;
use store::{
    Deployment, EventFilter, Lease, MasterKey, NewDeployment, NewMachine, NewRegistration, Observation,
    Store, StoreError, StoreOptions,
};
use test_kit::database::TestDatabase;
use uuid::Uuid;

pub const MINUTE: Duration = Duration::from_secs(60);

pub struct Fixture {
    pub store: Store,
    pub database: TestDatabase,
}

impl Fixture {
    pub async fn new() -> Self {
        let database = TestDatabase::create().await;
        let store = connect(&database).await;
        Self { store, database }
    }

    pub async fn project(&self, slug: &str) -> ProjectId {
        self.store.project_create(&slug.parse::<Slug>().unwrap()).await.unwrap().id
    }

    pub async fn deployment(&self) -> Deployment {
        let project = self.project("shop").await;
        self.store.deployment_create(new_deployment(project)).await.unwrap()
    }

    /// A lease on what is due.
    pub async fn lease(&self) -> Lease {
        let leased = self.store.deployment_lease_due(Uuid::new_v4(), MINUTE, 1).await.unwrap();
        leased.first().expect("nothing is due").lease
    }

    /// The names of all events of a deployment, in order.
    pub async fn events(&self, deployment: &Deployment) -> Vec<String> {
        let filter = EventFilter { deployment: Some(deployment.id), ..EventFilter::default() };
        self.store.events_after(0, filter, 1000).await.unwrap().into_iter().map(|event| event.name).collect()
    }

    pub async fn machine(&self, certificate: u8) -> model::MachineId {
        let token = self.store.registration_create(registration()).await.unwrap();
        self.store.machine_register(&token, new_machine(certificate)).await.unwrap().0
    }

    /// Lets time pass for leases, schedules and grace, by moving what is written down.
    pub async fn pass(&self, column: &str) {
        let statement = format!("UPDATE deployments SET {column} = {column} - interval '1 day'");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut self.database.connect().await)
            .await
            .unwrap();
    }
}

pub async fn connect(database: &TestDatabase) -> Store {
    let store = Store::connect(database.url(), StoreOptions::default()).await.unwrap();
    store.with_master_key(MasterKey::from_bytes([7; 32]))
}

pub fn new_deployment(project_id: ProjectId) -> NewDeployment {
    NewDeployment {
        project_id,
        runtime_type: "process".parse().unwrap(),
        spec: json!({"command": ["serve"]}),
        services: vec![service("web", 3000)],
        source_sha256: None,
        wake_policy: WakePolicy::Dynamic,
        idle_timeout_seconds: None,
        promote_when_healthy: true,
        wanted: Wanted::Running,
    }
}

pub fn service(name: &str, port: u16) -> Service {
    Service { name: name.parse().unwrap(), port, scheme: model::Scheme::Http }
}

/// Seen at what is wanted of the deployment.
pub fn seen(deployment: &Deployment, seen: Seen) -> Observation {
    Observation {
        seen,
        incarnation: deployment.wanted_incarnation,
        generation: deployment.generation,
        detail: None,
        finished_operation: false,
        failures: 0,
        last_error: None,
        next_action_in: None,
        health: None,
    }
}

pub fn healthy(deployment: &Deployment) -> Observation {
    Observation { health: Some((Health::Healthy, None)), ..seen(deployment, Seen::Running) }
}

pub fn registration() -> NewRegistration {
    NewRegistration {
        name: None,
        machine_type: "custom".to_owned(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        owner: None,
        ttl: Duration::from_secs(3600),
    }
}

/// `certificate` tells machines apart.
pub fn new_machine(certificate: u8) -> NewMachine {
    NewMachine {
        name: format!("m{certificate}"),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        cpu_count: 2,
        memory_bytes: 4 << 30,
        address: "192.0.2.7".to_owned(),
        port: 9911,
        certificate_sha256: format!("{certificate:02x}").repeat(32),
    }
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, code: &str) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error:?}");
    error.to_string()
}
