//! From a client's request to a request for an app: read, routed, rewritten; then on the short way, where
//! all that it needs is at hand, or on the long one.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use model::{HostNameError, ServiceSelector};

use crate::activity::{Open, OpenKind};
use crate::answer::{Code, Problem, X_REQUEST_ID};
use crate::body::{AnswerBody, RequestBody, Upload};
use crate::exchange::Exchange;
use crate::finish::{Finish, LogLine, is_logged};
use crate::forward;
use crate::headers::{self, Forwarding, Inspected};
use crate::host::{CanonicalHost, HostError};
use crate::ids::RequestId;
use crate::relay_task::Tunnel;
use crate::resolve::{Canonical, NoRoute};
use crate::route::{Deployment, ServiceKey, State};
use crate::slot::{Ask, Slot, Target};
use crate::watch::{Phase, Watch};
use crate::worker::Worker;

/// One client connection's side of things, for all its requests.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) watch: Rc<Watch>,
    pub(crate) peer: SocketAddr,
    /// The peer's address, as `X-Forwarded-For` says it.
    address: HeaderValue,
    /// Whether the peer is a proxy that is believed.
    trusted: bool,
    /// Where the last request's host led: the next one's is the same, as a rule.
    last: RefCell<Option<Rc<HostRoute>>>,
    /// What a 101 leaves for the connection's task.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    /// Memory for the copy of a request.
    pub(crate) spare_fields: Cell<Vec<(HeaderName, HeaderValue)>>,
}

/// A host header, and where it leads.
struct HostRoute {
    /// As it was written.
    raw: HeaderValue,
    /// Of the route table, when this was looked up.
    version: u64,
    canonical: CanonicalHost,
    /// The canonical host and port, as header.
    host: HeaderValue,
    forwarded: HeaderValue,
    deployment: Arc<Deployment>,
    service: Option<ServiceSelector>,
    /// Where browsers are sent that come by a form of old.
    moved: Option<Canonical>,
    /// The slot under one state; looked up anew when the state is another.
    slot: RefCell<Option<(Arc<State>, Arc<Slot>)>>,
}

/// All that has to be known of a request after its head has gone.
pub(crate) struct Job {
    pub(crate) client: Rc<Client>,
    pub(crate) started: Instant,
    pub(crate) id: RequestId,
    pub(crate) method: Method,
    pub(crate) wants_html: bool,
    /// A browser shows what comes back as a page.
    pub(crate) navigates: bool,
    /// May start what is stopped: a prefetch may not.
    pub(crate) may_wake: bool,
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) service: Option<ServiceSelector>,
    pub(crate) open: Option<Open>,
    pub(crate) upload: Option<Rc<Upload>>,
    line: Option<Box<LogLine>>,
}

pub(crate) type Answer = Response<AnswerBody>;

impl Client {
    pub(crate) fn new(worker: Rc<Worker>, watch: Rc<Watch>, peer: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        let address =
            HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let trusted = worker.shared.config.trusted_proxies.contains(ip);
        Self {
            worker,
            watch,
            peer,
            address,
            trusted,
            last: RefCell::default(),
            tunnel: RefCell::default(),
            spare_fields: Cell::default(),
        }
    }

    fn begin(self: &Rc<Self>, request: Request<Incoming>) -> Serving {
        let started = Instant::now();
        self.watch.enter(Phase::Waiting);
        let (mut head, body) = request.into_parts();
        let job = match self.read(&mut head, !body.is_end_stream(), started) {
            Ok(job) => job,
            Err(refused) => {
                let Refused { problem, wants_html, id } = *refused;
                let id = id.unwrap_or_else(|| self.worker.ids.borrow_mut().next().0);
                return Serving::Done(Some(self.refuse(problem, &head, id, wants_html, started)));
            }
        };
        let body = RequestBody::new(body, &self.watch);
        let mut job = job;
        job.upload = body.upload();
        let request = Request::from_parts(head, body);
        self.start(job, request)
    }

    /// Reads, routes and rewrites the head.
    fn read(
        self: &Rc<Self>,
        head: &mut Parts,
        has_body: bool,
        started: Instant,
    ) -> Result<Job, Box<Refused>> {
        let refused = |problem: Problem, wants_html| Box::new(Refused { problem, wants_html, id: None });
        let found =
            headers::inspect(head, has_body, self.trusted).map_err(|problem| refused(problem, false))?;
        check_method(&head.method).map_err(|problem| refused(problem, found.wants_html))?;
        let route = self.route(head).map_err(|problem| refused(problem, found.wants_html))?;
        let (id, traceparent) = self.worker.ids.borrow_mut().next();
        let id = match head.headers.get(X_REQUEST_ID) {
            Some(given) if self.trusted => RequestId::from_trusted(given).unwrap_or(id),
            _ => id,
        };
        let (navigates, may_wake) = intent(&head.method, &head.headers, &found);
        if let Some(moved) = route.moved.as_ref().filter(|_| navigates)
            && let Some(host) = moved.host(self.worker.shared.routes.base_domain())
        {
            return Err(refused(Problem::moved(&host, &route.canonical, &head.uri), found.wants_html));
        }
        let line = is_logged().then(|| {
            Box::new(LogLine {
                method: head.method.clone(),
                host: route.canonical.as_str().to_owned(),
                path: head.uri.path().to_owned(),
                client: self.peer,
                id: id.clone(),
            })
        });
        headers::rewrite_request(
            &mut head.headers,
            &found,
            Forwarding {
                host: &route.host,
                host_is_canonical: route.raw == route.host,
                client: &self.address,
                scheme: self.worker.scheme,
                forwarded: &route.forwarded,
                request_id: id.header(),
                traceparent,
                trusted: self.trusted,
            },
        );
        head.version = Version::HTTP_11;
        let deployment = Arc::clone(&route.deployment);
        let open = Open::new(
            Arc::clone(&deployment.activity),
            deployment.id,
            OpenKind::Request,
            self.worker.clock.unix_ms(),
        );
        Ok(Job {
            client: Rc::clone(self),
            started,
            id,
            method: head.method.clone(),
            wants_html: found.wants_html,
            navigates,
            may_wake,
            upgrade: found.upgrade,
            deployment,
            service: route.service.clone(),
            open: Some(open),
            upload: None,
            line,
        })
    }

    /// Where the request's host leads; makes the target's form the origin form on the way.
    fn route(&self, head: &mut Parts) -> Result<Rc<HostRoute>, Problem> {
        let raw = head.headers.get(header::HOST).ok_or_else(|| invalid_host(HostError::Name))?;
        let version = self.worker.shared.routes.version();
        let last = self.last.borrow().clone();
        let route = match last {
            Some(last) if last.version == version && last.raw == *raw => last,
            _ => {
                let route = Rc::new(self.look_up(raw, version)?);
                *self.last.borrow_mut() = Some(Rc::clone(&route));
                route
            }
        };
        make_origin_form(head, &route.canonical)?;
        Ok(route)
    }

    fn look_up(&self, raw: &HeaderValue, version: u64) -> Result<HostRoute, Problem> {
        let canonical = CanonicalHost::parse(raw.as_bytes()).map_err(invalid_host)?;
        let routes = &self.worker.shared.routes;
        let resolved = routes
            .resolve(canonical.host())
            .map_err(|error| no_route(error, &canonical, routes.base_domain()))?;
        let invalid = |_| invalid_host(HostError::Name);
        let host = HeaderValue::from_str(canonical.as_str()).map_err(invalid)?;
        let client = match self.peer.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        let forwarded = format!("for={client};host=\"{}\";proto={}", canonical.as_str(), self.worker.scheme);
        let forwarded = HeaderValue::from_str(&forwarded).map_err(invalid)?;
        // A copy of its own: the one in the request keeps the whole read buffer alive.
        let raw = HeaderValue::from_bytes(raw.as_bytes()).map_err(|_| invalid_host(HostError::Name))?;
        Ok(HostRoute {
            raw,
            version,
            canonical,
            host,
            forwarded,
            deployment: resolved.deployment,
            service: resolved.service,
            moved: resolved.canonical,
            slot: RefCell::default(),
        })
    }

    /// The short way, where the deployment runs, its lease holds and a connection is idle.
    fn start(self: &Rc<Self>, job: Job, mut request: Request<RequestBody>) -> Serving {
        let state = job.deployment.state.load();
        if forward::is_served(&state)
            && let Some(slot) = self.slot(&job, &state)
            && let Some(target) = slot.ready(job.started, || job.ask(state.incarnation))
            && forward::is_spoken(&target.lease).is_ok()
            && let Some(upstream) = self.worker.take(target.id)
        {
            drop(state);
            let backup = forward::backup(&job, &request, &upstream);
            headers::set_lease_headers(
                request.headers_mut(),
                target.lease.host_header.as_ref(),
                &target.lease.set_headers,
            );
            let exchange = Exchange::new(upstream, request, &self.watch);
            return Serving::Exchanging(Exchanging { exchange, job: Some(job), backup, _target: target });
        }
        drop(state);
        Serving::Long(Box::pin(forward::forward(job, request, false)))
    }

    fn slot(&self, job: &Job, state: &Arc<State>) -> Option<Arc<Slot>> {
        let last = self.last.borrow();
        let last = last.as_ref().filter(|last| Arc::ptr_eq(&last.deployment, &job.deployment))?;
        let mut kept = last.slot.borrow_mut();
        if let Some((of, slot)) = &*kept
            && Arc::ptr_eq(of, state)
        {
            return Some(Arc::clone(slot));
        }
        let key = state.service(job.service.as_ref())?;
        let slot = job.deployment.slot(state, &key);
        *kept = Some((Arc::clone(state), Arc::clone(&slot)));
        Some(slot)
    }

    /// Answers what leads to no deployment.
    fn refuse(
        self: &Rc<Self>,
        problem: Problem,
        head: &Parts,
        id: RequestId,
        wants_html: bool,
        started: Instant,
    ) -> Answer {
        self.worker.shared.stats.refused(problem.code);
        let answer = problem.into_response(&id, wants_html);
        let line = is_logged().then(|| {
            let host = head
                .headers
                .get(header::HOST)
                .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
            Box::new(LogLine {
                method: head.method.clone(),
                host: host.unwrap_or_default(),
                path: head.uri.path().to_owned(),
                client: self.peer,
                id,
            })
        });
        drop(Finish {
            worker: Rc::clone(&self.worker),
            watch: Rc::clone(&self.watch),
            open: None,
            started,
            status: answer.status(),
            sent: 0,
            broke: false,
            line,
        });
        answer
    }
}

struct Refused {
    problem: Problem,
    wants_html: bool,
    id: Option<RequestId>,
}

fn check_method(method: &Method) -> Result<(), Problem> {
    if matches!(*method, Method::CONNECT | Method::TRACE) || method.as_str().eq_ignore_ascii_case("TRACK") {
        return Err(Problem::new(Code::MethodNotAllowed, format!("{method} is not served here")).closing());
    }
    Ok(())
}

/// Leaves path and query only. The absolute form must mean the same host as `Host` (RFC 9112, section
/// 3.2.2, would let it win; then whoever looked at `Host` before us would have been deceived).
fn make_origin_form(head: &mut Parts, host: &CanonicalHost) -> Result<(), Problem> {
    let uri = &head.uri;
    let wrong = |message: &str| Problem::new(Code::InvalidRequest, message).closing();
    let Some(authority) = uri.authority() else {
        let path = uri.path();
        return if path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS) {
            Ok(())
        } else {
            Err(wrong("the request's target must begin with `/`"))
        };
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("the request's target must begin with `/`"));
    }
    let named = CanonicalHost::parse(authority.as_str().as_bytes()).map_err(invalid_host)?;
    if named != *host {
        return Err(wrong("the request's target names another host than its Host field"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse::<Uri>().map_err(|_| wrong("the request's target is no path"))?;
    Ok(())
}

fn invalid_host(error: HostError) -> Problem {
    match error {
        HostError::Name => Problem::new(Code::InvalidHostname, "the Host field names no valid host"),
        HostError::Port => {
            Problem::new(Code::InvalidPort, "the port in the Host field is not a number from 1 to 65535")
        }
    }
    .closing()
}

fn no_route(error: NoRoute, host: &CanonicalHost, base: &str) -> Problem {
    let name = host.host();
    match error {
        NoRoute::ServiceNotFound(service) => {
            Problem::new(Code::ServiceNotFound, format!("what {name} leads to has no service {service:?}"))
        }
        NoRoute::MachineNotFound => {
            Problem::new(Code::MachineNotFound, format!("no machine is known by the name in {name}"))
        }
        NoRoute::MachineGone => Problem::new(
            Code::MachineGone,
            format!("the machine at {name} is gone for good: use the address of its project"),
        ),
        NoRoute::HostGone => {
            Problem::new(Code::HostGone, format!("{name} led to something that is gone for good"))
        }
        NoRoute::InvalidHost(HostNameError::InvalidPort(port)) => Problem::new(
            Code::InvalidPort,
            format!("{port:?} in the host name {name} is not a port: give a number from 1 to 65535"),
        ),
        NoRoute::InvalidHost(error) => Problem::new(Code::InvalidHostname, format!("{error}")),
        NoRoute::ForeignHost => Problem::new(
            Code::ProjectNotFound,
            format!("{name} leads to no project: projects are at <project>.{base}"),
        ),
        NoRoute::ProjectNotFound => Problem::new(
            Code::ProjectNotFound,
            format!("{name} leads to no project: look at its spelling, or deploy it"),
        ),
        NoRoute::NoPrimary => Problem::new(
            Code::DeploymentNotFound,
            format!("the project at {name} has no primary deployment yet: deploy it, or make one primary"),
        ),
        NoRoute::DeploymentNotFound => Problem::new(
            Code::DeploymentNotFound,
            format!("the deployment at {name} does not exist (any more)"),
        ),
    }
}

/// Whether a browser shows the answer as a page, and whether the request may start what is stopped.
fn intent(method: &Method, headers: &HeaderMap, found: &Inspected) -> (bool, bool) {
    if *method != Method::GET || !found.wants_html {
        return (false, true);
    }
    let is = |name: &str, word: &[u8]| {
        headers.get(name).is_some_and(|value| headers::contains(value.as_bytes(), word))
    };
    let mode = headers.get("sec-fetch-mode").map(HeaderValue::as_bytes);
    let prefetch = is("sec-purpose", b"prefetch") || is("purpose", b"prefetch") || is("x-moz", b"prefetch");
    (found.upgrade.is_none() && mode.is_none_or(|mode| mode == b"navigate"), !prefetch)
}

impl Job {
    pub(crate) fn ask(&self, incarnation: u64) -> Ask {
        let shared = &self.client.worker.shared;
        Ask {
            source: Arc::clone(&shared.fetchers),
            runtime: shared.control.clone(),
            deployment: self.deployment.id,
            incarnation,
        }
    }

    pub(crate) fn slot(&self, state: &State) -> Result<Arc<Slot>, Problem> {
        let key: Option<ServiceKey> = state.service(self.service.as_ref());
        match key {
            Some(key) => Ok(self.deployment.slot(state, &key)),
            None => Err(Problem::new(
                Code::ServiceNotFound,
                match &self.service {
                    Some(service) => format!("the deployment has no service {service}"),
                    None => "the deployment declares no service".to_owned(),
                },
            )),
        }
    }

    /// The end of a request that ingress answers itself.
    pub(crate) fn answer(self, problem: Problem) -> Answer {
        self.client.worker.shared.stats.refused(problem.code);
        let answer = problem.into_response(&self.id, self.wants_html);
        drop(self.finish(answer.status()));
        answer
    }

    /// What is dropped at the request's end.
    pub(crate) fn finish(self, status: http::StatusCode) -> Finish {
        Finish {
            worker: Rc::clone(&self.client.worker),
            watch: Rc::clone(&self.client.watch),
            open: self.open,
            started: self.started,
            status,
            sent: 0,
            broke: false,
            line: self.line,
        }
    }
}

/// hyper's view of a client.
pub(crate) struct Requests(pub(crate) Rc<Client>);

impl Service<Request<Incoming>> for Requests {
    type Response = Answer;
    type Error = Infallible;
    type Future = Serving;

    fn call(&self, request: Request<Incoming>) -> Serving {
        self.0.begin(request)
    }
}

/// A request being served. Every idle connection has room for one, so the long way is elsewhere.
#[expect(
    clippy::large_enum_variant,
    reason = "one for each connection, in memory that is kept: cheaper than a box a request"
)]
pub(crate) enum Serving {
    Done(Option<Answer>),
    Exchanging(Exchanging),
    Long(Pin<Box<dyn Future<Output = Answer>>>),
}

/// A request on the short way.
pub(crate) struct Exchanging {
    exchange: Exchange,
    job: Option<Job>,
    backup: Option<forward::Backup>,
    _target: Arc<Target>,
}

impl Future for Serving {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Done(answer) => {
                    return answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)));
                }
                Self::Long(long) => return long.as_mut().poll(cx).map(Ok),
                Self::Exchanging(exchanging) => {
                    let Poll::Ready(result) = Pin::new(&mut exchanging.exchange).poll(cx) else {
                        return Poll::Pending;
                    };
                    let Some(job) = exchanging.job.take() else { return Poll::Pending };
                    let backup = exchanging.backup.take();
                    *self = match result {
                        Ok(answered) => {
                            if let Some(backup) = backup {
                                backup.discard(&job.client);
                            }
                            Self::Done(Some(forward::answered(job, answered)))
                        }
                        Err(error) => match forward::again(error, backup) {
                            Ok(request) => Self::Long(Box::pin(forward::forward(job, request, true))),
                            Err(error) => Self::Done(Some(job.answer(forward::problem(&error)))),
                        },
                    };
                }
            }
        }
    }
}
