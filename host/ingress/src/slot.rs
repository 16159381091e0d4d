//! Where leases are kept: a slot for each service of an incarnation, shared by all workers.
//!
//! A slot lives as long as its incarnation is in the route table (or a request holds it), so another
//! incarnation begins with none, whatever address it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use model::DeploymentId;
use parking_lot::Mutex;

use crate::ejection::Ejection;
use crate::flight::Flight;
use crate::lease::{FetchError, FetcherSource, Lease};
use crate::route::ServiceKey;

/// An expired lease is renewed before it is used, but a source that takes longer than this is away.
const RENEW_PATIENCE: Duration = Duration::from_secs(2);
/// "Not found" is believed for this long, and a source that is away is left alone for this long.
const BELIEVED: Duration = Duration::from_millis(500);

/// The leases of one incarnation, by service.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Mutex<Vec<Arc<Slot>>>,
}

/// The lease of one service.
pub(crate) struct Slot {
    service: ServiceKey,
    current: ArcSwapOption<Target>,
    fetching: Flight<Result<Arc<Target>, FetchError>>,
    refused: Mutex<Option<(Instant, FetchError)>>,
    ejection: Ejection,
}

/// A lease in use. The pool's key: connections of one target are alike and of nobody else.
pub(crate) struct Target {
    /// Never used again, by any other endpoint or incarnation.
    pub(crate) id: u64,
    pub(crate) lease: Lease,
    /// When to renew in the background.
    renew_at: Option<Instant>,
}

impl Slots {
    pub(crate) fn slot(&self, service: &ServiceKey) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.iter().find(|slot| slot.service == *service) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            service: service.clone(),
            current: ArcSwapOption::empty(),
            fetching: Flight::default(),
            refused: Mutex::new(None),
            ejection: Ejection::default(),
        });
        slots.push(Arc::clone(&slot));
        slot
    }
}

/// Whose lease is meant, and who gives it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) source: Arc<dyn FetcherSource>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) deployment: DeploymentId,
    pub(crate) incarnation: u64,
}

impl Slot {
    /// Whether connecting is worth a try.
    pub(crate) fn ejection(&self) -> &Ejection {
        &self.ejection
    }

    /// The lease, where there is one that holds: the way of nearly every request. Renews it in the
    /// background when it is about to end.
    pub(crate) fn ready(self: &Arc<Self>, now: Instant, ask: impl FnOnce() -> Ask) -> Option<Arc<Target>> {
        let target = self.current.load_full()?;
        if target.lease.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        if target.renew_at.is_some_and(|renew| renew <= now) && !self.is_refused(now) {
            drop(self.fetch(ask()));
        }
        Some(target)
    }

    /// The lease, by asking where need be; the last one where the source is away.
    ///
    /// # Errors
    /// The source's, where there is nothing to serve from.
    pub(crate) async fn target(self: &Arc<Self>, ask: Ask) -> Result<Arc<Target>, FetchError> {
        let now = Instant::now();
        if let Some(target) = self.ready(now, || ask.clone()) {
            return Ok(target);
        }
        let stale = self.current.load_full();
        if let Some(error) = self.refusal(now) {
            return stale.ok_or(error);
        }
        let fetching = self.fetch(ask).answer();
        let fetched = match &stale {
            // Somewhere to go: do not wait long for something better.
            Some(_) => tokio::time::timeout(RENEW_PATIENCE, fetching).await.ok().flatten(),
            None => fetching.await,
        };
        match (fetched, stale) {
            (Some(Ok(target)), _) => Ok(target),
            (Some(Err(FetchError::NotFound)), _) => Err(FetchError::NotFound),
            (_, Some(stale)) => Ok(stale),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(FetchError::Unavailable("the answer was lost".to_owned())),
        }
    }

    /// Asks again, whatever there is: where it led can't be reached.
    pub(crate) async fn renew(self: &Arc<Self>, ask: Ask) -> Result<Arc<Target>, FetchError> {
        self.fetch(ask)
            .answer()
            .await
            .unwrap_or_else(|| Err(FetchError::Unavailable("the answer was lost".to_owned())))
    }

    fn fetch(self: &Arc<Self>, ask: Ask) -> crate::flight::Joined<Result<Arc<Target>, FetchError>> {
        let slot = Arc::clone(self);
        let runtime = ask.runtime.clone();
        self.fetching.join(&runtime, || async move {
            let asked = Instant::now();
            let service = slot.service.to_string();
            let fetched = match ask.source.fetcher(ask.deployment, ask.incarnation, &service).await {
                Ok(lease) if lease.incarnation != ask.incarnation => Err(FetchError::Unavailable(format!(
                    "the source answered for incarnation {}, not {}",
                    lease.incarnation, ask.incarnation
                ))),
                fetched => fetched,
            };
            slot.settle(asked, fetched, ask.deployment)
        })
    }

    fn settle(
        &self,
        asked: Instant,
        fetched: Result<Lease, FetchError>,
        deployment: DeploymentId,
    ) -> Result<Arc<Target>, FetchError> {
        match fetched {
            Ok(lease) => {
                let target = Arc::new(Target::new(lease, asked, self.current.load().as_deref()));
                self.current.store(Some(Arc::clone(&target)));
                *self.refused.lock() = None;
                Ok(target)
            }
            Err(error) => {
                let until = match &error {
                    FetchError::NotFound => {
                        self.current.store(None);
                        asked + BELIEVED
                    }
                    FetchError::Busy { retry_after } => asked + (*retry_after).min(Duration::from_secs(5)),
                    FetchError::Unavailable(_) => asked + BELIEVED,
                };
                tracing::debug!(%deployment, service = %self.service, %error, "no lease");
                *self.refused.lock() = Some((until, error.clone()));
                Err(error)
            }
        }
    }

    fn refusal(&self, now: Instant) -> Option<FetchError> {
        let refused = self.refused.lock();
        refused.as_ref().filter(|(until, _)| now < *until).map(|(_, error)| error.clone())
    }

    fn is_refused(&self, now: Instant) -> bool {
        self.refused.lock().as_ref().is_some_and(|(until, _)| now < *until)
    }
}

impl Target {
    fn new(lease: Lease, asked: Instant, before: Option<&Self>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Connections stay right as long as the lease leads to the same place.
        let id = match before {
            Some(before)
                if before.lease.endpoint == lease.endpoint && before.lease.scheme == lease.scheme =>
            {
                before.id
            }
            _ => NEXT.fetch_add(1, Ordering::Relaxed),
        };
        // Three quarters through: a quarter is left for a source that is slow or away.
        let renew_at = lease.expires_at.map(|end| asked + end.saturating_duration_since(asked) * 3 / 4);
        Self { id, lease, renew_at }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use async_trait::async_trait;
    use tokio::runtime::Handle;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::lease::Endpoint;

    /// Answers what it is told, when it is let.
    struct Source {
        answers: Mutex<Vec<Result<Lease, FetchError>>>,
        gate: Semaphore,
        asked: AtomicU64,
    }

    #[async_trait]
    impl FetcherSource for Source {
        async fn fetcher(&self, _: DeploymentId, _: u64, _: &str) -> Result<Lease, FetchError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            self.answers.lock().remove(0)
        }
    }

    fn lease(port: u16, ttl: Option<Duration>) -> Lease {
        let mut lease = Lease::new(Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], port))), 1);
        lease.expires_at = ttl.map(|ttl| Instant::now() + ttl);
        lease
    }

    fn set_up(answers: Vec<Result<Lease, FetchError>>, open: usize) -> (Arc<Source>, Arc<Slot>, Ask) {
        let source = Arc::new(Source {
            answers: Mutex::new(answers),
            gate: Semaphore::new(open),
            asked: AtomicU64::new(0),
        });
        let slot = Slots::default().slot(&ServiceKey::Port(3000));
        let ask = Ask {
            source: Arc::clone(&source) as Arc<dyn FetcherSource>,
            runtime: Handle::current(),
            deployment: DeploymentId::new(),
            incarnation: 1,
        };
        (source, slot, ask)
    }

    #[tokio::test]
    async fn the_first_fetch_is_shared() {
        let (source, slot, ask) = set_up(vec![Ok(lease(1, None))], 0);
        let all = futures_util::future::join_all((0..20).map(|_| slot.target(ask.clone())));
        let (all, ()) = tokio::join!(all, async { source.gate.add_permits(1) });
        let first = all[0].as_ref().unwrap().id;
        assert!(all.iter().all(|target| target.as_ref().unwrap().id == first));
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        assert_eq!(slot.ready(Instant::now(), || ask.clone()).unwrap().id, first);
    }

    #[tokio::test]
    async fn an_expired_lease_serves_while_the_source_is_away_and_a_new_place_is_a_new_target() {
        let expired = Some(Duration::ZERO);
        let away = Err(FetchError::Unavailable("away".to_owned()));
        let (source, slot, ask) =
            set_up(vec![Ok(lease(1, expired)), away, Ok(lease(1, expired)), Ok(lease(2, None))], 99);
        let first = slot.target(ask.clone()).await.unwrap();
        // Renewing fails: the old one serves, and the source is left alone for a while.
        assert_eq!(slot.target(ask.clone()).await.unwrap().id, first.id);
        assert_eq!(slot.target(ask.clone()).await.unwrap().id, first.id);
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
        assert_eq!(slot.renew(ask.clone()).await.unwrap().id, first.id, "the same place");
        assert_ne!(slot.target(ask).await.unwrap().id, first.id, "another place");
    }

    #[tokio::test]
    async fn a_lease_is_renewed_in_the_background_before_it_ends() {
        let (source, slot, ask) =
            set_up(vec![Ok(lease(1, Some(Duration::from_secs(100)))), Ok(lease(2, None))], 99);
        let first = slot.target(ask.clone()).await.unwrap();
        let soon = Instant::now() + Duration::from_secs(60);
        assert_eq!(slot.ready(soon, || ask.clone()).unwrap().id, first.id);
        let late = Instant::now() + Duration::from_secs(80);
        assert_eq!(slot.ready(late, || ask.clone()).unwrap().id, first.id, "served while it is renewed");
        while source.asked.load(Ordering::Relaxed) < 2
            || slot.ready(soon, || ask.clone()).unwrap().id == first.id
        {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn not_found_ends_a_lease_and_an_answer_for_another_incarnation_is_none() {
        let mut other = lease(1, None);
        other.incarnation = 2;
        let (_, slot, ask) =
            set_up(vec![Ok(lease(1, Some(Duration::ZERO))), Err(FetchError::NotFound), Ok(other)], 99);
        slot.target(ask.clone()).await.unwrap();
        assert_eq!(slot.target(ask.clone()).await.err(), Some(FetchError::NotFound));
        assert!(slot.ready(Instant::now(), || ask.clone()).is_none());
        assert!(matches!(slot.renew(ask).await, Err(FetchError::Unavailable(_))));
    }
}
