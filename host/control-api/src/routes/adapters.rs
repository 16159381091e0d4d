//! Adapters, as the hosts' configuration declares them.

use api_types::{Adapter, ListQuery, Page, code};
use axum::Json;
use axum::extract::State;
use model::AdapterId;

use super::Api;
use crate::extract::{Params, Segments, id};
use crate::failure::Failure;
use crate::paging::Paging;
use crate::view;

/// List adapters, by name.
#[utoipa::path(
    get, path = "/v1/adapters", operation_id = "listAdapters", tag = "adapters",
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<Adapter>)),
)]
pub(super) async fn list(
    State(api): Api,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Adapter>>, Failure> {
    let paging = Paging::new("adapters", query.cursor.as_deref(), query.limit)?;
    let adapters = api.store.adapter_list().await?.into_iter().map(view::adapter).collect();
    Ok(Json(paging.page(adapters, |adapter: &Adapter| &adapter.name)?))
}

/// Show an adapter, with the schema of its deployments' `spec`.
#[utoipa::path(
    get, path = "/v1/adapters/{adapter}", operation_id = "getAdapter", tag = "adapters",
    params(("adapter" = String, Path, description = "Name or id.")),
    responses((status = 200, description = "The adapter.", body = Adapter)),
)]
pub(super) async fn get(
    State(api): Api,
    Segments(adapter): Segments<String>,
) -> Result<Json<Adapter>, Failure> {
    // No name has a `_`, each id has one.
    if !adapter.contains('_') {
        return Ok(Json(view::adapter(api.store.adapter_get(&adapter).await?)));
    }
    let wanted: AdapterId = id(&adapter)?;
    let found = api.store.adapter_list().await?.into_iter().find(|row| row.id == wanted);
    let found =
        found.ok_or_else(|| Failure::new(code::NOT_FOUND, format!("there is no adapter {wanted}")))?;
    Ok(Json(view::adapter(found)))
}
