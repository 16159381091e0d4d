//! A message's body as it comes in, over HTTP/1 or HTTP/2, from a client or from an upstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::h2_upstream::InUse;

/// Whatever it comes over.
pub(crate) enum Inflow {
    H1(Incoming),
    H2(H2Inflow),
}

/// Over HTTP/2. The peer may send on what was handed over: so a reader that pauses makes the sender pause,
/// by the stream's window.
pub(crate) struct H2Inflow {
    stream: RecvStream,
    /// What `content-length` says is still to come.
    left: Option<u64>,
    data_ended: bool,
    ended: bool,
    /// Of an upstream's connection.
    _in_use: Option<InUse>,
}

/// Why it broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflowError {
    #[error(transparent)]
    H1(#[from] hyper::Error),
    #[error(transparent)]
    H2(#[from] h2::Error),
}

impl Inflow {
    pub(crate) fn h2(stream: RecvStream, length: Option<u64>, in_use: Option<InUse>) -> Self {
        let ended = stream.is_end_stream();
        Self::H2(H2Inflow { stream, left: length, data_ended: false, ended, _in_use: in_use })
    }
}

impl Body for Inflow {
    type Data = Bytes;
    type Error = InflowError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InflowError>>> {
        match &mut *self {
            Self::H1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(InflowError::from),
            Self::H2(inflow) => inflow.poll_frame(cx).map_err(InflowError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(incoming) => incoming.is_end_stream(),
            Self::H2(inflow) => inflow.ended || inflow.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(incoming) => incoming.size_hint(),
            Self::H2(inflow) if inflow.ended => SizeHint::with_exact(0),
            Self::H2(inflow) => inflow.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl H2Inflow {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {
                    if self.stream.is_end_stream() {
                        break;
                    }
                }
                Some(Ok(data)) => {
                    // Fails only where the stream is gone already.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // The sender wants no (more) answer: not a failure of what it sent (RFC 9113, section 8.1).
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.ended = true;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        })
    }
}
