//! A request's head and what an adapter decides about it, in plain Rust: the records of `http-routing`,
//! whose comments say what they mean.

use wit_bindings::routing as wit;

use crate::convert::is_token;
use crate::limits::RoutingLimits;
use crate::stdio::cut;
use crate::types::Header;

pub use wit_bindings::routing::types::HeaderParam as HeaderRef;

const MAX_HEADERS: usize = 100;
const MAX_PATH: usize = 16 * 1024;
const MAX_NAME: usize = 128;

/// A request, as it is put before an adapter. Nothing is copied but into the guest.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    pub deployment_id: &'a str,
    pub incarnation: u64,
    pub service: &'a str,
    /// JSON text.
    pub config: &'a str,
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    pub authority: &'a str,
    pub path_with_query: &'a str,
    pub headers: &'a [HeaderRef<'a>],
    pub client_address: &'a str,
    /// Unix time in milliseconds.
    pub now_ms: u64,
    pub random: u64,
}

impl<'a> RequestHead<'a> {
    pub(crate) fn to_guest(self) -> wit::Head<'a> {
        let Self {
            deployment_id,
            incarnation,
            service,
            config,
            method,
            scheme,
            authority,
            path_with_query,
            headers,
            client_address,
            now_ms,
            random,
        } = self;
        wit::Head {
            deployment_id,
            incarnation,
            service,
            config,
            method,
            scheme,
            authority,
            path_with_query,
            headers,
            client_address,
            now_ms,
            random,
            extensions: &[],
        }
    }

    /// Bytes that go into the guest.
    pub(crate) fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|header| header.name.len() + header.value.len() + 16).sum();
        headers + self.config.len() + self.path_with_query.len() + self.authority.len()
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Forward(Forwarding),
    Respond(Reply),
}

/// Where a request goes on to, and how it is changed. Whether the header names may be touched is for the
/// caller to check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// Another deployment of the same project, by its id as the adapter gave it.
    pub deployment_id: Option<String>,
    pub service: Option<String>,
    /// Begins with `/`; visible ASCII without `#`.
    pub path_with_query: Option<String>,
    /// Tokens (RFC 9110, section 5.6.2).
    pub remove_headers: Vec<String>,
    pub set_headers: Vec<Header>,
}

/// An adapter's own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// From 200 to 599.
    pub status: u16,
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
}

type Checked<T> = Result<T, String>;

/// A guest's answer, checked.
pub(crate) fn decision(raw: wit::Decision, limits: &RoutingLimits) -> Checked<Decision> {
    match raw {
        wit::Decision::Forward(raw) => Ok(Decision::Forward(Forwarding {
            deployment_id: name(raw.deployment_id, "deployment-id")?,
            service: name(raw.service, "service")?,
            path_with_query: raw.path_with_query.map(path).transpose()?,
            remove_headers: names(raw.remove_headers)?,
            set_headers: headers(raw.set_headers)?,
        })),
        wit::Decision::Respond(raw) => reply(raw, limits).map(Decision::Respond),
    }
}

fn name(raw: Option<String>, what: &str) -> Checked<Option<String>> {
    match raw {
        Some(text) if text.is_empty() || text.len() > MAX_NAME => {
            Err(format!("a {what} of {} bytes", text.len()))
        }
        raw => Ok(raw),
    }
}

fn path(raw: String) -> Checked<String> {
    let visible = |byte: u8| byte > b' ' && byte < 0x7f && byte != b'#';
    if raw.starts_with('/') && raw.len() <= MAX_PATH && raw.bytes().all(visible) {
        return Ok(raw);
    }
    Err(format!(
        "{:?} can't be a path: it must begin with `/`, be percent-encoded and have at most {MAX_PATH} bytes",
        cut(&raw, 200)
    ))
}

fn names(raw: Vec<String>) -> Checked<Vec<String>> {
    if raw.len() > MAX_HEADERS {
        return Err(format!("{} headers to remove: at most {MAX_HEADERS} are allowed", raw.len()));
    }
    match raw.iter().find(|name| !is_token(name)) {
        Some(bad) => Err(format!("{:?} can't be a header's name", cut(bad, 100))),
        None => Ok(raw),
    }
}

fn headers(raw: Vec<wit::types::HeaderResult>) -> Checked<Vec<Header>> {
    if raw.len() > MAX_HEADERS {
        return Err(format!("{} headers: at most {MAX_HEADERS} are allowed", raw.len()));
    }
    raw.into_iter().map(|header| crate::convert::checked_header(header.name, header.value)).collect()
}

fn reply(raw: wit::Reply, limits: &RoutingLimits) -> Checked<Reply> {
    if !(200..=599).contains(&raw.status) {
        return Err(format!("the status {}: it must be from 200 to 599", raw.status));
    }
    if raw.body.len() > limits.reply_bytes {
        return Err(format!(
            "a body of {} bytes: at most {} are allowed",
            raw.body.len(),
            limits.reply_bytes
        ));
    }
    if matches!(raw.status, 204 | 304) && !raw.body.is_empty() {
        return Err(format!("a body with the status {}, which has none", raw.status));
    }
    Ok(Reply { status: raw.status, headers: headers(raw.headers)?, body: raw.body })
}
