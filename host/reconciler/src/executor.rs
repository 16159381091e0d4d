//! Takes one leased deployment through its plan until there is nothing to do now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter_runtime::{Health as AdapterHealth, Status};
use artifacts::ArtifactStore;
use fail::fail_point;
use model::{Health, OperationKind, Seen, Wanted};
use planner::{Action, Policy, Snapshot, plan};
use store::{Deployment, Leased, NewEvent, Observation, Store, StoreError};

use crate::adapters::{Adapters, LoadedAdapter};
use crate::call_host::{CallHost, Operation};
use crate::lease_guard::LeaseGuard;
use crate::machines::Machines;
use crate::outcome::{self, Outcome};

/// Before asking again for an adapter that the configuration does not have.
const NO_ADAPTER_PAUSE: Duration = Duration::from_secs(30);

/// As many failures as say that the adapter refused the specification itself.
const REFUSED: i32 = i32::MAX;

/// Intervals and bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a host owns a deployment without a sign of life.
    pub lease: Duration,
    /// From asking a workload to end to ending it.
    pub stop_grace: Duration,
    /// Deployments in hand at once.
    pub concurrency: usize,
    pub policy: Policy,
}

/// All that calls need.
pub(crate) struct Context {
    pub store: Store,
    pub adapters: Arc<Adapters>,
    pub machines: Machines,
    pub artifacts: ArtifactStore,
    pub settings: Settings,
}

/// Works until the plan says to wait, then schedules the next look. Errors of the store end it: the
/// lease passes, and the next holder goes on.
pub(crate) async fn reconcile(context: Arc<Context>, leased: Leased, asked_at: Instant) {
    let guard =
        Arc::new(LeaseGuard::new(context.store.clone(), leased.lease, context.settings.lease, asked_at));
    let id = leased.deployment.id;
    let step = Step { context: context.clone(), guard: guard.clone() };
    let result = tokio::select! {
        result = step.run(leased) => result,
        () = guard.lost() => Err(StoreError::LeaseLost),
    };
    match result {
        Ok(()) => give_back(&context, &guard).await,
        Err(StoreError::LeaseLost) => {
            tracing::warn!(deployment = %id, "another host goes on with this deployment")
        }
        // What is wanted changed meanwhile: whoever comes next plans anew, at once.
        Err(StoreError::Superseded) => give_back(&context, &guard).await,
        Err(error) => {
            tracing::warn!(deployment = %id, %error, "a step was not written down; it is taken again")
        }
    }
}

async fn give_back(context: &Context, guard: &LeaseGuard) {
    let lease = guard.lease();
    if let Err(error) = context.store.deployment_release(&lease).await {
        tracing::debug!(deployment = %lease.deployment, %error, "a lease was not given back and passes by itself");
    }
}

struct Step {
    context: Arc<Context>,
    guard: Arc<LeaseGuard>,
}

impl Step {
    async fn run(&self, leased: Leased) -> Result<(), StoreError> {
        fail_point!("reconciler.leased");
        let mut deployment = leased.deployment;
        loop {
            let now = unix_ms(self.guard.database_now());
            let snapshot = snapshot_of(&deployment);
            let action = plan(&snapshot, now, &self.context.settings.policy);
            tracing::debug!(deployment = %deployment.id, ?action, "planned");
            let next = match action {
                Action::Wait { for_ms } => {
                    let next = for_ms.map(Duration::from_millis);
                    return self
                        .context
                        .store
                        .deployment_schedule(&self.guard.lease(), deployment.generation, next)
                        .await;
                }
                Action::BeginNextIncarnation => Some(
                    self.context.store.incarnation_next(&self.guard.lease(), deployment.generation).await?,
                ),
                Action::Operate { kind, incarnation, new_operation } => {
                    self.operate(deployment, kind, incarnation, new_operation).await?
                }
                Action::Inspect | Action::CheckHealth => self.look(deployment, action).await?,
            };
            match next {
                Some(next) => deployment = next,
                None => return Ok(()),
            }
        }
    }

    /// One call of an operation. None: scheduled for later.
    async fn operate(
        &self,
        deployment: Deployment,
        kind: OperationKind,
        incarnation: u64,
        new_operation: bool,
    ) -> Result<Option<Deployment>, StoreError> {
        let store = &self.context.store;
        let Some(adapter) = self.context.adapters.get(&deployment.runtime_type) else {
            return self.without_adapter(deployment).await;
        };
        let (fence, tries) = match deployment.current_operation {
            Some(current) if !new_operation => {
                (current.fence, store.operation_try(&self.guard.lease()).await?)
            }
            _ => {
                fail_point!("reconciler.before_begin");
                let lease = self.guard.lease();
                let fence = store.operation_begin(&lease, kind, deployment.generation, incarnation).await?;
                (fence, 1)
            }
        };
        fail_point!("reconciler.before_call");
        let operation = Operation { lease: self.guard.clone(), fence };
        let host =
            CallHost::new(self.context.clone(), adapter.clone(), &deployment, incarnation, Some(operation));
        let grace = u32::try_from(self.context.settings.stop_grace.as_millis()).unwrap_or(u32::MAX);
        let answer = match kind {
            OperationKind::Start => adapter.adapter.start(host.clone()).await,
            OperationKind::Stop => adapter.adapter.stop(host.clone(), grace).await,
            OperationKind::Restart => adapter.adapter.restart(host.clone(), grace).await,
            OperationKind::Destroy => adapter.adapter.destroy(host.clone()).await,
        };
        fail_point!("reconciler.after_call");
        host.flush_events().await;
        if let Err(error) = &answer {
            if error.is_fault() {
                tracing::warn!(deployment = %deployment.id, %error, "an adapter failed");
            } else {
                tracing::debug!(deployment = %deployment.id, %error, "an adapter answered with an error");
            }
        }
        let outcome = outcome::of_operation(kind, answer, u32::try_from(tries).unwrap_or(1));
        if kind == OperationKind::Destroy
            && deployment.force_destroy
            && let Outcome::Unknown { error, .. } = &outcome
        {
            return self.destroy_by_force(deployment, error).await;
        }
        if matches!(&outcome, Outcome::Seen { seen: Seen::Destroyed, .. }) {
            // Whatever the adapter left: nobody else gets at a machine that a gone deployment holds.
            store.machine_release(&self.guard.lease()).await?;
        }
        // A stop or destroy is about what runs; a start about the incarnation that it brings about.
        self.record(deployment, outcome, kind, incarnation).await
    }

    async fn record(
        &self,
        deployment: Deployment,
        outcome: Outcome,
        kind: OperationKind,
        incarnation: u64,
    ) -> Result<Option<Deployment>, StoreError> {
        let mut observation = unchanged(&deployment);
        let pause = match outcome {
            Outcome::Seen { seen, detail, finished, failed, poll_after } => {
                observation.seen = seen;
                observation.incarnation = incarnation;
                observation.detail = detail.clone();
                observation.finished_operation = finished;
                observation.last_error = None;
                if failed {
                    observation.failures = observation.failures.saturating_add(1);
                    observation.last_error = detail.or_else(|| Some(format!("the incarnation is {seen}")));
                } else if matches!(kind, OperationKind::Stop | OperationKind::Destroy) {
                    observation.failures = 0;
                }
                (!finished).then(|| outcome::poll_pause(poll_after))
            }
            Outcome::Unknown { error, retry_after } => {
                observation.last_error = Some(error);
                Some(retry_after)
            }
            Outcome::Refused { error } => {
                observation.seen = Seen::Failed;
                observation.incarnation = incarnation;
                observation.detail = Some(error.clone());
                observation.finished_operation = true;
                observation.failures = REFUSED;
                observation.last_error = Some(error);
                None
            }
        };
        self.observe(observation, pause).await
    }

    /// Asks how it is, and whether it answers as it should.
    async fn look(&self, deployment: Deployment, action: Action) -> Result<Option<Deployment>, StoreError> {
        let Some(adapter) = self.context.adapters.get(&deployment.runtime_type) else {
            return self.without_adapter(deployment).await;
        };
        let host = CallHost::new(
            self.context.clone(),
            adapter.clone(),
            &deployment,
            deployment.seen_incarnation,
            None,
        );
        let mut observation = unchanged(&deployment);
        let status = match adapter.adapter.inspect(host.clone()).await {
            Ok(status) => status,
            Err(error) => {
                observation.last_error = Some(error.to_string());
                observation.health = Some((Health::Unknown, Some(error.to_string())));
                return self.observe(observation, Some(Duration::from_secs(1))).await;
            }
        };
        let Some(seen) = status.phase.seen() else {
            return self.observe(observation, Some(outcome::poll_pause(status.poll_after))).await;
        };
        let Status { detail, .. } = status;
        observation.seen = match seen {
            // Only `destroy` ends a deployment: what vanished by itself has failed.
            Seen::Destroyed | Seen::Created => Seen::Failed,
            seen => seen,
        };
        observation.detail = detail.clone();
        observation.last_error = None;
        if matches!(observation.seen, Seen::Failed | Seen::Stopped) {
            observation.failures = observation.failures.saturating_add(1);
            observation.last_error = detail;
        }
        if observation.seen == Seen::Running
            && (action == Action::CheckHealth || deployment.health != Health::Healthy)
        {
            let (health, detail) = self.health(&adapter, &deployment).await;
            if health == Health::Healthy {
                observation.failures = 0;
            }
            observation.health = Some((health, detail));
        }
        self.observe(observation, None).await
    }

    async fn health(
        &self,
        adapter: &Arc<LoadedAdapter>,
        deployment: &Deployment,
    ) -> (Health, Option<String>) {
        if !adapter.adapter.exports().contains(&"health-check") {
            // `running` is all that such an adapter can say.
            return (Health::Healthy, None);
        }
        let host = CallHost::new(
            self.context.clone(),
            adapter.clone(),
            deployment,
            deployment.seen_incarnation,
            None,
        );
        match adapter.adapter.check_health(host).await {
            Ok(AdapterHealth::Healthy) => (Health::Healthy, None),
            Ok(AdapterHealth::Unhealthy(why)) => (Health::Unhealthy, Some(why)),
            Err(error) => (Health::Unknown, Some(error.to_string())),
        }
    }

    async fn without_adapter(&self, deployment: Deployment) -> Result<Option<Deployment>, StoreError> {
        let error = format!(
            "no adapter is configured for the runtime type `{}`: add [adapters.{}] to the host's configuration",
            deployment.runtime_type, deployment.runtime_type
        );
        if deployment.wanted == Wanted::Destroyed && deployment.force_destroy {
            return self.destroy_by_force(deployment, &error).await;
        }
        let mut observation = unchanged(&deployment);
        observation.last_error = Some(error);
        self.observe(observation, Some(NO_ADAPTER_PAUSE)).await
    }

    /// The user said to go on without the runtime's word.
    async fn destroy_by_force(
        &self,
        deployment: Deployment,
        error: &str,
    ) -> Result<Option<Deployment>, StoreError> {
        let store = &self.context.store;
        let mut data = serde_json::Map::new();
        data.insert("error".to_owned(), error.into());
        store
            .event_append(NewEvent {
                name: "deployment.destroy-forced".to_owned(),
                project_id: Some(deployment.project_id),
                deployment_id: Some(deployment.id),
                incarnation: Some(deployment.seen_incarnation),
                data,
                ..NewEvent::default()
            })
            .await?;
        let held = store.machine_of_deployment(deployment.id).await?;
        let mut observation = unchanged(&deployment);
        observation.seen = Seen::Destroyed;
        observation.finished_operation = true;
        observation.detail = Some(format!("destroyed by force: {error}"));
        let next = self.observe(observation, None).await?;
        // Nobody saw the workload end: the machine must not go to another.
        if let Some(machine) = held
            && let Err(error) = store.machine_remove(machine.id).await
        {
            tracing::error!(machine = %machine.id, %error, "a machine on which a workload may be left was not retired");
        }
        Ok(next)
    }

    /// Writes down what was seen. With a pause the deployment is left for that long, else the plan goes on.
    async fn observe(
        &self,
        mut observation: Observation,
        pause: Option<Duration>,
    ) -> Result<Option<Deployment>, StoreError> {
        fail_point!("reconciler.before_record");
        observation.next_action_in = Some(pause.unwrap_or_default());
        let deployment = self.context.store.deployment_observe(&self.guard.lease(), observation).await?;
        fail_point!("reconciler.after_record");
        Ok(pause.is_none().then_some(deployment))
    }
}

/// An observation that changes nothing.
fn unchanged(deployment: &Deployment) -> Observation {
    Observation {
        seen: deployment.seen,
        incarnation: deployment.seen_incarnation,
        generation: deployment.generation,
        detail: deployment.seen_detail.clone(),
        finished_operation: false,
        failures: deployment.failures,
        last_error: deployment.last_error.clone(),
        next_action_in: None,
        health: None,
    }
}

fn snapshot_of(deployment: &Deployment) -> Snapshot {
    Snapshot {
        wanted: deployment.wanted,
        wanted_incarnation: deployment.wanted_incarnation,
        generation: deployment.generation,
        seen: deployment.seen,
        seen_incarnation: deployment.seen_incarnation,
        seen_at_ms: deployment.seen_at.map(unix_ms),
        health: deployment.health,
        health_at_ms: deployment.health_at.map(unix_ms),
        operation: deployment.current_operation.map(|current| planner::CurrentOperation {
            kind: current.kind,
            generation: current.fence.generation,
            incarnation: current.fence.incarnation,
        }),
        failures: u32::try_from(deployment.failures).unwrap_or(0),
        stop_after_ms: deployment.stop_after.map(unix_ms),
        is_refused: deployment.failures == REFUSED,
    }
}

fn unix_ms(time: chrono::DateTime<chrono::Utc>) -> u64 {
    u64::try_from(time.timestamp_millis()).unwrap_or(0)
}
