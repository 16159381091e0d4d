//! Deployments: made, listed, shown, destroyed.

use std::collections::HashSet;

use api_types::{
    CreateDeployment, DeleteQuery, Deployment, DeploymentFilter, FieldError, ListQuery, Page, code,
};
use artifacts::Digest;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{DeploymentId, MAX_IDLE_SECONDS, MIN_IDLE_SECONDS, Seen, Slug, Wanted};
use store::{NewDeployment, PageRequest};

use super::{Answer, Api, projects};
use crate::api::ControlApi;
use crate::auth::Caller;
use crate::boundary::SpecError;
use crate::extract::{JsonBody, Params, Segments, id};
use crate::failure::Failure;
use crate::idempotency::{Made, Once};
use crate::paging::Paging;
use crate::view;

/// The most services of a deployment.
const MAX_SERVICES: usize = 32;
/// Pages that are looked through for those of one state; then a page may be short, and has a cursor.
const MAX_SCANS: usize = 20;

/// Make a deployment. It is checked whole before anything is written.
#[utoipa::path(
    post, path = "/v1/projects/{project}/deployments", operation_id = "createDeployment", tag = "deployments",
    request_body = CreateDeployment,
    params(
        ("project" = String, Path, description = "Slug or id."),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with it makes nothing twice."),
    ),
    responses((status = 201, description = "Made; `GET …/wait` tells when it runs.", body = Deployment)),
)]
pub(super) async fn create(
    State(api): Api,
    caller: Caller,
    once: Once,
    Segments(project): Segments<String>,
    body: JsonBody<CreateDeployment>,
) -> Answer {
    let work = {
        let api = api.clone();
        async move {
            let project = projects::find(&api, &project).await?;
            check(&api, &project.slug, &body.value).await?;
            let request = body.value;
            let row = api
                .store
                .deployment_create(NewDeployment {
                    project_id: project.id,
                    runtime_type: request.runtime_type,
                    spec: request.spec,
                    services: request.services.into_iter().map(Into::into).collect(),
                    source_sha256: request.source_sha256,
                    wake_policy: request.wake_policy,
                    idle_timeout_seconds: request.idle_timeout_seconds,
                    promote_when_healthy: request.promote_when_healthy,
                    wanted: if request.start { Wanted::Running } else { Wanted::Stopped },
                })
                .await?;
            let location = format!("/v1/deployments/{}", row.id);
            Made::new(StatusCode::CREATED, Some(location), &view::deployment(&api, row).await?)
        }
    };
    once.run(&api, &caller, &body.bytes, work).await
}

/// All that can be wrong, at once.
async fn check(api: &ControlApi, slug: &Slug, request: &CreateDeployment) -> Result<(), Failure> {
    let mut errors = Vec::new();
    let mut wrong = |pointer: String, message: String| errors.push(FieldError { pointer, message });

    match api.catalog.validate_spec(request.runtime_type.as_str(), &request.spec) {
        Ok(()) => {}
        Err(SpecError::UnknownRuntime { mut known }) => {
            known.sort_unstable();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!(
                "no adapter has the name {:?}; this host has: {known}",
                request.runtime_type.as_str()
            );
            return Err(Failure::field(code::UNKNOWN_RUNTIME, "/runtimeType", message));
        }
        Err(SpecError::Violations(violations)) => {
            for (pointer, message) in violations {
                wrong(format!("/spec{pointer}"), message);
            }
        }
    }

    if request.services.len() > MAX_SERVICES {
        wrong(
            "/services".to_owned(),
            format!("{} services: at most {MAX_SERVICES} are allowed", request.services.len()),
        );
    }
    let (mut names, mut ports) = (HashSet::new(), HashSet::new());
    for (index, service) in request.services.iter().enumerate() {
        if !names.insert(&service.name) {
            wrong(
                format!("/services/{index}/name"),
                format!("another service has the name {:?}", service.name.as_str()),
            );
        }
        if service.port == 0 {
            wrong(format!("/services/{index}/port"), "0 is no port: choose one from 1 to 65535".to_owned());
        } else if !ports.insert(service.port) {
            wrong(
                format!("/services/{index}/port"),
                format!("another service has the port {}", service.port),
            );
        }
        // Any deployment's own label is of one length.
        if let Err(error) = model::host_labels(slug, DeploymentId::new(), [&service.name]) {
            let message =
                format!("{error}: choose a shorter name for the service, or a project with a shorter slug");
            wrong(format!("/services/{index}/name"), message);
        }
    }

    if let Some(seconds) = request.idle_timeout_seconds
        && !(MIN_IDLE_SECONDS..=MAX_IDLE_SECONDS).contains(&seconds)
    {
        let message = format!(
            "{seconds} seconds: it must be {MIN_IDLE_SECONDS} to {MAX_IDLE_SECONDS}; leave it out for never"
        );
        wrong("/idleTimeoutSeconds".to_owned(), message);
    }

    if let Some(source) = &request.source_sha256 {
        match source.parse::<Digest>() {
            Err(error) => wrong("/sourceSha256".to_owned(), error.to_string()),
            Ok(digest) => {
                let is_there =
                    api.store.source_get(source).await?.is_some() && api.artifacts.exists(&digest).await?;
                if !is_there && errors.is_empty() {
                    let message = format!(
                        "no archive {source} is stored: upload it first, with PUT /v1/sources/{source}"
                    );
                    return Err(Failure::field(code::SOURCE_MISSING, "/sourceSha256", message));
                }
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::fields(code::VALIDATION_FAILED, errors)) }
}

/// List a project's deployments, newest first, without the destroyed ones.
#[utoipa::path(
    get, path = "/v1/projects/{project}/deployments", operation_id = "listProjectDeployments", tag = "deployments",
    params(("project" = String, Path, description = "Slug or id."), ListQuery),
    responses((status = 200, description = "A page.", body = Page<Deployment>)),
)]
pub(super) async fn list_of_project(
    State(api): Api,
    Segments(project): Segments<String>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Deployment>>, Failure> {
    let ListQuery { cursor, limit } = query;
    page(&api, DeploymentFilter { project: Some(project), cursor, limit, ..Default::default() }).await
}

/// List deployments, newest first.
#[utoipa::path(
    get, path = "/v1/deployments", operation_id = "listDeployments", tag = "deployments",
    params(DeploymentFilter),
    responses((status = 200, description = "A page. With `state` it may be short and have a cursor.", body = Page<Deployment>)),
)]
pub(super) async fn list(
    State(api): Api,
    Params(query): Params<DeploymentFilter>,
) -> Result<Json<Page<Deployment>>, Failure> {
    page(&api, query).await
}

async fn page(api: &ControlApi, query: DeploymentFilter) -> Result<Json<Page<Deployment>>, Failure> {
    let paging = Paging::new("deployments", query.cursor.as_deref(), query.limit)?;
    let project = match &query.project {
        Some(project) => Some(projects::find(api, project).await?.id),
        None => None,
    };
    let include_destroyed = query.include_destroyed.unwrap_or(false) || query.state == Some(Seen::Destroyed);
    let filter = store::DeploymentFilter { project, include_destroyed };
    let (mut rows, mut after) = (Vec::new(), paging.after()?);
    for _ in 0..MAX_SCANS {
        let limit = paging.limit - rows.len() as u32;
        let page = api.store.deployment_list(filter, PageRequest { after, limit }).await?;
        rows.extend(page.items.into_iter().filter(|row| query.state.is_none_or(|state| row.seen == state)));
        after = page.next;
        if after.is_none() || rows.len() >= paging.limit as usize {
            break;
        }
    }
    let items = view::deployments(api, rows).await?;
    Ok(Json(Page { items, next_cursor: after.map(|after| paging.cursor(after)) }))
}

/// Show a deployment.
#[utoipa::path(
    get, path = "/v1/deployments/{deployment}", operation_id = "getDeployment", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`")),
    responses((status = 200, description = "The deployment.", body = Deployment)),
)]
pub(super) async fn get(
    State(api): Api,
    Segments(deployment): Segments<String>,
) -> Result<Json<Deployment>, Failure> {
    let row = find(&api, &deployment).await?;
    Ok(Json(view::deployment(&api, row).await?))
}

/// Destroy a deployment, with all that it holds. Its row stays, as `destroyed`.
#[utoipa::path(
    delete, path = "/v1/deployments/{deployment}", operation_id = "deleteDeployment", tag = "deployments",
    params(("deployment" = String, Path, description = "`dep_…`"), DeleteQuery),
    responses((status = 202, description = "Wanted; `GET …/wait?state=destroyed` tells when it is.", body = Deployment)),
)]
pub(super) async fn delete(
    State(api): Api,
    Segments(deployment): Segments<String>,
    Params(query): Params<DeleteQuery>,
) -> Result<(StatusCode, Json<Deployment>), Failure> {
    let row = api.store.deployment_destroy(id(&deployment)?, query.force.unwrap_or(false), None).await?;
    Ok((StatusCode::ACCEPTED, Json(view::deployment(&api, row).await?)))
}

pub(super) async fn find(api: &ControlApi, text: &str) -> Result<store::Deployment, Failure> {
    Ok(api.store.deployment_get(id(text)?).await?)
}
