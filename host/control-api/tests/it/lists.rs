//! Lists: pages, filters, adapters and hosts.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use model::{Health, Seen};
use serde_json::{Value, json};
use store::{AdapterRow, GrantRow};

use crate::world::World;

/// All items of a list, a page at a time.
async fn all(world: &World, path: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = world.get(&format!("{path}limit={limit}{cursor}")).is(StatusCode::OK).await;
        let read = page["items"].as_array().unwrap();
        assert!(read.len() <= limit);
        items.extend(read.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_give_each_item_once_newest_first() {
    let world = World::new().await;
    let mut made = Vec::new();
    for number in 0..13 {
        made.insert(0, world.project(&format!("shop-{number}")).await);
    }
    for limit in [1, 2, 5, 12, 13, 14, 200] {
        assert_eq!(all(&world, "/v1/projects?", limit).await, made, "{limit}");
    }

    // What is made in the meantime moves nothing.
    let first = world.get("/v1/projects?limit=5").is(StatusCode::OK).await;
    world.project("late").await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = world.get(&format!("/v1/projects?limit=5&cursor={cursor}")).is(StatusCode::OK).await;
    assert_eq!(second["items"].as_array().unwrap(), &made[5..10]);

    world.get("/v1/projects?limit=0").fails("invalid_request").await.names("?limit", "from 1 to 200");
    world.get("/v1/projects?limit=201").fails("invalid_request").await.names("?limit", "201");
    world.get("/v1/projects?limit=many").fails("invalid_request").await.names("?limit", "invalid digit");
    world.get("/v1/projects?page=2").fails("invalid_request").await.says("unknown field `page`");
    world.get("/v1/projects?cursor=AAAA").fails("invalid_cursor").await.says("nextCursor");
    world.get(&format!("/v1/machines?cursor={cursor}")).fails("invalid_cursor").await.says("of this list");
}

#[tokio::test]
async fn deployments_are_filtered_by_project_and_state() {
    let world = World::new().await;
    let mut running = BTreeSet::new();
    for number in 0..7 {
        let id = world.deployment(if number % 2 == 0 { "shop" } else { "blog" }).await;
        if number % 3 == 0 {
            world.observe(id, Seen::Running, 1, Health::Unknown).await;
            running.insert(id.to_string());
        }
    }
    let ids = |items: Vec<Value>| {
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(all(&world, "/v1/deployments?", 3).await.len(), 7);
    assert_eq!(all(&world, "/v1/deployments?project=shop&", 3).await.len(), 4);
    assert_eq!(all(&world, "/v1/projects/blog/deployments?", 2).await.len(), 3);
    for limit in [1, 2, 100] {
        assert_eq!(ids(all(&world, "/v1/deployments?state=running&", limit).await), running);
    }
    world
        .get("/v1/deployments?state=asleep")
        .fails("invalid_request")
        .await
        .names("?state", "unknown variant");
    world.get("/v1/deployments?project=nowhere").fails("not_found").await.says("nowhere");
}

#[tokio::test]
async fn adapters_are_shown_with_their_schema_and_grants() {
    let world = World::new().await;
    let row = |name: &str| AdapterRow {
        name: name.parse().unwrap(),
        component_sha256: "a".repeat(64),
        version: "0.1.0".to_owned(),
        summary: "Runs it.".to_owned(),
        exports: vec!["hythe:deployment/project-deployment@0.1.0".to_owned()],
        spec_schema: json!({"type": "object"}),
        is_default: name == "process",
        grants: vec![GrantRow {
            name: "local".to_owned(),
            target: "agent".to_owned(),
            methods: None,
            paths: None,
        }],
    };
    world.store.adapter_mirror(vec![row("process"), row("machine")]).await.unwrap();
    let listed = all(&world, "/v1/adapters?", 1).await;
    assert_eq!(
        listed.iter().map(|adapter| adapter["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["machine", "process"]
    );
    let shown = world.get("/v1/adapters/machine").is(StatusCode::OK).await;
    assert_eq!(shown, listed[0]);
    assert_eq!(
        (&shown["specSchema"], &shown["grants"][0]["name"]),
        (&json!({"type": "object"}), &json!("local"))
    );
    let by_id = format!("/v1/adapters/{}", shown["id"].as_str().unwrap());
    assert_eq!(world.get(&by_id).is(StatusCode::OK).await, shown);
    world.get("/v1/adapters/docker").fails("not_found").await.says("docker");
}

#[tokio::test]
async fn hosts_lead_to_projects_or_deployments() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let project = world.get("/v1/projects/shop").is(StatusCode::OK).await["id"].clone();
    let host = world
        .put("/v1/hostnames/Shop.Example.COM", json!({"projectId": project, "service": "web"}))
        .is(StatusCode::OK)
        .await;
    assert_eq!(
        (&host["host"], &host["projectId"], &host["service"]),
        (&json!("shop.example.com"), &project, &json!("web"))
    );
    // Not taken away from where it leads.
    world
        .put("/v1/hostnames/shop.example.com", json!({"deploymentId": id.to_string()}))
        .fails("conflict")
        .await
        .says("delete it there first");
    let host = world
        .put("/v1/hostnames/www.example.com", json!({"deploymentId": id.to_string()}))
        .is(StatusCode::OK)
        .await;
    assert_eq!((&host["deploymentId"], host.get("projectId")), (&json!(id.to_string()), None));
    // As older forms have it.
    world
        .put("/v1/hostnames/3000__shop.localhost", json!({"projectId": project, "service": "3000"}))
        .is(StatusCode::OK)
        .await;
    let hosts = all(&world, "/v1/hostnames?", 1).await;
    assert_eq!(
        hosts.iter().map(|host| host["host"].as_str().unwrap()).collect::<Vec<_>>(),
        ["3000__shop.localhost", "shop.example.com", "www.example.com"]
    );

    let put = |host: &str, body: Value| world.put(&format!("/v1/hostnames/{host}"), body);
    put("blog.localhost", json!({"projectId": project})).fails("conflict").await.says("by their slug");
    put("a..b", json!({"projectId": project})).fails("invalid_request").await.says("no host name");
    put("a.example.com", json!({})).fails("validation_failed").await.says("exactly one of");
    put("a.example.com", json!({"projectId": project, "service": "0"}))
        .fails("validation_failed")
        .await
        .names("/service", "nor a port");
    put("a.example.com", json!({"projectId": id.to_string()}))
        .fails("validation_failed")
        .await
        .names("/projectId", "prj_");

    assert_eq!(world.delete("/v1/hostnames/shop.example.com").send().await.status, StatusCode::NO_CONTENT);
    world.delete("/v1/hostnames/shop.example.com").fails("not_found").await.says("shop.example.com");
}

#[tokio::test]
async fn domains_lead_to_one_project_only() {
    let world = World::new().await;
    let id = world.deployment("shop").await;
    let other = world.deployment("other").await;
    let add = |project: &str, body: Value| world.post(&format!("/v1/projects/{project}/domains"), body);
    let made =
        add("shop", json!({"domain": "B\u{fc}cher.Example", "service": "web"})).is(StatusCode::CREATED).await;
    assert_eq!((&made["domain"], &made["service"]), (&json!("xn--bcher-kva.example"), &json!("web")));
    add("shop", json!({"domain": "*.shop.example"})).is(StatusCode::CREATED).await;
    let taken = add("other", json!({"domain": "xn--bcher-kva.example"})).fails("domain_taken").await;
    let told = taken.says("in use already").problem.detail;
    assert!(!told.contains("prj_") && !told.contains("shop"), "it is not told whose it is: {told}");
    // One's own is led elsewhere.
    let moved = add("shop", json!({"domain": "xn--bcher-kva.example", "deploymentId": id.to_string()}))
        .is(StatusCode::CREATED)
        .await;
    assert_eq!((&moved["deploymentId"], moved.get("service")), (&json!(id.to_string()), None));
    add("shop", json!({"domain": "a.example", "deploymentId": other.to_string()})).fails("not_found").await;
    add("nobody", json!({"domain": "a.example"})).fails("not_found").await;
    for (domain, why) in [
        ("shop.localhost", "whose hosts are derived"),
        ("*.localhost.localhost", "whose hosts are derived"),
        ("a_b.example", "only a-z"),
        ("*.*.example", "`*`"),
        ("192.0.2.1", "an address"),
        (&"a.".repeat(150), "characters"),
        (&format!("{}.example", "a".repeat(64)), "each part"),
    ] {
        add("shop", json!({"domain": domain})).fails("validation_failed").await.names("/domain", why);
    }
    add("shop", json!({"domain": "a.example", "service": "0"}))
        .fails("validation_failed")
        .await
        .names("/service", "port");
    let listed = all(&world, "/v1/projects/shop/domains?", 1).await;
    let names: Vec<_> = listed.iter().map(|domain| domain["domain"].as_str().unwrap()).collect();
    assert_eq!(names, ["*.shop.example", "xn--bcher-kva.example"]);
    assert!(all(&world, "/v1/projects/other/domains?", 1).await.is_empty());

    world
        .put("/v1/hostnames/xn--bcher-kva.example", json!({"deploymentId": other.to_string()}))
        .fails("conflict")
        .await;
    world.delete("/v1/projects/other/domains/xn--bcher-kva.example").fails("not_found").await;
    let gone = world.delete("/v1/projects/shop/domains/*.shop.example").send().await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    add("other", json!({"domain": "*.shop.example"})).is(StatusCode::CREATED).await;
    // A host that was given is not shadowed by a project of that name.
    let project = moved["projectId"].clone();
    world
        .store
        .hostname_put(
            "lives.localhost",
            store::HostnameTarget::Project(project.as_str().unwrap().parse().unwrap()),
            None,
        )
        .await
        .unwrap();
    world
        .post("/v1/projects", json!({"slug": "lives"}))
        .fails("conflict")
        .await
        .names("/slug", "leads elsewhere");
}
