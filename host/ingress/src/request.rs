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
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use model::{HostNameError, Scheme, ServiceSelector};

use crate::accepted::{Accepted, TlsFacts};
use crate::activity::{Open, OpenKind};
use crate::answer::{Code, Problem, Shows, X_REQUEST_ID};
use crate::body::{AnswerBody, RequestBody, Upload};
use crate::exchange::Exchange;
use crate::finish::{Finish, LogLine};
use crate::forward;
use crate::headers::{self, Forwarding, Inspected};
use crate::host::{CanonicalHost, HostError};
use crate::ids::RequestId;
use crate::inflow::Inflow;
use crate::interim::Interim;
use crate::real::Agents;
use crate::relay_task::Tunnel;
use crate::resolve::{Canonical, NoRoute};
use crate::route::{Deployment, ServiceKey, State};
use crate::router::{self, Ended, Way};
use crate::slot::{Ask, Slot, Target};
use crate::trace::{Phases, Step, Trace};
use crate::wait;
use crate::watch::{Phase, Watch};
use crate::worker::Worker;

/// One client connection, for all its requests.
pub(crate) struct Conn {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: SocketAddr,
    /// `http` or `https`, as the client sees it.
    pub(crate) scheme: &'static str,
    /// The peer's address, as `X-Forwarded-For` says it.
    address: HeaderValue,
    /// Whether the peer is a proxy that is believed.
    trusted: bool,
    /// None: cleartext.
    pub(crate) tls: Option<TlsFacts>,
    /// Cleartext is not served: it is sent to this port, over TLS.
    pub(crate) redirect_to: Option<u16>,
    /// Where the last request's host led: the next one's is the same, as a rule.
    last: RefCell<Option<Rc<HostRoute>>>,
    agents: Agents,
}

/// The client's side of one request at a time: a connection of HTTP/1, or a stream of HTTP/2.
pub(crate) struct Client {
    pub(crate) conn: Rc<Conn>,
    pub(crate) worker: Rc<Worker>,
    pub(crate) watch: Rc<Watch>,
    /// What a 101 leaves for the connection's task.
    pub(crate) tunnel: RefCell<Option<Tunnel>>,
    /// Memory for the copy of a request.
    pub(crate) spare_fields: Cell<Vec<(HeaderName, HeaderValue)>>,
    /// How answers before the answer are told.
    pub(crate) interim: Interim,
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
    /// How an answer of ours is to look.
    pub(crate) shows: Shows,
    /// A browser shows what comes back as a page.
    pub(crate) navigates: bool,
    /// Is activity, and may start what is stopped: a prefetch or a monitor's look does not.
    pub(crate) may_wake: bool,
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) service: Option<ServiceSelector>,
    pub(crate) open: Option<Open>,
    pub(crate) upload: Option<Rc<Upload>>,
    /// Whoever decides about it was asked.
    pub(crate) decided: bool,
    line: Option<Box<LogLine>>,
    trace: Option<Box<Trace>>,
}

pub(crate) type Answer = Response<AnswerBody>;

impl Conn {
    pub(crate) fn new(worker: Rc<Worker>, from: Accepted) -> Self {
        let Accepted { peer, tls, redirect_to } = from;
        let ip = peer.ip().to_canonical();
        let address =
            HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let config = &worker.shared.config;
        let trusted = config.trusted_proxies.contains(ip);
        let scheme = if tls.is_some() { "https" } else { config.public_scheme.as_str() };
        Self {
            worker,
            peer,
            scheme,
            address,
            trusted,
            tls,
            redirect_to,
            last: RefCell::default(),
            agents: Agents::default(),
        }
    }
}

impl Client {
    pub(crate) fn new(conn: Rc<Conn>, watch: Rc<Watch>, interim: Interim) -> Self {
        Self {
            worker: Rc::clone(&conn.worker),
            conn,
            watch,
            tunnel: RefCell::default(),
            spare_fields: Cell::default(),
            interim,
        }
    }

    /// Tells the client of a 1xx.
    pub(crate) fn tell(&self, status: StatusCode, headers: HeaderMap) {
        self.interim.tell(&self.watch, status, headers);
    }

    pub(crate) fn begin(self: &Rc<Self>, mut head: Parts, body: Option<Inflow>) -> Serving {
        let started = Instant::now();
        self.watch.enter(Phase::Waiting);
        let has_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
        let (mut job, held) = match self.read(&mut head, has_body, started) {
            Ok(read) => read,
            Err(refused) => {
                let id = self.worker.ids.borrow_mut().next().0;
                return Serving::Done(Some(self.refuse(*refused, &head, id, started)));
            }
        };
        let body = body.map_or_else(RequestBody::none, |body| RequestBody::new(body, self, held));
        job.upload = body.upload();
        self.start(job, Request::from_parts(head, body))
    }

    /// Reads, routes and rewrites the head.
    fn read(
        self: &Rc<Self>,
        head: &mut Parts,
        has_body: bool,
        started: Instant,
    ) -> Result<(Job, bool), Box<Refused>> {
        let conn = &*self.conn;
        let found = headers::inspect(head, has_body, conn.trusted)
            .map_err(|problem| Box::new(Refused { problem, shows: Shows::Json }))?;
        let shows = found.shows();
        let refused = |problem| Box::new(Refused { problem, shows });
        check_method(&head.method).map_err(refused)?;
        let route = self.route(head).map_err(refused)?;
        self.admit(&route).map_err(refused)?;
        let (id, traceparent) = self.worker.ids.borrow_mut().next();
        let id = match head.headers.get(X_REQUEST_ID) {
            Some(given) if conn.trusted => RequestId::from_trusted(given).unwrap_or(id),
            _ => id,
        };
        if wait::is_poll(&head.method, &head.headers) {
            return Err(refused(wait::poll(&route.deployment)));
        }
        let (navigates, may_wake) = intent(&head.method, &head.headers, &found);
        let may_wake =
            may_wake && !conn.agents.is_quiet(&self.worker.shared.config.quiet_agents, &head.headers);
        if let Some(moved) = route.moved.as_ref().filter(|_| navigates)
            && let Some(host) = moved.host(self.worker.shared.routes.base_domain())
        {
            return Err(refused(Problem::moved(&host, &route.canonical, &head.uri)));
        }
        let is_logged = self.worker.log.takes();
        let trace =
            (is_logged || found.asks_for_timing).then(|| Trace::new(id.as_str(), found.asks_for_timing));
        let line = is_logged.then(|| {
            Box::new(LogLine {
                method: head.method.clone(),
                host: route.canonical.as_str().to_owned(),
                path: head.uri.path().to_owned(),
                client: self.conn.peer,
                id: id.clone(),
            })
        });
        headers::rewrite_request(
            &mut head.headers,
            &found,
            Forwarding {
                host: &route.host,
                host_is_canonical: route.raw == route.host,
                client: &conn.address,
                scheme: conn.scheme,
                forwarded: &route.forwarded,
                request_id: id.header(),
                traceparent,
                trusted: conn.trusted,
            },
        );
        head.version = Version::HTTP_11;
        let deployment = Arc::clone(&route.deployment);
        let open = Open::new(
            Arc::clone(&deployment.activity),
            deployment.id,
            if may_wake { OpenKind::Request } else { OpenKind::Quiet },
            self.worker.clock.unix_ms(),
            &self.worker.in_flight,
        );
        self.watch.begin(shows == Shows::Grpc);
        let held = found.waits_for_continue && has_body;
        let job = Job {
            client: Rc::clone(self),
            started,
            id,
            method: head.method.clone(),
            shows,
            navigates,
            may_wake,
            upgrade: found.upgrade,
            deployment,
            service: route.service.clone(),
            open: Some(open),
            upload: None,
            decided: false,
            line,
            trace,
        };
        Ok((job, held))
    }

    /// Whether there is room for one more request, here and at its deployment.
    fn admit(&self, route: &HostRoute) -> Result<(), Problem> {
        let config = &self.worker.shared.config;
        let full = |message: &str| Err(Problem::new(Code::Overloaded, message).retry_after(1));
        if self.worker.in_flight.get() >= config.max_requests {
            return full("ingress serves as many requests as it can: come back soon");
        }
        if self.worker.clock.is_behind() {
            return full("ingress has more to do than it can keep up with: come back soon");
        }
        if route.deployment.activity.open() as usize >= config.max_deployment_requests {
            return full("the deployment has as many open requests as it may have: come back soon");
        }
        Ok(())
    }

    /// Where the request's host leads; makes the target's form the origin form on the way.
    fn route(&self, head: &mut Parts) -> Result<Rc<HostRoute>, Problem> {
        let raw = head.headers.get(header::HOST).ok_or_else(|| invalid_host(HostError::Name))?;
        let version = self.worker.shared.routes.version();
        let last = self.conn.last.borrow().clone();
        let route = match last {
            Some(last) if last.version == version && last.raw == *raw => last,
            _ => {
                let route = Rc::new(self.look_up(raw, version)?);
                *self.conn.last.borrow_mut() = Some(Rc::clone(&route));
                route
            }
        };
        if let Some(port) = self.conn.redirect_to {
            return Err(to_https(&route.canonical, port, &head.uri));
        }
        if self.conn.tls.as_ref().is_some_and(|tls| !tls.covers(route.canonical.host())) {
            return Err(Problem::new(
                Code::MisdirectedRequest,
                "the certificate of this connection is not one for the request's host: open another connection",
            ));
        }
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
        let conn = &*self.conn;
        let client = match conn.peer.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        let forwarded = format!("for={client};host=\"{}\";proto={}", canonical.as_str(), conn.scheme);
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
    fn start(self: &Rc<Self>, mut job: Job, mut request: Request<RequestBody>) -> Serving {
        let mut target = self.target(&job);
        if let Some(at_hand) = &target
            && at_hand.lease.routed.is_some()
        {
            match router::decide(&mut job, &mut request, &at_hand.lease) {
                Ok(Way::Same) => {}
                Ok(Way::Other) => target = self.target(&job),
                Err(ended) => return Serving::Done(Some(job.end(ended))),
            }
        }
        if let Some(target) = target
            && let Some(upstream) = self.worker.take(target.id)
        {
            let backup = forward::backup(&job, &request, &upstream);
            headers::set_lease_headers(
                request.headers_mut(),
                target.lease.host_header.as_ref(),
                &target.lease.set_headers,
            );
            job.enter(Step::Upstream);
            let exchange = Exchange::new(upstream, request, self, job.upload.clone());
            return Serving::Exchanging(Exchanging { exchange, job: Some(job), backup, _target: target });
        }
        Serving::Long(Box::pin(forward::forward(job, request, false)))
    }

    /// Where the request goes, if nothing has to be waited for.
    fn target(&self, job: &Job) -> Option<Arc<Target>> {
        let state = job.deployment.state.load();
        if !forward::is_served(&state) {
            return None;
        }
        let slot = self.slot(job, &state)?;
        let target = slot.ready(job.started, || job.ask(state.incarnation))?;
        (target.lease.scheme == Scheme::Http).then_some(target)
    }

    fn slot(&self, job: &Job, state: &Arc<State>) -> Option<Arc<Slot>> {
        let last = self.conn.last.borrow();
        // Somewhere else than its host leads, where a decision says so.
        let Some(last) = last.as_ref().filter(|last| {
            Arc::ptr_eq(&last.deployment, &job.deployment) && (!job.decided || last.service == job.service)
        }) else {
            return state.service(job.service.as_ref()).map(|key| job.deployment.slot(state, &key));
        };
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

    /// Answers a request that could not be read.
    pub(crate) fn refuse_early(self: &Rc<Self>, problem: Problem, head: &Parts) -> Answer {
        let id = self.worker.ids.borrow_mut().next().0;
        self.refuse(Refused { problem, shows: Shows::Json }, head, id, Instant::now())
    }

    /// An answer in the place of one that can't be passed on.
    pub(crate) fn refuse_late(&self, problem: Problem) -> Answer {
        self.worker.shared.stats.refused(problem.code);
        let id = self.worker.ids.borrow_mut().next().0;
        problem.into_response(&id, Shows::Json)
    }

    /// Answers what leads to no deployment.
    fn refuse(self: &Rc<Self>, refused: Refused, head: &Parts, id: RequestId, started: Instant) -> Answer {
        let Refused { problem, shows } = refused;
        self.worker.shared.stats.refused(problem.code);
        let answer = problem.into_response(&id, shows);
        let line = self.worker.log.takes().then(|| {
            let host = head
                .headers
                .get(header::HOST)
                .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
            Box::new(LogLine {
                method: head.method.clone(),
                host: host.unwrap_or_default(),
                path: head.uri.path().to_owned(),
                client: self.conn.peer,
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
            phases: Phases::default(),
        });
        answer
    }
}

struct Refused {
    problem: Problem,
    shows: Shows,
}

/// Sends a client of cleartext to the same place over TLS.
fn to_https(host: &CanonicalHost, port: u16, uri: &Uri) -> Problem {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Problem::new(Code::HttpsRequired, "this host is served over https")
        .leading_to(&format!("https://{}{port}{path}", host.host()))
}

fn check_method(method: &Method) -> Result<(), Problem> {
    let refused = |name: &str| method.as_str().eq_ignore_ascii_case(name);
    if matches!(method.as_str().as_bytes()[0], b'C' | b'T' | b'c' | b't')
        && (refused("CONNECT") || refused("TRACE") || refused("TRACK"))
    {
        return Err(Problem::new(Code::MethodNotAllowed, format!("{method} is not served here")).closing());
    }
    Ok(())
}

/// Leaves path and query only. The absolute form must mean the same host as `Host` (RFC 9112, section
/// 3.2.2, would let it win; then whoever looked at `Host` before us would have been deceived).
pub(crate) fn make_origin_form(head: &mut Parts, host: &CanonicalHost) -> Result<(), Problem> {
    let uri = &head.uri;
    let wrong = |message: &str| Problem::new(Code::InvalidRequest, message).closing();
    let Some(authority) = uri.authority() else {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        return if path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS) {
            crate::target::check(path).map_err(wrong)
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
    crate::target::check(path).map_err(wrong)?;
    // An empty path is `/` (RFC 9112, section 3.2.1).
    let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
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
    if *method != Method::GET {
        return (false, true);
    }
    let is = |name: &str, word: &[u8]| {
        headers.get(name).is_some_and(|value| headers::contains(value.as_bytes(), word))
    };
    let mode = headers.get("sec-fetch-mode").map(HeaderValue::as_bytes);
    let prefetch = is("sec-purpose", b"prefetch") || is("purpose", b"prefetch") || is("x-moz", b"prefetch");
    (found.wants_html && found.upgrade.is_none() && mode.is_none_or(|mode| mode == b"navigate"), !prefetch)
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

    /// The next phase begins.
    pub(crate) fn enter(&self, step: Step) {
        if let Some(trace) = &self.trace {
            trace.enter(step);
        }
    }

    /// The answer's head is there: says in it where the time went, if that is wanted.
    pub(crate) fn told(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.end();
            trace.tell(headers);
        }
    }

    /// The end of a request that ingress answers itself.
    pub(crate) fn answer(self, problem: Problem) -> Answer {
        self.client.worker.shared.stats.refused(problem.code);
        let mut answer = problem.into_response(&self.id, self.shows);
        self.told(answer.headers_mut());
        drop(self.finish(answer.status()));
        answer
    }

    /// The end of a request that goes to no app.
    pub(crate) fn end(self, ended: Ended) -> Answer {
        match ended {
            Ended::Problem(problem) => self.answer(problem),
            Ended::Reply(reply) => {
                drop(self.finish(reply.status()));
                reply.map(AnswerBody::full)
            }
        }
    }

    /// What is dropped at the request's end.
    pub(crate) fn finish(self, status: StatusCode) -> Finish {
        Finish {
            worker: Rc::clone(&self.client.worker),
            watch: Rc::clone(&self.client.watch),
            open: self.open,
            started: self.started,
            status,
            sent: 0,
            broke: false,
            line: self.line,
            phases: self.trace.map_or_else(Phases::default, |trace| trace.phases()),
        }
    }
}

/// hyper's view of a client.
pub(crate) struct Requests(pub(crate) Rc<Client>);

impl Service<Request<Incoming>> for Requests {
    type Response = Answer;
    type Error = Infallible;
    type Future = ServingH1;

    fn call(&self, request: Request<Incoming>) -> ServingH1 {
        let (head, body) = request.into_parts();
        self.0.interim.meets(head.version);
        ServingH1 { serving: self.0.begin(head, Some(Inflow::H1(body))), watch: Rc::clone(&self.0.watch) }
    }
}

/// A request of HTTP/1 being served. Its answer waits until those before it (1xx) are out.
pub(crate) struct ServingH1 {
    serving: Serving,
    watch: Rc<Watch>,
}

impl Future for ServingH1 {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.serving.advance(cx);
        if this.watch.interim.borrow().is_empty() {
            let Some(mut answer) = this.serving.take() else { return Poll::Pending };
            if this.watch.is_last() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Poll::Ready(Ok(answer))
        } else {
            // Written when hyper flushes, which wakes this.
            Poll::Pending
        }
    }
}

/// A request being served. Every idle connection has room for one, so the long way is elsewhere.
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

impl Serving {
    /// Goes on until there is an answer, or something has to be waited for.
    fn advance(&mut self, cx: &mut Context<'_>) {
        loop {
            match self {
                Self::Done(_) => return,
                Self::Long(long) => match long.as_mut().poll(cx) {
                    Poll::Ready(answer) => *self = Self::Done(Some(answer)),
                    Poll::Pending => return,
                },
                Self::Exchanging(exchanging) => {
                    let Poll::Ready(result) = Pin::new(&mut exchanging.exchange).poll(cx) else { return };
                    let Some(job) = exchanging.job.take() else { return };
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
                            Err(error) => {
                                let problem = forward::problem(&job, &error);
                                Self::Done(Some(job.answer(problem)))
                            }
                        },
                    };
                }
            }
        }
    }

    fn take(&mut self) -> Option<Answer> {
        match self {
            Self::Done(answer) => answer.take(),
            _ => None,
        }
    }
}

impl Future for Serving {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.advance(cx);
        self.take().map_or(Poll::Pending, Poll::Ready)
    }
}
