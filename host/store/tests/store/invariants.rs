//! Whatever comes in whatever order: no row breaks a CHECK, no two writers wait for each other for ever.

use model::{Health, OperationKind, Seen, Wanted};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use store::{Deployment, Lease, Observation, Store, StoreError};
use uuid::Uuid;

use crate::support::{Fixture, MINUTE, healthy, new_deployment, seen};

#[derive(Debug, Clone)]
enum Step {
    Want(Wanted),
    Destroy {
        force: bool,
    },
    Restart,
    Wake,
    Lease,
    Release,
    Begin {
        kind: OperationKind,
        behind: u64,
        incarnation: u64,
    },
    Try,
    Observe {
        seen: Seen,
        behind: u64,
        incarnation: u64,
        finished: bool,
        failures: i32,
        health: Option<Health>,
    },
    Promote,
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = prop::sample::select(Wanted::ALL);
    let kind = prop::sample::select(
        &[OperationKind::Start, OperationKind::Stop, OperationKind::Restart, OperationKind::Destroy][..],
    );
    let seen = prop::sample::select(Seen::ALL);
    let health = prop::option::of(prop::sample::select(Health::ALL));
    prop_oneof![
        3 => wanted.prop_map(Step::Want),
        1 => any::<bool>().prop_map(|force| Step::Destroy { force }),
        1 => Just(Step::Restart),
        1 => Just(Step::Wake),
        3 => Just(Step::Lease),
        1 => Just(Step::Release),
        2 => (kind, 0..2_u64, 0..4_u64).prop_map(|(kind, behind, incarnation)| Step::Begin { kind, behind, incarnation }),
        1 => Just(Step::Try),
        6 => (seen, 0..2_u64, 0..4_u64, any::<bool>(), 0..3_i32, health).prop_map(
            |(seen, behind, incarnation, finished, failures, health)| {
                Step::Observe { seen, behind, incarnation, finished, failures, health }
            },
        ),
        1 => Just(Step::Promote),
        1 => Just(Step::Expire),
    ]
}

/// Carries out one step on the deployment; what the rules refuse is fine, what the database refuses is not.
async fn take(
    store: &Store,
    now: &Deployment,
    lease: &mut Option<Lease>,
    step: Step,
) -> Result<(), StoreError> {
    match step {
        Step::Want(wanted) => store.deployment_want(now.id, wanted, None).await.map(drop),
        Step::Destroy { force } => store.deployment_destroy(now.id, force, None).await.map(drop),
        Step::Restart => store.deployment_restart(now.id, None).await.map(drop),
        Step::Wake => store.deployment_wake(now.id).await.map(drop),
        Step::Lease => {
            let leased = store.deployment_lease_due(Uuid::new_v4(), MINUTE, 100).await?;
            if let Some(mine) = leased.into_iter().find(|leased| leased.deployment.id == now.id) {
                *lease = Some(mine.lease);
            }
            Ok(())
        }
        Step::Expire => store.deployment_expire_due().await.map(drop),
        Step::Promote => {
            store.project_set_primary(now.project_id, now.id, std::time::Duration::ZERO).await.map(drop)
        }
        held => {
            let Some(lease) = lease else { return Ok(()) };
            match held {
                Step::Release => store.deployment_release(lease).await,
                Step::Try => store.operation_try(lease).await.map(drop),
                Step::Begin { kind, behind, incarnation } => {
                    let generation = now.generation.saturating_sub(behind);
                    store.operation_begin(lease, kind, generation, incarnation).await.map(drop)
                }
                Step::Observe { seen, behind, incarnation, finished, failures, health } => {
                    let observation = Observation {
                        seen,
                        incarnation,
                        generation: now.generation.saturating_sub(behind),
                        detail: None,
                        finished_operation: finished,
                        failures,
                        last_error: None,
                        next_action_in: None,
                        health: health.map(|health| (health, None)),
                    };
                    store.deployment_observe(lease, observation).await.map(drop)
                }
                _ => Ok(()),
            }
        }
    }
}

#[test]
fn no_order_of_wants_and_observations_breaks_a_row() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let project = runtime.block_on(fixture.project("shop"));
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let run = |steps: Vec<Step>| {
        runtime.block_on(async {
            let store = &fixture.store;
            let mut now = store.deployment_create(new_deployment(project)).await.unwrap();
            let mut lease = None;
            for step in steps {
                if let Err(error) = take(store, &now, &mut lease, step.clone()).await {
                    prop_assert!(
                        error.code() != "internal" && !error.is_passing(),
                        "{:?}: {:?}",
                        step,
                        error
                    );
                }
                let next = store.deployment_get(now.id).await.unwrap();
                prop_assert!(next.generation >= now.generation, "{:?}", step);
                prop_assert!(next.wanted_incarnation >= now.wanted_incarnation, "{:?}", step);
                prop_assert!(next.seen_incarnation >= now.seen_incarnation, "{:?}", step);
                prop_assert!(next.operation >= now.operation, "{:?}", step);
                prop_assert!(now.seen.may_become(next.seen), "{:?}: {} to {}", step, now.seen, next.seen);
                prop_assert!(
                    now.wanted != Wanted::Destroyed || next.wanted == Wanted::Destroyed,
                    "{:?}",
                    step
                );
                prop_assert!(now.wanted == next.wanted || next.generation > now.generation, "{:?}", step);
                now = next;
            }
            Ok(())
        })
    };
    runner.run(&prop::collection::vec(step(), 1..25), run).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_project_do_not_deadlock() {
    let fixture = Fixture::new().await;
    let project = fixture.project("shop").await;
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(fixture.store.deployment_create(new_deployment(project)).await.unwrap());
    }
    let leases: Vec<_> = fixture
        .store
        .deployment_lease_due(Uuid::new_v4(), MINUTE, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|leased| (leased.lease, leased.deployment))
        .collect();
    assert_eq!(leases.len(), 4);
    let mut tasks = tokio::task::JoinSet::new();
    for (lease, deployment) in leases {
        let id = deployment.id;
        let store = fixture.store.clone();
        tasks.spawn(async move {
            for _ in 0..25 {
                store.deployment_observe(&lease, healthy(&deployment)).await.unwrap();
                store.deployment_observe(&lease, seen(&deployment, Seen::Failed)).await.unwrap();
            }
        });
        let store = fixture.store.clone();
        tasks.spawn(async move {
            for _ in 0..25 {
                store.project_set_primary(project, id, MINUTE).await.unwrap();
                store.deployment_want(id, Wanted::Running, None).await.unwrap();
                store.deployment_expire_due().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
