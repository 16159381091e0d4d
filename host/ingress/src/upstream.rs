//! One connection to an upstream: opening it, and moving it on.
//!
//! The connection has no task of its own. Whoever wants something of it drives it: the request's own
//! task while it writes the request and reads the answer, so that neither is handed from task to task.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::body::RequestBody;
use crate::lease::{Endpoint, Stream};

/// Read from an upstream at once, at most.
const READ_BUFFER: usize = 128 * 1024;

/// The stream under a connection.
pub(crate) enum UpstreamIo {
    Tcp(TcpStream),
    Unix(UnixStream),
    Dialed(Box<dyn Stream>),
}

macro_rules! each {
    ($self:expr, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            UpstreamIo::Tcp($stream) => $do,
            UpstreamIo::Unix($stream) => $do,
            UpstreamIo::Dialed($stream) => $do,
        }
    };
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
            Self::Dialed(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Opens a stream to an endpoint.
pub(crate) async fn dial(endpoint: &Endpoint, within: Duration) -> io::Result<UpstreamIo> {
    let opened = async {
        Ok(match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                UpstreamIo::Tcp(stream)
            }
            Endpoint::Unix(path) => UpstreamIo::Unix(UnixStream::connect(path).await?),
            Endpoint::Dial(dial) => UpstreamIo::Dialed(dial.dial().await?),
        })
    };
    match tokio::time::timeout(within, opened).await {
        Ok(opened) => opened,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")),
    }
}

/// Whom a connection wakes: the task that drives it now, or nobody while it is idle. The connection knows
/// the gate only, so nothing has to be registered anew when it changes hands.
#[derive(Default)]
struct Gate {
    task: Mutex<Option<Waker>>,
    rang: AtomicBool,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Relaxed);
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }
}

/// A connection that speaks HTTP/1.1.
pub(crate) struct Upstream {
    pub(crate) sender: SendRequest<RequestBody>,
    /// None when it was closed from here.
    connection: Option<Connection<TokioIo<UpstreamIo>, RequestBody>>,
    ended: bool,
    gate: Arc<Gate>,
    /// Of the gate.
    waker: Waker,
    /// The target that it belongs to, see [`Target::id`](crate::slot::Target).
    pub(crate) target: u64,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

impl Upstream {
    pub(crate) async fn open(endpoint: &Endpoint, target: u64, within: Duration) -> io::Result<Box<Self>> {
        let io = dial(endpoint, within).await?;
        let mut builder = Builder::new();
        builder.max_buf_size(READ_BUFFER);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        let gate = Arc::new(Gate::default());
        let waker = Waker::from(Arc::clone(&gate));
        let connection = Some(connection);
        Ok(Box::new(Self { sender, connection, ended: false, gate, waker, target, reused: false }))
    }

    /// Moves it on as far as it goes now. Ready: it has ended, by itself or by an error that whoever
    /// waits on it is told.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
            {
                let mut task = self.gate.task.lock();
                if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                    *task = Some(cx.waker().clone());
                }
            }
            if connection.poll_without_shutdown(&mut Context::from_waker(&self.waker)).is_pending() {
                return Poll::Pending;
            }
            self.ended = true;
        }
        Poll::Ready(())
    }

    /// From now on nobody drives it.
    pub(crate) fn rest(&mut self) {
        *self.gate.task.lock() = None;
        self.reused = true;
    }

    /// Whether something has happened on a connection at rest since this was last asked; most of all, its
    /// end. It is to be driven then.
    pub(crate) fn has_stirred(&self) -> bool {
        self.gate.rang.swap(false, Ordering::Relaxed)
    }

    /// Closes it. What waits in it is told.
    pub(crate) fn close(&mut self) {
        self.ended = true;
        self.connection = None;
    }

    /// The stream of a connection that has ended, and what was read from it beyond the answer: after a 101
    /// both are no longer HTTP's.
    pub(crate) fn into_io(self) -> Option<(UpstreamIo, Bytes)> {
        let parts = self.connection?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it can take another request.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }
}
