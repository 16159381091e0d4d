//! Projects, host names, routes, adapters, sources.

use model::{Seen, Wanted};
use serde_json::json;
use store::{AdapterRow, GrantRow, HostnameTarget, PageRequest};

use crate::support::{Fixture, MINUTE, new_deployment, refused, seen};

#[tokio::test]
async fn a_name_is_taken_once() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let slug = "shop".parse().unwrap();
    let made = store.project_create(&slug).await.unwrap();
    refused(store.project_create(&slug).await, "slug-taken");
    assert_eq!(store.project_by_slug(&slug).await.unwrap(), made);
    assert_eq!(store.project_list(PageRequest::default()).await.unwrap().items, [made]);
    refused(store.project_by_slug(&"other".parse().unwrap()).await, "not-found");
}

#[tokio::test]
async fn a_project_goes_when_its_deployments_have() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = fixture.deployment().await;
    let text = refused(store.project_delete(made.project_id).await, "project-in-use");
    assert!(text.contains("shop has 1 deployments"), "{text}");
    store.project_set_primary(made.project_id, made.id, MINUTE).await.unwrap();
    let gone = store.deployment_want(made.id, Wanted::Destroyed, None).await.unwrap();
    store.deployment_observe(&fixture.lease().await, seen(&gone, Seen::Destroyed)).await.unwrap();
    store.project_delete(made.project_id).await.unwrap();
    refused(store.project_get(made.project_id).await, "not-found");
    refused(store.deployment_get(made.id).await, "not-found");
}

#[tokio::test]
async fn only_a_deployment_of_its_own_becomes_primary() {
    let fixture = Fixture::new().await;
    let other = fixture.project("other").await;
    let made = fixture.deployment().await;
    refused(fixture.store.project_set_primary(other, made.id, MINUTE).await, "other-project");
    refused(fixture.store.project_set_primary(other, model::DeploymentId::new(), MINUTE).await, "not-found");
}

#[tokio::test]
async fn routes_say_all_that_is_not_destroyed() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = fixture.deployment().await;
    let other = store.deployment_create(new_deployment(fixture.project("other").await)).await.unwrap();
    store.project_set_primary(made.project_id, made.id, MINUTE).await.unwrap();
    let routes = store.route_list().await.unwrap();
    assert_eq!(routes.iter().map(|route| route.deployment).collect::<Vec<_>>(), [made.id, other.id]);
    let route = &routes[0];
    assert_eq!((route.slug.as_str(), route.is_primary, &route.services), ("shop", true, &made.services));
    assert_eq!(store.route_list_of_project(other.project_id).await.unwrap(), routes[1..]);
    assert_eq!(store.route_get(made.id).await.unwrap().as_ref(), Some(route));
}

#[tokio::test]
async fn a_host_name_leads_to_one() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let made = fixture.deployment().await;
    let (project, deployment) =
        (HostnameTarget::Project(made.project_id), HostnameTarget::Deployment(made.id));
    store.hostname_put("Shop.Example", project, None).await.unwrap();
    store.hostname_put("shop.example", project, Some("web")).await.unwrap();
    refused(store.hostname_put("shop.example", deployment, None).await, "hostname-taken");
    refused(store.hostname_put(&"a".repeat(254), project, None).await, "invalid-hostname");
    let nowhere = HostnameTarget::Deployment(model::DeploymentId::new());
    refused(store.hostname_put("b.example", nowhere, None).await, "not-found");
    let list = store.hostname_list().await.unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(
        (list[0].host.as_str(), list[0].target, list[0].service.as_deref()),
        ("shop.example", project, Some("web"))
    );
    store.hostname_delete("SHOP.example").await.unwrap();
    refused(store.hostname_delete("shop.example").await, "not-found");
}

fn adapter(name: &str, version: &str) -> AdapterRow {
    AdapterRow {
        name: name.parse().unwrap(),
        component_sha256: "ab".repeat(32),
        version: version.to_owned(),
        summary: "runs things".to_owned(),
        exports: vec!["hythe:deployment/logs@0.1.0".to_owned()],
        spec_schema: json!({"type": "object"}),
        is_default: name == "process",
        grants: vec![GrantRow {
            name: "local".to_owned(),
            target: "http://127.0.0.1:8911".to_owned(),
            methods: Some(vec!["GET".to_owned()]),
            paths: None,
        }],
    }
}

#[tokio::test]
async fn the_mirror_shows_what_is_declared_and_nothing_else() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    store.adapter_mirror(vec![adapter("process", "1"), adapter("machine", "1")]).await.unwrap();
    let before = store.adapter_list().await.unwrap();
    assert_eq!(
        before.iter().map(|a| a.row.clone()).collect::<Vec<_>>(),
        [adapter("machine", "1"), adapter("process", "1")]
    );
    store.adapter_mirror(vec![adapter("process", "1"), adapter("machine", "2")]).await.unwrap();
    let after = store.adapter_list().await.unwrap();
    assert_eq!(after[1], before[1], "what is the same is not touched");
    assert_eq!((after[0].id, after[0].row.version.as_str()), (before[0].id, "2"));
    assert!(after[0].updated_at > before[0].updated_at);
    store.adapter_mirror(vec![adapter("machine", "2")]).await.unwrap();
    refused(store.adapter_get("process").await, "not-found");
    assert_eq!(store.adapter_get("machine").await.unwrap(), after[0]);
}

#[tokio::test]
async fn a_source_is_recorded_once() {
    let fixture = Fixture::new().await;
    let digest = "ab".repeat(32);
    assert_eq!(fixture.store.source_get(&digest).await.unwrap(), None);
    let made = fixture.store.source_record(&digest, 10).await.unwrap();
    assert_eq!(fixture.store.source_record(&digest, 10).await.unwrap(), made);
    assert_eq!(fixture.store.source_get(&digest).await.unwrap(), Some(made));
    refused(fixture.store.source_record("AB", 1).await, "invalid-digest");
}
