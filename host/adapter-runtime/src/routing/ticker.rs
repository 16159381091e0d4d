//! The thread that moves the routing engine's epoch on, while there are calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How long an epoch is.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Epochs without a call after which the thread sleeps.
const PATIENCE: u32 = 100;

/// One a routing engine. Its thread ends with it.
pub(crate) struct Ticker {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    handle: Thread,
}

#[derive(Default)]
struct State {
    /// A call has begun, or has met an epoch's end, since the thread last looked.
    called: AtomicBool,
    ended: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = Arc::new(State::default());
        let (shared, engine) = (Arc::clone(&state), engine.clone());
        let thread = std::thread::Builder::new()
            .name("routing-epoch".into())
            .spawn(move || tick(&shared, || engine.increment_epoch()))?;
        let handle = thread.thread().clone();
        Ok(Self { state, thread: Some(thread), handle })
    }

    /// Must be called after the deadline of a call was set, and before the call: epochs pass from then on.
    /// Costs a load where epochs pass already.
    pub(crate) fn called(&self) {
        // The thread sleeps only after `PATIENCE` epochs in which this stayed false, so whoever finds it true
        // has at least that many before it, and the end of the first one calls this again.
        if !self.state.called.load(Ordering::Relaxed) {
            self.state.called.store(true, Ordering::Release);
            self.handle.unpark();
        }
    }
}

fn tick(state: &State, advance: impl Fn()) {
    let mut idle = 0;
    while !state.ended.load(Ordering::Acquire) {
        if state.called.swap(false, Ordering::AcqRel) {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle > PATIENCE {
            // `called` and the end both unpark; one that came before is not lost.
            std::thread::park();
            continue;
        }
        std::thread::sleep(TICK);
        advance();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
        self.handle.unpark();
        if let Some(thread) = self.thread.take() {
            // It ends within a tick. A panic in it has been told of by its own hook.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn epochs_pass_while_there_are_calls_and_the_thread_sleeps_when_there_are_none() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        ticker.called();
        drop(ticker);

        let state = Arc::new(State::default());
        let passed = Arc::new(AtomicU64::new(0));
        let (first, seen) = mpsc::channel();
        let thread = std::thread::spawn({
            let (state, passed) = (Arc::clone(&state), Arc::clone(&passed));
            move || {
                tick(&state, || {
                    passed.fetch_add(1, Ordering::Relaxed);
                    let _ = first.send(());
                });
            }
        });
        // Without a call, exactly its patience passes.
        (0..PATIENCE).for_each(|_| seen.recv().unwrap());
        state.called.store(true, Ordering::Release);
        thread.thread().unpark();
        (0..=PATIENCE).for_each(|_| seen.recv().unwrap());
        state.ended.store(true, Ordering::Release);
        thread.thread().unpark();
        thread.join().unwrap();
        assert_eq!(passed.load(Ordering::Relaxed), u64::from(2 * PATIENCE + 1));
    }
}
