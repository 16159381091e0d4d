//! Projects.

use api_types::{CreateProject, ListQuery, Page, Project, code};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{ProjectId, Slug};

use super::{Answer, Api};
use crate::api::ControlApi;
use crate::auth::Caller;
use crate::extract::{JsonBody, Params, Segments, id};
use crate::failure::Failure;
use crate::idempotency::{Made, Once};
use crate::paging::Paging;
use crate::view;

/// Make a project.
#[utoipa::path(
    post, path = "/v1/projects", operation_id = "createProject", tag = "projects",
    request_body = CreateProject,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating the request with it makes nothing twice.")),
    responses((status = 201, description = "Made.", body = Project)),
)]
pub(super) async fn create(
    State(api): Api,
    caller: Caller,
    once: Once,
    body: JsonBody<CreateProject>,
) -> Answer {
    let work = {
        let api = api.clone();
        async move {
            super::domains::check_slug(&api, &body.value.slug).await?;
            let row = api.store.project_create(&body.value.slug).await?;
            let location = format!("/v1/projects/{}", row.id);
            Made::new(StatusCode::CREATED, Some(location), &view::project(&api, row))
        }
    };
    once.run(&api, &caller, &body.bytes, work).await
}

/// List projects, newest first.
#[utoipa::path(
    get, path = "/v1/projects", operation_id = "listProjects", tag = "projects",
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<Project>)),
)]
pub(super) async fn list(
    State(api): Api,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Project>>, Failure> {
    let paging = Paging::new("projects", query.cursor.as_deref(), query.limit)?;
    let page = api.store.project_list(paging.request()?).await?;
    let items = page.items.into_iter().map(|row| view::project(&api, row)).collect();
    Ok(Json(Page { items, next_cursor: page.next.map(|next| paging.cursor(next)) }))
}

/// Show a project.
#[utoipa::path(
    get, path = "/v1/projects/{project}", operation_id = "getProject", tag = "projects",
    params(("project" = String, Path, description = "Slug or id.")),
    responses((status = 200, description = "The project.", body = Project)),
)]
pub(super) async fn get(
    State(api): Api,
    Segments(project): Segments<String>,
) -> Result<Json<Project>, Failure> {
    Ok(Json(view::project(&api, find(&api, &project).await?)))
}

/// Delete a project whose deployments are all destroyed.
#[utoipa::path(
    delete, path = "/v1/projects/{project}", operation_id = "deleteProject", tag = "projects",
    params(("project" = String, Path, description = "Slug or id.")),
    responses((status = 204, description = "Gone.")),
)]
pub(super) async fn delete(
    State(api): Api,
    Segments(project): Segments<String>,
) -> Result<StatusCode, Failure> {
    let project = find(&api, &project).await?;
    api.store.project_delete(project.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The project of this slug or id. No slug has a `_`, each id has one.
pub(super) async fn find(api: &ControlApi, text: &str) -> Result<store::Project, Failure> {
    if text.contains('_') {
        return Ok(api.store.project_get(id::<ProjectId>(text)?).await?);
    }
    let slug = text.parse::<Slug>().map_err(|error| {
        Failure::new(
            code::INVALID_ID,
            format!("{text:?} is neither a project's id (`prj_…`) nor its slug: {error}"),
        )
    })?;
    Ok(api.store.project_by_slug(&slug).await?)
}
