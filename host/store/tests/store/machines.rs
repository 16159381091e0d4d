//! Registered once, claimed once, seen, removed.

use std::collections::BTreeSet;

use model::{MachineHolder, MachineStatus};
use store::{MachineFilter, NewRegistration, PageRequest, Requirements};
use uuid::Uuid;

use crate::support::{Fixture, MINUTE, new_deployment, new_machine, refused, registration};

fn custom() -> Requirements {
    Requirements { machine_type: Some("custom".to_owned()), ..Requirements::default() }
}

#[tokio::test]
async fn of_200_claims_on_20_machines_20_win() {
    let fixture = Fixture::new().await;
    for certificate in 0..20 {
        fixture.machine(certificate).await;
    }
    let project = fixture.project("shop").await;
    for _ in 0..200 {
        fixture.store.deployment_create(new_deployment(project)).await.unwrap();
    }
    let leased = fixture.store.deployment_lease_due(Uuid::new_v4(), MINUTE, 1000).await.unwrap();
    assert_eq!(leased.len(), 200);
    let claiming = leased.into_iter().map(|leased| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.machine_claim(&leased.lease, &custom()).await })
    });
    let mut won = BTreeSet::new();
    for claim in futures_util::future::join_all(claiming).await {
        match claim.unwrap() {
            Ok(machine) => assert!(won.insert(machine.id), "{} was claimed twice", machine.id),
            Err(error) => assert_eq!(error.code(), "exhausted", "{error:?}"),
        }
    }
    assert_eq!(won.len(), 20);
}

#[tokio::test]
async fn a_claim_again_gives_the_same_machine_and_a_release_frees_it() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = fixture.machine(1).await;
    let deployment = fixture.deployment().await;
    let lease = fixture.lease().await;
    for _ in 0..2 {
        let machine = store.machine_claim(&lease, &custom()).await.unwrap();
        assert_eq!((machine.id, machine.status), (id, MachineStatus::InUse));
        assert_eq!(machine.holder, Some(MachineHolder::Deployment(deployment.id)));
    }
    assert_eq!(store.machine_of_deployment(deployment.id).await.unwrap().unwrap().id, id);
    let text = refused(store.machine_remove(id).await, "machine-in-use");
    assert!(text.contains(&deployment.id.to_string()), "{text}");
    assert_eq!(store.machine_release(&lease).await.unwrap(), Some(id));
    assert_eq!(store.machine_release(&lease).await.unwrap(), None);
    assert_eq!(store.machine_get(id).await.unwrap().status, MachineStatus::Ready);
    assert_eq!(store.machine_of_deployment(deployment.id).await.unwrap(), None);
}

#[tokio::test]
async fn only_a_machine_that_will_do_is_given() {
    let fixture = Fixture::new().await;
    fixture.machine(1).await;
    fixture.deployment().await;
    let lease = fixture.lease().await;
    let claim = async |requirements| fixture.store.machine_claim(&lease, &requirements).await;
    let zone = |zone: &str| [("zone".to_owned(), zone.to_owned())].into();
    for too_much in [
        Requirements { machine_type: Some("hetzner".to_owned()), ..custom() },
        Requirements { min_cpu: Some(3), ..custom() },
        Requirements { min_memory: Some((4 << 30) + 1), ..custom() },
        Requirements { labels: zone("b"), ..custom() },
    ] {
        refused(claim(too_much).await, "exhausted");
    }
    let text = refused(claim(Requirements { min_cpu: Some(3), ..custom() }).await, "exhausted");
    assert!(text.contains("3 CPUs") && text.contains("1 are ready, 0 in use"), "{text}");
    let enough = Requirements { min_cpu: Some(2), min_memory: Some(4 << 30), labels: zone("a"), ..custom() };
    claim(enough).await.unwrap();
}

#[tokio::test]
async fn a_machine_is_what_it_said_when_it_joined() {
    let fixture = Fixture::new().await;
    let token = fixture
        .store
        .registration_create(NewRegistration { name: Some("box".to_owned()), ..registration() })
        .await
        .unwrap();
    assert!(token.starts_with("amt_") && token.len() == 52, "{token}");
    let (id, _) = fixture.store.machine_register(&token, new_machine(1)).await.unwrap();
    let machine = fixture.store.machine_get(id).await.unwrap();
    assert_eq!((machine.name.as_str(), machine.machine_type.as_str()), ("box", "custom"));
    assert_eq!((machine.address.as_deref(), machine.port), (Some("192.0.2.7"), 9911));
    assert_eq!(machine.ipv4, Some([192, 0, 2, 7].into()));
    assert_eq!((machine.cpu_count, machine.memory_bytes), (Some(2), Some(4 << 30)));
    assert_eq!(machine.labels["zone"], "a");
    let moved = fixture.store.machine_update_address(id, "box.example", 1234).await.unwrap();
    assert_eq!((moved.address.as_deref(), moved.ipv4, moved.port), (Some("box.example"), None, 1234));
}

#[tokio::test]
async fn a_token_makes_one_machine_whoever_comes() {
    let fixture = Fixture::new().await;
    let token = fixture.store.registration_create(registration()).await.unwrap();
    let joining = (0..10).map(|certificate| {
        let (store, token) = (fixture.store.clone(), token.clone());
        tokio::spawn(async move { store.machine_register(&token, new_machine(certificate)).await })
    });
    let results = futures_util::future::join_all(joining).await;
    let (won, lost): (Vec<_>, Vec<_>) =
        results.into_iter().map(|result| result.unwrap()).partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 9));
    for result in lost {
        refused(result, "registration-token-used");
    }
    let machines =
        fixture.store.machine_list(MachineFilter::default(), PageRequest::default()).await.unwrap();
    assert_eq!(machines.items.len(), 1);
}

#[tokio::test]
async fn bad_tokens_are_told_apart_and_kept_as_hashes_only() {
    let fixture = Fixture::new().await;
    let register = async |token: &str| fixture.store.machine_register(token, new_machine(1)).await;
    refused(register("amt_123").await, "registration-token-malformed");
    refused(register(&format!("amt_{}", "0".repeat(48))).await, "registration-token-unknown");
    let token = fixture.store.registration_create(registration()).await.unwrap();
    let mut connection = fixture.database.connect().await;
    let rows: Vec<String> = sqlx::query_scalar("SELECT r::text FROM machine_registrations r")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(rows.iter().all(|row| !row.contains(&token[4..])), "{rows:?}");
    sqlx::query("UPDATE machine_registrations SET expires_at = now()")
        .execute(&mut connection)
        .await
        .unwrap();
    let text = refused(register(&token).await, "registration-token-expired");
    assert!(text.contains("make another"), "{text}");
    let bad = NewRegistration { machine_type: "My Box".to_owned(), ..registration() };
    refused(fixture.store.registration_create(bad).await, "invalid-machine-type");
}

#[tokio::test]
async fn a_daemon_that_joins_anew_takes_its_own_place() {
    let fixture = Fixture::new().await;
    let first = fixture.machine(1).await;
    let second = fixture.machine(1).await;
    let status = async |id| fixture.store.machine_get(id).await.unwrap().status;
    assert_eq!((status(first).await, status(second).await), (MachineStatus::Retired, MachineStatus::Ready));
    // Held: its holder keeps it.
    fixture.deployment().await;
    let lease = fixture.lease().await;
    fixture.store.machine_claim(&lease, &custom()).await.unwrap();
    fixture.machine(1).await;
    assert_eq!(status(second).await, MachineStatus::InUse);
}

#[tokio::test]
async fn what_does_not_answer_goes_offline_and_comes_back() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = fixture.machine(1).await;
    let check = async |reachable, expected| {
        assert_eq!(store.machine_seen(id, reachable).await.unwrap().status, expected);
    };
    check(false, MachineStatus::Ready).await;
    check(false, MachineStatus::Ready).await;
    check(true, MachineStatus::Ready).await;
    for expected in [MachineStatus::Ready, MachineStatus::Ready, MachineStatus::Offline] {
        check(false, expected).await;
    }
    fixture.deployment().await;
    let lease = fixture.lease().await;
    refused(store.machine_claim(&lease, &custom()).await, "exhausted");
    check(true, MachineStatus::Ready).await;
    store.machine_claim(&lease, &custom()).await.unwrap();
    for expected in [MachineStatus::InUse, MachineStatus::InUse, MachineStatus::Offline] {
        check(false, expected).await;
    }
    // Offline, and still held.
    assert_eq!(store.machine_claim(&lease, &custom()).await.unwrap().status, MachineStatus::Offline);
    check(true, MachineStatus::InUse).await;
    refused(store.machine_seen(model::MachineId::new(), true).await, "not-found");
}

#[tokio::test]
async fn a_removed_machine_stays_as_a_row_without_a_key() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = fixture.machine(1).await;
    let removed = store.machine_remove(id).await.unwrap();
    assert_eq!((removed.status, removed.retired_at.is_some()), (MachineStatus::Retired, true));
    assert_eq!(store.machine_remove(id).await.unwrap(), removed);
    refused(store.machine_connection(id).await, "not-found");
    let list = async |filter| store.machine_list(filter, PageRequest::default()).await.unwrap().items.len();
    assert_eq!(list(MachineFilter::default()).await, 0);
    assert_eq!(list(MachineFilter { include_retired: true, ..MachineFilter::default() }).await, 1);
    assert_eq!(
        list(MachineFilter { status: Some(MachineStatus::Retired), ..MachineFilter::default() }).await,
        1
    );
}
