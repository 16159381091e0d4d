//! Ends or freezes the daemon at named points, for crash tests: `HYTHE_FAULTS="daemon.after_spawn=SIGKILL"`.
//!
//! Only in a build with the feature `failpoints`; elsewhere [`point`] is nothing.
//! Points: `daemon.{before,after}_spawn`, `daemon.{before,after}_state_write`,
//! `daemon.{before,after}_kill`. `point=SIGKILL@3` lets the point pass twice first.

/// Passes a named point.
pub fn point(name: &'static str) {
    fail::fail_point!(name);
    let _ = name;
}

/// Arms what `HYTHE_FAULTS` says.
///
/// # Errors
/// Where it can't be understood, or this build has no such points.
pub fn arm() -> anyhow::Result<()> {
    let Ok(faults) = std::env::var("HYTHE_FAULTS") else { return Ok(()) };
    #[cfg(not(feature = "failpoints"))]
    anyhow::bail!(
        "HYTHE_FAULTS={faults:?} is set, but this hythe-agent is built without the feature `failpoints`"
    );
    #[cfg(feature = "failpoints")]
    armed::arm(&faults)
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::atomic::{AtomicU64, Ordering};

    use anyhow::{Context, anyhow, bail};
    use rustix::process::{Signal, getpid, kill_process};

    pub fn arm(faults: &str) -> anyhow::Result<()> {
        for fault in faults.split(';').filter(|fault| !fault.is_empty()) {
            let (point, what) =
                fault.split_once('=').with_context(|| format!("HYTHE_FAULTS: {fault:?} has no `=`"))?;
            let (signal, nth) = what.split_once('@').unwrap_or((what, "1"));
            let nth: u64 = nth.parse().with_context(|| format!("HYTHE_FAULTS: {nth:?} is no count"))?;
            let signal = match signal {
                "SIGKILL" => Signal::KILL,
                "SIGSTOP" => Signal::STOP,
                other => bail!("HYTHE_FAULTS: {other:?} is neither SIGKILL nor SIGSTOP"),
            };
            let passed = AtomicU64::new(0);
            fail::cfg_callback(point, move || {
                if passed.fetch_add(1, Ordering::SeqCst) + 1 == nth {
                    let _ = kill_process(getpid(), signal);
                }
            })
            .map_err(|error| anyhow!("HYTHE_FAULTS: {error}"))?;
        }
        Ok(())
    }
}
