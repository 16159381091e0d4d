//! Domains of projects.

use api_types::{AddDomain, Domain, ListQuery, Page, code};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::HostName;

use super::hostnames::check_service;
use super::{Api, projects};
use crate::extract::{JsonBody, Params, Segments};
use crate::failure::Failure;
use crate::paging::Paging;
use crate::view;

/// Let a domain lead to a project. Of a domain that the project has, the target is changed.
#[utoipa::path(
    post, path = "/v1/projects/{project}/domains", operation_id = "addDomain", tag = "domains",
    request_body = AddDomain,
    params(("project" = String, Path, description = "Slug or id.")),
    responses((status = 201, description = "It does.", body = Domain)),
)]
pub(super) async fn add(
    State(api): Api,
    Segments(project): Segments<String>,
    JsonBody { value: request, .. }: JsonBody<AddDomain>,
) -> Result<(StatusCode, Json<Domain>), Failure> {
    let project = projects::find(&api, &project).await?;
    let domain = read(&request.domain)
        .map_err(|message| Failure::field(code::VALIDATION_FAILED, "/domain", message))?;
    let base = &api.urls.base_domain;
    if domain.is_within(base) {
        let message = format!(
            "{domain} belongs to {base:?}, whose hosts are derived from the names of projects: give a domain of your own"
        );
        return Err(Failure::field(code::VALIDATION_FAILED, "/domain", message));
    }
    if let Some(service) = &request.service {
        check_service(service)?;
    }
    let row =
        api.store.domain_add(project.id, &domain, request.deployment_id, request.service.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(view::domain(row))))
}

/// List a project's domains, by name.
#[utoipa::path(
    get, path = "/v1/projects/{project}/domains", operation_id = "listDomains", tag = "domains",
    params(("project" = String, Path, description = "Slug or id."), ListQuery),
    responses((status = 200, description = "A page.", body = Page<Domain>)),
)]
pub(super) async fn list(
    State(api): Api,
    Segments(project): Segments<String>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<Domain>>, Failure> {
    let paging = Paging::new("domains", query.cursor.as_deref(), query.limit)?;
    let project = projects::find(&api, &project).await?;
    let domains = api.store.domain_list(project.id).await?.into_iter().map(view::domain).collect::<Vec<_>>();
    Ok(Json(paging.page(domains, |domain: &Domain| &domain.domain)?))
}

/// Take a domain from its project: it leads nowhere.
#[utoipa::path(
    delete, path = "/v1/projects/{project}/domains/{domain}", operation_id = "removeDomain", tag = "domains",
    params(
        ("project" = String, Path, description = "Slug or id."),
        ("domain" = String, Path, description = "As it was given, `*.` and all."),
    ),
    responses((status = 204, description = "Gone.")),
)]
pub(super) async fn remove(
    State(api): Api,
    Segments((project, domain)): Segments<(String, String)>,
) -> Result<StatusCode, Failure> {
    let project = projects::find(&api, &project).await?;
    let domain = read(&domain).map_err(|message| Failure::new(code::INVALID_REQUEST, message))?;
    api.store.domain_remove(project.id, &domain).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The domain as it is registered, international names in their `xn--` form (UTS 46, without deviations).
fn read(text: &str) -> Result<model::Domain, String> {
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    // Plain names are judged by one set of rules, which says more.
    let is_international =
        !name.is_ascii() || name.to_ascii_lowercase().split('.').any(|label| label.starts_with("xn--"));
    if !is_international {
        return text.parse().map_err(|error: model::DomainError| error.to_string());
    }
    let ascii = idna::domain_to_ascii_strict(name).map_err(|_| {
        format!(
            "{text:?} is no domain: it has characters, or an `xn--` part, that international names can't have"
        )
    })?;
    format!("{wildcard}{ascii}").parse().map_err(|error: model::DomainError| error.to_string())
}

/// What a new project's own hosts would collide with: a whole host that was given before.
///
/// # Errors
/// Where there is one.
pub(super) async fn check_slug(api: &crate::api::ControlApi, slug: &model::Slug) -> Result<(), Failure> {
    let target = model::HostTarget::Project(slug.clone());
    let Ok(label) = (HostName { service: None, target }).label() else { return Ok(()) };
    let host = format!("{label}.{}", api.urls.base_domain);
    match api.store.host_route_get(&host).await? {
        None => Ok(()),
        Some(_) => {
            let message = format!("the host {host} leads elsewhere already: choose another name");
            Err(Failure::field(code::CONFLICT, "/slug", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn international_names_are_kept_in_one_form() {
        for (text, domain) in [
            ("Shop.Example.com.", "shop.example.com"),
            ("*.shop.example.com", "*.shop.example.com"),
            ("B\u{fc}cher.example", "xn--bcher-kva.example"),
            ("*.b\u{fc}cher.example", "*.xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("b\u{fc}cher\u{3002}example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(read(text).unwrap().as_str(), domain, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "a",
            "a..b",
            "a b.example",
            "a_b.example",
            "xn--a.example",
            "\u{fc}_.example",
            "http://a.example",
            "a.example:80",
            "a.example/b",
            "127.0.0.1",
            "*.*.example",
            "b\u{fc}.*.example",
            "\u{200d}.example",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&format!("{}.example", "\u{fc}".repeat(63))).is_err());
    }
}
