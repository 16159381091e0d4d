//! Answers before the answer (1xx): heard from the app, told to the client.
//!
//! A 100 is not passed on as such: it releases the request's body, and asking for the body is what makes
//! the client's own 100. A 101 is an answer.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use parking_lot::Mutex;

use crate::body::RequestBody;
use crate::headers::filter_interim;
use crate::watch::Watch;

/// How a client is told.
pub(crate) struct Interim {
    inbox: Arc<Inbox>,
    way: Way,
}

enum Way {
    /// Whether the request under way is one of HTTP/1.1: 1.0 knows no 1xx.
    H1(Cell<bool>),
    H2(RefCell<SendResponse<Bytes>>),
}

/// What came, until the task that drives the upstream looks.
#[derive(Default)]
struct Inbox {
    any: AtomicBool,
    heads: Mutex<Vec<(StatusCode, HeaderMap)>>,
}

/// More of them for one request are dropped: nobody means so many.
const MOST: usize = 16;

impl Interim {
    pub(crate) fn h1() -> Self {
        Self { inbox: Arc::default(), way: Way::H1(Cell::new(true)) }
    }

    pub(crate) fn h2(respond: SendResponse<Bytes>) -> Self {
        Self { inbox: Arc::default(), way: Way::H2(RefCell::new(respond)) }
    }

    /// A request of this version comes.
    pub(crate) fn meets(&self, version: Version) {
        if let Way::H1(takes) = &self.way {
            takes.set(version == Version::HTTP_11);
        }
    }

    /// What answers a stream of HTTP/2.
    pub(crate) fn respond(&self) -> Option<&RefCell<SendResponse<Bytes>>> {
        match &self.way {
            Way::H1(_) => None,
            Way::H2(respond) => Some(respond),
        }
    }

    /// Has the request's upstream connection tell of what comes before the answer.
    pub(crate) fn listen(&self, request: &mut Request<RequestBody>) {
        if matches!(&self.way, Way::H1(takes) if !takes.get()) {
            return;
        }
        let inbox = Arc::clone(&self.inbox);
        hyper::ext::on_informational(request, move |head| {
            let mut heads = inbox.heads.lock();
            if heads.len() < MOST {
                heads.push((head.status(), head.headers().clone()));
                inbox.any.store(true, Ordering::Relaxed);
            }
        });
    }

    pub(crate) fn has_heard(&self) -> bool {
        self.inbox.any.load(Ordering::Relaxed)
    }

    pub(crate) fn heard(&self) -> Vec<(StatusCode, HeaderMap)> {
        self.inbox.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.inbox.heads.lock())
    }

    /// Tells the client, in the order of calls and before the answer.
    pub(crate) fn tell(&self, watch: &Watch, status: StatusCode, mut headers: HeaderMap) {
        filter_interim(&mut headers);
        match &self.way {
            Way::H1(takes) if takes.get() => {
                let mut text = watch.interim.borrow_mut();
                text.extend_from_slice(b"HTTP/1.1 ");
                text.extend_from_slice(status.as_str().as_bytes());
                text.push(b' ');
                text.extend_from_slice(status.canonical_reason().unwrap_or("Interim").as_bytes());
                text.extend_from_slice(b"\r\n");
                for (name, value) in &headers {
                    text.extend_from_slice(name.as_str().as_bytes());
                    text.extend_from_slice(b": ");
                    text.extend_from_slice(value.as_bytes());
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"\r\n");
            }
            Way::H1(_) => {}
            Way::H2(respond) => {
                let mut head = Response::new(());
                *head.status_mut() = status;
                *head.headers_mut() = headers;
                // A stream that is gone is found gone by its answer.
                let _ = respond.borrow_mut().send_informational(head);
            }
        }
    }
}
