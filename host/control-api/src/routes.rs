//! The route table, on one page.

use std::sync::Arc;

use api_types::{Problem, WaitState, code, schema};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Extension, Router, middleware};
use bytes::Bytes;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::api::ControlApi;
use crate::failure::Failure;
use crate::{auth, context};

mod adapters;
mod deployments;
mod domains;
mod events;
mod exec;
mod hostnames;
mod lifecycle;
mod logs;
mod machines;
mod projects;
mod service;
mod sources;
mod wait;

type Api = State<Arc<ControlApi>>;

/// Where the description is.
const DOCUMENT: &str = "/v1/openapi.json";

impl ControlApi {
    /// All of `/v1`, ready to be served.
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        let (router, document) = parts(&api);
        // Known when it is built: a description that can't be written is found by the first test.
        let document = Bytes::from(document.to_pretty_json().unwrap_or_default());
        // Swagger UI from the vendored files of its crate: the other viewer crates' pages load their script from
        // a CDN, and would stay blank on a host without the internet.
        let viewer = SwaggerUi::new("/v1/docs").config(Config::from(DOCUMENT).persist_authorization(true));
        router
            .merge(viewer)
            .fallback(no_route)
            .method_not_allowed_fallback(other_method)
            .layer(Extension(service::Document(document)))
            .layer(middleware::from_fn(context::layer))
            .with_state(api)
    }

    /// The description that [`router`](Self::router) serves.
    pub fn document(self) -> OpenApi {
        parts(&Arc::new(self)).1
    }
}

fn parts(api: &Arc<ControlApi>) -> (Router<Arc<ControlApi>>, OpenApi) {
    let (router, mut document) = table(api).split_for_parts();
    add_problems(&mut document);
    (router, document)
}

fn table(api: &Arc<ControlApi>) -> OpenApiRouter<Arc<ControlApi>> {
    let guarded = OpenApiRouter::new()
        .routes(routes!(projects::create, projects::list))
        .routes(routes!(projects::get, projects::delete))
        .routes(routes!(deployments::create, deployments::list_of_project))
        .routes(routes!(deployments::list))
        .routes(routes!(deployments::get, deployments::delete))
        .routes(routes!(lifecycle::start))
        .routes(routes!(lifecycle::stop))
        .routes(routes!(lifecycle::restart))
        .routes(routes!(lifecycle::promote))
        .routes(routes!(lifecycle::check_health))
        .routes(routes!(wait::wait))
        .routes(routes!(exec::exec))
        .routes(routes!(exec::attach))
        .routes(routes!(logs::logs))
        .routes(routes!(events::of_deployment))
        .routes(routes!(events::list))
        .routes(routes!(sources::put, sources::head))
        .routes(routes!(machines::list))
        .routes(routes!(machines::get, machines::delete))
        .routes(routes!(machines::create_registration))
        .routes(routes!(adapters::list))
        .routes(routes!(adapters::get))
        .routes(routes!(domains::add, domains::list))
        .routes(routes!(domains::remove))
        .routes(routes!(hostnames::list))
        .routes(routes!(hostnames::put, hostnames::delete))
        .routes(routes!(service::metrics))
        .route_layer(middleware::from_fn_with_state(api.clone(), auth::layer));
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(service::health))
        .routes(routes!(service::document))
        // Guarded by the machine's one-time token.
        .routes(routes!(machines::register))
        .merge(guarded)
}

async fn no_route(request: Request) -> Failure {
    let detail =
        format!("there is no route {:?}: {DOCUMENT} lists all, /v1/docs shows them", request.uri().path());
    Failure::new(code::NOT_FOUND, detail)
}

async fn other_method(request: Request) -> Failure {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("{path:?} does not take {method}: the header `allow` says what it takes");
    Failure::new(code::METHOD_NOT_ALLOWED, detail)
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Hythe",
        description = "Control API of a Hythe host: projects, deployments, machines, adapters.\n\n\
            Answers that are not a success are problems (RFC 9457) with a stable `code`. Lists are read a page at a \
            time: give `nextCursor` as `cursor`. A creating request may bear an `Idempotency-Key`: repeated with the \
            same body it gives the first answer again (`Idempotency-Replayed: true`)."
    ),
    // Also those that only query parameters name.
    components(schemas(Problem, WaitState, schema::Seen, schema::MachineStatus)),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Description;

/// How to authenticate.
struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("`hyt_…`: shown once, at the host's first start"))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Every route may answer with a problem.
fn add_problems(openapi: &mut OpenApi) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let problem = ResponseBuilder::new()
        .description("What went wrong, where, and what to do.")
        .content(api_types::PROBLEM_JSON, content)
        .build();
    for path in openapi.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.head];
        for operation in operations.into_iter().flatten() {
            let Operation { responses, .. } = operation;
            responses.responses.entry("default".to_owned()).or_insert_with(|| RefOr::T(problem.clone()));
        }
    }
}

/// So that a handler's own answer keeps its type.
type Answer = Result<Response, Failure>;
