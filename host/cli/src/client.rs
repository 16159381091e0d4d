//! The REST API over HTTP, with its problems and the network's faults as [`Failure`]s.

use std::time::Duration;

use api_types::{IDEMPOTENCY_KEY, Page, Problem};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{ExitStatus, Failure};
use crate::settings::Settings;

/// For an answer that comes at once.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a creating call is sent when its answer is lost; each time with the same key.
const TRIES: u32 = 4;

/// One host's API.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
}

impl Client {
    /// # Errors
    /// Where the token can't stand in a header.
    pub fn new(settings: Settings) -> Result<Self, Failure> {
        if let Some(token) = &settings.token
            && !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(Failure::usage("the token has characters that no token has")
                .hint("check --token, HYTHE_TOKEN or the file it came from"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("hythe/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::other(format!("can't set up HTTP: {error}")))?;
        Ok(Self { http, settings })
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        let base = self.settings.api.as_str().trim_end_matches('/');
        format!("{base}{path}")
            .parse()
            .map_err(|error| Failure::usage(format!("{base}{path} is no address: {error}")))
    }

    /// A request to a path (with its query) of the API, bearing the token.
    ///
    /// # Errors
    /// Where the path is none.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let request = self.http.request(method, self.url(path)?);
        Ok(match &self.settings.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends; an answer that is no success is a failure.
    ///
    /// # Errors
    /// As the API or the network says.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let (http, request) = request.build_split();
        let request = request.map_err(|error| Failure::other(format!("can't make the request: {error}")))?;
        let place = format!("{} {}", request.method(), request.url());
        let response = http.execute(request).await.map_err(|error| self.network(&error, &place))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(self.refused(status, &body, place))
    }

    /// # Errors
    /// As [`send`](Self::send), and where the answer is not what was expected.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.send(request).await?;
        let place = response.url().to_string();
        let body = response.bytes().await.map_err(|error| self.network(&error, &place))?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::other(format!("the host's answer can't be read: {error}"))
                .at(place)
                .hint("the host may be of another version: compare `hythe --version` with GET /v1/health")
        })
    }

    /// # Errors
    /// As [`json`](Self::json).
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(self.request(Method::GET, path)?.timeout(TIMEOUT)).await
    }

    /// Creates by a `POST`, once even if it has to be sent again because an answer was lost.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn create<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.once(path, |request| request.json(body)).await
    }

    /// A `POST` without a body that must not be carried out twice.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.once(path, |request| request).await
    }

    async fn once<T: DeserializeOwned>(
        &self,
        path: &str,
        with_body: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<T, Failure> {
        let key = uuid::Uuid::new_v4().to_string();
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.request(Method::POST, path)?.timeout(TIMEOUT).header(IDEMPOTENCY_KEY, &key);
            match self.json(with_body(request)).await {
                Err(failure) if tries < TRIES && may_repeat(&failure) => pause(tries).await,
                answer => return answer,
            }
        }
    }

    /// # Errors
    /// As [`send`](Self::send).
    pub async fn delete(&self, path: &str) -> Result<Option<Value>, Failure> {
        let response = self.send(self.request(Method::DELETE, path)?.timeout(TIMEOUT)).await?;
        Ok(response.json().await.ok())
    }

    /// Every item of a list, page after page. `path` may have a query.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{separator}limit=200");
        let mut items = Vec::new();
        let mut page: Page<T> = self.get(&first).await?;
        loop {
            items.append(&mut page.items);
            let Some(cursor) = page.next_cursor.take() else { return Ok(items) };
            page = self.get(&format!("{first}&cursor={}", encoded(&cursor))).await?;
        }
    }

    fn network(&self, error: &reqwest::Error, place: &str) -> Failure {
        let cause = innermost(error);
        if error.is_connect() {
            return Failure::new(
                ExitStatus::Unreachable,
                format!("no host answers at {}: {cause}", self.settings.api.as_str().trim_end_matches('/')),
            )
            .hint("start one with `hythe up` or `hythe serve`, or name another with --api or HYTHE_API");
        }
        if error.is_timeout() {
            return Failure::new(ExitStatus::TimedOut, "the host did not answer in time").at(place);
        }
        Failure::new(ExitStatus::Unreachable, format!("the connection to the host broke: {cause}")).at(place)
    }

    fn refused(&self, status: StatusCode, body: &[u8], place: String) -> Failure {
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ExitStatus::Unauthorised,
            StatusCode::NOT_FOUND | StatusCode::GONE => ExitStatus::NotFound,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ExitStatus::TimedOut,
            _ => ExitStatus::Failure,
        };
        let what = match &problem {
            Some(problem) => problem.to_string(),
            None => format!("the host answered {status}{}", excerpt(body)),
        };
        let mut failure = Failure::new(exit, what).at(place);
        failure.hint = self.advice(status, problem.as_ref());
        failure.code = problem.map(|problem| problem.code);
        failure
    }

    fn advice(&self, status: StatusCode, problem: Option<&Problem>) -> Option<String> {
        if status == StatusCode::UNAUTHORIZED {
            return Some(match &self.settings.token {
                Some(_) => {
                    "the token was refused: check --token, HYTHE_TOKEN or the file it came from".to_owned()
                }
                None => format!("give a token; looked in {}", self.settings.token_places.join(", ")),
            });
        }
        let problem = problem?;
        (status.is_server_error()).then(|| format!("the host's log has more under {}", problem.request_id))
    }
}

/// Whether the request may not have been carried out, and may be sent again with the same key.
pub(crate) fn may_repeat(failure: &Failure) -> bool {
    let passing = [api_types::code::UNAVAILABLE, api_types::code::IDEMPOTENCY_IN_PROGRESS];
    match &failure.code {
        Some(code) => passing.contains(&code.as_str()),
        // A host that refuses the connection at once is not there; one that broke off may be back.
        None => failure.exit == ExitStatus::Unreachable && failure.place.is_some(),
    }
}

/// Before the next try: at once, then longer and longer, at most 2 s.
pub(crate) async fn pause(tries: u32) {
    if tries > 1 {
        let longer = Duration::from_millis(100) * 2_u32.pow(tries.min(6) - 1);
        tokio::time::sleep(longer.min(Duration::from_secs(2))).await;
    }
}

/// A piece of a path or query.
#[must_use]
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The query string of a parameter struct, with its `?`; empty where nothing is set.
#[must_use]
pub fn query(parameters: &impl Serialize) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(parameters) else { return String::new() };
    let pairs: Vec<String> = fields
        .iter()
        .filter_map(|(name, value)| {
            let text = match value {
                Value::Null => return None,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some(format!("{name}={}", encoded(&text)))
        })
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn excerpt(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    let text = text.trim();
    if text.is_empty() || text.starts_with('<') { String::new() } else { format!(": {text}") }
}

pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
