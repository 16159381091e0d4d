//! Passive ejection: a place that took no connection through all retries is left alone for a while, so that
//! whoever asks for it is told at once, and it is not knocked at by everybody while it comes up.
//!
//! Belongs to one service of one incarnation: a new start begins with a clean slate.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(crate) struct Ejection(Mutex<Ejected>);

#[derive(Default)]
struct Ejected {
    /// Failed series in a row.
    failures: u32,
    until: Option<Instant>,
    /// Somebody tries whether it is back.
    probing: bool,
}

/// Leave to connect.
pub(crate) struct Probe<'a> {
    of: &'a Ejection,
    alone: bool,
}

impl Ejection {
    /// None: it is left alone now. After that time one request at a time tries whether it is back.
    pub(crate) fn try_connect(&self) -> Option<Probe<'_>> {
        let mut state = self.0.lock();
        let Some(until) = state.until else { return Some(Probe { of: self, alone: false }) };
        if state.probing || Instant::now() < until {
            return None;
        }
        state.probing = true;
        Some(Probe { of: self, alone: true })
    }
}

impl Probe<'_> {
    pub(crate) fn worked(self) {
        let mut state = self.of.0.lock();
        if state.until.is_some() {
            *state = Ejected::default();
        }
    }

    pub(crate) fn failed(self) {
        let mut state = self.of.0.lock();
        let pause = (FIRST * (1 << state.failures.min(8))).min(LONGEST);
        state.failures += 1;
        state.until = Some(Instant::now() + pause);
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if self.alone {
            self.of.0.lock().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_fails_is_left_alone_then_tried_by_one() {
        let ejection = Ejection::default();
        let first = ejection.try_connect().unwrap();
        let other = ejection.try_connect().unwrap();
        first.failed();
        assert!(ejection.try_connect().is_none());
        // One that had begun before finds it back.
        other.worked();
        assert!(ejection.try_connect().is_some());
        ejection.try_connect().unwrap().failed();
        ejection.0.lock().until = Some(Instant::now());
        let probe = ejection.try_connect().unwrap();
        assert!(ejection.try_connect().is_none(), "one at a time");
        drop(probe);
        ejection.try_connect().unwrap().failed();
        assert_eq!(ejection.0.lock().failures, 2);
        ejection.0.lock().until = Some(Instant::now());
        ejection.try_connect().unwrap().worked();
        assert!(ejection.try_connect().is_some() && ejection.try_connect().is_some());
    }
}
