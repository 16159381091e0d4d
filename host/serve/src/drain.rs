//! Ending without cutting: tell everybody once, then wait for those who are still at it.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The side that ends things.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    working: TaskTracker,
}

/// The side that works and wants to hear of the end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Draining {
    begun: CancellationToken,
    working: TaskTracker,
}

/// Keeps a drain from being complete until it is dropped.
#[derive(Debug)]
pub struct DrainGuard {
    _token: TaskTrackerToken,
}

impl Drain {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for one that works.
    #[must_use]
    pub fn watch(&self) -> Draining {
        Draining { begun: self.begun.clone(), working: self.working.clone() }
    }

    /// Tells everybody, then waits until all guards are gone, `grace` at most. Whether all were.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.begun.cancel();
        self.working.close();
        tokio::time::timeout(grace, self.working.wait()).await.is_ok()
    }
}

impl Draining {
    /// Counts one piece of work until the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { _token: self.working.token() }
    }

    /// Resolves when the end has been announced.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.begun.cancelled()
    }

    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_work_but_no_longer_than_the_grace() {
        let drain = Drain::new();
        let watch = drain.watch();
        let guard = watch.guard();
        assert!(!watch.has_begun());
        assert!(!drain.drain(Duration::from_millis(1)).await);
        watch.begun().await;
        drop(guard);
        assert!(drain.drain(Duration::from_secs(5)).await);
    }
}
