//! What is wanted of a deployment, and its health.

use api_types::{Deployment, HealthReport, Project};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{DeploymentId, Wanted};

use super::{Answer, Api, deployments};
use crate::auth::Caller;
use crate::extract::{Segments, id};
use crate::failure::Failure;
use crate::idempotency::{Made, Once};
use crate::view;

type Accepted = Result<(StatusCode, Json<Deployment>), Failure>;

/// Start a deployment. One that starts or runs stays as it is.
#[utoipa::path(
    post, path = "/v1/deployments/{deployment}/start", operation_id = "startDeployment", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`")),
    responses((status = 202, description = "Wanted.", body = Deployment)),
)]
pub(super) async fn start(api: Api, deployment: Segments<String>) -> Accepted {
    want(api, deployment, Wanted::Running).await
}

/// Stop a deployment. One that is stopped stays as it is.
#[utoipa::path(
    post, path = "/v1/deployments/{deployment}/stop", operation_id = "stopDeployment", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`")),
    responses((status = 202, description = "Wanted.", body = Deployment)),
)]
pub(super) async fn stop(api: Api, deployment: Segments<String>) -> Accepted {
    want(api, deployment, Wanted::Stopped).await
}

async fn want(State(api): Api, Segments(deployment): Segments<String>, wanted: Wanted) -> Accepted {
    let row = api.store.deployment_want(id(&deployment)?, wanted, None).await?;
    Ok((StatusCode::ACCEPTED, Json(view::deployment(&api, row).await?)))
}

/// Restart a deployment: a new incarnation, with the machine and the files of the present one.
#[utoipa::path(
    post, path = "/v1/deployments/{deployment}/restart", operation_id = "restartDeployment", tag = "deployments",
    params(
        ("deployment" = String, Path, description = "`dep_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with it restarts once."),
    ),
    responses((status = 202, description = "Wanted: wait for its `wantedIncarnation`.", body = Deployment)),
)]
pub(super) async fn restart(
    State(api): Api,
    caller: Caller,
    once: Once,
    Segments(deployment): Segments<String>,
) -> Answer {
    let deployment: DeploymentId = id(&deployment)?;
    let work = {
        let api = api.clone();
        async move {
            let row = api.store.deployment_restart(deployment, None).await?;
            Made::new(StatusCode::ACCEPTED, None, &view::deployment(&api, row).await?)
        }
    };
    once.run(&api, &caller, b"", work).await
}

/// Make a deployment its project's primary one. The replaced one stays reachable under its own host for the host's
/// grace time. Making the old one primary again rolls back.
#[utoipa::path(
    post, path = "/v1/deployments/{deployment}/promote", operation_id = "promoteDeployment", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`")),
    responses((status = 200, description = "Done.", body = Project)),
)]
pub(super) async fn promote(
    State(api): Api,
    Segments(deployment): Segments<String>,
) -> Result<Json<Project>, Failure> {
    let row = deployments::find(&api, &deployment).await?;
    let project = api.store.project_set_primary(row.project_id, row.id, api.grace).await?;
    Ok(Json(view::project(&api, project)))
}

/// Check a deployment's health now.
#[utoipa::path(
    get, path = "/v1/deployments/{deployment}/health", operation_id = "checkDeploymentHealth", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`")),
    responses((status = 200, description = "Checked, whatever was found.", body = HealthReport)),
)]
pub(super) async fn check_health(
    State(api): Api,
    Segments(deployment): Segments<String>,
) -> Result<Json<HealthReport>, Failure> {
    let row = deployments::find(&api, &deployment).await?;
    Ok(Json(api.control.check_health(row.id).await?))
}
