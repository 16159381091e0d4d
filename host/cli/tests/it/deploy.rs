//! `deploy`, from a folder to an address.

use axum::http::Method;
use axum::response::Response;
use serde_json::Value;

use crate::fake::{Asked, Fake, cut, folder, json, nothing, problem, text};
use crate::shapes::{DEPLOYMENT, adapter, deployment, log, page, project, wait, with};

/// A host on which everything goes well, but for what `first` answers.
async fn host(
    adapters: &[&str],
    first: impl Fn(&Asked, usize) -> Option<Response> + Send + Sync + 'static,
) -> Fake {
    let adapters: Vec<Value> = adapters.iter().map(|name| adapter(name)).collect();
    Fake::start(move |asked, earlier| {
        if let Some(answer) = first(asked, earlier) {
            return answer;
        }
        let path = asked.path.split('?').next().unwrap();
        match (asked.method.as_str(), path) {
            ("GET", "/v1/adapters") => json(200, &page(&adapters)),
            ("GET", "/v1/projects/shop") => json(200, &project()),
            ("HEAD", source) if source.starts_with("/v1/sources/") => nothing(),
            ("PUT", source) if source.starts_with("/v1/sources/") => json(201, &Value::Null),
            ("POST", "/v1/projects/shop/deployments") => json(201, &deployment("created", "unknown", false)),
            ("GET", wait_) if wait_.ends_with("/wait") => match earlier {
                0 => json(
                    200,
                    &wait("timedOut", &with(deployment("starting", "unknown", false), "detail", "npm ci")),
                ),
                _ => json(200, &wait("reached", &deployment("running", "healthy", false))),
            },
            ("GET", path) if path == format!("/v1/deployments/{DEPLOYMENT}") => {
                json(200, &deployment("running", "healthy", earlier > 0))
            }
            _ => nothing(),
        }
    })
    .await
}

fn asked<'a>(all: &'a [Asked], method: &Method, prefix: &str) -> Vec<&'a Asked> {
    all.iter().filter(|asked| asked.is(method, prefix)).collect()
}

#[tokio::test]
async fn a_folder_becomes_a_deployment_with_an_address() {
    let (_keep, shop) = folder(&[("index.html", "<h1>")]);
    let fake = host(&["steps"], |_, _| None).await;
    let ran = fake.run_in(&shop, &["deploy"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.out,
        "http://shop.localhost:8080/\nhttp://dep-01h455vb4pex5vsknk084sn02q.localhost:8080/\n"
    );
    // How well it is compressed is zstd's own affair.
    let said = ran.err.lines().map(|line| if line.starts_with("packed ") { "packed …" } else { line });
    insta::assert_snapshot!("deploy_says", said.collect::<Vec<_>>().join("\n"));

    let all = fake.asked();
    let put = asked(&all, &Method::PUT, "/v1/sources/")[0];
    let digest = put.path.rsplit('/').next().unwrap().to_owned();
    assert_eq!(put.headers["content-length"].to_str().unwrap(), put.body.len().to_string());
    assert_eq!(digest.len(), 64);
    let created = asked(&all, &Method::POST, "/v1/projects/shop/deployments")[0];
    let mut sent = created.json();
    assert_eq!(sent["sourceSha256"].take(), digest.as_str());
    insta::assert_json_snapshot!("deploy_sends", sent);
    let waits: Vec<_> = asked(&all, &Method::GET, &format!("/v1/deployments/{DEPLOYMENT}/wait"));
    assert!(
        waits.iter().all(|wait| wait.path.contains("incarnation=1") && wait.path.contains("state=healthy"))
    );
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let (_keep, shop) = folder(&[("index.html", "<h1>")]);
    let fake = host(&["steps"], |asked, earlier| {
        let is_create = asked.is(&Method::POST, "/v1/projects/shop/deployments");
        match (is_create, asked.is(&Method::PUT, "/v1/sources/"), earlier) {
            // The deployment was made; nobody hears of it.
            (true, _, 0) => Some(cut("{\"id\":")),
            (true, _, 1) => Some(problem("idempotency_in_progress", "the first one has not ended")),
            (_, true, 0) => Some(problem("unavailable", "not now")),
            _ => None,
        }
    })
    .await;
    let ran = fake.run_in(&shop, &["--json", "deploy", "--no-wait"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["id"], DEPLOYMENT);
    assert_eq!(document["url"], "http://dep-01h455vb4pex5vsknk084sn02q.localhost:8080/");
    let all = fake.asked();
    let keys: Vec<_> = asked(&all, &Method::POST, "/v1/projects/shop/deployments")
        .iter()
        .map(|asked| asked.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0] && !key.is_empty()));
    let puts = asked(&all, &Method::PUT, "/v1/sources/");
    assert_eq!(puts.len(), 2);
    assert_eq!(puts[0].body, puts[1].body);
}

#[tokio::test]
async fn a_failed_deployment_shows_why() {
    let (_keep, shop) = folder(&[("hythe.toml", "command = ['./serve']"), ("serve", "")]);
    let fake = host(&["steps"], |asked, _| {
        if asked.path.contains("/wait?") {
            let failed = with(deployment("failed", "unknown", false), "detail", "./serve: permission denied");
            return Some(json(200, &wait("failed", &failed)));
        }
        asked.path.contains("/logs?").then(|| text(log(1, "boom")))
    })
    .await;
    let ran = fake.run_in(&shop, &["deploy"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (7, ""), "{ran:?}");
    assert!(ran.err.contains("  | boom\n"), "{ran:?}");
    assert!(
        ran.err.contains(&format!("error: the deployment {DEPLOYMENT} failed: ./serve: permission denied"))
    );
}

#[tokio::test]
async fn one_that_is_not_healthy_in_time_is_left_as_it_is() {
    let (_keep, shop) = folder(&[("index.html", "")]);
    let fake = host(&["steps"], |_, _| None).await;
    let ran = fake.run_in(&shop, &["deploy", "--timeout", "0"]).await;
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains("is not healthy after 0 s: starting: npm ci"), "{ran:?}");
    assert!(fake.asked().iter().all(|asked| asked.method != Method::DELETE));
}

#[tokio::test]
async fn a_new_project_is_made_and_a_known_source_is_not_sent() {
    let (_keep, shop) = folder(&[("index.html", "")]);
    let fake = host(&["steps"], |asked, _| match asked.method {
        Method::GET if asked.path == "/v1/projects/shop" => Some(nothing()),
        Method::POST if asked.path == "/v1/projects" => Some(json(201, &project())),
        Method::HEAD => Some(text("")),
        _ => None,
    })
    .await;
    let ran = fake.run_in(&shop, &["deploy", "--no-wait", "--no-promote"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("made the project shop"));
    let all = fake.asked();
    assert!(asked(&all, &Method::PUT, "/").is_empty());
    assert_eq!(asked(&all, &Method::POST, "/v1/projects/shop/")[0].json()["promoteWhenHealthy"], false);
}

#[tokio::test]
async fn which_of_several_runtimes_is_never_guessed() {
    let (_keep, shop) = folder(&[("index.html", "")]);
    let fake = host(&["one", "two"], |_, _| None).await;
    let ran = fake.run_in(&shop, &["deploy"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("there are: one, two"), "{ran:?}");
    assert!(fake.asked().iter().all(|asked| asked.method == Method::GET), "nothing was changed");

    let ran = fake.run_in(&shop, &["deploy", "--runtime", "two"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let all = fake.asked();
    assert_eq!(asked(&all, &Method::POST, "/v1/projects/shop/")[0].json()["runtimeType"], "two");
}

#[tokio::test]
async fn a_spec_that_the_runtime_refuses_names_the_field() {
    let (_keep, shop) = folder(&[("hythe.toml", "runtime = 'one'\n[spec]\nimage = 3")]);
    let fake = host(&[], |asked, _| {
        asked.is(&Method::POST, "/v1/projects/shop/deployments").then(|| {
            let body = serde_json::json!({
                "type": "urn:hythe:problem:validation_failed", "title": "", "status": 422,
                "detail": "the spec is refused by the runtime `one`", "instance": "/",
                "code": "validation_failed", "requestId": "r",
                "errors": [{"pointer": "/spec/image", "message": "3 is not of type \"string\""}],
            });
            json(422, &body)
        })
    })
    .await;
    let ran = fake.run_in(&shop, &["deploy"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("/spec/image: 3 is not of type"), "{ran:?}");
}

#[tokio::test]
async fn init_writes_the_guess_once_and_asks_no_host() {
    let (_keep, shop) = folder(&[("index.html", "")]);
    let fake = host(&[], |_, _| None).await;
    let ran = fake.run_in(&shop, &["deploy", "--init"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let written = std::fs::read_to_string(shop.join("hythe.toml")).unwrap();
    insta::assert_snapshot!("init_writes", written);
    let ran = fake.run_in(&shop, &["deploy", "--init"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(std::fs::read_to_string(shop.join("hythe.toml")).unwrap(), written);
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn bad_input_is_told_before_anything_is_asked() {
    async fn refused(files: &[(&str, &str)], arguments: &[&str], said: &str) {
        let (_keep, shop) = folder(files);
        let fake = host(&["steps"], |_, _| None).await;
        let ran = fake.run_in(&shop, arguments).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
        assert!(fake.asked().is_empty());
    }
    refused(&[("hythe.toml", "comand = 'x'")], &["deploy"], "did you mean `command`?").await;
    refused(&[("README", "")], &["deploy"], "can't guess how to run this project").await;
    refused(&[("index.html", "")], &["deploy", "--project", "My Shop"], "'M' at character 1").await;
    refused(&[("index.html", "")], &["deploy", "elsewhere"], "there is no folder elsewhere").await;
}
