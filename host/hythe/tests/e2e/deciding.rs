//! Adapters that decide about each request, in a whole host.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use test_kit::host::{HostOptions, TestHost};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An app that answers with its name, the request's path and what the adapter set.
async fn app(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(name, stream));
        }
    });
    Ok(address)
}

async fn answer(name: &'static str, stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream);
    let mut path = String::new();
    let mut canary = "none".to_owned();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).await?;
        let line = line.trim_end().to_ascii_lowercase();
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some(value) = line.strip_prefix("x-canary: ") {
            canary = value.to_owned();
        } else if line.is_empty() {
            break;
        }
    }
    let body = format!("{name} {path} {canary}");
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    lines.into_inner().write_all((head + &body).as_bytes()).await?;
    Ok(())
}

fn adapter(name: &str, component: &str, grants: &[(&str, SocketAddr)]) -> String {
    let mut text = format!("[adapters.{name}]\ncomponent = \"{component}.wasm\"\n");
    for (grant, address) in grants {
        text.push_str(&format!("[adapters.{name}.grants.{grant}]\naddress = \"http://{address}\"\n"));
    }
    text
}

async fn get(host: &TestHost, name: &str, path: &str, choice: Option<&str>) -> Result<(StatusCode, String)> {
    let mut request = host.browse(Method::GET, name, path)?;
    if let Some(choice) = choice {
        request = request.header("x-canary", choice);
    }
    let answer = request.send().await?;
    Ok((answer.status(), answer.text().await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_shared_out_among_services() -> Result<()> {
    let (web, next) = (app("web").await?, app("next").await?);
    let mut options = HostOptions::default();
    options.config.push_str(&adapter("canary", "canary-adapter", &[("web", web), ("next", next)]));
    let host = TestHost::start(options).await?;
    let services = json!([{ "name": "web", "port": web.port() }, { "name": "next", "port": next.port() }]);
    let deploy = async |slug: &str, spec: Value| {
        let wanted = json!({ "runtimeType": "canary", "spec": spec, "services": services });
        let made = host.deploy(slug, wanted).await?;
        let healthy = host.healthy(&made.id).await?;
        host.wait(&healthy.id, "primary", |deployment| deployment.is_primary).await
    };
    deploy(
        "shop",
        json!({
            "paths": [{ "prefix": "/api", "service": "next", "strip": true }],
            "canary": { "service": "next", "percent": 0 },
        }),
    )
    .await?;
    let ok = |text: &str| (StatusCode::OK, text.to_owned());
    assert_eq!(get(&host, "shop.localhost", "/a", None).await?, ok("web /a never"));
    assert_eq!(get(&host, "shop.localhost", "/api/users?x=1", None).await?, ok("next /users?x=1 none"));
    assert_eq!(get(&host, "shop.localhost", "/a", Some("always")).await?, ok("next /a always"));
    // Nothing to decide: the lease says so, and the request is as it came.
    deploy("plain", json!({})).await?;
    assert_eq!(get(&host, "plain.localhost", "/api", Some("mine")).await?, ok("web /api mine"));
    deploy("closed", json!({ "closed": "Back at noon." })).await?;
    let answer = get(&host, "closed.localhost", "/", None).await?;
    assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, "Back at noon.".to_owned()));
    host.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_falls_is_switched_off_and_its_neighbours_serve_on() -> Result<()> {
    let web = app("web").await?;
    let mut options = HostOptions::default();
    options.config.push_str(&adapter("canary", "canary-adapter", &[("web", web)]));
    options.config.push_str(&adapter("bad", "bad", &[("service", web)]));
    let host = TestHost::start(options).await?;
    let services = json!([{ "name": "web", "port": web.port() }]);
    for (slug, runtime, spec) in [
        ("good", "canary", json!({ "canary": { "service": "web", "percent": 0 } })),
        ("bad", "bad", json!({ "routed": true })),
    ] {
        let made =
            host.deploy(slug, json!({ "runtimeType": runtime, "spec": spec, "services": services })).await?;
        host.wait(&made.id, "primary", |deployment| deployment.is_primary).await?;
    }
    let code = async |path: &str| -> Result<(u16, String)> {
        let (status, text) = get(&host, "bad.localhost", path, None).await?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{status} {text}"))?;
        Ok((status.as_u16(), json["error"].as_str().unwrap_or_default().to_owned()))
    };
    assert_eq!(get(&host, "bad.localhost", "/", None).await?.1, "web / none");
    assert_eq!(code("/claim").await?, (502, "adapter_routing_invalid".to_owned()));
    for path in ["/trap", "/loop", "/memory"] {
        assert_eq!(code(path).await?, (503, "adapter_routing_failed".to_owned()), "{path}");
    }
    assert_eq!(code("/").await?, (503, "adapter_routing_off".to_owned()));
    assert_eq!(get(&host, "good.localhost", "/", None).await?.1, "web / never");
    test_kit::process::eventually("the event", async || {
        let page: Value = host.call(Method::GET, "/v1/events?last=100", None).await?;
        let page = page.to_string();
        Ok((page.contains("adapter.routing-off") && page.contains("`route-http`")).then_some(()))
    })
    .await?;
    host.stop().await
}
