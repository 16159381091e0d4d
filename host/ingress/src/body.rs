//! Bodies on their way through: never copied, never collected.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::finish::Finish;
use crate::headers::filter_trailers;
use crate::inflow::{Inflow, InflowError};
use crate::request::Client;
use crate::upstream::Upstream;
use crate::watch::{Order, Phase, Watch};
use crate::worker::Worker;

/// An app that was told `Expect: 100-continue` and says nothing gets the body after this long (RFC 9110,
/// section 10.1.1: a client may not wait for ever).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The protocol's own reason.
    #[error(transparent)]
    Connection(#[from] InflowError),
    #[error("the client's body did not come in time")]
    Late,
}

/// How far a request's body is, seen from outside.
pub(crate) struct Upload {
    client: Rc<Client>,
    ended: Cell<bool>,
    /// Whether it broke off: it is the client's to answer for.
    broken: Cell<bool>,
    /// Whether the body waits for the app to ask for it (`Expect: 100-continue`).
    held: Cell<bool>,
    /// Who wants the body while it is held.
    waiter: RefCell<Option<Waker>>,
}

impl Upload {
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the client's body could not be read to its end.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether nobody has asked the client for its body yet.
    pub(crate) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// The app wants the body: the client is told to go on.
    pub(crate) fn release(&self) {
        if !self.held.replace(false) {
            return;
        }
        // hyper says it by itself, when it is asked for the body.
        if self.client.interim.respond().is_some() {
            self.client.tell(StatusCode::CONTINUE, HeaderMap::new());
        }
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }
}

/// A client's body, on its way to an upstream.
pub(crate) struct RequestBody {
    incoming: Option<Inflow>,
    /// None: there is no body.
    upload: Option<Rc<Upload>>,
    /// Until when a held body waits.
    patience: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// `held`: the client waits for a 100 before it sends.
    pub(crate) fn new(incoming: Inflow, client: &Rc<Client>, held: bool) -> Self {
        let upload = (!incoming.is_end_stream()).then(|| {
            Rc::new(Upload {
                client: Rc::clone(client),
                ended: Cell::new(false),
                broken: Cell::new(false),
                held: Cell::new(held),
                waiter: RefCell::default(),
            })
        });
        Self { incoming: Some(incoming), upload, patience: None }
    }

    /// Of a request that has none.
    pub(crate) fn none() -> Self {
        Self { incoming: None, upload: None, patience: None }
    }

    pub(crate) fn upload(&self) -> Option<Rc<Upload>> {
        self.upload.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let (Some(incoming), Some(upload)) = (&mut this.incoming, &this.upload) else {
            return Poll::Ready(None);
        };
        if upload.client.watch.order() == Order::BodyLate {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        if upload.is_held() {
            let patience =
                this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_PATIENCE)));
            if patience.as_mut().poll(cx).is_pending() {
                *upload.waiter.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            upload.release();
        }
        let polled = Pin::new(incoming).poll_frame(cx);
        upload.client.watch.body_progress(match &polled {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(_) => Poll::Ready(0),
            Poll::Pending => Poll::Pending,
        });
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    filter_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                upload.broken.set(true);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                upload.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.client.watch.body_progress(Poll::Ready(0));
            if !upload.ended.replace(true) && !self.is_end_stream() {
                upload.client.watch.undrained.set(true);
            }
        }
    }
}

/// What a client gets: an upstream's body, or a text of ours.
pub(crate) enum AnswerBody {
    Full(Option<Bytes>),
    Stream(StreamBody),
}

/// An upstream's body, with all that has to end when it does.
pub(crate) struct StreamBody {
    incoming: Inflow,
    /// The connection, while bytes of this body may still be on it: driven from here, by the task that
    /// wants them. None: it is all here, or a task of its own drives the connection.
    upstream: Option<Box<Upstream>>,
    /// How it broke off, until what came before has been written.
    broken: Option<InflowError>,
    worker: Rc<Worker>,
    finish: Finish,
}

impl AnswerBody {
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }

    pub(crate) fn stream(
        incoming: Inflow,
        upstream: Option<Box<Upstream>>,
        worker: Rc<Worker>,
        finish: Finish,
    ) -> Self {
        Self::Stream(StreamBody { incoming, upstream, broken: None, worker, finish })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

impl StreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error.into())));
        }
        let polled = match &mut self.upstream {
            Some(upstream) => {
                if upstream.drive(cx).is_ready() {
                    self.upstream = None;
                }
                // The connection puts frames here only while it is driven, just above: there is nobody
                // to be woken by.
                Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
            }
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                match frame.data_ref() {
                    Some(data) => self.finish.sent(data.len()),
                    None => {
                        if let Some(trailers) = frame.trailers_mut() {
                            filter_trailers(trailers);
                        }
                    }
                }
                if self.incoming.is_end_stream() {
                    self.give_back();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.upstream = None;
                self.finish.broke();
                // An error makes hyper drop what it has not written yet; while nothing is ready it writes.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.give_back();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn give_back(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.worker.give_back(upstream);
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        // Dropped before its end, the connection under it goes too: the rest of the body is on it.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

/// The phase after an answer of ours.
pub(crate) fn rest(watch: &Watch) {
    if watch.phase() != Phase::Tunnel {
        watch.enter(Phase::Idle);
    }
}
