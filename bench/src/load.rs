//! A load generator: so many connections, each with one request after the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

/// What came of it.
pub struct Load {
    pub requests_per_second: f64,
    /// Of each request, in microseconds.
    pub latencies_us: Vec<f64>,
}

/// Asks `GET path` of `host` at `address` over `connections` connections for `duration`.
///
/// # Errors
/// Where any answer is no 200: then the figure would be of something else.
pub async fn closed_loop(
    address: SocketAddr,
    host: &str,
    path: &str,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Load> {
    let begun = Instant::now();
    let end = begun + duration;
    let tasks: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(connection(address, host.to_owned(), path.to_owned(), end)))
        .collect();
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await??);
    }
    Ok(Load { requests_per_second: latencies_us.len() as f64 / begun.elapsed().as_secs_f64(), latencies_us })
}

async fn connection(
    address: SocketAddr,
    host: String,
    path: String,
    end: Instant,
) -> anyhow::Result<Vec<f64>> {
    let stream =
        tokio::net::TcpStream::connect(address).await.with_context(|| format!("can't reach {address}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let request = http::Request::get(&path).header("host", &host).body(Empty::<Bytes>::new())?;
        let begun = Instant::now();
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status() == 200, "{host}{path} answers {}", answer.status());
        answer.into_body().collect().await?;
        latencies.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}
