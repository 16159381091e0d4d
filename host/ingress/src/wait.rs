//! Waiting for a deployment to run: who may wait, how long, and who is told to come back.
//!
//! By the wake policy of a stopped deployment: `dynamic` and `blocking` start it, once for all who ask; `none`
//! does not. A browser that opens a page waits a moment only, then gets one that looks again by itself and
//! becomes the app (of `blocking` deployments it waits like all others). What is no activity
//! (see `real`) neither starts anything nor waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::HeaderMap;
use http::{HeaderName, Method};
use model::{Seen, WakePolicy, Wanted};
use tokio::time::timeout_at;

use crate::activity::{Activity, Live};
use crate::answer::{Code, Problem};
use crate::forward::is_served;
use crate::request::Job;
use crate::route::{Deployment, State};
use crate::wake::WakeError;

/// A start that has failed is not tried again by requests for this long.
const FAILURE_BELIEVED: Duration = Duration::from_secs(5);
/// After a start that succeeded, the route table may be this late to say so.
const SUCCESS_BELIEVED: Duration = Duration::from_secs(5);
/// What a client is told to wait before it comes back, in seconds.
const COME_BACK: u32 = 2;

/// What a state means for a request.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    Serve,
    /// It is on its way by itself.
    Wait,
    /// It runs when somebody starts it.
    Wake,
    Refuse(Code),
}

fn outlook(state: &State) -> Outlook {
    if state.wanted == Wanted::Destroyed || state.seen == Seen::Destroyed {
        return Outlook::Refuse(Code::DeploymentNotFound);
    }
    if is_served(state) {
        return Outlook::Serve;
    }
    match (state.wanted, state.wake) {
        (Wanted::Running, _) if state.seen == Seen::Failed => Outlook::Refuse(Code::DeploymentFailed),
        (Wanted::Running, _) => Outlook::Wait,
        (_, WakePolicy::Dynamic | WakePolicy::Blocking) => Outlook::Wake,
        (_, WakePolicy::None) => Outlook::Refuse(Code::DeploymentStopped),
    }
}

/// A place in the bounded queue of those who wait for one deployment.
pub(crate) struct Seat(Arc<Activity>);

impl Seat {
    pub(crate) fn take(job: &Job) -> Result<Self, Problem> {
        let most = job.client.worker.shared.config.wake_queue;
        let activity = &job.deployment.activity;
        let taken = activity.live().waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            ((waiting as usize) < most).then_some(waiting + 1)
        });
        match taken {
            Ok(_) => Ok(Self(Arc::clone(activity))),
            Err(_) => Err(Problem::new(
                Code::Overloaded,
                "too many requests wait for this deployment already: come back soon",
            )
            .retry_after(COME_BACK)),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.live().waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state under which the request is served; starts the deployment where it has to be.
pub(crate) async fn until_served(job: &Job, deadline: Instant) -> Result<Arc<State>, Problem> {
    let state = job.deployment.state.load_full();
    if is_served(&state) {
        return Ok(state);
    }
    wait_until_served(job, deadline).await
}

async fn wait_until_served(job: &Job, deadline: Instant) -> Result<Arc<State>, Problem> {
    let live = job.deployment.activity.live();
    let mut seat = None;
    let mut may_wake = job.may_wake;
    loop {
        // Listening begins before looking, so that no change falls in between.
        let changed = live.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let state = job.deployment.state.load_full();
        let wakes = match outlook(&state) {
            Outlook::Serve => return Ok(state),
            Outlook::Refuse(code) => return Err(refusal(code)),
            Outlook::Wait if !job.may_wake => return Err(starting()),
            Outlook::Wait => false,
            Outlook::Wake if may_wake => true,
            Outlook::Wake if job.may_wake => false,
            Outlook::Wake => return Err(refusal(Code::DeploymentStopped)),
        };
        if seat.is_none() {
            seat = Some(Seat::take(job)?);
        }
        let step = async {
            if wakes {
                tokio::select! {
                    () = &mut changed => Ok(false),
                    woken = wake(job, live) => woken.map(|()| true),
                }
            } else {
                changed.await;
                Ok(false)
            }
        };
        match timeout_at(deadline.into(), step).await {
            Ok(Ok(woken)) => may_wake &= !woken,
            Ok(Err(error)) => return Err(wake_problem(&error)),
            Err(_) => return Err(starting()),
        }
    }
}

/// Starts the deployment, together with all others who wait for it.
async fn wake(job: &Job, live: &Live) -> Result<(), WakeError> {
    let now = Instant::now();
    let last = live.last_wake.lock().clone();
    match last {
        Some((at, Ok(()))) if now < at + SUCCESS_BELIEVED => return Ok(()),
        Some((at, Err(error))) if now < at + FAILURE_BELIEVED => return Err(error),
        _ => {}
    }
    let shared = &job.client.worker.shared;
    let joined = live.waking.join(&shared.control, || {
        let waker = Arc::clone(&shared.waker);
        let activity = Arc::clone(&job.deployment.activity);
        let deployment = job.deployment.id;
        shared.stats.woken();
        tracing::info!(%deployment, "starting a deployment, since a request asks for it");
        async move {
            let woken = waker.wake(deployment).await;
            if let Err(error) = &woken {
                tracing::warn!(%deployment, %error, "a deployment could not be started for a request");
            }
            *activity.live().last_wake.lock() = Some((Instant::now(), woken.clone()));
            woken
        }
    });
    joined.answer().await.unwrap_or_else(|| Err(WakeError::Unavailable("the start was given up".to_owned())))
}

/// Whether a browser is shown the waiting page.
pub(crate) fn shows_page(job: &Job) -> bool {
    job.deployment.state.load().wake != WakePolicy::Blocking
}

/// What the waiting page sends to ask how far it is: no activity, and wakes nothing.
const WAITING: HeaderName = HeaderName::from_static("hythe-waiting");

pub(crate) fn is_poll(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::GET && headers.contains_key(WAITING)
}

/// The answer to the waiting page: whether there is something else to be shown by now.
pub(crate) fn poll(deployment: &Deployment) -> Problem {
    let code = match outlook(&deployment.state.load()) {
        Outlook::Serve => Code::Ready,
        Outlook::Wait => Code::DeploymentStarting,
        Outlook::Refuse(code) => code,
        // Asked for, and not heard of yet; or it was stopped again: then a new look wakes it.
        Outlook::Wake => match deployment.activity.live_if_any() {
            Some(live) if live.waking.is_under_way() => Code::DeploymentStarting,
            Some(live) => match &*live.last_wake.lock() {
                Some((at, Ok(()))) if Instant::now() < *at + SUCCESS_BELIEVED => Code::DeploymentStarting,
                _ => Code::DeploymentStopped,
            },
            None => Code::DeploymentStopped,
        },
    };
    let problem = match code {
        Code::Ready => Problem::new(code, "the deployment takes requests"),
        Code::DeploymentStarting => starting(),
        code => refusal(code),
    };
    problem.polled()
}

/// Pauses between two tries.
pub(crate) async fn pause(job: &Job, pause: Duration, deadline: Instant) -> Result<(), Problem> {
    let live = job.deployment.activity.live();
    if Instant::now() + pause > deadline {
        return Err(starting());
    }
    // A change of the route may be what is waited for.
    let _ = tokio::time::timeout(pause, live.changed.notified()).await;
    Ok(())
}

fn starting() -> Problem {
    Problem::new(Code::DeploymentStarting, "the deployment is starting: come back in a moment")
        .retry_after(COME_BACK)
        .refreshing()
}

fn refusal(code: Code) -> Problem {
    match code {
        Code::DeploymentStopped => {
            Problem::new(code, "the deployment is stopped, and requests do not start it: start it first")
                .retry_after(30)
        }
        Code::DeploymentFailed => {
            Problem::new(code, "the deployment has failed: its logs and events say why").retry_after(10)
        }
        _ => Problem::new(code, "the deployment does not exist (any more)"),
    }
}

fn wake_problem(error: &WakeError) -> Problem {
    match error {
        WakeError::Refused(_) => refusal(Code::DeploymentStopped),
        WakeError::Failed(_) => refusal(Code::DeploymentFailed),
        WakeError::Unavailable(_) => starting(),
    }
}
