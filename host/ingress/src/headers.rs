//! The rules for header fields, both ways: which requests have one meaning, what never travels further,
//! and what is ours to say.
//!
//! hyper has read the message by then. What it refuses itself (malformed lines, lengths that differ, a final
//! coding other than chunked, more than 100 fields) never comes here; a length beside a coding it drops,
//! and closes the connection after the answer (RFC 9112, section 6.1). The tests hold it to that.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};

use crate::answer::{Code, Problem, Shows, X_REQUEST_ID};
use crate::ids;
use crate::trace::X_HYTHE_TIMING;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const GRPC: &[u8] = b"application/grpc";

/// Claims about the client that only a proxy may make. `x-forwarded-*` belongs to them, whatever follows.
const CLAIMS: [&str; 6] =
    ["x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "client-ip", "x-request-id"];

/// What one pass over a request's fields finds.
#[derive(Debug, Default)]
pub(crate) struct Inspected {
    /// The protocol that the client wants to change to; kept as it was written.
    pub(crate) upgrade: Option<HeaderValue>,
    pub(crate) wants_html: bool,
    pub(crate) has_traceparent: bool,
    has_connection: bool,
    has_te: bool,
    has_trailer: bool,
    has_odd_length: bool,
    takes_trailers: bool,
    /// The client wants to know where its time went.
    pub(crate) asks_for_timing: bool,
    has_upgrade: bool,
    has_expect: bool,
    is_grpc: bool,
    /// The client sends its body when it is told to.
    pub(crate) waits_for_continue: bool,
    has_odd_coding: bool,
    /// Fields that go no further, beside the usual ones.
    dropped: Vec<HeaderName>,
}

impl Inspected {
    /// How an answer of ours is to look.
    pub(crate) fn shows(&self) -> Shows {
        match (self.is_grpc, self.wants_html) {
            (true, _) => Shows::Grpc,
            (false, true) => Shows::Page,
            (false, false) => Shows::Json,
        }
    }
}

fn invalid(message: &str) -> Problem {
    Problem::new(Code::InvalidRequest, message).closing()
}

/// Reads a request's head. Nothing is changed.
///
/// `trusted`: the peer is a proxy whose claims are kept.
///
/// # Errors
/// Where the request has more than one meaning, or none.
pub(crate) fn inspect(head: &Parts, has_body: bool, trusted: bool) -> Result<Inspected, Problem> {
    let mut found = Inspected::default();
    let mut hosts = 0;
    let mut codings = 0;
    let mut upgrades = 0;
    let mut wants_upgrade = false;
    for (name, value) in &head.headers {
        match *name {
            header::HOST => hosts += 1,
            header::ACCEPT => found.wants_html |= contains(value.as_bytes(), b"text/html"),
            header::CONNECTION => {
                found.has_connection = true;
                wants_upgrade |= read_connection(value, &mut found.dropped)?;
            }
            header::TRANSFER_ENCODING => {
                codings += 1;
                if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(invalid("the only Transfer-Encoding that is taken is one `chunked`"));
                }
                found.has_odd_coding = value != "chunked";
            }
            header::CONTENT_LENGTH => {
                // hyper has made sure that it is one number; `05` is another one to who reads it as octal.
                found.has_odd_length |= value.as_bytes().len() > 1 && value.as_bytes()[0] == b'0';
            }
            header::TRAILER => found.has_trailer = true,
            header::UPGRADE => {
                upgrades += 1;
                found.has_upgrade = true;
                found.upgrade = Some(value.clone());
            }
            header::EXPECT => {
                found.has_expect = true;
                if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                    return Err(Problem::new(
                        Code::ExpectationFailed,
                        "the only Expect that is met is `100-continue`",
                    )
                    .closing());
                }
            }
            header::CONTENT_TYPE => {
                let kind = value.as_bytes();
                found.is_grpc = kind.len() >= GRPC.len() && kind[..GRPC.len()].eq_ignore_ascii_case(GRPC);
            }
            header::TE => {
                found.has_te = true;
                found.takes_trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers"));
            }
            header::PROXY_AUTHORIZATION | header::PROXY_AUTHENTICATE => found.dropped.push(name.clone()),
            header::FORWARDED if !trusted => found.dropped.push(name.clone()),
            _ => inspect_other(name, &head.headers, trusted, &mut found),
        }
    }
    match hosts {
        1 => {}
        0 => return Err(Problem::new(Code::InvalidHostname, "the request names no Host").closing()),
        _ => {
            return Err(Problem::new(Code::InvalidHostname, "the request names more than one Host").closing());
        }
    }
    // RFC 9110, section 10.1.1: in HTTP/1.0 it means nothing.
    found.waits_for_continue = found.has_expect && has_body && head.version != Version::HTTP_10;
    if found.has_upgrade
        && !(wants_upgrade && upgrades == 1 && !has_body && may_upgrade(head, found.upgrade.as_ref()))
    {
        found.upgrade = None;
    }
    Ok(found)
}

/// Names outside of the registry that `http` keeps: told apart by their first letter.
fn inspect_other(name: &HeaderName, headers: &HeaderMap, trusted: bool, found: &mut Inspected) {
    let text = name.as_str();
    let dropped = match text.as_bytes()[0] {
        b'x' if *name == X_HYTHE_TIMING => {
            found.asks_for_timing = true;
            true
        }
        b'x' | b'c' if !trusted => is_claim(text),
        b't' if *name == TRACEPARENT => {
            found.has_traceparent = true;
            false
        }
        b't' => !trusted && is_claim(text),
        b'k' => *name == KEEP_ALIVE,
        // `Proxy` would become HTTP_PROXY in a CGI's environment (CVE-2016-5385).
        b'p' => *name == PROXY_CONNECTION || text == "proxy",
        b'h' => text == "http2-settings",
        _ => false,
    };
    if dropped || (text.contains('_') && is_twin(text, headers)) {
        found.dropped.push(name.clone());
    }
}

fn is_claim(name: &str) -> bool {
    name.starts_with("x-forwarded-") || CLAIMS.contains(&name)
}

/// Whether an app that reads `_` as `-` (CGI, WSGI and their heirs) would take it for a field that is ours
/// to set, that frames the message, or that is there too.
fn is_twin(name: &str, headers: &HeaderMap) -> bool {
    let dashed = name.replace('_', "-");
    is_claim(&dashed)
        || is_framing(&dashed)
        || matches!(
            &*dashed,
            "forwarded"
                | "traceparent"
                | "tracestate"
                | "proxy"
                | "proxy-authorization"
                | "proxy-authenticate"
                | "proxy-connection"
                | "http2-settings"
                | "authorization"
                | "cookie"
        )
        || headers.contains_key(dashed.as_str())
}

fn is_framing(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "expect"
            | "keep-alive"
    )
}

/// Reads one `Connection` line: the fields that it nominates go no further. Whether it asks for an upgrade.
fn read_connection(value: &HeaderValue, dropped: &mut Vec<HeaderName>) -> Result<bool, Problem> {
    let mut upgrade = false;
    for token in tokens(value) {
        if token.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        } else if token.eq_ignore_ascii_case(b"host")
            || token.eq_ignore_ascii_case(b"content-length")
            || token.eq_ignore_ascii_case(b"transfer-encoding")
        {
            return Err(invalid("Connection may not name a field that frames or routes the request"));
        } else if !token.eq_ignore_ascii_case(b"keep-alive")
            && !token.eq_ignore_ascii_case(b"close")
            && !token.eq_ignore_ascii_case(b"te")
        {
            let name = HeaderName::from_bytes(token)
                .map_err(|_| invalid("Connection names something that is no field"))?;
            dropped.push(name);
        }
    }
    Ok(upgrade)
}

/// Whether this upgrade is passed on: one protocol that is no HTTP (h2c would take the connection, and
/// what comes on it, out of all rules here).
fn may_upgrade(head: &Parts, protocol: Option<&HeaderValue>) -> bool {
    let Some(protocol) = protocol.map(HeaderValue::as_bytes) else { return false };
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    let is_http =
        |name: &[u8]| protocol.len() >= name.len() && protocol[..name.len()].eq_ignore_ascii_case(name);
    head.version == Version::HTTP_11
        && !protocol.is_empty()
        && protocol.iter().all(is_token)
        && !is_http(b"h2")
        && !is_http(b"http")
        && !is_http(b"tls")
        && (!protocol.eq_ignore_ascii_case(b"websocket") || head.method == Method::GET)
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

pub(crate) fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// What ingress says of the client, to the app.
pub(crate) struct Forwarding<'a> {
    pub(crate) host: &'a HeaderValue,
    /// Whether `Host` is in its canonical form already.
    pub(crate) host_is_canonical: bool,
    pub(crate) client: &'a HeaderValue,
    pub(crate) scheme: &'static str,
    /// `for=…;host=…;proto=…` (RFC 7239).
    pub(crate) forwarded: &'a HeaderValue,
    pub(crate) request_id: HeaderValue,
    /// Used where the client sent none that is valid.
    pub(crate) traceparent: HeaderValue,
    pub(crate) trusted: bool,
}

/// Edits a request's fields in place into what the app may see.
pub(crate) fn rewrite_request(headers: &mut HeaderMap, found: &Inspected, forwarding: Forwarding<'_>) {
    for name in &found.dropped {
        headers.remove(name);
    }
    match (&found.upgrade, found.takes_trailers) {
        (Some(_), _) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        (None, true) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        (None, false) if found.has_connection => {
            headers.remove(header::CONNECTION);
        }
        (None, false) => {}
    }
    if found.has_upgrade && found.upgrade.is_none() {
        headers.remove(header::UPGRADE);
    }
    if found.has_te {
        if found.takes_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
    if found.has_expect && !found.waits_for_continue {
        headers.remove(header::EXPECT);
    }
    if found.has_trailer {
        filter_announced_trailers(headers);
    }
    if found.has_odd_length
        && let Some(length) = content_length(headers)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if found.has_odd_coding {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if !forwarding.host_is_canonical {
        headers.insert(header::HOST, forwarding.host.clone());
    }
    if forwarding.trusted {
        forward_trusted(headers, &forwarding);
    } else {
        headers.insert(X_FORWARDED_FOR, forwarding.client.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(forwarding.scheme));
        headers.insert(X_FORWARDED_HOST, forwarding.host.clone());
        headers.insert(header::FORWARDED, forwarding.forwarded.clone());
    }
    headers.insert(X_REQUEST_ID, forwarding.request_id);
    let valid = found.has_traceparent && {
        let mut all = headers.get_all(TRACEPARENT).iter();
        all.next().is_some_and(|value| ids::is_traceparent(value.as_bytes())) && all.next().is_none()
    };
    if !valid {
        headers.insert(TRACEPARENT, forwarding.traceparent);
        headers.remove(TRACESTATE);
    }
}

/// Behind a proxy that is believed, ingress adds itself to what the proxy says.
fn forward_trusted(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    append_to_list(headers, &X_FORWARDED_FOR, forwarding.client);
    append_to_list(headers, &header::FORWARDED, forwarding.forwarded);
    let single = |headers: &HeaderMap, name: &HeaderName, is_good: fn(&[u8]) -> bool| {
        let mut all = headers.get_all(name).iter();
        all.next().is_some_and(|value| is_good(value.as_bytes())) && all.next().is_none()
    };
    if !single(headers, &X_FORWARDED_PROTO, |value| matches!(value, b"http" | b"https" | b"ws" | b"wss")) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(forwarding.scheme));
    }
    if !single(headers, &X_FORWARDED_HOST, |value| crate::host::CanonicalHost::parse(value).is_ok()) {
        headers.insert(X_FORWARDED_HOST, forwarding.host.clone());
    }
}

fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, last: &HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last.as_bytes());
    let list = HeaderValue::from_bytes(&list).unwrap_or_else(|_| last.clone());
    headers.insert(name.clone(), list);
}

/// Sets a lease's own fields, in the place of the client's and of all that an app could take for them.
pub(crate) fn set_lease_headers(
    headers: &mut HeaderMap,
    host: Option<&HeaderValue>,
    set: &[(HeaderName, HeaderValue)],
) {
    if let Some(host) = host {
        headers.insert(header::HOST, host.clone());
    }
    if set.is_empty() {
        return;
    }
    let twins: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| {
            let dashed = name.as_str().replace('_', "-");
            set.iter().any(|(set, _)| set.as_str().replace('_', "-") == dashed)
        })
        .cloned()
        .collect();
    for twin in twins {
        headers.remove(twin);
    }
    for (name, value) in set {
        headers.insert(name.clone(), value.clone());
    }
}

/// Whether only ingress changes this field: what frames a message or belongs to the hop, what is said of the
/// client, and all that an app could take for one of them.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    let dashed = name.as_str().replace('_', "-");
    is_framing(&dashed)
        || is_claim(&dashed)
        || dashed.starts_with("proxy-")
        || matches!(&*dashed, "forwarded" | "traceparent" | "tracestate" | "proxy" | "http2-settings")
}

/// Removes fields, with all that an app could take for them, then sets others as a lease's own.
pub(crate) fn edit_request(
    headers: &mut HeaderMap,
    remove: &[HeaderName],
    set: &[(HeaderName, HeaderValue)],
) {
    if !remove.is_empty() {
        let dashed = |name: &HeaderName| name.as_str().replace('_', "-");
        let gone: Vec<HeaderName> = headers
            .keys()
            .filter(|name| remove.contains(name) || remove.iter().any(|gone| dashed(gone) == dashed(name)))
            .cloned()
            .collect();
        for name in gone {
            headers.remove(name);
        }
    }
    set_lease_headers(headers, None, set);
}

/// Edits an app's answer in place into what the client may see. False: its framing has two meanings.
///
/// `switched`: the answer is the 101 that was asked for.
pub(crate) fn rewrite_response(
    headers: &mut HeaderMap,
    status: StatusCode,
    switched: bool,
    base_domain: &str,
) -> bool {
    let mut dropped: Vec<HeaderName> = Vec::new();
    let mut has_coding = false;
    let mut has_length = false;
    let mut has_connection = false;
    let mut has_cookie = false;
    let mut has_trailer = false;
    for (name, value) in &*headers {
        match *name {
            header::CONNECTION => {
                has_connection = true;
                for token in tokens(value) {
                    if matches!(token.to_ascii_lowercase().as_slice(), b"close" | b"keep-alive" | b"upgrade")
                    {
                        continue;
                    }
                    // What frames the message is not the app's to hide.
                    match HeaderName::from_bytes(token) {
                        Ok(name) if is_framing(name.as_str()) => {}
                        Ok(name) => dropped.push(name),
                        Err(_) => {}
                    }
                }
            }
            header::TRANSFER_ENCODING => {
                if has_coding || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return false;
                }
                has_coding = true;
            }
            header::CONTENT_LENGTH => has_length = true,
            header::TRAILER => has_trailer = true,
            header::SET_COOKIE => has_cookie = true,
            header::UPGRADE if !switched => dropped.push(header::UPGRADE),
            header::TE | header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => {
                dropped.push(name.clone())
            }
            _ => {
                if *name == KEEP_ALIVE || *name == PROXY_CONNECTION {
                    dropped.push(name.clone());
                }
            }
        }
    }
    if has_coding && has_length {
        return false;
    }
    for name in dropped {
        headers.remove(name);
    }
    if has_coding {
        // hyper frames the answer anew, for the client's own version.
        headers.remove(header::TRANSFER_ENCODING);
    }
    if has_length && matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        headers.remove(header::CONTENT_LENGTH);
    }
    if switched {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if has_connection {
        headers.remove(header::CONNECTION);
    }
    if has_trailer {
        filter_announced_trailers(headers);
    }
    if has_cookie {
        crate::cookie::restrict_cookies(headers, base_domain);
    }
    true
}

/// Leaves in `Trailer` what may follow as trailers.
fn filter_announced_trailers(headers: &mut HeaderMap) {
    let mut kept = Vec::new();
    for value in headers.get_all(header::TRAILER) {
        for token in tokens(value) {
            if HeaderName::from_bytes(token).is_ok_and(|name| is_sane_trailer(&name)) {
                if !kept.is_empty() {
                    kept.extend_from_slice(b", ");
                }
                kept.extend_from_slice(token);
            }
        }
    }
    match HeaderValue::from_bytes(&kept) {
        Ok(value) if !kept.is_empty() => headers.insert(header::TRAILER, value),
        _ => headers.remove(header::TRAILER),
    };
}

/// The one length that is given.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Takes from a 1xx what frames or concerns the connection to the app.
pub(crate) fn filter_interim(headers: &mut HeaderMap) {
    let bad = |name: &HeaderName| {
        is_framing(name.as_str())
            || *name == PROXY_CONNECTION
            || matches!(name.as_str(), "proxy-authenticate" | "set-cookie" | "date")
    };
    let bad: Vec<HeaderName> = headers.keys().filter(|name| bad(name)).cloned().collect();
    for name in bad {
        headers.remove(name);
    }
}

/// Takes from trailers what may only stand in a head (RFC 9110, section 6.5.1), or is ours to say.
pub(crate) fn filter_trailers(trailers: &mut HeaderMap) {
    let bad: Vec<HeaderName> = trailers.keys().filter(|name| !is_sane_trailer(name)).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
}

fn is_sane_trailer(name: &HeaderName) -> bool {
    let dashed = name.as_str().replace('_', "-");
    !(is_claim(&dashed)
        || is_framing(&dashed)
        || dashed.starts_with("content-")
        || dashed == "proxy"
        || dashed.starts_with("proxy-")
        || dashed.starts_with("sec-")
        || dashed.starts_with("if-")
        || dashed.starts_with("access-control-")
        || matches!(
            &*dashed,
            "forwarded"
                | "traceparent"
                | "tracestate"
                | "authorization"
                | "cookie"
                | "set-cookie"
                | "www-authenticate"
                | "cache-control"
                | "http2-settings"
                | "max-forwards"
                | "range"
                | "location"
                | "age"
                | "date"
                | "expires"
                | "vary"
                | "retry-after"
                | "warning"
                | "pragma"
                | "strict-transport-security"
        ))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn request(fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn forwarded(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut fields = fields.to_vec();
        fields.push(("host", "shop.localhost"));
        let mut head = request(&fields);
        let found = inspect(&head, false, trusted).unwrap();
        rewrite_request(
            &mut head.headers,
            &found,
            Forwarding {
                host: &HeaderValue::from_static("shop.localhost"),
                host_is_canonical: true,
                client: &HeaderValue::from_static("192.0.2.1"),
                scheme: "http",
                forwarded: &HeaderValue::from_static("for=192.0.2.1;proto=http"),
                request_id: HeaderValue::from_static("ours"),
                traceparent: HeaderValue::from_static(
                    "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa-01",
                ),
                trusted,
            },
        );
        head.headers
    }

    #[track_caller]
    fn check(fields: &[(&str, &str)], name: &str, expected: &[&str]) {
        let headers = forwarded(fields, false);
        let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, expected, "{name} of {fields:?}");
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        check(&[("connection", "close, X-Secret"), ("x-secret", "1")], "x-secret", &[]);
        check(&[("connection", "close"), ("connection", "x-a , x-b"), ("x-b", "1")], "x-b", &[]);
        check(&[("connection", "keep-alive")], "connection", &[]);
        check(&[("keep-alive", "timeout=5")], "keep-alive", &[]);
        check(&[("proxy-connection", "keep-alive")], "proxy-connection", &[]);
        check(&[("proxy-authorization", "Basic x")], "proxy-authorization", &[]);
        check(&[("proxy", "http://evil")], "proxy", &[]);
        check(&[("te", "gzip, trailers")], "te", &["trailers"]);
        check(&[("te", "gzip")], "te", &[]);
        check(&[("expect", "100-continue")], "expect", &[]);
        check(
            &[("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "x")],
            "upgrade",
            &[],
        );
        check(
            &[("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "x")],
            "http2-settings",
            &[],
        );
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], "connection", &[]);
        check(&[("upgrade", "websocket")], "upgrade", &[]);
        check(&[("connection", "Upgrade"), ("upgrade", "websocket, h2c")], "upgrade", &[]);
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], "upgrade", &["WebSocket"]);
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")], "connection", &["upgrade"]);
        check(&[("authorization", "Bearer x")], "authorization", &["Bearer x"]);
        check(&[("cookie", "a=b"), ("cookie", "c=d")], "cookie", &["a=b", "c=d"]);
    }

    #[test]
    fn claims_of_a_stranger_are_dropped() {
        check(&[("x-forwarded-for", "10.0.0.1")], "x-forwarded-for", &["192.0.2.1"]);
        check(&[("x-forwarded-for", "a"), ("x-forwarded-for", "b")], "x-forwarded-for", &["192.0.2.1"]);
        check(&[("x-forwarded-proto", "https")], "x-forwarded-proto", &["http"]);
        check(&[("x-forwarded-host", "evil")], "x-forwarded-host", &["shop.localhost"]);
        check(&[("x-forwarded-prefix", "/evil")], "x-forwarded-prefix", &[]);
        check(&[("forwarded", "for=10.0.0.1")], "forwarded", &["for=192.0.2.1;proto=http"]);
        check(&[("x-real-ip", "10.0.0.1")], "x-real-ip", &[]);
        check(&[("true-client-ip", "10.0.0.1")], "true-client-ip", &[]);
        check(&[("client-ip", "10.0.0.1")], "client-ip", &[]);
        check(&[("x-request-id", "mine")], "x-request-id", &["ours"]);
        check(&[("x_forwarded_user", "admin")], "x_forwarded_user", &[]);
        check(&[("x-forwarded_for", "10.0.0.1")], "x-forwarded_for", &[]);
        check(&[("content_length", "5")], "content_length", &[]);
        check(&[("x_custom", "1")], "x_custom", &["1"]);
        check(&[("x_custom", "1"), ("x-custom", "2")], "x_custom", &[]);
        check(&[("connection", "x-forwarded-for")], "x-forwarded-for", &["192.0.2.1"]);
    }

    #[test]
    fn a_trace_goes_on_where_it_is_valid() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        check(&[("traceparent", good), ("tracestate", "a=b")], "traceparent", &[good]);
        check(&[("traceparent", good), ("tracestate", "a=b")], "tracestate", &["a=b"]);
        check(&[("traceparent", "x"), ("tracestate", "a=b")], "tracestate", &[]);
        let made = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa-01";
        check(&[("traceparent", "x")], "traceparent", &[made]);
        check(&[("traceparent", good), ("traceparent", good)], "traceparent", &[made]);
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let fields = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "www.example.com"),
            ("forwarded", "for=203.0.113.9"),
            ("x-real-ip", "203.0.113.9"),
        ];
        let headers = forwarded(&fields, true);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "www.example.com");
        assert_eq!(headers["forwarded"], "for=203.0.113.9, for=192.0.2.1;proto=http");
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
        let headers = forwarded(&[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b")], true);
        assert_eq!(
            (&headers["x-forwarded-proto"], &headers["x-forwarded-host"]),
            (&HeaderValue::from_static("http"), &HeaderValue::from_static("shop.localhost"))
        );
    }

    #[test]
    fn requests_with_two_meanings_are_refused() {
        let refused = |fields: &[(&str, &str)], code: Code| {
            let problem = inspect(&request(fields), false, false).unwrap_err();
            assert_eq!(problem.code, code, "{fields:?}");
            assert!(problem.closes);
        };
        refused(&[], Code::InvalidHostname);
        refused(&[("host", "a"), ("host", "a")], Code::InvalidHostname);
        refused(&[("host", "a"), ("transfer-encoding", "identity, chunked")], Code::InvalidRequest);
        refused(&[("host", "a"), ("transfer-encoding", "gzip, chunked")], Code::InvalidRequest);
        refused(
            &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            Code::InvalidRequest,
        );
        refused(&[("host", "a"), ("connection", "content-length")], Code::InvalidRequest);
        refused(&[("host", "a"), ("connection", "a b")], Code::InvalidRequest);
        refused(&[("host", "a"), ("expect", "200-ok")], Code::ExpectationFailed);
    }

    #[test]
    fn a_leases_fields_replace_the_clients_and_their_twins() {
        let mut headers = request(&[("x-token", "mine"), ("x_token", "mine"), ("host", "a")]).headers;
        let set = [(HeaderName::from_static("x-token"), HeaderValue::from_static("theirs"))];
        set_lease_headers(&mut headers, Some(&HeaderValue::from_static("inner")), &set);
        assert_eq!(headers["x-token"], "theirs");
        assert_eq!(headers["host"], "inner");
        assert!(!headers.contains_key("x_token"));
    }

    #[test]
    fn answers_are_framed_once_and_lose_their_hop() {
        let rewrite = |fields: &[(&str, &str)], switched| {
            let mut headers = request(fields).headers;
            rewrite_response(&mut headers, StatusCode::OK, switched, "localhost").then_some(headers)
        };
        assert!(rewrite(&[("content-length", "1"), ("transfer-encoding", "chunked")], false).is_none());
        assert!(rewrite(&[("transfer-encoding", "gzip, chunked")], false).is_none());
        let headers = rewrite(
            &[
                ("connection", "x-hop, content-length"),
                ("x-hop", "1"),
                ("keep-alive", "5"),
                ("content-length", "3"),
            ],
            false,
        )
        .unwrap();
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["content-length"]);
        let headers = rewrite(&[("connection", "Upgrade"), ("upgrade", "websocket")], true).unwrap();
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }

    #[test]
    fn trailers_can_not_pose_as_a_head() {
        let mut trailers = request(&[
            ("grpc-status", "0"),
            ("x-checksum", "1"),
            ("host", "evil"),
            ("x-forwarded-for", "1"),
            ("x_forwarded_for", "1"),
            ("content-length", "1"),
            ("authorization", "x"),
            ("transfer-encoding", "chunked"),
            ("cookie", "a=b"),
            ("set-cookie", "a=b"),
        ])
        .headers;
        filter_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }

    proptest! {
        /// Whatever a stranger sends: what reaches the app is framed by us, and says of the client only
        /// what we say.
        #[test]
        fn nothing_of_the_hop_and_no_claim_passes(
            fields in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "connection", "keep-alive", "te", "upgrade", "x-forwarded-for", "x_forwarded_for", "x-forwarded-user",
                        "forwarded", "x-real-ip", "x_real-ip", "http2-settings", "proxy-connection", "x-a", "x_a", "x-b", "expect",
                    ]),
                    proptest::sample::select(vec![
                        "close", "keep-alive", "upgrade", "h2c", "websocket", "x-a", "X-B, close", "trailers", "1", "100-continue", "", ",",
                    ]),
                ),
                0..10,
            )
        ) {
            let mut all = fields.clone();
            all.push(("host", "shop.localhost"));
            let head = request(&all);
            if inspect(&head, false, false).is_err() {
                return Ok(());
            }
            let headers = forwarded(&fields, false);
            prop_assert_eq!(&headers["x-forwarded-for"], "192.0.2.1");
            prop_assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
            for name in ["keep-alive", "proxy-connection", "http2-settings", "x-real-ip", "x_real-ip", "x_forwarded_for", "x-forwarded-user", "expect"] {
                prop_assert!(!headers.contains_key(name), "{}", name);
            }
            let nominated: Vec<String> = fields
                .iter()
                .filter(|(name, _)| *name == "connection")
                .flat_map(|(_, value)| value.split(',').map(|token| token.trim().to_ascii_lowercase()))
                .collect();
            for name in ["x-a", "x-b"] {
                if nominated.iter().any(|token| token == name) {
                    prop_assert!(!headers.contains_key(name));
                }
            }
            prop_assert!(!(headers.contains_key("x-a") && headers.contains_key("x_a")));
            let upgrades = headers.contains_key("upgrade");
            prop_assert_eq!(upgrades, headers.get("connection").is_some_and(|value| value == "upgrade"));
        }
    }
}
