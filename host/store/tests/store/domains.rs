//! Domains, hosts of old, machines of old.

use model::{DeploymentId, Domain, MachineId, ProjectId};
use store::{Change, Channel, HostnameTarget, OldMachine};
use test_kit::database::TestDatabase;

use crate::support::{Fixture, connect, refused};

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_domain_belongs_to_one_project() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = fixture.deployment().await;
    let other = fixture.project("other").await;
    let (exact, wild) = (domain("shop.example.com"), domain("*.shop.example.com"));
    let added = store.domain_add(made.project_id, &exact, None, Some("web")).await.unwrap();
    assert_eq!((&added.domain, added.deployment, added.service.as_deref()), (&exact, None, Some("web")));
    store.domain_add(made.project_id, &wild, None, None).await.unwrap();
    let text = refused(store.domain_add(other, &exact, None, None).await, "domain-taken");
    assert!(!text.contains("prj_") && !text.contains("shop\""), "{text}");
    // One's own may lead elsewhere, but to no other project's deployment.
    let moved = store.domain_add(made.project_id, &exact, Some(made.id), None).await.unwrap();
    assert_eq!((moved.deployment, moved.service, moved.created_at), (Some(made.id), None, added.created_at));
    refused(store.domain_add(other, &domain("a.example"), Some(made.id), None).await, "not-found");
    refused(store.domain_add(made.project_id, &exact, Some(DeploymentId::new()), None).await, "not-found");
    refused(store.domain_add(ProjectId::new(), &domain("a.example"), None, None).await, "not-found");
    let names: Vec<_> =
        store.domain_list(made.project_id).await.unwrap().into_iter().map(|row| row.domain).collect();
    assert_eq!(names, [wild.clone(), exact.clone()]);
    assert!(store.domain_list(other).await.unwrap().is_empty());

    // One name, one table.
    let project = HostnameTarget::Project(other);
    refused(store.hostname_put("shop.example.com", project, None).await, "hostname-taken");
    store.hostname_put("old.example.com", project, None).await.unwrap();
    refused(store.domain_add(made.project_id, &domain("old.example.com"), None, None).await, "domain-taken");

    let route = store.host_route_get("shop.example.com").await.unwrap().unwrap();
    assert_eq!(route.target, HostnameTarget::Deployment(made.id));
    assert_eq!(store.host_route_list().await.unwrap().len(), 3);

    refused(store.domain_remove(other, &exact).await, "not-found");
    store.domain_remove(made.project_id, &exact).await.unwrap();
    refused(store.domain_remove(made.project_id, &exact).await, "not-found");
    store.domain_add(other, &exact, None, None).await.unwrap();
    store.project_delete(other).await.unwrap();
    assert_eq!(store.host_route_get("shop.example.com").await.unwrap(), None);
    let all = store.events_after(0, store::EventFilter::default(), 1000).await.unwrap();
    let count = |name: &str| all.iter().filter(|event| event.name == name).count();
    assert_eq!((count("domain.added"), count("domain.removed")), (4, 1));
}

#[tokio::test]
async fn many_projects_that_want_one_domain_get_it_once() {
    let fixture = Fixture::new().await;
    let mut wanting = Vec::new();
    for number in 0..8 {
        let project = fixture.project(&format!("shop-{number}")).await;
        let store = fixture.store.clone();
        wanting.push(tokio::spawn(async move {
            store.domain_add(project, &domain("shop.example"), None, None).await.is_ok()
        }));
    }
    let mut got = 0;
    for one in wanting {
        got += usize::from(one.await.unwrap());
    }
    assert_eq!(got, 1);
}

#[tokio::test]
async fn machines_and_hosts_of_old_lead_on_or_are_gone() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = fixture.deployment().await;
    let machine = MachineId::new();
    assert_eq!(store.old_machine_get(machine).await.unwrap(), None);
    let known = OldMachine { machine, deployment: Some(made.id) };
    store.old_machine_put(known).await.unwrap();
    assert_eq!(store.old_machine_get(machine).await.unwrap(), Some(known));
    let nowhere = OldMachine { machine, deployment: Some(DeploymentId::new()) };
    refused(store.old_machine_put(nowhere).await, "not-found");
    let gone = OldMachine { machine, deployment: None };
    store.old_machine_put(gone).await.unwrap();
    assert_eq!(store.old_machine_list().await.unwrap(), [gone]);
    store.old_machine_delete(machine).await.unwrap();
    assert_eq!(store.old_machine_get(machine).await.unwrap(), None);

    store.hostname_put("9lives.localhost", HostnameTarget::Gone, None).await.unwrap();
    let route = store.host_route_get("9lives.localhost").await.unwrap().unwrap();
    assert_eq!(route.target, HostnameTarget::Gone);
}

#[tokio::test]
async fn every_change_of_a_host_is_heard_by_its_name() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let project = fixture.project("shop").await;
    let mut changes = store.listen(&[Channel::Hostnames, Channel::OldMachines]).await.unwrap();
    assert_eq!(changes.next().await, Change::Resync);
    let wild = domain("*.shop.example");
    store.domain_add(project, &wild, None, None).await.unwrap();
    assert_eq!(changes.next().await, Change::Hostnames("*.shop.example".into()));
    store.domain_remove(project, &wild).await.unwrap();
    assert_eq!(changes.next().await, Change::Hostnames("*.shop.example".into()));
    store.hostname_put("a.example", HostnameTarget::Project(project), None).await.unwrap();
    assert_eq!(changes.next().await, Change::Hostnames("a.example".into()));
    let machine = MachineId::new();
    store.old_machine_put(OldMachine { machine, deployment: None }).await.unwrap();
    assert_eq!(changes.next().await, Change::OldMachines(machine));
    // With its project goes what led to it.
    store.domain_add(project, &wild, None, None).await.unwrap();
    assert_eq!(changes.next().await, Change::Hostnames("*.shop.example".into()));
    store.project_delete(project).await.unwrap();
    let mut gone = [changes.next().await, changes.next().await];
    gone.sort_by_key(|change| format!("{change:?}"));
    assert_eq!(gone, [Change::Hostnames("*.shop.example".into()), Change::Hostnames("a.example".into())]);
}

#[tokio::test]
async fn wake_policies_of_before_have_their_new_words() {
    let database = TestDatabase::create_without_schema().await;
    database.execute(include_str!("../../../../migrations/0001_core.sql")).await;
    database
        .execute(
            "INSERT INTO projects (id, slug) VALUES ('018f0000-0000-7000-8000-000000000001', 'shop');
             INSERT INTO deployments (id, project_id, runtime_type, spec, wake_policy) VALUES
                ('018f0000-0000-7000-8000-000000000002', '018f0000-0000-7000-8000-000000000001', 'process', '{}', 'never'),
                ('018f0000-0000-7000-8000-000000000003', '018f0000-0000-7000-8000-000000000001', 'process', '{}', 'on-request');
             INSERT INTO hostnames (host, project_id) VALUES ('a.example', '018f0000-0000-7000-8000-000000000001')",
        )
        .await;
    database.execute(include_str!("../../../../migrations/0002_domains_and_idle.sql")).await;
    let store = connect(&database).await;
    let policies: Vec<_> =
        store.route_list().await.unwrap().into_iter().map(|route| route.wake_policy).collect();
    assert_eq!(policies, [model::WakePolicy::None, model::WakePolicy::Dynamic]);
    assert_eq!(store.host_route_list().await.unwrap().len(), 1);
}
