//! The door to adapters that decide about each request: where it goes on to, what is changed about it, or
//! what the answer is.
//!
//! A request is asked about once, when its deployment runs and its lease is there, and before a connection
//! is taken. It is in its canonical form then, and stays so: a decision changes neither what frames a
//! request nor what ingress says of the client.
//!
//! Deliberately absent: who decides, and how long that may take. Whoever implements [`RequestRouter`] runs
//! on a worker's thread, where nothing may wait.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use model::{DeploymentId, ServiceSelector};

use crate::activity::{Open, OpenKind};
use crate::answer::{Code, Problem};
use crate::headers;
use crate::lease::Lease;
use crate::request::Job;
use crate::target;

/// Makes a router for each worker.
pub trait RouterFactory: Send + Sync + 'static {
    /// Called on the worker's own thread, once, before its first request.
    fn worker(&self) -> Box<dyn RequestRouter>;
}

/// One worker's way to ask. Never leaves its thread.
pub trait RequestRouter {
    /// What becomes of a request. Called on the path of the request, with all others of the worker
    /// waiting: microseconds are much.
    ///
    /// # Errors
    /// See [`RouteFailure`]; the request fails with it.
    fn route(&mut self, routed: &Routed, request: &RequestHead<'_>) -> Result<Decision, RouteFailure>;
}

/// In a lease: requests on it are asked about, and this is what is said of them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// Who is asked; a name that the [`RequestRouter`] knows.
    pub adapter: Arc<str>,
    /// The lease's deployment and service, as the one who is asked calls them.
    pub deployment: Arc<str>,
    pub service: Arc<str>,
    /// Settings, in whatever form both sides of the [`RequestRouter`] know.
    pub config: Arc<str>,
}

/// A request, as the app would get it, but for what the lease sets.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    pub incarnation: u64,
    pub method: &'a Method,
    /// `http` or `https`: what the client spoke.
    pub scheme: &'a str,
    /// Canonical: lower case, no dot at the end.
    pub authority: &'a str,
    /// Begins with `/`, or is `*`.
    pub path_with_query: &'a str,
    pub headers: &'a HeaderMap,
    /// An IP address.
    pub client_address: &'a str,
    /// Unix time in milliseconds, as precise as the worker's clock: some hundred.
    pub now_ms: u64,
    /// Another for each request; no secret.
    pub random: u64,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    Forward(Box<Forward>),
    /// Framed by ingress.
    Respond(Box<Response<Bytes>>),
}

/// Where a request goes on to, and what is changed about it before. The default: where it was going, as it
/// is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forward {
    /// Another deployment of the same project. It is waited for and woken as if it had been asked for; its
    /// own lease's [`Routed`] is passed over.
    pub deployment: Option<DeploymentId>,
    /// None: the request's own; of another deployment, its default one.
    pub service: Option<ServiceSelector>,
    pub path: Option<PathAndQuery>,
    /// Removed with what an app could take for them, before `set`.
    pub remove: Vec<HeaderName>,
    /// In the place of the client's own, and of what an app could take for them.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

/// Why there is no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteFailure {
    /// 503 `adapter_routing_off`.
    #[error("the adapter has failed too often, and is not asked for now")]
    Off,
    /// 503 `adapter_routing_failed`.
    #[error("the adapter did not decide")]
    Failed,
    /// 502 `adapter_routing_invalid`. What is wrong is for the log, not for the client.
    #[error("the adapter's decision can't be carried out: {0}")]
    Invalid(String),
}

/// No adapter decides about anything.
pub(crate) struct NoRouter;

impl RouterFactory for NoRouter {
    fn worker(&self) -> Box<dyn RequestRouter> {
        Box::new(Self)
    }
}

impl RequestRouter for NoRouter {
    fn route(&mut self, _: &Routed, _: &RequestHead<'_>) -> Result<Decision, RouteFailure> {
        Err(RouteFailure::Failed)
    }
}

/// How a request goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On the lease at hand.
    Same,
    /// To another service or deployment, which the job names by now.
    Other,
}

/// The end of a request that goes to no app.
pub(crate) enum Ended {
    Problem(Problem),
    /// The adapter's answer.
    Reply(Box<Response<Bytes>>),
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Asks about a request, once, where its lease says so; carries out what is decided.
///
/// # Errors
/// The request's end, where it goes no further.
pub(crate) fn decide<B>(job: &mut Job, request: &mut Request<B>, lease: &Lease) -> Result<Way, Ended> {
    let Some(routed) = &lease.routed else { return Ok(Way::Same) };
    if std::mem::replace(&mut job.decided, true) {
        return Ok(Way::Same);
    }
    let worker = &job.client.worker;
    let text = |name: &HeaderName| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let head = RequestHead {
        incarnation: lease.incarnation,
        method: request.method(),
        scheme: scheme(text(&headers::X_FORWARDED_PROTO)),
        authority: text(&header::HOST),
        path_with_query: request.uri().path_and_query().map_or("/", PathAndQuery::as_str),
        headers: request.headers(),
        client_address: client_address(text(&headers::X_FORWARDED_FOR)),
        now_ms: worker.clock.unix_ms(),
        random: worker.ids.borrow_mut().random(),
    };
    let decided = worker.router.borrow_mut().route(routed, &head);
    worker.shared.stats.asked();
    match decided {
        Ok(Decision::Forward(forward)) => go_on(job, request, *forward),
        Ok(Decision::Respond(reply)) => Err(own_answer(job, reply)),
        Err(failure) => Err(failed(job, &failure).into()),
    }
}

fn go_on<B>(job: &mut Job, request: &mut Request<B>, forward: Forward) -> Result<Way, Ended> {
    let Forward { deployment, service, path, remove, set } = forward;
    let reserved = remove.iter().chain(set.iter().map(|(name, _)| name)).find(|name| headers::is_ours(name));
    if let Some(name) = reserved {
        return Err(invalid(job, &format!("it changes the header {name}")));
    }
    let mut way = if service.is_some() { Way::Other } else { Way::Same };
    if let Some(id) = deployment.filter(|id| *id != job.deployment.id) {
        let routes = &job.client.worker.shared.routes;
        let Some(other) = routes.member(id, &job.deployment) else {
            return Err(invalid(job, &format!("{id} is no deployment of the same project")));
        };
        if other.activity.open() as usize >= job.client.worker.shared.config.max_deployment_requests {
            let full = "the deployment has as many open requests as it may have: come back soon";
            return Err(Problem::new(Code::Overloaded, full).retry_after(1).into());
        }
        // What goes on there counts there.
        let now = job.client.worker.clock.unix_ms();
        job.open = Some(Open::new(
            Arc::clone(&other.activity),
            id,
            if job.may_wake { OpenKind::Request } else { OpenKind::Quiet },
            now,
            &job.client.worker.in_flight,
        ));
        job.deployment = other;
        job.service = None;
        way = Way::Other;
    }
    if service.is_some() {
        job.service = service;
    }
    if let Some(path) = path {
        let text = path.as_str();
        let wrong =
            if text.starts_with('/') { target::check(text).err() } else { Some("no `/` at its beginning") };
        if let Some(wrong) = wrong {
            return Err(invalid(job, &format!("its path {text:?}: {wrong}")));
        }
        *request.uri_mut() = Uri::from(path);
    }
    headers::edit_request(request.headers_mut(), &remove, &set);
    Ok(way)
}

/// The adapter's answer as one of an app: framed by ingress, its cookies kept to its own host.
fn own_answer(job: &Job, mut reply: Box<Response<Bytes>>) -> Ended {
    let status = reply.status();
    if status.is_informational() {
        return invalid(job, &format!("it answers with {status}"));
    }
    if let Some(name) = reply.headers().keys().find(|name| headers::is_ours(name)) {
        return invalid(job, &format!("its answer has the header {name}"));
    }
    let base = job.client.worker.shared.routes.base_domain();
    if !headers::rewrite_response(reply.headers_mut(), status, false, base) {
        return invalid(job, "its answer can be read in more than one way");
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT) {
        *reply.body_mut() = Bytes::new();
    }
    Ended::Reply(reply)
}

fn invalid(job: &Job, what: &str) -> Ended {
    failed(job, &RouteFailure::Invalid(what.to_owned())).into()
}

fn failed(job: &Job, failure: &RouteFailure) -> Problem {
    let deployment = job.deployment.id;
    tracing::debug!(%deployment, %failure, "no decision about a request");
    match failure {
        RouteFailure::Off => Problem::new(
            Code::AdapterRoutingOff,
            "what decides where this deployment's requests go has failed too often, and is switched off for now",
        )
        .retry_after(30),
        RouteFailure::Failed => Problem::new(
            Code::AdapterRoutingFailed,
            "what decides where this deployment's requests go has failed: try again",
        )
        .retry_after(1),
        RouteFailure::Invalid(_) => Problem::new(
            Code::AdapterRoutingInvalid,
            "what decides where this deployment's requests go has decided something that can't be done",
        ),
    }
}

/// `X-Forwarded-Proto` is checked or made before this; a proxy may say `ws`.
fn scheme(forwarded: &str) -> &'static str {
    if matches!(forwarded, "https" | "wss") { "https" } else { "http" }
}

/// The client in an `X-Forwarded-For` whose last entry is ours: that one, or (where that one is a proxy
/// that is believed) the one that the proxy names.
fn client_address(forwarded: &str) -> &str {
    let mut entries = forwarded.rsplit(',').map(str::trim);
    let peer = entries.next().unwrap_or_default();
    match entries.next() {
        Some(named) if named.parse::<IpAddr>().is_ok() => named,
        _ => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_address_is_what_a_believed_proxy_says() {
        let check = |forwarded, expected| assert_eq!(client_address(forwarded), expected);
        check("192.0.2.1", "192.0.2.1");
        check("192.0.2.1, 10.0.0.1", "192.0.2.1");
        check("198.51.100.1, 2001:db8::1, 10.0.0.1", "2001:db8::1");
        check("nonsense, 10.0.0.1", "10.0.0.1");
        check("", "");
    }
}
