//! What goes on at one deployment: open requests, when the last one came, figures for metrics, and a bell
//! that rings when its route changes. Lives as long as the deployment is in the table, or as a request
//! still runs on it, through all incarnations.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use model::DeploymentId;
use once_cell::race::OnceBox;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::flight::Flight;
use crate::slot::Slots;
use crate::wake::WakeError;

/// Upper bounds of the latency histogram, in microseconds; a last bucket takes the rest.
pub(crate) const LATENCY_BOUNDS_US: [u64; 11] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000, 10_000_000];

/// Activity of one deployment at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActivityReport {
    /// Requests whose answer has not ended, streams among them.
    pub open_requests: u32,
    /// Live tunnels (WebSockets and other upgrades).
    pub open_upgrades: u32,
    /// When a request last began or ended, or a tunnel last ended; none where nothing ever came. A
    /// deployment with anything open is active now, whatever this says.
    pub last: Option<SystemTime>,
}

impl ActivityReport {
    /// How long nothing has gone on; none while something is open or where nothing ever came.
    #[must_use]
    pub fn idle_for(&self, now: SystemTime) -> Option<Duration> {
        if self.open_requests > 0 || self.open_upgrades > 0 {
            return None;
        }
        self.last.map(|last| now.duration_since(last).unwrap_or_default())
    }
}

#[derive(Default)]
pub(crate) struct Activity {
    open_requests: AtomicU32,
    open_upgrades: AtomicU32,
    /// Milliseconds since the Unix epoch; 0: never.
    last_ms: AtomicU64,
    live: OnceLock<Box<Live>>,
}

/// Made when first looked at: most of a million deployments never see a request. One word.
#[derive(Default)]
pub(crate) struct LazyActivity(OnceBox<Arc<Activity>>);

impl Deref for LazyActivity {
    type Target = Arc<Activity>;

    fn deref(&self) -> &Arc<Activity> {
        self.0.get_or_init(Box::default)
    }
}

impl LazyActivity {
    /// The same activity, for another object of the same deployment.
    pub(crate) fn share(&self) -> Self {
        Self(OnceBox::with_value(Box::new(Arc::clone(self))))
    }

    pub(crate) fn live_if_any(&self) -> Option<&Live> {
        self.0.get().and_then(|activity| activity.live.get()).map(Box::as_ref)
    }

    pub(crate) fn report(&self) -> ActivityReport {
        self.0.get().map(|activity| activity.report()).unwrap_or_default()
    }

    /// Tells those who wait that the route has changed.
    pub(crate) fn ring(&self) {
        if let Some(live) = self.live_if_any() {
            live.changed.notify_waiters();
        }
    }

    /// Leases of other incarnations are done with.
    pub(crate) fn end_slots_but(&self, incarnation: u64) {
        if let Some(live) = self.live_if_any() {
            let mut slots = live.slots.lock();
            if slots.as_ref().is_some_and(|(of, _)| *of != incarnation) {
                *slots = None;
            }
        }
    }
}

/// What only deployments with traffic need.
#[derive(Default)]
pub(crate) struct Live {
    /// The leases of one incarnation: another begins with none.
    slots: Mutex<Option<(u64, Arc<Slots>)>>,
    /// Rings at every change of the route.
    pub(crate) changed: Notify,
    /// The start under way, shared by all who wait for it.
    pub(crate) waking: Flight<Result<(), WakeError>>,
    /// How the last start went, and when it ended.
    pub(crate) last_wake: Mutex<Option<(Instant, Result<(), WakeError>)>>,
    /// Requests that wait for the deployment to run.
    pub(crate) waiting: AtomicU32,
    /// Answers by class: 1xx (tunnels) to 5xx.
    pub(crate) by_class: [AtomicU64; 5],
    pub(crate) latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    pub(crate) latency_sum_us: AtomicU64,
}

impl Live {
    /// The leases of an incarnation, shared by all who ask under it. One that is over gets some of its own,
    /// which nobody else sees.
    pub(crate) fn slots(&self, incarnation: u64) -> Arc<Slots> {
        let mut slots = self.slots.lock();
        match &*slots {
            Some((of, slots)) if *of == incarnation => Arc::clone(slots),
            Some((of, _)) if *of > incarnation => Arc::default(),
            _ => {
                let new = Arc::<Slots>::default();
                *slots = Some((incarnation, Arc::clone(&new)));
                new
            }
        }
    }
}

impl Activity {
    pub(crate) fn report(&self) -> ActivityReport {
        let last = self.last_ms.load(Ordering::Relaxed);
        ActivityReport {
            open_requests: self.open_requests.load(Ordering::Relaxed),
            open_upgrades: self.open_upgrades.load(Ordering::Relaxed),
            last: (last > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(last)),
        }
    }

    /// Requests and tunnels that are open.
    pub(crate) fn open(&self) -> u32 {
        self.open_requests.load(Ordering::Relaxed) + self.open_upgrades.load(Ordering::Relaxed)
    }

    pub(crate) fn live(&self) -> &Live {
        self.live.get_or_init(Box::default)
    }

    fn touch(&self, now_ms: u64) {
        // Most requests come within one tick of another: then there is nothing to write, and no cache
        // line to take from another core.
        if self.last_ms.load(Ordering::Relaxed) < now_ms {
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
    }
}

/// What is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenKind {
    Request,
    Upgrade,
    /// No activity: counted by the metrics only.
    Quiet,
}

/// Counts as open until it is dropped.
pub(crate) struct Open {
    activity: Arc<Activity>,
    deployment: DeploymentId,
    kind: OpenKind,
    /// What is open at the worker.
    in_flight: Rc<Cell<usize>>,
}

impl Open {
    pub(crate) fn new(
        activity: Arc<Activity>,
        deployment: DeploymentId,
        kind: OpenKind,
        now_ms: u64,
        in_flight: &Rc<Cell<usize>>,
    ) -> Self {
        let open = Self { activity, deployment, kind, in_flight: Rc::clone(in_flight) };
        in_flight.set(in_flight.get() + 1);
        if let Some(counter) = open.counter() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        open.touch(now_ms);
        open
    }

    pub(crate) fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    /// A tunnel counts as such in the place of the request that it began with.
    pub(crate) fn into_upgrade(self, now_ms: u64) -> Self {
        let Self { activity, deployment, in_flight, .. } = &self;
        Self::new(Arc::clone(activity), *deployment, OpenKind::Upgrade, now_ms, in_flight)
    }

    /// Counts the answer for the metrics.
    pub(crate) fn count(&self, status: http::StatusCode, took: Duration) {
        let live = self.activity.live();
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        live.by_class[class].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        live.latency[bucket].fetch_add(1, Ordering::Relaxed);
        live.latency_sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Marks the end's moment; the counter goes down when this is dropped.
    pub(crate) fn touch(&self, now_ms: u64) {
        if self.kind != OpenKind::Quiet {
            self.activity.touch(now_ms);
        }
    }

    fn counter(&self) -> Option<&AtomicU32> {
        match self.kind {
            OpenKind::Request => Some(&self.activity.open_requests),
            OpenKind::Upgrade => Some(&self.activity.open_upgrades),
            OpenKind::Quiet => None,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(counter) = self.counter() {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
        self.in_flight.set(self.in_flight.get() - 1);
    }
}
