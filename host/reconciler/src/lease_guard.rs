//! The right to act, checked before each side effect.
//!
//! A host that was stopped for a while (SIGSTOP, a sleeping laptop) wakes in the middle of an operation
//! that another has taken over. Its own clock tells: `Instant` runs on meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use store::{Lease, Store, StoreError};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Keeps a lease alive until it is dropped, and knows whether it still holds.
pub(crate) struct LeaseGuard {
    state: Arc<State>,
    _renewal: DropGuard,
}

struct State {
    lease: Mutex<Lease>,
    /// When it ends by this process's clock: never later than by the database's.
    valid_until: Mutex<Instant>,
    lost: CancellationToken,
}

impl LeaseGuard {
    /// `asked_at` is when the lease was asked for: the database counted from then on, or later.
    pub fn new(store: Store, lease: Lease, duration: Duration, asked_at: Instant) -> Self {
        let state = Arc::new(State {
            lease: Mutex::new(lease),
            valid_until: Mutex::new(asked_at + duration),
            lost: CancellationToken::new(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(renew(store, state.clone(), duration)));
        Self { state, _renewal: stop.drop_guard() }
    }

    /// The lease, for guarded writes.
    pub fn lease(&self) -> Lease {
        *self.state.lease.lock()
    }

    /// Whether a side effect may happen now.
    pub fn holds(&self) -> bool {
        !self.state.lost.is_cancelled() && Instant::now() < *self.state.valid_until.lock()
    }

    /// Resolves once the lease is lost.
    pub async fn lost(&self) {
        self.state.lost.cancelled().await;
    }

    /// The database's clock, as far as it can be told from here.
    pub fn database_now(&self) -> DateTime<Utc> {
        let remaining = self.state.valid_until.lock().saturating_duration_since(Instant::now());
        self.lease().until - chrono::Duration::from_std(remaining).unwrap_or_default()
    }
}

async fn renew(store: Store, state: Arc<State>, duration: Duration) {
    loop {
        tokio::time::sleep(duration / 3).await;
        let lease = *state.lease.lock();
        let asked_at = Instant::now();
        match store.deployment_lease_renew(&lease, duration).await {
            Ok(renewed) => {
                *state.lease.lock() = renewed;
                *state.valid_until.lock() = asked_at + duration;
            }
            Err(StoreError::LeaseLost) => {
                tracing::warn!(deployment = %lease.deployment, "another host has taken over");
                return state.lost.cancel();
            }
            // The database is away: the lease ends by its own time.
            Err(error) if Instant::now() < *state.valid_until.lock() => {
                tracing::warn!(deployment = %lease.deployment, %error, "a lease could not be renewed yet");
            }
            Err(_) => return state.lost.cancel(),
        }
    }
}
