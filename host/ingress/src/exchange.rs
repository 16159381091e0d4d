//! One request given to one upstream connection, until its answer's head is there.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::body::RequestBody;
use crate::upstream::Upstream;
use crate::watch::{Order, Phase, Watch};

type Answer = dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>;

/// Drives the connection itself, in the task that waits for the answer.
pub(crate) struct Exchange {
    upstream: Option<Box<Upstream>>,
    /// A 101 that came; the connection has yet to end as one of HTTP's.
    switching: Option<Response<Incoming>>,
    answer: Pin<Box<Answer>>,
    watch: Rc<Watch>,
}

/// The answer's head, and the connection on which its body comes.
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) upstream: Box<Upstream>,
}

/// Why there is no answer.
pub(crate) enum ExchangeError {
    /// No byte of the request has left: here it is again.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke with the request on it, before an answer.
    Broken { error: hyper::Error, reused: bool },
    /// The answer did not come in time.
    AnswerLate,
    /// The client's body did not come in time.
    BodyLate,
}

impl Exchange {
    pub(crate) fn new(mut upstream: Box<Upstream>, request: Request<RequestBody>, watch: &Rc<Watch>) -> Self {
        watch.enter(Phase::Upstream);
        let answer = Box::pin(upstream.sender.try_send_request(request));
        Self { upstream: Some(upstream), switching: None, answer, watch: Rc::clone(watch) }
    }
}

impl Future for Exchange {
    type Output = Result<Answered, ExchangeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.watch.order() == Order::AnswerLate {
            this.watch.obeyed(Order::AnswerLate);
            return Poll::Ready(Err(ExchangeError::AnswerLate));
        }
        let Some(mut upstream) = this.upstream.take() else { return Poll::Pending };
        loop {
            let ended = upstream.drive(cx).is_ready();
            if let Some(response) = this.switching.take() {
                if ended {
                    return Poll::Ready(Ok(Answered { response, upstream }));
                }
                this.switching = Some(response);
                this.upstream = Some(upstream);
                return Poll::Pending;
            }
            // The answer is put there while the connection is driven, just above: nobody has to be woken.
            match this.answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    this.switching = Some(response);
                }
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(Answered { response, upstream })),
                Poll::Ready(Err(mut error)) => {
                    if this.watch.order() == Order::BodyLate {
                        this.watch.obeyed(Order::BodyLate);
                        return Poll::Ready(Err(ExchangeError::BodyLate));
                    }
                    return Poll::Ready(Err(match error.take_message() {
                        Some(request) => ExchangeError::Unsent(Box::new(request)),
                        None => ExchangeError::Broken { error: error.into_error(), reused: upstream.reused },
                    }));
                }
                // The end of the connection settles whatever still waits in it.
                Poll::Pending if ended => upstream.close(),
                Poll::Pending => {
                    this.upstream = Some(upstream);
                    return Poll::Pending;
                }
            }
        }
    }
}
