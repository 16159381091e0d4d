//! The adapters that decide about requests now, and how they fare.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use super::instance::RoutingComponent;
use crate::error::CallError;
use crate::stdio::lock;

/// What the host should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutingEvent {
    /// An adapter has failed too often in a row, and is no longer asked. `error` is the last failure.
    SwitchedOff { adapter: String, sha256: String, error: CallError },
    /// It was let try, and decided.
    SwitchedOn { adapter: String, sha256: String },
}

/// Adapters by name; shared by all worker threads, changed from outside at any time.
pub struct RoutingTable {
    entries: RwLock<HashMap<Arc<str>, Entry>>,
    /// Counts changes, for routers to see that there are some.
    generation: AtomicU64,
    notify: Box<dyn Fn(&RoutingEvent) + Send + Sync>,
}

struct Entry {
    present: Arc<Version>,
    /// To roll back to.
    previous: Option<RoutingComponent>,
}

/// One loading of an adapter, and its health.
pub(crate) struct Version {
    pub(crate) component: RoutingComponent,
    /// Requests in a row, on all threads, without a decision.
    failures: AtomicU32,
    is_off: AtomicBool,
    /// Since when, or since when one was last let try.
    off_since: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for RoutingTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutingTable").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl RoutingTable {
    /// An empty one. `notify` is called on the thread of the request that brought the event about: it must
    /// not block, and must not change the table there.
    #[must_use]
    pub fn new(notify: impl Fn(&RoutingEvent) + Send + Sync + 'static) -> Self {
        Self { entries: RwLock::default(), generation: AtomicU64::new(1), notify: Box::new(notify) }
    }

    /// Puts an adapter in, or another version in its place, with a clean record. Worker threads change over
    /// at their next request.
    pub fn put(&self, adapter: &str, component: RoutingComponent) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let previous = match entries.remove(adapter) {
            // The same again: what came before it stays the one to roll back to.
            Some(entry) if entry.present.component.sha256() == component.sha256() => entry.previous,
            Some(entry) => Some(entry.present.component.clone()),
            None => None,
        };
        entries.insert(adapter.into(), Entry { present: Arc::new(Version::new(component)), previous });
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Takes an adapter out: requests for it fail.
    pub fn remove(&self, adapter: &str) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.remove(adapter).is_some() {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Puts the version that was there before `sha256` back in its place, with a clean record, and gives its
    /// digest. None where another one than `sha256` is there now, or where there was none before.
    pub fn roll_back(&self, adapter: &str, sha256: &str) -> Option<String> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(adapter).filter(|entry| entry.present.component.sha256() == sha256)?;
        let previous = entry.previous.take()?;
        let digest = previous.sha256().to_owned();
        entry.present = Arc::new(Version::new(previous));
        self.generation.fetch_add(1, Ordering::Release);
        Some(digest)
    }

    /// The digest of the version that is asked now, lower-case hex.
    #[must_use]
    pub fn sha256(&self, adapter: &str) -> Option<String> {
        self.version(adapter).map(|version| version.component.sha256().to_owned())
    }

    /// Whether it has failed too often and is not asked now.
    #[must_use]
    pub fn is_off(&self, adapter: &str) -> bool {
        self.version(adapter).is_some_and(|version| version.is_off.load(Ordering::Acquire))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn version(&self, adapter: &str) -> Option<Arc<Version>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(adapter).map(|entry| Arc::clone(&entry.present))
    }

    /// A request has its decision.
    pub(crate) fn decided(&self, adapter: &str, version: &Version) {
        if version.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        version.failures.store(0, Ordering::Relaxed);
        if version.is_off.swap(false, Ordering::AcqRel) {
            let sha256 = version.component.sha256().to_owned();
            (self.notify)(&RoutingEvent::SwitchedOn { adapter: adapter.to_owned(), sha256 });
        }
    }

    /// A request has none, and will have none.
    pub(crate) fn failed(&self, adapter: &str, version: &Version, error: &CallError) {
        let failures = version.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures == 1 {
            tracing::warn!(adapter, %error, "an adapter could not decide about a request");
        }
        if failures < version.component.limits().failures {
            return;
        }
        *lock(&version.off_since) = Some(Instant::now());
        if !version.is_off.swap(true, Ordering::AcqRel) {
            let sha256 = version.component.sha256().to_owned();
            let (adapter, error) = (adapter.to_owned(), error.clone());
            (self.notify)(&RoutingEvent::SwitchedOff { adapter, sha256, error });
        }
    }
}

impl Version {
    fn new(component: RoutingComponent) -> Self {
        Self {
            component,
            failures: AtomicU32::new(0),
            is_off: AtomicBool::new(false),
            off_since: Mutex::new(None),
        }
    }

    /// Whether to ask: it is on, or one may try.
    pub(crate) fn is_asked(&self) -> bool {
        if !self.is_off.load(Ordering::Relaxed) {
            return true;
        }
        let mut since = lock(&self.off_since);
        let may_try = since.is_none_or(|since| since.elapsed() >= self.component.limits().off);
        if may_try {
            *since = Some(Instant::now());
        }
        may_try
    }
}
