//! One call for all who want its answer at the same time.

use std::future::Future;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// At most one call is under way; whoever comes meanwhile gets the same answer. The call runs as a task
/// of its own, so it goes on when all who wait have left.
pub(crate) struct Flight<T> {
    under_way: Mutex<Option<watch::Receiver<Option<T>>>>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { under_way: Mutex::new(None) }
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Joins the call under way or begins one on `runtime`. None: the call panicked or its runtime ended.
    pub(crate) fn join<F>(&self, runtime: &Handle, call: impl FnOnce() -> F) -> Joined<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(receiver) = under_way.as_ref()
            && receiver.borrow().is_none()
            && receiver.has_changed().is_ok()
        {
            return Joined(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let call = call();
        runtime.spawn(async move {
            let answer = call.await;
            sender.send_replace(Some(answer));
        });
        *under_way = Some(receiver.clone());
        Joined(receiver)
    }
}

impl<T> Flight<T> {
    /// Whether a call is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        let under_way = self.under_way.lock();
        under_way
            .as_ref()
            .is_some_and(|receiver| receiver.borrow().is_none() && receiver.has_changed().is_ok())
    }
}

/// A seat in a [`Flight`].
pub(crate) struct Joined<T>(watch::Receiver<Option<T>>);

impl<T: Clone> Joined<T> {
    pub(crate) async fn answer(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn those_who_come_together_share_one_call() {
        let flight = Flight::default();
        let calls = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(Barrier::new(2));
        let join = || {
            let (calls, gate) = (Arc::clone(&calls), Arc::clone(&gate));
            flight.join(&Handle::current(), || async move {
                gate.wait().await;
                calls.fetch_add(1, Ordering::Relaxed)
            })
        };
        let together: Vec<_> = (0..10).map(|_| join()).collect();
        gate.wait().await;
        for joined in together {
            assert_eq!(joined.answer().await, Some(0));
        }
        let later = join();
        gate.wait().await;
        assert_eq!(later.answer().await, Some(1));
    }

    #[tokio::test]
    async fn a_call_that_panics_is_no_answer_and_blocks_nobody() {
        let flight = Flight::<u32>::default();
        let runtime = Handle::current();
        assert_eq!(flight.join(&runtime, || async { panic!("on purpose") }).answer().await, None);
        assert_eq!(flight.join(&runtime, || async { 7 }).answer().await, Some(7));
    }
}
