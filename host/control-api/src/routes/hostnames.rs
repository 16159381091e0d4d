//! Hosts beyond the derived ones.

use api_types::{Hostname, ListQuery, Page, PutHostname, code};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{HostName, MAX_LABEL, ServiceName};
use store::HostnameTarget;

use super::Api;
use crate::api::ControlApi;
use crate::extract::{JsonBody, Params, Segments};
use crate::failure::Failure;
use crate::paging::Paging;
use crate::view;

/// The longest host name, in bytes (RFC 1035, section 2.3.4, without the root).
const MAX_HOST: usize = 253;

/// List hosts, by name.
#[utoipa::path(
    get, path = "/v1/hostnames", operation_id = "listHostnames", tag = "hostnames",
    params(ListQuery),
    responses((status = 200, description = "A page.", body = Page<Hostname>)),
)]
pub(super) async fn list(
    State(api): Api,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Hostname>>, Failure> {
    let paging = Paging::new("hostnames", query.cursor.as_deref(), query.limit)?;
    let hosts = api.store.hostname_list().await?.into_iter().map(view::hostname).collect::<Vec<_>>();
    Ok(Json(paging.page(hosts, |host: &Hostname| &host.host)?))
}

/// Let a host lead to a project or a deployment. One that leads elsewhere must be deleted first.
#[utoipa::path(
    put, path = "/v1/hostnames/{host}", operation_id = "putHostname", tag = "hostnames",
    request_body = PutHostname,
    params(("host" = String, Path, description = "The whole name, without a port.")),
    responses((status = 200, description = "It does.", body = Hostname)),
)]
pub(super) async fn put(
    State(api): Api,
    Segments(host): Segments<String>,
    JsonBody { value: request, .. }: JsonBody<PutHostname>,
) -> Result<Json<Hostname>, Failure> {
    let host = canonical(&host)?;
    not_derived(&api, &host)?;
    let target = match (request.project_id, request.deployment_id) {
        (Some(project), None) => HostnameTarget::Project(project),
        (None, Some(deployment)) => HostnameTarget::Deployment(deployment),
        _ => {
            let message = "give exactly one of `projectId` and `deploymentId`";
            return Err(Failure::field(code::VALIDATION_FAILED, "", message));
        }
    };
    if let Some(service) = &request.service {
        check_service(service)?;
    }
    let row = api.store.hostname_put(&host, target, request.service.as_deref()).await?;
    Ok(Json(view::hostname(row)))
}

/// Let a host lead nowhere.
#[utoipa::path(
    delete, path = "/v1/hostnames/{host}", operation_id = "deleteHostname", tag = "hostnames",
    params(("host" = String, Path, description = "The whole name.")),
    responses((status = 204, description = "Gone.")),
)]
pub(super) async fn delete(State(api): Api, Segments(host): Segments<String>) -> Result<StatusCode, Failure> {
    api.store.hostname_delete(&canonical(&host)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The name as ingress looks it up: lower case, without the root's dot. `_` is allowed, as older forms of hosts have it.
pub(super) fn canonical(host: &str) -> Result<String, Failure> {
    let refused = |why: String| {
        Failure::new(
            code::INVALID_REQUEST,
            format!("{host:?} is no host name: {why}; international names go in their `xn--` form"),
        )
    };
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name.is_empty() || name.len() > MAX_HOST {
        return Err(refused(format!("it must have 1 to {MAX_HOST} characters")));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(refused(format!("its part {label:?} must have 1 to {MAX_LABEL} characters")));
        }
        let is_allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if !label.bytes().all(is_allowed) || label.starts_with('-') || label.ends_with('-') {
            return Err(refused(format!("its part {label:?} may have a-z, 0-9, `_` and, inside, `-`")));
        }
    }
    Ok(name)
}

/// Hosts are looked up here first: one of another project must not be taken away from it.
fn not_derived(api: &ControlApi, host: &str) -> Result<(), Failure> {
    let label = host.strip_suffix(&api.urls.base_domain).and_then(|rest| rest.strip_suffix('.'));
    if label.is_some_and(|label| HostName::parse(label).is_ok()) {
        let detail = format!(
            "{host:?} is a host that projects get by their slug: make a project of that slug, or choose a host outside of {:?}",
            api.urls.base_domain
        );
        return Err(Failure::new(code::CONFLICT, detail));
    }
    Ok(())
}

pub(super) fn check_service(service: &str) -> Result<(), Failure> {
    let is_port = service.parse::<u16>().is_ok_and(|port| port != 0 && port.to_string() == service);
    match service.parse::<ServiceName>() {
        Err(error) if !is_port => {
            let message = format!("neither a service's name nor a port: {error}");
            Err(Failure::field(code::VALIDATION_FAILED, "/service", message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_each_host() {
        assert_eq!(canonical("Shop.Example.COM.").unwrap(), "shop.example.com");
        assert_eq!(canonical("3000__shop.example.com").unwrap(), "3000__shop.example.com");
        for wrong in [
            "",
            ".",
            "a..b",
            "shop.example.com:80",
            "-a.b",
            "a-.b",
            "größe.de",
            "a b",
            &"a".repeat(64),
            &"a.".repeat(150),
        ] {
            assert!(canonical(wrong).is_err(), "{wrong}");
        }
    }
}
