//! Idle connections to upstreams, a pool a worker, keyed by target: a target is one service of one
//! incarnation of one deployment at one endpoint, so no connection ever serves another's request, even
//! where an address comes back.

use std::collections::HashMap;
use std::task::{Context, Waker};

use crate::upstream::Upstream;

pub(crate) struct Pool {
    idle: HashMap<u64, Vec<Idle>>,
    /// How many there are in all.
    count: usize,
    most_each: usize,
    /// In ticks.
    longest_idle: u32,
}

struct Idle {
    upstream: Box<Upstream>,
    since: u32,
}

impl Pool {
    pub(crate) fn new(most_each: usize, longest_idle: u32) -> Self {
        Self { idle: HashMap::new(), count: 0, most_each, longest_idle }
    }

    /// The connection that was used last: it is the least likely to be closing.
    pub(crate) fn take(&mut self, target: u64, now: u32) -> Option<Box<Upstream>> {
        let idle = self.idle.get_mut(&target)?;
        while let Some(Idle { upstream, since }) = idle.pop() {
            self.count -= 1;
            if now.saturating_sub(since) < self.longest_idle && upstream.is_ready() {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn put(&mut self, mut upstream: Box<Upstream>, now: u32) {
        if !upstream.is_ready() {
            return;
        }
        upstream.rest();
        let idle = self.idle.entry(upstream.target).or_default();
        if idle.len() < self.most_each {
            idle.push(Idle { upstream, since: now });
            self.count += 1;
        }
    }

    /// Once a tick: lets go of what has been idle for long or was closed from the other side.
    pub(crate) fn sweep(&mut self, now: u32) {
        let longest = self.longest_idle;
        let mut count = 0;
        self.idle.retain(|_, idle| {
            idle.retain_mut(|Idle { upstream, since }| {
                now.saturating_sub(*since) < longest && !(upstream.has_stirred() && has_ended(upstream))
            });
            count += idle.len();
            !idle.is_empty()
        });
        self.count = count;
    }

    pub(crate) fn clear(&mut self) {
        self.idle.clear();
        self.count = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

fn has_ended(upstream: &mut Upstream) -> bool {
    let ended = upstream.drive(&mut Context::from_waker(Waker::noop())).is_ready();
    upstream.rest();
    ended || !upstream.is_ready()
}
