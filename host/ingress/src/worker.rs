//! One worker thread: its sockets, its clients, its pool, its clock. Nothing of it is shared with another.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use serve::Draining;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::accepted::{Accepted, TlsFacts};
use crate::client_io::{ClientIo, ClientStream};
use crate::config::{IngressConfig, Listen};
use crate::finish::AccessLog;
use crate::h2_server;
use crate::h2_upstream::H2Pool;
use crate::ids::IdSource;
use crate::interim::Interim;
use crate::lease::FetcherSource;
use crate::metrics::Stats;
use crate::pool::Pool;
use crate::relay::SCRATCH;
use crate::request::{Client, Conn, Requests};
use crate::route::Routes;
use crate::router::{RequestRouter, RouterFactory};
use crate::upstream::Upstream;
use crate::wake::Waker;
use crate::watch::{Clock, Limits, Order, Phase, TICK, Watch};

/// After an answer to a request whose body was not read: how long its rest is thrown away, so that the
/// answer is not lost to a reset (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// And how much of it at most.
const LINGER_BYTES: usize = 1 << 20;

/// What all workers have in common.
pub(crate) struct Shared {
    pub(crate) config: IngressConfig,
    pub(crate) routes: Arc<Routes>,
    pub(crate) fetchers: Arc<dyn FetcherSource>,
    pub(crate) waker: Arc<dyn Waker>,
    pub(crate) routers: Arc<dyn RouterFactory>,
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
    pub(crate) h2_pool: RefCell<H2Pool>,
    /// Requests and tunnels that are open.
    pub(crate) in_flight: Rc<Cell<usize>>,
    pub(crate) log: AccessLog,
    pub(crate) router: RefCell<Box<dyn RequestRouter>>,
    pool: RefCell<Pool>,
    watches: RefCell<Vec<Weak<Watch>>>,
    connections: Cell<usize>,
    /// A connection has come or gone.
    moved: Notify,
    draining: Cell<bool>,
    limits: Limits,
    http: Builder,
    pub(crate) scratch: RefCell<Vec<u8>>,
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
            h2_pool: RefCell::default(),
            in_flight: Rc::default(),
            log: AccessLog::new(config.access_log),
            router: RefCell::new(shared.routers.worker()),
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

    /// Keeps an eye on it.
    pub(crate) fn watch(&self, watch: &Rc<Watch>) {
        self.watches.borrow_mut().push(Rc::downgrade(watch));
    }

    fn welcome(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, listen: Rc<Listen>) {
        self.clock.refresh();
        self.connections.set(self.connections.get() + 1);
        self.shared.stats.connected();
        tokio::task::spawn_local(serve_client(Rc::clone(self), stream, peer, listen));
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
pub(crate) async fn run(shared: Arc<Shared>, listeners: Vec<(Listen, std::net::TcpListener)>) {
    let _working = shared.draining.guard();
    let worker = Worker::new(shared);
    let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker)));
    let mut accepting = tokio::task::JoinSet::new();
    for (listen, listener) in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                accepting.spawn_local(accept(Rc::clone(&worker), listener, Rc::new(listen)));
            }
            Err(error) => tracing::error!(%error, "a listener of ingress can't be used"),
        }
    }
    worker.until_the_end().await;
    worker.draining.set(true);
    while accepting.join_next().await.is_some() {}
    worker.pool.borrow_mut().clear();
    worker.h2_pool.borrow_mut().clear();
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

async fn accept(worker: Rc<Worker>, listener: TcpListener, listen: Rc<Listen>) {
    loop {
        while worker.connections.get() >= worker.shared.config.max_connections {
            worker.moved.notified().await;
        }
        tokio::select! {
            (stream, peer) = serve::accept(&listener) => worker.welcome(stream, peer, Rc::clone(&listen)),
            () = worker.until_the_end() => break,
        }
    }
    // What the kernel has accepted for us already is served.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        worker.welcome(stream, peer, Rc::clone(&listen));
    }
}

/// Moves the clock on while there is anything that time matters to.
async fn tick(worker: Rc<Worker>) {
    loop {
        let idle = worker.pool.borrow().len() == 0 && worker.h2_pool.borrow().is_empty();
        if worker.connections.get() == 0 && idle {
            worker.moved.notified().await;
            worker.clock.refresh();
        }
        let (began, worked) = (Instant::now(), thread_time());
        tokio::time::sleep(TICK).await;
        let (took, worked) = (began.elapsed(), thread_time().saturating_sub(worked));
        // Late, and at work all the time: a thread that others keep from running sheds nothing.
        let late = took > TICK + worker.shared.config.overload_delay;
        worker.clock.set_behind(late && worked > took / 4 * 3);
        worker.clock.advance();
        worker.pool.borrow_mut().sweep(worker.clock.tick());
        worker.h2_pool.borrow_mut().sweep(worker.clock.tick());
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

/// Time for which this thread has run.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
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

async fn serve_client(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, listen: Rc<Listen>) {
    let _connected = Connected(Rc::clone(&worker));
    let watch = Rc::new(Watch::new(Rc::clone(&worker.clock)));
    worker.watch(&watch);
    // Until the protocol is known there is nothing to lose: an order to end is one to go.
    let opened = {
        let opening = open(stream, peer, &listen, &watch);
        tokio::pin!(opening);
        poll_fn(|cx| {
            watch.set_task(cx.waker());
            if watch.order() == Order::Cut { Poll::Ready(None) } else { opening.as_mut().poll(cx).map(Some) }
        })
        .await
    };
    let Some(Ok((io, is_h2, accepted))) = opened else { return };
    let conn = Rc::new(Conn::new(Rc::clone(&worker), accepted));
    if is_h2 {
        h2_server::serve(worker, conn, io, watch).await;
    } else {
        serve_h1(worker, conn, io, watch).await;
    }
}

/// Finds out who is there, and what they speak.
async fn open(
    mut stream: TcpStream,
    mut peer: SocketAddr,
    listen: &Listen,
    watch: &Rc<Watch>,
) -> io::Result<(ClientIo, bool, Accepted)> {
    if listen.proxy_protocol {
        let header = serve::proxy_protocol::read(&mut stream).await;
        let named = header.inspect_err(|error| {
            tracing::debug!(client.address = %peer, %error, "no PROXY header: closing");
        });
        if let Some(named) = named.map_err(io::Error::other)?.source() {
            peer = named;
        }
    }
    let Some(tls) = &listen.tls else {
        let mut io = ClientIo::new(ClientStream::Tcp(stream), Rc::clone(watch));
        let is_h2 = io.begins_with_preface().await?;
        return Ok((io, is_h2, Accepted { peer, tls: None, redirect_to: listen.redirect_to_https }));
    };
    let secured = tls.accept(stream).await.inspect_err(|error| {
        tracing::debug!(client.address = %peer, %error, "no TLS: closing");
    })?;
    let is_h2 = secured.alpn() == Some(b"h2");
    let facts = TlsFacts { certificate: secured.certificate, server_name: secured.server_name };
    let accepted = Accepted { peer, tls: Some(facts), redirect_to: None };
    Ok((ClientIo::new(ClientStream::Tls(Box::new(secured.stream)), Rc::clone(watch)), is_h2, accepted))
}

async fn serve_h1(worker: Rc<Worker>, conn: Rc<Conn>, io: ClientIo, watch: Rc<Watch>) {
    let peer = conn.peer;
    let client = Rc::new(Client::new(conn, Rc::clone(&watch), Interim::h1()));
    let io = TokioIo::new(io);
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
                if !watch.ends_with_next() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
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
    let mut piece = [0; 4096];
    let mut left = LINGER_BYTES;
    let drained = async {
        while left > 0
            && let Ok(read) = io.read(&mut piece).await
            && read > 0
        {
            left = left.saturating_sub(read);
        }
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
