//! What one call of an adapter costs, without a host around it.

use std::path::Path;
use std::sync::Arc;

use adapter_runtime::{
    AdapterRuntime, DeploymentHost, DeploymentView, HostError, Instances, Level, MachineRef, Request,
    Requirements, Response, RuntimeConfig,
};
use async_trait::async_trait;
use bytes::Bytes;
use model::{DeploymentId, ProjectId};

use crate::statistics::median;

const CALLS: u32 = 500;

/// A host that answers at once: what is left is the call.
struct Nothing(DeploymentView);

#[async_trait]
impl DeploymentHost for Nothing {
    fn view(&self) -> &DeploymentView {
        &self.0
    }

    fn locator(&self) -> Option<String> {
        None
    }

    async fn set_locator(&self, _: Option<String>) -> Result<(), HostError> {
        Ok(())
    }

    async fn held_machine(&self) -> Result<Option<MachineRef>, HostError> {
        Ok(None)
    }

    async fn acquire_machine(&self, _: Requirements) -> Result<MachineRef, HostError> {
        Err(HostError::Exhausted("none here".to_owned()))
    }

    async fn release_machine(&self) -> Result<(), HostError> {
        Ok(())
    }

    async fn send_machine(&self, _: &str, _: Request) -> Result<Response, HostError> {
        Err(HostError::NotFound)
    }

    async fn send_grant(&self, _: &str, _: Request) -> Result<Response, HostError> {
        Ok(Response { status: 404, headers: Vec::new(), body: Bytes::from_static(b"{}") })
    }

    fn event(&self, _: &str, _: &str) {}

    fn log(&self, _: Level, _: &str, _: &[(String, String)]) {}
}

/// Microseconds for one `inspect`, with a fresh instance each and on a warm one: medians over the rounds.
///
/// # Errors
/// Where the component does not load or answer.
pub async fn measure(component: &Path, rounds: usize) -> anyhow::Result<(f64, f64)> {
    let runtime = AdapterRuntime::new(RuntimeConfig::default())?;
    let adapter = runtime.load("measured", &tokio::fs::read(component).await?).await?;
    let host: Arc<dyn DeploymentHost> = Arc::new(Nothing(DeploymentView {
        id: DeploymentId::new(),
        project_id: ProjectId::new(),
        incarnation: 1,
        spec: r#"{"command":["true"]}"#.to_owned(),
        services: Vec::new(),
        source: None,
        idempotency_key: "key".to_owned(),
    }));
    let (mut fresh, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (instances, figures) in [(Instances::Fresh, &mut fresh), (Instances::Warm, &mut warm)] {
            let took = adapter.bench_calls(host.clone(), CALLS, instances).await?;
            figures.push(took.as_secs_f64() * 1e6 / f64::from(CALLS));
        }
    }
    Ok((median(&fresh), median(&warm)))
}
