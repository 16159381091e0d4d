//! Stops or kills this process at named points, for tests: `HYTHE_FAULTS="point=SIGKILL;other=SIGSTOP"`.
//!
//! Only in builds with the feature `failpoints`; elsewhere the points are nothing.

/// Registers what the environment asks for.
#[cfg(feature = "failpoints")]
pub fn register() {
    use rustix::process::{Signal, getpid, kill_process};
    let Ok(faults) = std::env::var("HYTHE_FAULTS") else { return };
    for fault in faults.split(';').filter(|fault| !fault.is_empty()) {
        let (point, signal) = match fault.split_once('=') {
            Some((point, "SIGKILL")) => (point, Signal::KILL),
            Some((point, "SIGSTOP")) => (point, Signal::STOP),
            _ => {
                tracing::error!("HYTHE_FAULTS has {fault:?}: expected point=SIGKILL or point=SIGSTOP");
                continue;
            }
        };
        // Once: the process that was stopped goes on past the point.
        let fired = std::sync::atomic::AtomicBool::new(false);
        let registered = fail::cfg_callback(point, move || {
            if !fired.swap(true, std::sync::atomic::Ordering::SeqCst) {
                let _ = kill_process(getpid(), signal);
            }
        });
        if let Err(error) = registered {
            tracing::error!("the fault {fault:?} can't be registered: {error}");
        }
    }
}

/// Nothing: the points are not in this build.
#[cfg(not(feature = "failpoints"))]
pub fn register() {}
