//! Bytes on one stream of HTTP/2: bodies out, and tunnels both ways.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::watch;

/// Kept for one stream while its receiver does not take it: what a slow reader costs.
pub(crate) const STREAM_BUFFER: usize = 32 * 1024;

/// Why a body did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Stream(#[from] h2::Error),
    #[error("the receiver gave the stream up: {0}")]
    Reset(Reason),
    #[error("the body broke off: {0}")]
    Body(Box<dyn std::error::Error>),
}

/// Sends a body to its end, as fast as the receiver takes it. A body that breaks off resets the stream, so
/// that nobody takes it for whole.
///
/// `tell` is told how much the receiver takes, and when it keeps it waiting.
pub(crate) async fn send_body<B>(
    body: B,
    stream: &mut SendStream<Bytes>,
    tell: impl Fn(Poll<usize>),
) -> Result<(), SendError>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error + 'static,
{
    let mut body = pin!(body);
    loop {
        let frame = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(SendError::Reset(reason))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Ok),
        })
        .await?;
        let frame = match frame {
            None => return Ok(stream.send_data(Bytes::new(), true)?),
            Some(Err(error)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(SendError::Body(Box::new(error)));
            }
            Some(Ok(frame)) => frame,
        };
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => return Ok(stream.send_trailers(trailers)?),
                Err(_) => continue,
            },
        };
        while !data.is_empty() {
            let room = poll_fn(|cx| {
                let room = poll_room(stream, data.len(), cx);
                tell(watch::moved(&room));
                room
            })
            .await?;
            let piece = data.split_to(room.min(data.len()));
            let last = data.is_empty() && body.is_end_stream();
            stream.send_data(piece, last)?;
            if last {
                return Ok(());
            }
        }
    }
}

/// How much of `wanted` the receiver takes now.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    stream.reserve_capacity(wanted);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            },
            room => return Poll::Ready(Ok(room)),
        }
    }
}

/// A stream as a connection: what a WebSocket over HTTP/2 (RFC 8441) runs on.
pub(crate) struct H2Io {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received and not yet read.
    rest: Bytes,
    ended: bool,
}

impl H2Io {
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { send, receive, rest: Bytes::new(), ended: false }
    }

    /// Ends the stream at once.
    pub(crate) fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

fn broken(error: h2::Error) -> io::Error {
    error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
}

impl AsyncRead for H2Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.rest.is_empty() && !this.ended {
            match ready!(this.receive.poll_data(cx)) {
                Some(Ok(data)) => this.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => this.ended = true,
            }
        }
        let taken = this.rest.split_to(this.rest.len().min(buf.remaining()));
        buf.put_slice(&taken);
        // Fails only where the stream is gone already.
        let _ = this.receive.flow_control().release_capacity(taken.len());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(poll_room(&mut self.send, buf.len(), cx)).map_err(broken)?;
        let taken = room.min(buf.len());
        self.send.send_data(Bytes::copy_from_slice(&buf[..taken]), false).map_err(broken)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }
}
