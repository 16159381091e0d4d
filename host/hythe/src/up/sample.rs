//! Deploys the sample project once under each adapter, as a user would: with `hythe deploy`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use model::{DeploymentId, Health, RuntimeType, Slug};
use store::{Project, Store, StoreError};

use crate::host::Host;

/// A sample that is deployed.
pub struct Sample {
    pub runtime_type: RuntimeType,
    /// What the project's host leads to, with a slash at its end.
    pub url: String,
    pub host_name: String,
}

/// Between two looks at a deployment that was there before.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

/// Deploys what is not there yet, and waits until all of it is healthy.
///
/// # Errors
/// Where a deployment fails.
pub async fn deploy(host: &Host, folder: &Path) -> anyhow::Result<Vec<Sample>> {
    let name =
        folder.file_name().and_then(|name| name.to_str()).context("the sample's folder has no name")?;
    let adapters = host.adapters.all();
    let samples = adapters.iter().map(|(runtime_type, adapter)| async move {
        let slug = if adapter.is_default { name.to_owned() } else { format!("{name}-{runtime_type}") };
        let slug: Slug = slug.parse()?;
        match primary(&host.store, &slug).await? {
            Some(deployment) => wait_healthy(&host.store, deployment).await?,
            None => run_deploy(host, folder, &slug, runtime_type).await?,
        }
        let host_name = format!("{slug}.{}", host.base_domain);
        let port = host.http_addresses.first().map_or(80, std::net::SocketAddr::port);
        Ok(Sample {
            runtime_type: runtime_type.clone(),
            url: format!("http://{host_name}:{port}/"),
            host_name,
        })
    });
    futures_util::future::try_join_all(samples).await
}

async fn primary(store: &Store, slug: &Slug) -> anyhow::Result<Option<DeploymentId>> {
    match store.project_by_slug(slug).await {
        Ok(Project { primary_deployment_id, .. }) => Ok(primary_deployment_id),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn wait_healthy(store: &Store, id: DeploymentId) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let deployment = store.deployment_get(id).await?;
        if deployment.health == Health::Healthy {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!(
                "the deployment {id} of {} did not become healthy: it is {} ({})",
                deployment.slug,
                deployment.seen,
                deployment.last_error.or(deployment.seen_detail).unwrap_or_default()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn run_deploy(
    host: &Host,
    folder: &Path,
    slug: &Slug,
    runtime_type: &RuntimeType,
) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .arg("deploy")
        .arg(folder)
        .args(["--project", slug.as_str(), "--runtime", runtime_type.as_str(), "--json"])
        .args(["--api", &format!("http://{}", host.api_address)])
        .env("HYTHE_DATA_DIR", host.data_dir.path())
        .env_remove("HYTHE_TOKEN")
        .output()
        .await
        .context("hythe deploy can't be started")?;
    if !output.status.success() {
        bail!(
            "the sample project was not deployed under {runtime_type}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
