//! The first whole path.

use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};

use crate::calls;
use crate::load::{Load, closed_loop};
use crate::running::{Places, Running};
use crate::statistics::{median, percentile, round};

/// The sample under each adapter: (runtime type, project).
const SAMPLES: [(&str, &str); 2] = [("process", "harbour"), ("machine", "harbour-machine")];
const CONNECTIONS: usize = 16;
const ROUND: Duration = Duration::from_secs(3);
const PATH: &str = "/healthz";

/// Measures all, and writes `first.json`.
///
/// # Errors
/// Where anything does not work: no figures are written then.
pub async fn run(places: &Places, rounds: usize) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("hythe-bench-").tempdir()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;

    eprintln!("bench: coming up on an empty folder, then on what is there");
    let (first_host, last_host) =
        (format!("{}.localhost", SAMPLES[0].1), format!("{}.localhost", SAMPLES[1].1));
    let mut running = Running::start(places, folder.path())?;
    let cold = running.first_answer(&first_host).await?;
    running.ready().await?;
    running.stop().await?;
    let mut warm = Vec::new();
    for _ in 0..rounds {
        std::fs::write(folder.path().join("up.log"), "")?;
        let mut running = Running::start(places, folder.path())?;
        warm.push(running.first_answer(&first_host).await?.as_secs_f64());
        running.ready().await?;
        running.stop().await?;
    }

    std::fs::write(folder.path().join("up.log"), "")?;
    let mut running = Running::start(places, folder.path())?;
    running.first_answer(&first_host).await?;
    running.first_answer(&last_host).await?;
    running.ready().await?;
    // Nothing is asked for a while: what is left is what idles.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let memory = json!({
        "host_mib": round(running.memory_mib(), 1),
        "daemons_mib": running.daemons_memory_mib()?.into_iter().map(|mib| round(mib, 1)).collect::<Vec<_>>(),
    });

    eprintln!(
        "bench: {CONNECTIONS} connections directly, through ingress, and through ingress and a machine's daemon, in turn"
    );
    let ingress = ingress(&running, rounds).await?;
    eprintln!("bench: from `start` to the first answer");
    let mut starts = serde_json::Map::new();
    for (runtime, project) in SAMPLES {
        starts.insert(runtime.to_owned(), json!(round(start(&mut running, project, rounds).await?, 1)));
    }
    running.stop().await?;

    eprintln!("bench: calls of an adapter");
    let component = places.adapters.join(format!("{}.wasm", SAMPLES[0].0));
    let (fresh, warm_call) = calls::measure(&component, rounds).await?;
    let result = json!({
        "rounds": rounds,
        "up": { "cold_s": round(cold.as_secs_f64(), 2), "warm_s": round(median(&warm), 2) },
        "memory_idle": memory,
        "ingress": ingress,
        "start_to_first_answer_ms": starts,
        "adapter_call_us": { "fresh": round(fresh, 1), "warm": round(warm_call, 1) },
    });
    std::fs::create_dir_all(&places.results)?;
    let file = places.results.join("first.json");
    let mut text = serde_json::to_string_pretty(&result)?;
    text.push('\n');
    std::fs::write(&file, &text).with_context(|| format!("can't write {}", file.display()))?;
    eprintln!("{text}bench: written to {}", file.display());
    Ok(())
}

/// The three ways in turn; medians over the rounds.
async fn ingress(running: &Running, rounds: usize) -> anyhow::Result<Value> {
    let ports = [running.primary(SAMPLES[0].1).await?, running.primary(SAMPLES[1].1).await?];
    let application = running.application(&ports[0]).await?;
    let mut ways = [
        ("direct", application, "localhost".to_owned(), Vec::new()),
        ("ingress_process", running.ingress, format!("{}.localhost", SAMPLES[0].1), Vec::new()),
        ("ingress_machine", running.ingress, format!("{}.localhost", SAMPLES[1].1), Vec::new()),
    ];
    for _ in 0..rounds {
        for (_, address, host, loads) in &mut ways {
            loads.push(closed_loop(*address, host, PATH, CONNECTIONS, ROUND).await?);
        }
    }
    let figure =
        |loads: &[Load], of: &dyn Fn(&Load) -> f64| median(&loads.iter().map(of).collect::<Vec<_>>());
    let direct = &ways[0].3;
    let mut all = serde_json::Map::new();
    all.insert("connections".to_owned(), json!(CONNECTIONS));
    for (name, _, _, loads) in &ways {
        let p = |share: f64| figure(loads, &|load| percentile(&load.latencies_us, share));
        let added = |share: f64| p(share) - figure(direct, &|load| percentile(&load.latencies_us, share));
        all.insert(
            (*name).to_owned(),
            json!({
                "requests_per_s": round(figure(loads, &|load| load.requests_per_second), 0),
                "p50_us": round(p(0.5), 0),
                "p99_us": round(p(0.99), 0),
                "added_p50_us": round(added(0.5), 0),
                "added_p99_us": round(added(0.99), 0),
            }),
        );
    }
    Ok(Value::Object(all))
}

/// Milliseconds from asking for a start of what is stopped to the first 200: the median.
async fn start(running: &mut Running, project: &str, rounds: usize) -> anyhow::Result<f64> {
    let id = running.primary(project).await?;
    let mut took = Vec::new();
    for _ in 0..rounds {
        running.call(Method::POST, &format!("/v1/deployments/{id}/stop"), None).await?;
        loop {
            let deployment = running.call(Method::GET, &format!("/v1/deployments/{id}"), None).await?;
            if deployment["state"] == "stopped" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let begun = Instant::now();
        running.call(Method::POST, &format!("/v1/deployments/{id}/start"), None).await?;
        running.first_answer(&format!("{project}.localhost")).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&took))
}
