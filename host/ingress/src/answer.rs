//! Answers that ingress gives itself: a stable code, one sentence for a person, JSON or a page.

use std::sync::LazyLock;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use sha2::{Digest, Sha256};

use crate::body::AnswerBody;
use crate::host::CanonicalHost;
use crate::ids::RequestId;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident;)+) => {
        /// Every way in which ingress itself may answer. The text never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code { $($(#[$doc])* $variant,)+ }

        impl Code {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }
        }
    };
}

codes! {
    InvalidRequest = "invalid_request", BAD_REQUEST;
    InvalidHostname = "invalid_hostname", BAD_REQUEST;
    InvalidPort = "invalid_port", BAD_REQUEST;
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    /// Cleartext where only TLS is served.
    HttpsRequired = "https_required", PERMANENT_REDIRECT;
    /// The host is not one of the connection's certificate.
    MisdirectedRequest = "misdirected_request", MISDIRECTED_REQUEST;
    NotImplemented = "not_implemented", NOT_IMPLEMENTED;
    /// The client's body did not come.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    ExpectationFailed = "expectation_failed", EXPECTATION_FAILED;
    ProjectNotFound = "project_not_found", NOT_FOUND;
    DeploymentNotFound = "deployment_not_found", NOT_FOUND;
    ServiceNotFound = "service_not_found", NOT_FOUND;
    /// A machine of old that was never heard of.
    MachineNotFound = "machine_not_found", NOT_FOUND;
    /// A machine of old that nothing has taken the place of.
    MachineGone = "machine_gone", GONE;
    /// Another host of old, likewise.
    HostGone = "host_gone", GONE;
    /// Said to the waiting page only.
    Ready = "ready", NO_CONTENT;
    /// A browser came by a form of old.
    Moved = "moved_permanently", PERMANENT_REDIRECT;
    DeploymentStopped = "deployment_stopped", SERVICE_UNAVAILABLE;
    DeploymentStarting = "deployment_starting", SERVICE_UNAVAILABLE;
    DeploymentFailed = "deployment_failed", SERVICE_UNAVAILABLE;
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// No byte reached the app.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY;
    /// The app took the request, and gave no proper answer.
    UpstreamFailed = "upstream_failed", BAD_GATEWAY;
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT;
    /// Who decides about requests has failed too often, and is not asked for now.
    AdapterRoutingOff = "adapter_routing_off", SERVICE_UNAVAILABLE;
    AdapterRoutingFailed = "adapter_routing_failed", SERVICE_UNAVAILABLE;
    /// It decided what can't be done.
    AdapterRoutingInvalid = "adapter_routing_invalid", BAD_GATEWAY;
}

/// One such answer.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
    /// The page for browsers loads itself again.
    pub(crate) refreshes: bool,
    /// The connection's framing can't be trusted after this.
    pub(crate) closes: bool,
    /// Where to ask instead.
    pub(crate) location: Option<HeaderValue>,
    /// It is for the waiting page, which reads the state from a header.
    pub(crate) is_polled: bool,
}

/// How an answer of ours looks: as the client can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    Json,
    Page,
    /// gRPC clients read a status of their own, not HTTP's.
    Grpc,
}

impl Problem {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
            refreshes: false,
            closes: false,
            location: None,
            is_polled: false,
        }
    }

    /// The same at another host: with the scheme that the client used (RFC 3986, section 4.2), its port,
    /// path and query. Never kept, since only browsers are told.
    pub(crate) fn moved(to: &str, asked: &CanonicalHost, uri: &Uri) -> Self {
        let port = &asked.as_str()[asked.host().len()..];
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let message = format!("this is at {to}{port} now");
        let location = HeaderValue::from_str(&format!("//{to}{port}{path}")).ok();
        Self { location, ..Self::new(Code::Moved, message) }
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn refreshing(mut self) -> Self {
        self.refreshes = true;
        self
    }

    pub(crate) fn polled(mut self) -> Self {
        self.is_polled = true;
        self
    }

    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    pub(crate) fn leading_to(mut self, location: &str) -> Self {
        self.location = HeaderValue::from_str(location).ok();
        self
    }

    /// The answer to the client.
    pub(crate) fn into_response(self, id: &RequestId, shows: Shows) -> Response<AnswerBody> {
        let refreshes = self.refreshes;
        let (kind, text) = match shows {
            _ if self.code == Code::Ready => ("application/json", String::new()),
            Shows::Page => ("text/html; charset=utf-8", self.page(id)),
            Shows::Json => ("application/json", self.json(id)),
            Shows::Grpc => return self.into_grpc(id),
        };
        let mut response = Response::new(AnswerBody::full(Bytes::from(text)));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, id.header());
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.is_polled {
            headers.insert(HYTHE_STATE, HeaderValue::from_static(self.code.as_str()));
        }
        if self.code == Code::Ready {
            headers.remove(header::CONTENT_TYPE);
        }
        if let Some(location) = self.location {
            headers.insert(header::LOCATION, location);
        }
        if self.code == Code::MethodNotAllowed {
            let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            headers.insert(header::ALLOW, allowed);
        }
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if shows == Shows::Page {
            // The waiting page stands wherever the app would, in frames too.
            let policy =
                if refreshes { WAITING_POLICY.clone() } else { HeaderValue::from_static(PAGE_POLICY) };
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        response
    }

    /// "Trailers-only": a status of gRPC's own in the head of an empty 200 (gRPC over HTTP/2, "Responses").
    fn into_grpc(self, id: &RequestId) -> Response<AnswerBody> {
        // Of google.rpc.Code.
        let status: u16 = match self.code.status() {
            StatusCode::BAD_REQUEST | StatusCode::EXPECTATION_FAILED => 3,
            StatusCode::NOT_FOUND => 12,
            StatusCode::METHOD_NOT_ALLOWED => 12,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
            _ => 14,
        };
        let mut message = String::with_capacity(self.message.len());
        for byte in self.message.bytes() {
            match byte {
                b'%' | 0..0x20 | 0x7f.. => message.push_str(&format!("%{byte:02X}")),
                _ => message.push(char::from(byte)),
            }
        }
        let mut response = Response::new(AnswerBody::full(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(status));
        if let Ok(message) = HeaderValue::from_str(&message) {
            headers.insert("grpc-message", message);
        }
        headers.insert(X_REQUEST_ID, id.header());
        headers.insert("x-hythe-error", HeaderValue::from_static(self.code.as_str()));
        response
    }

    fn json(&self, id: &RequestId) -> String {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            error: &'a str,
            message: &'a str,
            request_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_seconds: Option<u32>,
        }
        let json = Json {
            error: self.code.as_str(),
            message: &self.message,
            request_id: id.as_str(),
            retry_after_seconds: self.retry_after,
        };
        // Strings and numbers always are JSON.
        serde_json::to_string(&json).unwrap_or_default()
    }

    fn page(&self, id: &RequestId) -> String {
        // Without scripts the whole page is loaded again.
        let (refresh, script) = match (self.refreshes, self.retry_after) {
            (true, seconds) => (
                format!(
                    "<noscript><meta http-equiv=\"refresh\" content=\"{}\"></noscript>",
                    seconds.unwrap_or(2)
                ),
                format!("<script>{WAITING_SCRIPT}</script>"),
            ),
            (false, _) => (String::new(), String::new()),
        };
        let title = match self.code {
            Code::DeploymentStarting => "Starting up",
            Code::DeploymentStopped => "This app is stopped",
            Code::DeploymentFailed => "This app could not start",
            Code::ProjectNotFound | Code::DeploymentNotFound | Code::ServiceNotFound => "Nothing lands here",
            Code::MachineNotFound | Code::MachineGone | Code::HostGone => "Nothing lands here any more",
            Code::Ready => "Ready",
            Code::Moved => "This has moved",
            Code::Overloaded => "Too busy right now",
            Code::UpstreamUnreachable | Code::UpstreamFailed | Code::UpstreamTimeout => {
                "The app did not answer"
            }
            _ => "This request can\u{2019}t be served",
        };
        include_str!("answer.html")
            .replace("{refresh}", &refresh)
            .replace("{script}", &script)
            .replace("{class}", if self.refreshes { "waiting" } else { "" })
            .replace("{status}", self.code.status().as_str())
            .replace("{title}", title)
            .replace("{code}", self.code.as_str())
            .replace("{id}", &escape(id.as_str()))
            // Last, since it may say anything.
            .replace("{message}", &escape(&self.message))
    }
}

const PAGE_POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
const WAITING_SCRIPT: &str = include_str!("waiting.js");
/// The script is known by its digest (Content Security Policy level 3, section 6.7.3.3): no other runs.
static WAITING_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(WAITING_SCRIPT));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static(PAGE_POLICY))
});

/// How far the deployment is, for the waiting page.
const HYTHE_STATE: http::HeaderName = http::HeaderName::from_static("hythe-state");
pub(crate) const X_REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IdSource;

    #[test]
    fn what_a_page_says_is_text() {
        let (id, _) = IdSource::new().next();
        let page = Problem::new(Code::ProjectNotFound, "no <script>alert('x')</script> & more").page(&id);
        assert!(page.contains("no &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more"), "{page}");
        assert!(!page.contains("http-equiv"), "{page}");
        let page = Problem::new(Code::DeploymentStarting, "soon").retry_after(3).refreshing().page(&id);
        assert!(page.contains("<noscript><meta http-equiv=\"refresh\" content=\"3\"></noscript>"), "{page}");
        assert!(page.contains(&format!("<script>{WAITING_SCRIPT}</script>")), "{page}");
    }
}
