//! The eye on one client connection: what phase it is in, since when, and whether it still makes progress.
//!
//! The connection's own task writes down moments as numbers of ticks; a sweep, once a tick, goes through all
//! connections of the worker and gives an order to those that are too slow. So no request pays for a timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::IngressConfig;

/// How often connections are looked at: the precision of all time-outs.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Ticks for which a connection that is to end waits for one more request.
const LAST_PATIENCE: u32 = 10;

/// A worker's clock, moved on once a tick.
pub(crate) struct Clock {
    /// Begins at 1: 0 means "never".
    tick: Cell<u32>,
    unix_ms: Cell<u64>,
    /// Whether the last tick came so late that there is more to do than can be done.
    behind: Cell<bool>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self { tick: Cell::new(1), unix_ms: Cell::new(0), behind: Cell::new(false) };
        clock.refresh();
        clock
    }

    pub(crate) fn tick(&self) -> u32 {
        self.tick.get()
    }

    /// Milliseconds since the Unix epoch, as of the last tick.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.unix_ms.get()
    }

    /// Brings the time of day up to date after a pause.
    pub(crate) fn refresh(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.unix_ms.set(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.behind.get()
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.set(behind);
    }

    pub(crate) fn advance(&self) {
        self.tick.set(self.tick.get() + 1);
        self.refresh();
    }
}

/// Time-outs, in ticks.
pub(crate) struct Limits {
    header: u32,
    keep_alive: u32,
    body: u32,
    write: u32,
    response: u32,
    upgrade: u32,
    /// Bytes a tick.
    least_rate: u64,
}

impl Limits {
    pub(crate) fn new(config: &IngressConfig) -> Self {
        let ticks = |duration: Duration| {
            let ticks = duration.as_millis().div_ceil(TICK.as_millis()).max(1);
            u32::try_from(ticks).unwrap_or(u32::MAX)
        };
        Self {
            header: ticks(config.header_timeout),
            keep_alive: ticks(config.keep_alive_timeout),
            body: ticks(config.body_timeout),
            write: ticks(config.write_timeout),
            response: ticks(config.response_timeout),
            upgrade: ticks(config.upgrade_timeout),
            least_rate: u64::from(config.least_rate) * TICK.as_millis() as u64 / 1000,
        }
    }
}

/// How much a step moved.
pub(crate) fn moved<E>(result: &Poll<Result<usize, E>>) -> Poll<usize> {
    match result {
        Poll::Ready(Ok(bytes)) => Poll::Ready(*bytes),
        Poll::Ready(Err(_)) => Poll::Ready(0),
        Poll::Pending => Poll::Pending,
    }
}

/// What a client connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests.
    Idle,
    /// A head is on its way in (or the connection is new).
    Head,
    /// A request waits for something of ours: a start, a lease, a connection. It has a time-out of its own.
    Waiting,
    /// The upstream has the request, or is being given it.
    Upstream,
    /// An answer is on its way out.
    Answer,
    /// Bytes go both ways.
    Tunnel,
}

/// What the connection's task is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    None,
    /// End after the present request.
    Drain,
    /// End now.
    Cut,
    /// The client's body does not come.
    BodyLate,
    /// The upstream's answer does not come.
    AnswerLate,
}

/// Bytes since a moment: a side that moves a byte now and then is as slow as one that moves none.
#[derive(Default)]
struct Trickle {
    /// 0: nobody has waited.
    since: Cell<u32>,
    bytes: Cell<u64>,
}

impl Trickle {
    fn waits(&self, now: u32) {
        if self.since.get() == 0 {
            self.since.set(now);
            self.bytes.set(0);
        }
    }

    fn moved(&self, bytes: usize) {
        if self.since.get() != 0 {
            self.bytes.set(self.bytes.get() + bytes as u64);
        }
    }

    fn end(&self) {
        self.since.set(0);
    }

    /// Whether less than the least rate was moved over the whole of `limit`. Asked again after as long.
    fn is_slow(&self, now: u32, limit: u32, rate: u64) -> bool {
        let since = self.since.get();
        let age = now.saturating_sub(since);
        if since == 0 || age < limit {
            return false;
        }
        let slow = self.bytes.get() < rate * u64::from(age);
        if !slow {
            self.end();
        }
        slow
    }
}

pub(crate) struct Watch {
    clock: Rc<Clock>,
    /// Whether bytes from the client begin a request's head. Not in HTTP/2, where they may be anything.
    reads_heads: Cell<bool>,
    phase: Cell<Phase>,
    since: Cell<u32>,
    /// Since when writing to the client is stuck; 0: it is not.
    write_stuck: Cell<u32>,
    /// What the client took since it first had to be waited for.
    written: Trickle,
    /// Since when the upstream waits for a piece of the request's body; 0: it does not.
    body_stuck: Cell<u32>,
    /// What of the body came since it first had to be waited for.
    received: Trickle,
    /// Messages come when they come: the request's body may be as slow as it likes.
    converses: Cell<bool>,
    order: Cell<Order>,
    /// Since when the next answer is to be the last of its connection; 0: it is not.
    last_since: Cell<u32>,
    /// A request's body was left unread: closing at once would destroy the answer to it.
    pub(crate) undrained: Cell<bool>,
    /// Answers before the answer (1xx) that are to be written while nothing else is.
    pub(crate) interim: RefCell<Vec<u8>>,
    task: RefCell<Option<Waker>>,
}

impl Watch {
    pub(crate) fn new(clock: Rc<Clock>) -> Self {
        let since = Cell::new(clock.tick());
        Self {
            clock,
            reads_heads: Cell::new(true),
            phase: Cell::new(Phase::Head),
            since,
            write_stuck: Cell::new(0),
            written: Trickle::default(),
            received: Trickle::default(),
            converses: Cell::new(false),
            body_stuck: Cell::new(0),
            order: Cell::new(Order::None),
            last_since: Cell::new(0),
            undrained: Cell::new(false),
            interim: RefCell::default(),
            task: RefCell::new(None),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.tick());
    }

    /// From now on the connection is HTTP/2's.
    pub(crate) fn multiplexes(&self) {
        self.reads_heads.set(false);
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn order(&self) -> Order {
        self.order.get()
    }

    /// Gives an order and wakes the task that has to carry it out. A cut stays a cut, and draining is heard
    /// before anything milder; what is late is found late again at the next tick.
    pub(crate) fn give(&self, order: Order) {
        match self.order.get() {
            Order::Cut => return,
            Order::Drain if order != Order::Cut => return,
            Order::None | Order::Drain | Order::BodyLate | Order::AnswerLate => {}
        }
        self.order.set(order);
        self.wake();
    }

    /// The order to drain has been heard, or a late one was answered.
    pub(crate) fn obeyed(&self, order: Order) {
        if self.order.get() == order {
            self.order.set(Order::None);
        }
    }

    /// The connection ends in its own way: what it was told to do is done.
    pub(crate) fn forgive(&self) {
        self.order.set(Order::None);
        self.since.set(self.clock.tick());
    }

    /// A connection that is to end and has no request says so in its next answer: one that were closed now
    /// might have a request on its way. False: it was told before, and has been idle since; or it has one.
    pub(crate) fn ends_with_next(&self) -> bool {
        let waits = matches!(self.phase.get(), Phase::Idle | Phase::Head) && self.last_since.get() == 0;
        if waits {
            self.last_since.set(self.clock.tick());
        }
        waits
    }

    /// Whether the present answer is its connection's last.
    pub(crate) fn is_last(&self) -> bool {
        self.last_since.get() != 0
    }

    pub(crate) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    pub(crate) fn set_task(&self, waker: &Waker) {
        *self.task.borrow_mut() = Some(waker.clone());
    }

    /// A request begins. `converses`: its body is one side of a conversation.
    pub(crate) fn begin(&self, converses: bool) {
        self.converses.set(converses);
        self.received.end();
        self.written.end();
    }

    /// A piece of the request's body came, or has been asked for.
    pub(crate) fn body_progress(&self, piece: Poll<usize>) {
        if let Poll::Ready(bytes) = piece {
            self.received.moved(bytes);
            self.body_stuck.set(0);
            if self.phase.get() == Phase::Upstream {
                // The answer's time begins when the request has ended.
                self.since.set(self.clock.tick());
            }
        } else if self.body_stuck.get() == 0 {
            self.body_stuck.set(self.clock.tick());
            self.received.waits(self.clock.tick());
        }
    }

    /// Looks whether the connection is too slow.
    pub(crate) fn sweep(&self, limits: &Limits) {
        let now = self.clock.tick();
        let over = |since: u32, limit: u32| since != 0 && now.saturating_sub(since) >= limit;
        if over(self.write_stuck.get(), limits.write) {
            return self.give(Order::Cut);
        }
        if self.write_stuck.get() != 0 && self.written.is_slow(now, limits.write, limits.least_rate) {
            return self.give(Order::Cut);
        }
        let since = self.since.get();
        let last_since = self.last_since.get();
        if last_since != 0 && self.phase.get() == Phase::Idle && over(since.max(last_since), LAST_PATIENCE) {
            self.give(Order::Drain);
        }
        let body_stuck = self.body_stuck.get();
        let late_body = over(body_stuck, limits.body)
            || (body_stuck != 0
                && !self.converses.get()
                && self.received.is_slow(now, limits.body, limits.least_rate));
        match self.phase.get() {
            Phase::Idle if over(since, limits.keep_alive) => self.give(Order::Cut),
            Phase::Head if over(since, limits.header) => self.give(Order::Cut),
            Phase::Tunnel if over(since, limits.upgrade) => self.give(Order::Cut),
            // Conversations may pause, before and after their answer has begun.
            Phase::Upstream if self.converses.get() && !over(body_stuck, limits.upgrade) => {}
            Phase::Answer if over(body_stuck, limits.upgrade) => self.give(Order::Cut),
            Phase::Upstream if late_body => self.give(Order::BodyLate),
            // While the body is on its way the answer is not late.
            Phase::Upstream if self.body_stuck.get() == 0 && over(since, limits.response) => {
                self.give(Order::AnswerLate);
            }
            Phase::Idle if late_body => self.give(Order::Cut),
            _ => {}
        }
    }

    /// Bytes came from the client.
    pub(crate) fn has_read(&self) {
        match self.phase.get() {
            Phase::Idle if self.reads_heads.get() => self.enter(Phase::Head),
            Phase::Tunnel => self.since.set(self.clock.tick()),
            _ => {}
        }
    }

    /// Whether the client took what it was given (or is too slow to, for now).
    pub(crate) fn has_written(&self, piece: Poll<usize>) {
        let Poll::Ready(bytes) = piece else {
            if self.write_stuck.get() == 0 {
                self.write_stuck.set(self.clock.tick());
                self.written.waits(self.clock.tick());
            }
            return;
        };
        self.written.moved(bytes);
        self.write_stuck.set(0);
        if self.phase.get() == Phase::Tunnel {
            self.since.set(self.clock.tick());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let tenth = |ticks: u64| Duration::from_millis(100 * ticks);
        Limits::new(&IngressConfig {
            header_timeout: tenth(2),
            keep_alive_timeout: tenth(5),
            body_timeout: tenth(3),
            write_timeout: tenth(4),
            response_timeout: tenth(6),
            upgrade_timeout: tenth(7),
            ..IngressConfig::default()
        })
    }

    /// After how many ticks without progress an order comes, and which.
    fn check(set_up: impl FnOnce(&Watch), expected: (u32, Order)) {
        let clock = Rc::new(Clock::new());
        let watch = Watch::new(Rc::clone(&clock));
        set_up(&watch);
        for ticks in 1..20 {
            clock.advance();
            watch.sweep(&limits());
            if watch.order() != Order::None {
                assert_eq!((ticks, watch.order()), expected);
                return;
            }
        }
        panic!("no order");
    }

    #[test]
    fn each_phase_has_its_limit() {
        check(|_| (), (2, Order::Cut));
        check(|watch| watch.enter(Phase::Idle), (5, Order::Cut));
        check(|watch| watch.enter(Phase::Upstream), (6, Order::AnswerLate));
        check(|watch| watch.enter(Phase::Tunnel), (7, Order::Cut));
        let stuck_in = |phase| {
            move |watch: &Watch| {
                watch.enter(phase);
                watch.body_progress(Poll::Pending);
            }
        };
        check(stuck_in(Phase::Upstream), (3, Order::BodyLate));
        // The other side talks: this is a conversation.
        check(stuck_in(Phase::Answer), (7, Order::Cut));
        check(stuck_in(Phase::Idle), (3, Order::Cut));
        check(
            |watch| {
                watch.enter(Phase::Answer);
                watch.has_written(Poll::Pending);
            },
            (4, Order::Cut),
        );
    }

    #[test]
    fn an_order_to_drain_is_not_lost_to_a_milder_one() {
        let watch = Watch::new(Rc::new(Clock::new()));
        watch.give(Order::Drain);
        watch.give(Order::BodyLate);
        assert_eq!(watch.order(), Order::Drain);
        watch.give(Order::Cut);
        watch.give(Order::Drain);
        assert_eq!(watch.order(), Order::Cut);
    }

    #[test]
    fn a_trickle_is_no_progress() {
        let clock = Rc::new(Clock::new());
        for (bytes, expected) in [(1, true), (1000, false)] {
            for writes in [true, false] {
                let watch = Watch::new(Rc::clone(&clock));
                watch.enter(if writes { Phase::Answer } else { Phase::Upstream });
                let step = |piece| if writes { watch.has_written(piece) } else { watch.body_progress(piece) };
                let mut late = false;
                for _ in 0..20 {
                    step(Poll::Ready(bytes));
                    step(Poll::Pending);
                    clock.advance();
                    watch.sweep(&limits());
                    late |= watch.order() != Order::None;
                }
                assert_eq!(late, expected, "{bytes} {writes}");
                // A conversation may be as slow.
                let watch = Watch::new(Rc::clone(&clock));
                watch.begin(true);
                watch.enter(Phase::Upstream);
                watch.body_progress(Poll::Pending);
                for _ in 0..6 {
                    clock.advance();
                    watch.sweep(&limits());
                }
                assert_eq!(watch.order(), Order::None);
            }
        }
    }

    #[test]
    fn progress_starts_the_time_anew() {
        let clock = Rc::new(Clock::new());
        let watch = Watch::new(Rc::clone(&clock));
        watch.enter(Phase::Upstream);
        for _ in 0..20 {
            watch.body_progress(Poll::Pending);
            clock.advance();
            clock.advance();
            watch.body_progress(Poll::Ready(1000));
            watch.sweep(&limits());
        }
        watch.enter(Phase::Answer);
        for _ in 0..20 {
            clock.advance();
            watch.sweep(&limits());
        }
        assert_eq!(watch.order(), Order::None);
    }
}
