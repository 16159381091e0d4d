//! Joins ingress to adapters that decide about requests (`http-routing`).
//!
//! Always holds:
//! - A lease's requests are asked about where its adapter exports `http-routing`, unless the fetcher's
//!   extension of that name is `false`.
//! - What an adapter decides reaches ingress as checked HTTP; what can't be HTTP fails that one request.
//!
//! Deliberately absent: the adapters' instances and their bounds (`adapter-runtime`), what a decision may
//! touch (`ingress`), and what is done about an adapter that was switched off (the program).

mod convert;

use std::sync::Arc;

use adapter_runtime::{Fetcher, HeaderRef, RequestHead, RouteError, Router, RoutingTable};
use ingress::{Decision, RequestRouter, RouteFailure, Routed, RouterFactory};

/// The extension of a fetcher that holds the settings.
const EXTENSION: &str = "http-routing";

/// Gives each worker of ingress a router of its own over one table.
#[derive(Debug, Clone)]
pub struct AdapterRouters {
    table: Arc<RoutingTable>,
}

impl AdapterRouters {
    #[must_use]
    pub fn new(table: Arc<RoutingTable>) -> Self {
        Self { table }
    }
}

impl RouterFactory for AdapterRouters {
    fn worker(&self) -> Box<dyn RequestRouter> {
        Box::new(WorkerRouter(Router::new(Arc::clone(&self.table))))
    }
}

/// What a lease says of its requests, where its adapter (`adapter`, by its name in the table) exports
/// `http-routing`. None: they are not asked about.
#[must_use]
pub fn routed(adapter: &str, deployment_id: &str, service: &str, fetcher: &Fetcher) -> Option<Routed> {
    let config = fetcher.extensions.get(EXTENSION).unwrap_or(&serde_json::Value::Null);
    if *config == serde_json::Value::Bool(false) {
        return None;
    }
    Some(Routed {
        adapter: adapter.into(),
        deployment: deployment_id.into(),
        service: service.into(),
        config: config.to_string().into(),
    })
}

struct WorkerRouter(Router);

impl RequestRouter for WorkerRouter {
    fn route(
        &mut self,
        routed: &Routed,
        request: &ingress::RequestHead<'_>,
    ) -> Result<Decision, RouteFailure> {
        let headers: Vec<HeaderRef<'_>> = request
            .headers
            .iter()
            .map(|(name, value)| HeaderRef { name: name.as_str(), value: value.as_bytes() })
            .collect();
        let head = RequestHead {
            deployment_id: &routed.deployment,
            incarnation: request.incarnation,
            service: &routed.service,
            config: &routed.config,
            method: request.method.as_str(),
            scheme: request.scheme,
            authority: request.authority,
            path_with_query: request.path_with_query,
            headers: &headers,
            client_address: request.client_address,
            now_ms: request.now_ms,
            random: request.random,
        };
        let decision = self.0.route(&routed.adapter, &head).map_err(|error| failure(&error))?;
        convert::decision(decision).map_err(RouteFailure::Invalid)
    }
}

fn failure(error: &RouteError) -> RouteFailure {
    match error {
        RouteError::Off { .. } => RouteFailure::Off,
        // The table has logged what is worth it.
        RouteError::Unknown { .. } | RouteError::Failed(_) => RouteFailure::Failed,
        RouteError::Head { .. } | RouteError::Answer(_) => RouteFailure::Invalid(error.to_string()),
    }
}
