//! The OpenAPI document, and the page that shows it.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::world::World;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "head"];

/// Every route, as users know it. One that is added here must be there, and the other way round.
const ROUTES: &str = "
    delete /v1/deployments/{deployment}
    delete /v1/hostnames/{host}
    delete /v1/machines/{machine}
    delete /v1/projects/{project}
    delete /v1/projects/{project}/domains/{domain}
    get /v1/adapters
    get /v1/adapters/{adapter}
    get /v1/deployments
    get /v1/deployments/{deployment}
    get /v1/deployments/{deployment}/events
    get /v1/deployments/{deployment}/executions/{execution}
    get /v1/deployments/{deployment}/health
    get /v1/deployments/{deployment}/logs
    get /v1/deployments/{deployment}/wait
    get /v1/events
    get /v1/health
    get /v1/hostnames
    get /v1/machines
    get /v1/machines/{machine}
    get /v1/metrics
    get /v1/openapi.json
    get /v1/projects
    get /v1/projects/{project}
    get /v1/projects/{project}/deployments
    get /v1/projects/{project}/domains
    head /v1/sources/{sha256}
    post /v1/deployments/{deployment}/exec
    post /v1/deployments/{deployment}/promote
    post /v1/deployments/{deployment}/restart
    post /v1/deployments/{deployment}/start
    post /v1/deployments/{deployment}/stop
    post /v1/machine-registrations
    post /v1/machines/register
    post /v1/projects
    post /v1/projects/{project}/deployments
    post /v1/projects/{project}/domains
    put /v1/hostnames/{host}
    put /v1/sources/{sha256}
";

async fn document(world: &World) -> Value {
    world.get("/v1/openapi.json").header("authorization", "").is(StatusCode::OK).await
}

fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| Some((path.clone(), *method, item.get(*method)?)))
        })
        .collect()
}

#[tokio::test]
async fn it_describes_all_routes_and_no_others() {
    let world = World::new().await;
    let document = document(&world).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let expected: BTreeSet<String> =
        ROUTES.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let described: BTreeSet<String> =
        operations(&document).iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    assert_eq!(described, expected);

    let open = ["/v1/health", "/v1/openapi.json", "/v1/machines/register"];
    for (path, method, operation) in operations(&document) {
        let concrete = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = world.request(method.clone(), &concrete).header("authorization", "").send().await;
        let is_open = open.contains(&path.as_str());
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, !is_open, "{method} {path}: {}", answer.status);
        assert_eq!(
            operation["security"] == serde_json::json!([{}]),
            is_open,
            "{method} {path}: {}",
            operation["security"]
        );
    }
}

#[tokio::test]
async fn it_is_whole() {
    let world = World::new().await;
    let document = document(&world).await;
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.contains_key("default") && responses.keys().any(|status| status.starts_with('2')),
            "{method} {path}"
        );
        // Each part of the path is described, and nothing else is called one.
        let in_path: BTreeSet<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let empty = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&empty);
        let described: BTreeSet<_> =
            parameters.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(described, in_path, "{method} {path}");
        for parameter in parameters {
            assert!(parameter["schema"].is_object(), "{method} {path} {}", parameter["name"]);
        }
    }
    check_references(&document, &document);
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| check_references(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let world = World::new().await;
    let get = async |path: &str| world.get(path).header("authorization", "").send().await;
    assert_eq!(get("/v1/docs").await.status, StatusCode::SEE_OTHER);
    let page = get("/v1/docs/").await;
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let text = String::from_utf8(page.body).unwrap();
    let attributes = ["src=\"", "href=\""];
    let links: Vec<_> = attributes
        .iter()
        .flat_map(|attribute| text.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(links.len() >= 3, "{text}");
    for link in links {
        assert!(!link.contains("//"), "{link} is elsewhere");
        let answer = get(&format!("/v1/docs/{}", link.trim_start_matches("./"))).await;
        assert_eq!((answer.status, answer.body.is_empty()), (StatusCode::OK, false), "{link}");
    }
    let start = String::from_utf8(get("/v1/docs/swagger-initializer.js").await.body).unwrap();
    assert!(start.contains("/v1/openapi.json"), "{start}");
}
