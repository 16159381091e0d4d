//! One request given to one upstream connection, until its answer's head is there.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use crate::body::{RequestBody, Upload};
use crate::inflow::{Inflow, InflowError};
use crate::request::Client;
use crate::upstream::Upstream;
use crate::watch::{Order, Phase};

type Answer = dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>;

/// Drives the connection itself, in the task that waits for the answer.
pub(crate) struct Exchange {
    upstream: Option<Box<Upstream>>,
    /// A 101 that came; the connection has yet to end as one of HTTP's.
    switching: Option<Response<Incoming>>,
    answer: Pin<Box<Answer>>,
    client: Rc<Client>,
    upload: Option<Rc<Upload>>,
}

/// The answer's head, and the connection on which its body comes.
pub(crate) struct Answered {
    pub(crate) response: Response<Inflow>,
    /// Of HTTP/1: it is needed until the body has been read. One of HTTP/2 takes care of itself.
    pub(crate) upstream: Option<Box<Upstream>>,
}

/// Why there is no answer.
pub(crate) enum ExchangeError {
    /// No byte of the request has left: here it is again.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke with the request on it, before an answer.
    Broken { error: InflowError, reused: bool },
    /// The answer did not come in time.
    AnswerLate,
    /// The client's body did not come in time.
    BodyLate,
}

impl Exchange {
    pub(crate) fn new(
        mut upstream: Box<Upstream>,
        mut request: Request<RequestBody>,
        client: &Rc<Client>,
        upload: Option<Rc<Upload>>,
    ) -> Self {
        client.watch.enter(Phase::Upstream);
        client.interim.listen(&mut request);
        let answer = Box::pin(upstream.sender.try_send_request(request));
        Self { upstream: Some(upstream), switching: None, answer, client: Rc::clone(client), upload }
    }

    /// Passes on what came before the answer. Whether the body is wanted from now on.
    fn hear(&self) -> bool {
        let mut go_on = false;
        for (status, headers) in self.client.interim.heard() {
            if status == StatusCode::CONTINUE {
                if let Some(upload) = self.upload.as_ref().filter(|upload| upload.is_held()) {
                    upload.release();
                    go_on = true;
                }
            } else {
                self.client.tell(status, headers);
            }
        }
        go_on
    }
}

fn answered(response: Response<Incoming>, upstream: Box<Upstream>) -> Answered {
    Answered { response: response.map(Inflow::H1), upstream: Some(upstream) }
}

impl Future for Exchange {
    type Output = Result<Answered, ExchangeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let watch = &this.client.watch;
        if watch.order() == Order::AnswerLate {
            watch.obeyed(Order::AnswerLate);
            return Poll::Ready(Err(ExchangeError::AnswerLate));
        }
        let Some(mut upstream) = this.upstream.take() else { return Poll::Pending };
        loop {
            let ended = upstream.drive(cx).is_ready();
            if this.client.interim.has_heard() && this.hear() && !ended {
                continue;
            }
            if let Some(response) = this.switching.take() {
                if ended {
                    return Poll::Ready(Ok(answered(response, upstream)));
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
                Poll::Ready(Ok(response)) => return Poll::Ready(Ok(answered(response, upstream))),
                Poll::Ready(Err(mut error)) => {
                    let watch = &this.client.watch;
                    if watch.order() == Order::BodyLate {
                        watch.obeyed(Order::BodyLate);
                        return Poll::Ready(Err(ExchangeError::BodyLate));
                    }
                    return Poll::Ready(Err(match error.take_message() {
                        Some(request) => ExchangeError::Unsent(Box::new(request)),
                        None => ExchangeError::Broken {
                            error: error.into_error().into(),
                            reused: upstream.reused,
                        },
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
