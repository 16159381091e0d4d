//! Everything that is not a success, in one type; and what each error of the parts below is to a client.

use std::error::Error;

use api_types::{FieldError, PROBLEM_JSON, Problem, code};
use artifacts::ArtifactError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use store::StoreError;

use crate::boundary::ControlError;

/// A problem before it knows its request. As a response it is empty; [`crate::context`] writes the body.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    /// For the log, never for the client.
    cause: Option<String>,
    retry_after_seconds: Option<u32>,
}

impl Failure {
    /// `detail`: what, where, what to do.
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), cause: None, retry_after_seconds: None }
    }

    /// A fault of the host. The cause is logged, and the client learns nothing of it.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        let detail = "the host failed at this request; its log tells why, under this request's id";
        Self { cause: Some(cause.into()), ..Self::new(code::INTERNAL, detail) }
    }

    /// Passing: the same request may succeed soon.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after_seconds: Some(1), ..Self::new(code::UNAVAILABLE, detail) }
    }

    /// Fields that are wrong. The detail says how many, and the first.
    pub(crate) fn fields(code: &'static str, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [] => "the request is refused".to_owned(),
            [one] => format!("{}: {}", place(&one.pointer), one.message),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", place(&first.pointer), first.message, rest.len())
            }
        };
        Self { errors, ..Self::new(code, detail) }
    }

    /// One field that is wrong.
    pub(crate) fn field(code: &'static str, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(code, vec![FieldError { pointer: pointer.into(), message: message.into() }])
    }

    /// A query parameter that is wrong.
    pub(crate) fn query(name: &str, message: impl Into<String>) -> Self {
        Self::field(code::INVALID_REQUEST, format!("?{name}"), message)
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Whether the request surely changed nothing. Not known of faults, and of a database that went away.
    pub(crate) fn changed_nothing(&self) -> bool {
        !matches!(self.code, code::INTERNAL | code::UNAVAILABLE)
    }

    fn row(&self) -> (u16, &'static str) {
        code::ALL
            .iter()
            .find(|(code, ..)| *code == self.code)
            .map_or((500, "Error"), |(_, status, title)| (*status, title))
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What the client gets.
    pub(crate) fn problem(self, instance: &str, request_id: &str) -> Problem {
        let (status, title) = self.row();
        Problem {
            r#type: format!("urn:hythe:problem:{}", self.code),
            title: title.to_owned(),
            status,
            detail: self.detail,
            instance: instance.to_owned(),
            code: self.code.to_owned(),
            errors: self.errors,
            request_id: request_id.to_owned(),
        }
    }

    /// The whole answer. Headers that the route set (`Allow`) stay.
    pub(crate) fn respond(self, mut response: Response, instance: &str, request_id: &str) -> Response {
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.remove(header::CONTENT_LENGTH);
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match self.code {
            code::TOKEN_MISSING => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hythe\""));
            }
            code::TOKEN_MALFORMED | code::TOKEN_UNKNOWN | code::TOKEN_EXPIRED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"hythe\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            _ => {}
        }
        let problem = self.problem(instance, request_id);
        *response.body_mut() = serde_json::to_vec(&problem).unwrap_or_default().into();
        response
    }
}

fn place(pointer: &str) -> String {
    match pointer.split_at_checked(1) {
        None => "the body".to_owned(),
        Some(("?", name)) => format!("the query parameter `{name}`"),
        Some(("#", name)) => format!("the header `{name}`"),
        Some(_) => format!("`{pointer}`"),
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error and what it came from, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::NotFound { .. } => Self::new(code::NOT_FOUND, detail),
            StoreError::Conflict { code, .. } => Self::new(conflict(code), detail),
            StoreError::LeaseLost | StoreError::Superseded => Self::new(code::INVALID_STATE, detail),
            StoreError::Exhausted { .. } => Self::unavailable(detail),
            StoreError::Unavailable { .. } => {
                let detail = "the host's database does not answer at present; try again";
                Self { cause: Some(chain(&error)), ..Self::unavailable(detail) }
            }
            StoreError::NewerDatabase { .. }
            | StoreError::Configuration { .. }
            | StoreError::Database { .. }
            | StoreError::Unreadable { .. } => Self::internal(chain(&error)),
        }
    }
}

/// What a conflict of the store's is to a client.
fn conflict(code: &str) -> &'static str {
    match code {
        "destroyed" | "generation-mismatch" => code::INVALID_STATE,
        "domain-taken" => code::DOMAIN_TAKEN,
        "source-missing" => code::SOURCE_MISSING,
        "duplicate-service" => code::VALIDATION_FAILED,
        _ if code.starts_with("registration-token-") => code::REGISTRATION_REFUSED,
        _ if code.starts_with("invalid-") => code::VALIDATION_FAILED,
        _ if code.ends_with("-in-use") => code::IN_USE,
        _ => code::CONFLICT,
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        let code = match &error {
            ArtifactError::DigestMismatch { .. } => code::DIGEST_MISMATCH,
            ArtifactError::InvalidArchive { .. } => code::INVALID_ARCHIVE,
            ArtifactError::TooLarge { .. } => code::TOO_LARGE,
            ArtifactError::DiskFull => code::DISK_FULL,
            ArtifactError::Body { .. } => code::INVALID_REQUEST,
            ArtifactError::NotFound { .. } => code::NOT_FOUND,
            ArtifactError::Io { .. } => return Self::internal(chain(&error)),
        };
        let cause =
            matches!(error, ArtifactError::DiskFull | ArtifactError::Body { .. }).then(|| chain(&error));
        Self { cause, ..Self::new(code, error.to_string()) }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        match error {
            ControlError::NotFound => Self::new(code::NOT_FOUND, detail),
            ControlError::NotRunning(_) => Self::new(code::NOT_RUNNING, detail),
            ControlError::Unsupported { .. } => Self::new(code::UNSUPPORTED, detail),
            ControlError::Unavailable(_) => Self::unavailable(detail),
            ControlError::Invalid(_) => Self::new(code::VALIDATION_FAILED, detail),
            ControlError::Internal(_) => Self::internal(detail),
        }
    }
}
