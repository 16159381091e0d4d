//! A thread with a runtime of its own: what runs on it shares nothing by accident and needs no `Send`.

use std::future::Future;
use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::runtime;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
#[error("the worker thread {name:?} did not start")]
pub struct WorkerError {
    name: String,
    #[source]
    source: io::Error,
}

/// A running worker thread. Its work ends when its future does.
#[derive(Debug)]
pub struct WorkerThread {
    thread: JoinHandle<()>,
}

impl WorkerThread {
    /// Starts a thread with a single-threaded runtime and runs what `work` gives on it; `spawn_local`
    /// works inside.
    ///
    /// # Errors
    /// Where the runtime or the thread can't be made.
    pub fn spawn<F>(name: String, work: impl FnOnce() -> F + Send + 'static) -> Result<Self, WorkerError>
    where
        F: Future<Output = ()> + 'static,
    {
        let error = |source| WorkerError { name: name.clone(), source };
        let (ready, started) = std::sync::mpsc::channel();
        let thread = Builder::new()
            .name(name.clone())
            .spawn(move || {
                // Built here, since it can't leave its thread.
                let runtime = runtime::Builder::new_current_thread()
                    .enable_all()
                    // Ask the kernel for new events a little less often than tokio's default of 61 polls:
                    // under load the batch that one `epoll_wait` brings is worked off first.
                    .event_interval(128)
                    .build_local(runtime::LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let _ = ready.send(Ok(()));
                        runtime.block_on(work());
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })
            .map_err(error)?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { thread }),
            Ok(Err(source)) => Err(error(source)),
            Err(_) => Err(error(io::Error::other("it ended at once"))),
        }
    }

    /// Waits for its end without holding up the caller's runtime. False: it panicked.
    pub async fn join(self) -> bool {
        tokio::task::spawn_blocking(move || self.thread.join().is_ok()).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test]
    async fn runs_what_can_not_be_sent() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let worker = WorkerThread::spawn("worker-test".to_owned(), move || async move {
            let value = Rc::new(7);
            let other = Rc::clone(&value);
            let sum = tokio::task::spawn_local(async move { *other + 1 }).await.unwrap();
            let _ = sender.send(sum + *value);
        })
        .unwrap();
        assert_eq!(receiver.await.unwrap(), 15);
        assert!(worker.join().await);
    }
}
