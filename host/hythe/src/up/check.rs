//! `hythe up --check`: asks the sample project what a browser would, through ingress.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::host::Host;
use crate::up::sample::Sample;

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks all, and gives each answer with what was asked.
pub async fn ask(host: &Host, sample: &Sample) -> Vec<(&'static str, anyhow::Result<()>)> {
    let Some(address) = host.http_addresses.first().copied() else { return Vec::new() };
    let questions: [(&'static str, futures_util::future::BoxFuture<'_, anyhow::Result<()>>); 4] = [
        ("page", Box::pin(page(address, sample))),
        ("JSON", Box::pin(json(address, sample))),
        ("SSE", Box::pin(sse(address, sample))),
        ("WebSocket", Box::pin(web_socket(address, sample))),
    ];
    let mut answers = Vec::new();
    for (what, question) in questions {
        let answer = tokio::time::timeout(PATIENCE, question).await;
        answers.push((
            what,
            answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()))),
        ));
    }
    answers
}

/// A client that finds the sample's host without DNS.
fn client(address: SocketAddr, sample: &Sample) -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().resolve(&sample.host_name, address).no_proxy().build()?)
}

async fn page(address: SocketAddr, sample: &Sample) -> anyhow::Result<()> {
    let answer = client(address, sample)?.get(&sample.url).header("accept", "text/html").send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "the page answers {status}");
    ensure!(text.contains("<html"), "what came is no page");
    Ok(())
}

async fn json(address: SocketAddr, sample: &Sample) -> anyhow::Result<()> {
    let messages = format!("{}api/messages", sample.url);
    let client = client(address, sample)?;
    let said = serde_json::json!({ "author": "check", "text": "hello from hythe up --check" });
    let answer = client
        .post(&messages)
        .header("content-type", "application/json")
        .body(said.to_string())
        .send()
        .await?;
    ensure!(answer.status().is_success(), "POST {messages} answers {}", answer.status());
    let answer = client.get(&messages).send().await?;
    ensure!(answer.status().is_success(), "GET {messages} answers {}", answer.status());
    let text = answer.text().await?;
    ensure!(text.contains("hello from hythe up --check"), "what was said is not on the board");
    Ok(())
}

async fn sse(address: SocketAddr, sample: &Sample) -> anyhow::Result<()> {
    let client = client(address, sample)?;
    let answer =
        client.get(format!("{}api/events", sample.url)).header("accept", "text/event-stream").send().await?;
    ensure!(answer.status().is_success(), "the stream answers {}", answer.status());
    let mut stream = answer.bytes_stream();
    // Something must happen for the stream to tell it.
    json(address, sample).await?;
    let mut seen = Vec::new();
    while let Some(bytes) = stream.next().await {
        seen.extend_from_slice(&bytes?);
        if String::from_utf8_lossy(&seen).contains("hello from hythe up --check") {
            return Ok(());
        }
    }
    anyhow::bail!("the stream ended before it told what happened")
}

async fn web_socket(address: SocketAddr, sample: &Sample) -> anyhow::Result<()> {
    let port = address.port();
    let request = format!("ws://{}:{port}/ws?name=check", sample.host_name).into_client_request()?;
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let payload = b"what goes comes back".to_vec();
    socket.send(Message::Binary(payload.clone().into())).await?;
    loop {
        let message = socket.next().await.context("the WebSocket closed before its answer")??;
        if let Message::Binary(bytes) = message {
            ensure!(bytes == payload, "another message came back");
            socket.close(None).await.ok();
            return Ok(());
        }
    }
}
