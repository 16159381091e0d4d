//! Wanted, leased, observed, promoted.

use std::time::Duration;

use model::{Health, OperationKind, Seen, WakePolicy, Wanted};
use store::{DeploymentFilter, NewDeployment, Observation, PageRequest};
use uuid::Uuid;

use crate::support::{Fixture, MINUTE, healthy, new_deployment, refused, seen, service};

#[tokio::test]
async fn a_deployment_comes_back_as_it_was_made() {
    let fixture = Fixture::new().await;
    let project = fixture.project("shop").await;
    let digest = "ab".repeat(32);
    fixture.store.source_record(&digest, 10).await.unwrap();
    let new = NewDeployment {
        services: vec![service("web", 3000), service("api", 4000)],
        source_sha256: Some(digest),
        ..new_deployment(project)
    };
    let made = fixture.store.deployment_create(new.clone()).await.unwrap();
    assert_eq!(made.services, new.services);
    assert_eq!((made.spec.clone(), made.source_sha256.clone()), (new.spec, new.source_sha256));
    assert_eq!((made.wanted, made.wanted_incarnation, made.generation), (Wanted::Running, 1, 1));
    assert_eq!((made.seen, made.seen_incarnation, made.is_primary), (Seen::Created, 0, false));
    assert_eq!(made.slug.as_str(), "shop");
    assert_eq!(fixture.store.deployment_get(made.id).await.unwrap(), made);
    assert_eq!(fixture.events(&made).await, ["deployment.created"]);
}

#[tokio::test]
async fn what_can_not_be_made_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new().await;
    let project = fixture.project("shop").await;
    let create = async |new| fixture.store.deployment_create(new).await;
    let new = new_deployment(project);
    refused(create(new_deployment(model::ProjectId::new())).await, "not-found");
    refused(
        create(NewDeployment { source_sha256: Some("ab".repeat(32)), ..new.clone() }).await,
        "source-missing",
    );
    refused(create(NewDeployment { wanted: Wanted::Destroyed, ..new.clone() }).await, "invalid-wanted");
    let services = vec![service("web", 3000), service("api", 3000)];
    let text = refused(create(NewDeployment { services, ..new.clone() }).await, "duplicate-service");
    assert!(text.contains("api on port 3000"), "{text}");
    refused(create(NewDeployment { services: vec![service("web", 0)], ..new }).await, "invalid-service");
    let filter = DeploymentFilter { include_destroyed: true, ..DeploymentFilter::default() };
    assert!(fixture.store.deployment_list(filter, PageRequest::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn pages_give_each_deployment_once_newest_first() {
    let fixture = Fixture::new().await;
    let project = fixture.project("shop").await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(fixture.store.deployment_create(new_deployment(project)).await.unwrap().id);
    }
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let request = PageRequest { after, limit: 2 };
        let page = fixture.store.deployment_list(DeploymentFilter::default(), request).await.unwrap();
        got.extend(page.items.iter().map(|deployment| deployment.id));
        match page.next {
            // As a client does: as text.
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => break,
        }
    }
    made.reverse();
    assert_eq!(got, made);
}

#[tokio::test]
async fn wanting_counts_generations_and_starts() {
    let fixture = Fixture::new().await;
    let made = fixture.deployment().await;
    let want = async |wanted, generation| fixture.store.deployment_want(made.id, wanted, generation).await;
    assert_eq!(want(Wanted::Running, None).await.unwrap(), made);
    let stopped = want(Wanted::Stopped, Some(1)).await.unwrap();
    assert_eq!((stopped.generation, stopped.wanted_incarnation), (2, 1));
    let text = refused(want(Wanted::Running, Some(1)).await, "generation-mismatch");
    assert!(text.contains("generation 2, not 1"), "{text}");
    let restarted = fixture.store.deployment_restart(made.id, None).await.unwrap();
    assert_eq!((restarted.generation, restarted.wanted_incarnation), (3, 2));
    assert_eq!(restarted.wanted, Wanted::Running);
    let gone = fixture.store.deployment_destroy(made.id, false, None).await.unwrap();
    assert_eq!((gone.wanted, gone.generation, gone.force_destroy), (Wanted::Destroyed, 4, false));
    assert!(!gone.promote_when_healthy);
    refused(want(Wanted::Running, None).await, "destroyed");
    let forced = fixture.store.deployment_destroy(made.id, true, None).await.unwrap();
    assert_eq!((forced.generation, forced.force_destroy), (5, true));
    assert_eq!(fixture.store.deployment_destroy(made.id, false, None).await.unwrap(), forced);
    assert_eq!(
        fixture.events(&made).await,
        [
            "deployment.created",
            "deployment.stop-requested",
            "deployment.restart-requested",
            "deployment.destroy-requested",
            "deployment.destroy-requested"
        ]
    );
}

#[tokio::test]
async fn many_requests_wake_once() {
    let fixture = Fixture::new().await;
    let made = fixture.deployment().await;
    let lease = fixture.lease().await;
    fixture.store.deployment_observe(&lease, seen(&made, Seen::Running)).await.unwrap();
    let stopped = fixture.store.deployment_want(made.id, Wanted::Stopped, None).await.unwrap();
    fixture.store.deployment_observe(&lease, seen(&stopped, Seen::Stopped)).await.unwrap();
    let waking = (0..40).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.deployment_wake(made.id).await.unwrap() })
    });
    for woken in futures_util::future::join_all(waking).await {
        let woken = woken.unwrap();
        assert_eq!((woken.generation, woken.wanted_incarnation), (3, 2));
    }
}

#[tokio::test]
async fn what_may_not_be_woken_is_not() {
    let fixture = Fixture::new().await;
    let project = fixture.project("shop").await;
    let new =
        NewDeployment { wake_policy: WakePolicy::None, wanted: Wanted::Stopped, ..new_deployment(project) };
    let made = fixture.store.deployment_create(new).await.unwrap();
    refused(fixture.store.deployment_wake(made.id).await, "not-wakeable");
}

#[tokio::test]
async fn leases_are_given_to_one_holder_each() {
    let fixture = Fixture::new().await;
    let project = fixture.project("shop").await;
    for _ in 0..20 {
        fixture.store.deployment_create(new_deployment(project)).await.unwrap();
    }
    let taking = (0..8).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.deployment_lease_due(Uuid::new_v4(), MINUTE, 5).await.unwrap() })
    });
    let mut taken: Vec<_> = futures_util::future::join_all(taking)
        .await
        .into_iter()
        .flat_map(|leased| leased.unwrap())
        .map(|leased| leased.deployment.id)
        .collect();
    // What was locked by another just then was passed over; it is still there to take.
    taken.extend(
        fixture
            .store
            .deployment_lease_due(Uuid::new_v4(), MINUTE, 20)
            .await
            .unwrap()
            .iter()
            .map(|l| l.deployment.id),
    );
    let count = taken.len();
    taken.sort();
    taken.dedup();
    assert_eq!((count, taken.len()), (20, 20));
}

#[tokio::test]
async fn a_late_holder_writes_nothing() {
    let fixture = Fixture::new().await;
    let made = fixture.deployment().await;
    let late = fixture.lease().await;
    let fence = fixture.store.operation_begin(&late, OperationKind::Start, 1, 1).await.unwrap();
    fixture.pass("lease_until").await;
    let mut leased = fixture.store.deployment_lease_due(Uuid::new_v4(), MINUTE, 1).await.unwrap();
    let next = leased.pop().unwrap();
    assert_eq!(next.lease.epoch, late.epoch + 1);
    // The operation of the one before is found, under its fence.
    let operation = next.operation.unwrap();
    assert_eq!((operation.fence, operation.kind, operation.tries), (fence, OperationKind::Start, 1));

    let store = &fixture.store;
    let before = store.deployment_get(made.id).await.unwrap();
    refused(store.deployment_observe(&late, seen(&made, Seen::Running)).await, "lease-lost");
    refused(store.operation_begin(&late, OperationKind::Stop, 1, 1).await, "lease-lost");
    refused(store.operation_try(&late).await, "lease-lost");
    refused(store.deployment_set_locator(&late, Some("late")).await, "lease-lost");
    refused(store.deployment_lease_renew(&late, MINUTE).await, "lease-lost");
    refused(store.deployment_release(&late).await, "lease-lost");
    refused(store.machine_claim(&late, &store::Requirements::default()).await, "lease-lost");
    refused(store.machine_release(&late).await, "lease-lost");
    assert_eq!(store.deployment_get(made.id).await.unwrap(), before);
    assert_eq!(store.operation_try(&next.lease).await.unwrap(), 2);
}

#[tokio::test]
async fn a_lease_that_ran_out_untaken_is_renewed_and_one_given_back_is_free() {
    let fixture = Fixture::new().await;
    fixture.deployment().await;
    let lease = fixture.lease().await;
    assert!(fixture.store.deployment_lease_due(Uuid::new_v4(), MINUTE, 1).await.unwrap().is_empty());
    fixture.pass("lease_until").await;
    let renewed = fixture.store.deployment_lease_renew(&lease, MINUTE).await.unwrap();
    assert!(renewed.until > lease.until);
    fixture.store.deployment_release(&renewed).await.unwrap();
    let again = fixture.lease().await;
    assert_eq!(again.epoch, lease.epoch + 1);
    assert_eq!(fixture.store.deployment_release_all(again.holder).await.unwrap(), 1);
    fixture.lease().await;
}

#[tokio::test]
async fn an_operation_for_what_is_wanted_no_more_does_not_begin() {
    let fixture = Fixture::new().await;
    let made = fixture.deployment().await;
    let lease = fixture.lease().await;
    let store = &fixture.store;
    refused(store.operation_try(&lease).await, "no-operation");
    refused(store.operation_begin(&lease, OperationKind::Start, 1, 2).await, "superseded");
    let first = store.operation_begin(&lease, OperationKind::Start, 1, 1).await.unwrap();
    store.deployment_want(made.id, Wanted::Stopped, None).await.unwrap();
    refused(store.operation_begin(&lease, OperationKind::Start, 1, 1).await, "superseded");
    let second = store.operation_begin(&lease, OperationKind::Stop, 2, 1).await.unwrap();
    assert_eq!((first.operation, second.operation), (1, 2));
}

#[tokio::test]
async fn what_was_seen_is_written_with_its_events() {
    let fixture = Fixture::new().await;
    let made = fixture.deployment().await;
    let lease = fixture.lease().await;
    let observe = async |observation| fixture.store.deployment_observe(&lease, observation).await.unwrap();
    fixture.store.operation_begin(&lease, OperationKind::Start, 1, 1).await.unwrap();
    fixture.store.deployment_set_locator(&lease, Some("here")).await.unwrap();
    observe(seen(&made, Seen::Starting)).await;
    observe(Observation { detail: Some("still".to_owned()), ..seen(&made, Seen::Starting) }).await;
    let running = observe(Observation { finished_operation: true, ..healthy(&made) }).await;
    assert_eq!((running.seen, running.seen_incarnation, running.seen_generation), (Seen::Running, 1, 1));
    assert_eq!((running.health, running.current_operation), (Health::Healthy, None));
    assert_eq!((running.operation, running.locator.as_deref()), (1, Some("here")));
    let unhealthy = Observation {
        health: Some((Health::Unhealthy, Some("500".to_owned()))),
        ..seen(&made, Seen::Running)
    };
    assert_eq!(observe(unhealthy).await.health_detail.as_deref(), Some("500"));
    let failed = observe(Observation {
        failures: 1,
        last_error: Some("exit 1".to_owned()),
        ..seen(&made, Seen::Failed)
    })
    .await;
    assert_eq!((failed.health, failed.health_detail), (Health::Unknown, None));
    assert_eq!((failed.failures, failed.last_error.as_deref()), (1, Some("exit 1")));
    assert_eq!(
        fixture.events(&made).await,
        [
            "deployment.created",
            "deployment.starting",
            "deployment.running",
            "deployment.healthy",
            "project.primary-changed",
            "deployment.unhealthy",
            "deployment.failed"
        ]
    );
}

#[tokio::test]
async fn it_is_due_when_the_observer_says_or_at_once_where_wants_changed() {
    let fixture = Fixture::new().await;
    let made = fixture.deployment().await;
    let store = &fixture.store;
    let lease = fixture.lease().await;
    store.deployment_observe(&lease, seen(&made, Seen::Running)).await.unwrap();
    assert_eq!(store.deployment_next_due().await.unwrap(), None);
    let soon = Observation { next_action_in: Some(Duration::from_secs(1000)), ..seen(&made, Seen::Running) };
    let later = store.deployment_observe(&lease, soon.clone()).await.unwrap();
    assert_eq!(store.deployment_next_due().await.unwrap(), Some(later.next_action_at));
    let wait = later.next_action_at - later.seen_at.unwrap();
    assert_eq!(wait.num_seconds(), 1000);

    store.deployment_want(made.id, Wanted::Stopped, None).await.unwrap();
    let now = store.deployment_observe(&lease, soon).await.unwrap();
    assert_eq!(now.next_action_at, now.seen_at.unwrap());
    assert_eq!((now.generation, now.seen_generation), (2, 1));
    // In somebody's hands until then.
    assert!(store.deployment_next_due().await.unwrap() > Some(now.next_action_at));
    store.deployment_release(&lease).await.unwrap();
    assert_eq!(fixture.lease().await.deployment, made.id);
}

#[tokio::test]
async fn healthy_becomes_primary_and_the_old_one_drains_and_goes() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let old = fixture.deployment().await;
    store.deployment_observe(&fixture.lease().await, healthy(&old)).await.unwrap();
    let old = store.deployment_get(old.id).await.unwrap();
    assert!(old.is_primary && !old.promote_when_healthy);

    let new = store.deployment_create(new_deployment(old.project_id)).await.unwrap();
    let lease = fixture.lease().await;
    let running = store.deployment_observe(&lease, seen(&new, Seen::Running)).await.unwrap();
    assert!(!running.is_primary, "running is not healthy");
    let promoted = store.deployment_observe(&lease, healthy(&new)).await.unwrap();
    assert!(promoted.is_primary && !promoted.promote_when_healthy);
    let draining = store.deployment_get(old.id).await.unwrap();
    assert!(!draining.is_primary && draining.expires_at.is_some());
    assert_eq!(draining.wanted, Wanted::Running);

    assert!(store.deployment_expire_due().await.unwrap().is_empty());
    assert!(store.deployment_next_due().await.unwrap() <= draining.expires_at);
    fixture.pass("expires_at").await;
    assert_eq!(store.deployment_expire_due().await.unwrap(), [old.id]);
    assert_eq!(store.deployment_get(old.id).await.unwrap().wanted, Wanted::Destroyed);
    assert!(store.deployment_expire_due().await.unwrap().is_empty());
}

#[tokio::test]
async fn rolling_back_takes_the_old_one_off_its_way_out() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let old = fixture.deployment().await;
    store.deployment_observe(&fixture.lease().await, healthy(&old)).await.unwrap();
    let new = store.deployment_create(new_deployment(old.project_id)).await.unwrap();
    store.deployment_observe(&fixture.lease().await, healthy(&new)).await.unwrap();
    let project = store.project_set_primary(old.project_id, old.id, MINUTE).await.unwrap();
    assert_eq!(project.primary_deployment_id, Some(old.id));
    fixture.pass("expires_at").await;
    assert_eq!(store.deployment_expire_due().await.unwrap(), [new.id]);
    refused(store.project_set_primary(old.project_id, new.id, MINUTE).await, "destroyed");
}

#[tokio::test]
async fn a_slow_old_deployment_does_not_push_a_newer_primary_aside() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let slow = fixture.deployment().await;
    let slow_lease = fixture.lease().await;
    let quick = store.deployment_create(new_deployment(slow.project_id)).await.unwrap();
    store.deployment_observe(&fixture.lease().await, healthy(&quick)).await.unwrap();
    let late = store.deployment_observe(&slow_lease, healthy(&slow)).await.unwrap();
    assert!(!late.is_primary && !late.promote_when_healthy && late.expires_at.is_some());
    assert!(store.deployment_get(quick.id).await.unwrap().is_primary);
    assert_eq!(fixture.events(&slow).await.last().unwrap(), "deployment.overtaken");
}

#[tokio::test]
async fn what_is_destroyed_holds_nothing_and_stays_so() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    fixture.machine(1).await;
    let made = fixture.deployment().await;
    let lease = fixture.lease().await;
    let requirements = store::Requirements { machine_type: Some("custom".to_owned()), ..Default::default() };
    let machine = store.machine_claim(&lease, &requirements).await.unwrap();
    store.deployment_observe(&lease, healthy(&made)).await.unwrap();
    refused(store.deployment_observe(&lease, seen(&made, Seen::Destroyed)).await, "invalid-transition");

    let wanted = store.deployment_want(made.id, Wanted::Destroyed, None).await.unwrap();
    store.operation_begin(&lease, OperationKind::Destroy, wanted.generation, 1).await.unwrap();
    let gone = store.deployment_observe(&lease, seen(&wanted, Seen::Destroyed)).await.unwrap();
    assert!(gone.destroyed_at.is_some() && gone.current_operation.is_none() && !gone.is_primary);
    assert_eq!(store.project_get(made.project_id).await.unwrap().primary_deployment_id, None);
    let machine = store.machine_get(machine.id).await.unwrap();
    assert_eq!((machine.status, machine.holder), (model::MachineStatus::Ready, None));
    refused(store.deployment_observe(&lease, seen(&wanted, Seen::Stopped)).await, "invalid-transition");
    // Again is success.
    assert_eq!(
        store.deployment_observe(&lease, seen(&wanted, Seen::Destroyed)).await.unwrap().destroyed_at,
        gone.destroyed_at
    );
    store.deployment_release(&lease).await.unwrap();
    assert!(store.deployment_lease_due(Uuid::new_v4(), MINUTE, 1).await.unwrap().is_empty());
    assert_eq!(store.route_get(made.id).await.unwrap(), None);
}
