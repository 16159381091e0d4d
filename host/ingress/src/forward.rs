//! Giving a request to its app: the long way (waiting, leasing, connecting, trying again), and what is
//! done with an answer on either way.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use model::{Scheme, Seen, Wanted};

use crate::answer::{Code, Problem};
use crate::body::{AnswerBody, RequestBody};
use crate::exchange::{Answered, Exchange, ExchangeError};
use crate::h2_upstream;
use crate::headers;
use crate::inflow::{Inflow, InflowError};
use crate::lease::{FetchError, Lease};
use crate::relay_task::Tunnel;
use crate::request::{Answer, Client, Job};
use crate::route::State;
use crate::router::{self, Ended, Way};
use crate::slot::{Slot, Target};
use crate::trace::Step;
use crate::upstream::Upstream;
use crate::wait;
use crate::watch::Phase;

/// Between tries of connecting: 100 ms, 200 ms, 400 ms.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// Exchanges of one request, the first included. Each further one needs a request that never left, or one
/// that may be sent twice.
const MOST_EXCHANGES: u32 = 3;

/// Whether requests go to it now. Health does not matter: an app that is unwell answers for itself.
pub(crate) fn is_served(state: &State) -> bool {
    // What is to be stopped and would be woken is not asked any more: it may end before it answers.
    state.seen == Seen::Running
        && (state.wanted == Wanted::Running || (state.wanted == Wanted::Stopped && !state.wake.wakes()))
}

/// Whether ingress speaks what the lease leads to.
fn is_spoken(lease: &Lease) -> Result<(), Problem> {
    match lease.scheme {
        Scheme::Http | Scheme::H2c => Ok(()),
        Scheme::Https => Err(Problem::new(
            Code::UpstreamUnreachable,
            "the service speaks https, which ingress does not to an app: let it speak http or h2c",
        )),
    }
}

/// A copy of a request that may be sent again. A plain list: cheaper to make than a map, and hardly ever
/// needed.
pub(crate) struct Backup {
    method: Method,
    uri: Uri,
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// A copy, should the connection turn out to be closing: only one that was idle can, and only a safe
/// request without a body may be sent twice (RFC 9110, section 9.2.2).
pub(crate) fn backup(job: &Job, request: &Request<RequestBody>, upstream: &Upstream) -> Option<Backup> {
    let safe = matches!(job.method, Method::GET | Method::HEAD | Method::OPTIONS) && job.upload.is_none();
    (upstream.reused && safe).then(|| {
        let mut fields = job.client.spare_fields.take();
        fields.extend(request.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
        Backup { method: request.method().clone(), uri: request.uri().clone(), fields }
    })
}

impl Backup {
    /// Not needed: its memory serves the client's next request.
    pub(crate) fn discard(mut self, client: &Client) {
        self.fields.clear();
        client.spare_fields.set(self.fields);
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::none());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        for (name, value) in self.fields {
            request.headers_mut().append(name, value);
        }
        request
    }
}

/// The request to send again after a failed exchange.
///
/// # Errors
/// The failure, where nothing may be sent again.
pub(crate) fn again(
    error: ExchangeError,
    backup: Option<Backup>,
) -> Result<Request<RequestBody>, ExchangeError> {
    match (error, backup) {
        (ExchangeError::Unsent(request), _) => Ok(*request),
        (ExchangeError::Broken { reused: true, .. }, Some(copy)) => Ok(copy.into_request()),
        (error, _) => Err(error),
    }
}

/// What the client is told of a failed exchange.
pub(crate) fn problem(job: &Job, error: &ExchangeError) -> Problem {
    if job.upload.as_ref().is_some_and(|upload| upload.is_broken()) {
        return Problem::new(Code::InvalidRequest, "the request's body is malformed, or ended too soon")
            .closing();
    }
    match error {
        ExchangeError::Unsent(_) => Problem::new(
            Code::UpstreamUnreachable,
            "the deployment closes connections as soon as they are opened",
        ),
        ExchangeError::Broken { error: InflowError::H1(error), .. } if error.is_parse() => {
            Problem::new(Code::UpstreamFailed, "the deployment answered with something that is no HTTP")
        }
        ExchangeError::Broken { .. } => {
            Problem::new(Code::UpstreamFailed, "the deployment closed the connection before it answered")
        }
        ExchangeError::AnswerLate => {
            Problem::new(Code::UpstreamTimeout, "the deployment took the request and did not answer in time")
        }
        ExchangeError::BodyLate => {
            Problem::new(Code::RequestTimeout, "the request's body did not come in time").closing()
        }
    }
}

/// The whole way of a request. `sent_before`: a connection has failed it already.
pub(crate) async fn forward(mut job: Job, request: Request<RequestBody>, sent_before: bool) -> Answer {
    match exchange(&mut job, request, sent_before).await {
        Ok(answered_by) => answered(job, answered_by),
        Err(ended) => job.end(ended),
    }
}

async fn exchange(
    job: &mut Job,
    mut request: Request<RequestBody>,
    sent_before: bool,
) -> Result<Answered, Ended> {
    let worker = &Rc::clone(&job.client.worker);
    let config = &worker.shared.config;
    let deadline = Instant::now() + config.wake_timeout;
    // A browser gets a page that comes back by itself, if the start takes longer than a moment.
    let patience = if job.navigates && wait::shows_page(job) {
        deadline.min(Instant::now() + config.wake_page_after)
    } else {
        deadline
    };
    let mut fresh = sent_before;
    let mut exchanges = u32::from(sent_before);
    loop {
        // Each time: what failed may be failing because the deployment is being started anew.
        job.client.watch.enter(Phase::Waiting);
        job.enter(Step::Wait);
        let state = wait::until_served(job, patience).await?;
        let slot = job.slot(&state)?;
        job.enter(Step::Lease);
        let target = lease(job, &slot, &state, patience).await?;
        if router::decide(job, &mut request, &target.lease)? == Way::Other {
            continue;
        }
        job.enter(Step::Connect);
        if target.lease.scheme == Scheme::H2c && job.upgrade.is_none() {
            let connection = match h2_upstream::connection(job, &slot, &state, target, deadline).await? {
                Ok(connection) => connection,
                Err(StateChanged) => continue,
            };
            job.enter(Step::Upstream);
            let error = match h2_upstream::exchange(job, connection, request).await {
                Ok(answered) => return Ok(answered),
                Err(error) => error,
            };
            exchanges += 1;
            if exchanges >= MOST_EXCHANGES {
                return Err(problem(job, &error).into());
            }
            request = again(error, None).map_err(|error| problem(job, &error))?;
            worker.shared.stats.retried();
            continue;
        }
        // A WebSocket to a service of h2c goes over HTTP/1.1 too: servers of both are the rule.
        let upstream = match worker.take(target.id).filter(|_| !fresh) {
            Some(upstream) => Ok((upstream, target)),
            None => {
                connect(job, &slot, &state, target, deadline, async |target| {
                    Upstream::open(&target.lease.endpoint, target.id, config.connect_timeout).await
                })
                .await?
            }
        };
        let Ok((upstream, target)) = upstream else { continue };
        let copy = backup(job, &request, &upstream);
        headers::set_lease_headers(
            request.headers_mut(),
            target.lease.host_header.as_ref(),
            &target.lease.set_headers,
        );
        job.enter(Step::Upstream);
        let exchange = Exchange::new(upstream, request, &job.client, job.upload.clone());
        let error = match exchange.await {
            Ok(answered) => return Ok(answered),
            Err(error) => error,
        };
        exchanges += 1;
        if exchanges >= MOST_EXCHANGES {
            return Err(problem(job, &error).into());
        }
        request = again(error, copy).map_err(|error| problem(job, &error))?;
        worker.shared.stats.retried();
        // The next idle connection may be closing for the same reason.
        fresh = true;
    }
}

/// The lease, waiting for a deployment that runs and does not take requests yet.
async fn lease(
    job: &Job,
    slot: &Arc<Slot>,
    state: &State,
    deadline: Instant,
) -> Result<Arc<Target>, Problem> {
    let mut tries = 0;
    loop {
        let error = match slot.target(job.ask(state.incarnation)).await {
            Ok(target) => return is_spoken(&target.lease).map(|()| target),
            Err(error) => error,
        };
        let pause = match error {
            FetchError::NotFound => {
                return Err(Problem::new(
                    Code::ServiceNotFound,
                    match &job.service {
                        Some(service) => format!("nothing of the deployment takes requests at {service}"),
                        None => "nothing of the deployment takes requests".to_owned(),
                    },
                ));
            }
            FetchError::Busy { retry_after } => {
                retry_after.clamp(Duration::from_millis(20), Duration::from_secs(5))
            }
            FetchError::Unavailable(_) => {
                tries += 1;
                if tries > job.client.worker.shared.config.connect_retries {
                    return Err(Problem::new(
                        Code::UpstreamUnreachable,
                        "where the deployment takes requests can't be found out now",
                    )
                    .retry_after(2));
                }
                FIRST_BACK_OFF * (1 << tries.min(6))
            }
        };
        let _seat = wait::Seat::take(job)?;
        wait::pause(job, pause, deadline).await?;
    }
}

/// The deployment's state has changed meanwhile: look at it again.
pub(crate) struct StateChanged;

/// A new connection, made by `open`.
pub(crate) async fn connect<C>(
    job: &Job,
    slot: &Arc<Slot>,
    state: &Arc<State>,
    mut target: Arc<Target>,
    deadline: Instant,
    open: impl AsyncFn(&Target) -> std::io::Result<C>,
) -> Result<Result<(C, Arc<Target>), StateChanged>, Problem> {
    let config = &job.client.worker.shared.config;
    let unreachable = || {
        Problem::new(
            Code::UpstreamUnreachable,
            "the deployment runs, but takes no connections: is it listening on its port?",
        )
    };
    let probe = match slot.ejection().try_connect() {
        Some(probe) => probe,
        // It was tried again and again just now: whoever asks is told at once.
        None => return Err(unreachable().retry_after(2)),
    };
    let mut failures = 0;
    loop {
        let error = match open(&target).await {
            Ok(upstream) => {
                probe.worked();
                return Ok(Ok((upstream, target)));
            }
            Err(error) => error,
        };
        job.client.worker.shared.stats.connect_failed();
        tracing::debug!(deployment = %job.deployment.id, endpoint = ?target.lease.endpoint, %error, "connecting failed");
        let now = job.deployment.state.load();
        if now.incarnation != state.incarnation || !is_served(&now) {
            return Ok(Err(StateChanged));
        }
        failures += 1;
        if failures > config.connect_retries {
            probe.failed();
            job.client.worker.shared.stats.ejected();
            return Err(unreachable().retry_after(2));
        }
        if failures >= 2
            && let Ok(renewed) = slot.renew(job.ask(state.incarnation)).await
        {
            is_spoken(&renewed.lease)?;
            if renewed.id != target.id {
                // Somewhere else: not a try of the same again.
                target = renewed;
                continue;
            }
        }
        let pause = FIRST_BACK_OFF * (1 << (failures - 1).min(6));
        wait::pause(job, pause, deadline).await.map_err(|_| unreachable().retry_after(2))?;
    }
}

/// Makes the client's answer of the app's, and sees to the connection that it comes on.
pub(crate) fn answered(mut job: Job, answered: Answered) -> Answer {
    let Answered { mut response, upstream } = answered;
    let worker = Rc::clone(&job.client.worker);
    let status = response.status();
    let switched = status == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !job.upgrade.as_ref().is_some_and(|asked| is_switch_to(asked, response.headers())) {
        let problem = Problem::new(
            Code::UpstreamFailed,
            "the deployment changed the protocol to one that was not asked for",
        );
        return job.answer(problem);
    }
    if !headers::rewrite_response(
        response.headers_mut(),
        status,
        switched,
        worker.shared.routes.base_domain(),
    ) {
        let problem =
            Problem::new(Code::UpstreamFailed, "the deployment's answer can be read in more than one way");
        return job.answer(problem);
    }
    job.told(response.headers_mut());
    // What hyper keeps there is about the connection to the app.
    let reason = response.extensions_mut().remove::<hyper::ext::ReasonPhrase>();
    response.extensions_mut().clear();
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    *response.version_mut() = http::Version::HTTP_11;
    if switched {
        return match upstream {
            Some(upstream) => switch(job, response, *upstream),
            None => job.answer(problem_of_switch()),
        };
    }
    job.client.watch.enter(Phase::Answer);
    let upstream = upstream.and_then(|upstream| settle(&job, upstream));
    job.upload = None;
    let (head, incoming) = response.into_parts();
    let finish = job.finish(status);
    http::Response::from_parts(head, AnswerBody::stream(incoming, upstream, worker, finish))
}

/// What becomes of a connection whose answer has begun: idle already, driven by the answer's body, or (while
/// the request's body is still on its way) by a task of its own, so that neither direction waits for the
/// other.
fn settle(job: &Job, mut upstream: Box<Upstream>) -> Option<Box<Upstream>> {
    let worker = &job.client.worker;
    if job.upload.as_ref().is_some_and(|upload| upload.is_held()) {
        // The app has answered without the body, which nobody asked the client for: the connection waits
        // for it in vain, and ends with the answer.
        return (!upstream.has_ended()).then_some(upstream);
    }
    if job.upload.as_ref().is_some_and(|upload| !upload.has_ended()) {
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            let idle = std::future::poll_fn(|cx| {
                if upstream.drive(cx).is_ready() {
                    return std::task::Poll::Ready(false);
                }
                if upstream.is_ready() { std::task::Poll::Ready(true) } else { std::task::Poll::Pending }
            })
            .await;
            if idle {
                worker.give_back(upstream);
            }
        });
        return None;
    }
    if upstream.is_ready() {
        worker.give_back(upstream);
        return None;
    }
    (!upstream.has_ended()).then_some(upstream)
}

fn is_switch_to(asked: &HeaderValue, headers: &http::HeaderMap) -> bool {
    let mut given = headers.get_all(header::UPGRADE).iter();
    given.next().is_some_and(|given| given.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
        && given.next().is_none()
}

/// Leaves the app's stream for the connection's task, which takes over when the 101 is out.
fn switch(mut job: Job, response: http::Response<Inflow>, upstream: Upstream) -> Answer {
    let Some((io, early)) = upstream.into_io() else {
        return job.answer(problem_of_switch());
    };
    let worker = Rc::clone(&job.client.worker);
    let open = job.open.take().map(|open| {
        open.count(StatusCode::SWITCHING_PROTOCOLS, job.started.elapsed());
        open.into_upgrade(worker.clock.unix_ms())
    });
    *job.client.tunnel.borrow_mut() = Some(Tunnel { io, early, open });
    let (head, _) = response.into_parts();
    drop(job.finish(StatusCode::SWITCHING_PROTOCOLS));
    http::Response::from_parts(head, AnswerBody::full(bytes::Bytes::new()))
}

fn problem_of_switch() -> Problem {
    Problem::new(Code::UpstreamFailed, "the deployment closed the connection when it changed the protocol")
}
