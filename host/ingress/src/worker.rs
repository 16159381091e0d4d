//! One worker thread: its sockets, its clients, its pool, its clock. Nothing of it is shared with another.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use serve::Draining;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::IngressConfig;
use crate::ids::IdSource;
use crate::lease::FetcherSource;
use crate::metrics::Stats;
use crate::pool::Pool;
use crate::relay::SCRATCH;
use crate::request::{Client, Requests};
use crate::route::Routes;
use crate::upstream::Upstream;
use crate::wake::Waker;
use crate::watch::{ClientIo, Clock, Limits, Order, Phase, TICK, Watch};

/// After an answer to a request whose body was not read: how long its rest is thrown away, so that the
/// answer is not lost to a reset (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What all workers have in common.
pub(crate) struct Shared {
    pub(crate) config: IngressConfig,
    pub(crate) routes: Arc<Routes>,
    pub(crate) fetchers: Arc<dyn FetcherSource>,
    pub(crate) waker: Arc<dyn Waker>,
    /// Where everything runs that may wait on something else than a socket.
    pub(crate) control: Handle,
    pub(crate) stats: Arc<Stats>,
    pub(crate) draining: Draining,
    /// The grace is over.
    pub(crate) cut: CancellationToken,
}

pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Rc<Clock>,
    pub(crate) ids: RefCell<IdSource>,
    pub(crate) scheme: &'static str,
    pool: RefCell<Pool>,
    watches: RefCell<Vec<Weak<Watch>>>,
    connections: Cell<usize>,
    /// A connection has come or gone.
    moved: Notify,
    draining: Cell<bool>,
    limits: Limits,
    http: Builder,
    scratch: RefCell<Vec<u8>>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Rc<Self> {
        let config = &shared.config;
        let mut http = Builder::new();
        http.header_read_timeout(None)
            .max_header_size(config.max_header_bytes)
            // A head must fit into the buffer; bodies come in pieces of at most this.
            .max_buf_size(config.max_header_bytes.max(64 * 1024));
        let idle_ticks = config.pool_idle_timeout.as_millis().div_ceil(TICK.as_millis());
        Rc::new(Self {
            clock: Rc::new(Clock::new()),
            ids: RefCell::new(IdSource::new()),
            scheme: config.public_scheme.as_str(),
            pool: RefCell::new(Pool::new(
                config.pool_idle_max,
                u32::try_from(idle_ticks).unwrap_or(u32::MAX),
            )),
            watches: RefCell::default(),
            connections: Cell::new(0),
            moved: Notify::new(),
            draining: Cell::new(false),
            limits: Limits::new(config),
            http,
            scratch: RefCell::new(vec![0; SCRATCH]),
            shared,
        })
    }

    /// An idle connection of the target.
    pub(crate) fn take(&self, target: u64) -> Option<Box<Upstream>> {
        self.pool.borrow_mut().take(target, self.clock.tick())
    }

    /// Keeps a connection for the next request, where it can take one.
    pub(crate) fn give_back(&self, upstream: Box<Upstream>) {
        if !self.draining.get() {
            self.pool.borrow_mut().put(upstream, self.clock.tick());
        }
    }

    fn welcome(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        self.clock.refresh();
        self.connections.set(self.connections.get() + 1);
        self.shared.stats.connected();
        tokio::task::spawn_local(serve_client(Rc::clone(self), stream, peer));
        self.moved.notify_waiters();
    }

    /// Resolves when draining begins, or all is cut at once.
    async fn until_the_end(&self) {
        tokio::select! {
            () = self.shared.draining.begun() => {}
            () = self.shared.cut.cancelled() => {}
        }
    }

    fn order(&self, order: Order) {
        for watch in self.watches.borrow().iter().filter_map(Weak::upgrade) {
            watch.give(order);
        }
    }
}

/// The whole life of a worker.
pub(crate) async fn run(shared: Arc<Shared>, listeners: Vec<std::net::TcpListener>) {
    let _working = shared.draining.guard();
    let worker = Worker::new(shared);
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker)));
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                accepting.spawn_local(accept(Rc::clone(&worker), listener));
            }
            Err(error) => tracing::error!(%error, "a listener of ingress can't be used"),
        }
    }
    worker.until_the_end().await;
    worker.draining.set(true);
    while accepting.join_next().await.is_some() {}
    worker.pool.borrow_mut().clear();
    worker.order(Order::Drain);
    let cut = worker.shared.cut.clone();
    let emptied = async {
        while worker.connections.get() > 0 {
            worker.moved.notified().await;
        }
    };
    tokio::select! {
        () = emptied => {}
        () = cut.cancelled() => worker.order(Order::Cut),
    }
    ticking.abort();
}

async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    loop {
        while worker.connections.get() >= worker.shared.config.max_connections {
            worker.moved.notified().await;
        }
        tokio::select! {
            (stream, peer) = serve::accept(&listener) => worker.welcome(stream, peer),
            () = worker.until_the_end() => break,
        }
    }
    // What the kernel has accepted for us already is served.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        worker.welcome(stream, peer);
    }
}

/// Moves the clock on while there is anything that time matters to.
async fn tick(worker: Rc<Worker>) {
    loop {
        if worker.connections.get() == 0 && worker.pool.borrow().len() == 0 {
            worker.moved.notified().await;
            worker.clock.refresh();
        }
        tokio::time::sleep(TICK).await;
        worker.clock.advance();
        worker.pool.borrow_mut().sweep(worker.clock.tick());
        let limits = &worker.limits;
        worker.watches.borrow_mut().retain(|watch| match watch.upgrade() {
            Some(watch) => {
                watch.sweep(limits);
                true
            }
            None => false,
        });
    }
}

/// Counts a client connection until it is dropped, however its task ends.
struct Connected(Rc<Worker>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.shared.stats.disconnected();
        self.0.moved.notify_waiters();
    }
}

async fn serve_client(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let _connected = Connected(Rc::clone(&worker));
    let watch = Rc::new(Watch::new(Rc::clone(&worker.clock)));
    worker.watches.borrow_mut().push(Rc::downgrade(&watch));
    let client = Rc::new(Client::new(Rc::clone(&worker), Rc::clone(&watch), peer));
    let io = TokioIo::new(ClientIo::new(stream, Rc::clone(&watch)));
    let mut connection = worker.http.serve_connection(io, Requests(Rc::clone(&client)));
    if worker.draining.get() {
        watch.give(Order::Drain);
    }
    let mut known = false;
    let ended = poll_fn(|cx| {
        if !known {
            watch.set_task(cx.waker());
            known = true;
        }
        match watch.order() {
            Order::Cut => return Poll::Ready(None),
            Order::Drain => {
                watch.obeyed(Order::Drain);
                Pin::new(&mut connection).graceful_shutdown();
            }
            Order::None | Order::BodyLate | Order::AnswerLate => {}
        }
        connection.poll_without_shutdown(cx).map(Some)
    })
    .await;
    let Some(ended) = ended else { return };
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    let tunnel = client.tunnel.borrow_mut().take();
    if let Some(tunnel) = tunnel {
        if ended.is_err() || !parts.read_buf.is_empty() {
            // What came before the 101 was not sent to a tunnel, and does not become one.
            tracing::debug!(client.address = %peer, "bytes came before the protocol was changed: closing");
            return;
        }
        watch.enter(Phase::Tunnel);
        let running = tunnel.run(&mut io, &worker.scratch, &worker.clock);
        tokio::pin!(running);
        poll_fn(|cx| {
            watch.set_task(cx.waker());
            if watch.order() == Order::Cut { Poll::Ready(()) } else { running.as_mut().poll(cx) }
        })
        .await;
        return;
    }
    if io.shutdown().await.is_err() {
        return;
    }
    let unread = watch.undrained.get() || ended.is_err_and(|error| error.is_parse());
    if unread && !worker.shared.cut.is_cancelled() {
        linger(&mut io).await;
    }
}

async fn linger(io: &mut ClientIo) {
    let mut thrown_away = [0; 4096];
    let drained = async { while matches!(io.read(&mut thrown_away).await, Ok(read) if read > 0) {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
