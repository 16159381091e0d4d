//! Answers that ingress gives itself: a stable code, one sentence for a person, JSON or a page.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Uri, header};

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

    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The answer to the client.
    pub(crate) fn into_response(self, id: &RequestId, wants_html: bool) -> Response<AnswerBody> {
        let (kind, text) = if wants_html {
            ("text/html; charset=utf-8", self.page(id))
        } else {
            ("application/json", self.json(id))
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
        if wants_html {
            let policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
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
        let refresh = match (self.refreshes, self.retry_after) {
            (true, seconds) => format!("<meta http-equiv=\"refresh\" content=\"{}\">", seconds.unwrap_or(2)),
            (false, _) => String::new(),
        };
        let title = match self.code {
            Code::DeploymentStarting => "Starting up",
            Code::DeploymentStopped => "This app is stopped",
            Code::DeploymentFailed => "This app could not start",
            Code::ProjectNotFound | Code::DeploymentNotFound | Code::ServiceNotFound => "Nothing lands here",
            Code::MachineNotFound | Code::MachineGone | Code::HostGone => "Nothing lands here any more",
            Code::Moved => "This has moved",
            Code::Overloaded => "Too busy right now",
            Code::UpstreamUnreachable | Code::UpstreamFailed | Code::UpstreamTimeout => {
                "The app did not answer"
            }
            _ => "This request can\u{2019}t be served",
        };
        include_str!("answer.html")
            .replace("{refresh}", &refresh)
            .replace("{class}", if self.refreshes { "waiting" } else { "" })
            .replace("{status}", self.code.status().as_str())
            .replace("{title}", title)
            .replace("{code}", self.code.as_str())
            .replace("{id}", &escape(id.as_str()))
            // Last, since it may say anything.
            .replace("{message}", &escape(&self.message))
    }
}

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
        assert!(page.contains("<meta http-equiv=\"refresh\" content=\"3\">"), "{page}");
    }
}
