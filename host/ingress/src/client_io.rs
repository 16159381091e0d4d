//! A client's connection, watched: cleartext or TLS, with what was read of it to tell its protocol put back
//! in front.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::watch::{Watch, moved};

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is under HTTP.
pub(crate) enum ClientStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($self:expr, $stream:ident => $do:expr) => {
        match &mut $self.stream {
            ClientStream::Tcp($stream) => $do,
            ClientStream::Tls($stream) => $do,
        }
    };
}

pub(crate) struct ClientIo {
    stream: ClientStream,
    watch: Rc<Watch>,
    /// Read already, and to be read again: from `lead_at` to `lead_end`.
    lead: [u8; PREFACE.len()],
    lead_at: u8,
    lead_end: u8,
}

impl ClientIo {
    pub(crate) fn new(stream: ClientStream, watch: Rc<Watch>) -> Self {
        Self { stream, watch, lead: [0; PREFACE.len()], lead_at: 0, lead_end: 0 }
    }

    /// Whether the client begins as one of HTTP/2 does. Reads as much as tells that, and puts it back.
    ///
    /// # Errors
    /// The connection's.
    pub(crate) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        while usize::from(self.lead_end) < PREFACE.len() {
            let end = usize::from(self.lead_end);
            let read = each!(self, stream => stream.read(&mut self.lead[end..]).await)?;
            if read == 0 {
                return Ok(false);
            }
            self.watch.has_read();
            // At most 24.
            self.lead_end += u8::try_from(read).unwrap_or_default();
            let end = usize::from(self.lead_end);
            if self.lead[..end] != PREFACE[..end] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes what is to be written before the answer. Ready: there is nothing (any more).
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut interim = self.watch.interim.borrow_mut();
        while !interim.is_empty() {
            let written = ready!(each!(self, stream => Pin::new(stream).poll_write(cx, &interim)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            interim.drain(..written);
            if interim.is_empty() {
                *interim = Vec::new();
                // An answer may wait for this.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lead_at < this.lead_end {
            let lead = &this.lead[usize::from(this.lead_at)..usize::from(this.lead_end)];
            let taken = lead.len().min(buf.remaining());
            buf.put_slice(&lead[..taken]);
            // At most 24.
            this.lead_at += u8::try_from(taken).unwrap_or_default();
            this.watch.has_read();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = each!(this, stream => Pin::new(stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            this.watch.has_read();
        }
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = each!(self, stream => Pin::new(stream).poll_write(cx, buf));
        self.watch.has_written(moved(&result));
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        self.watch.has_written(moved(&result));
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls this when it has nothing left to write: the one moment at which a 1xx may be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        match &mut self.stream {
            // A TCP socket has nothing to flush.
            ClientStream::Tcp(_) => Poll::Ready(Ok(())),
            ClientStream::Tls(stream) => {
                let result = Pin::new(stream).poll_flush(cx);
                self.watch.has_written(if result.is_pending() { Poll::Pending } else { Poll::Ready(0) });
                result
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
