//! Requests to the daemon, and what its answers mean.

use agent_api::{Problem, error_code};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Body, Error, Header, Request, Response};

/// A request without a body.
pub(crate) fn request(method: &str, path: String) -> Request {
    Request { method: method.to_owned(), path, headers: Vec::new(), body: Body::None, timeout_ms: None }
}

/// A request that carries JSON.
pub(crate) fn json_request<T: Serialize>(method: &str, path: String, body: &T) -> Result<Request, Error> {
    let body = serde_json::to_vec(body).map_err(|error| Error::Invalid(error.to_string()))?;
    let content_type = Header { name: "content-type".to_owned(), value: b"application/json".to_vec() };
    Ok(Request { headers: vec![content_type], body: Body::Inline(body), ..request(method, path) })
}

/// The answer's JSON, or the error that its status means.
pub(crate) fn read<T: DeserializeOwned>(response: &Response) -> Result<T, Error> {
    if !(200..300).contains(&response.status) {
        return Err(refusal(response));
    }
    serde_json::from_slice(&response.body).map_err(|error| {
        Error::Unavailable(format!("the daemon's answer can't be read ({error}): is it of another version?"))
    })
}

/// What an answer that is no success means.
pub(crate) fn refusal(response: &Response) -> Error {
    let problem = serde_json::from_slice::<Problem>(&response.body).ok();
    let message = match &problem {
        Some(problem) => problem.message.clone(),
        None => format!("the daemon answered {} without saying why", response.status),
    };
    match (response.status, problem.as_ref().map(|problem| problem.code.as_str())) {
        (_, Some(error_code::SUPERSEDED)) => Error::Superseded,
        (_, Some(error_code::INVALID | error_code::INVALID_ARCHIVE)) | (400, _) => Error::Invalid(message),
        (404, _) => Error::NotFound,
        (429, _) => Error::Busy(1000),
        (401 | 403 | 408 | 409 | 424 | 500..=599, _) | (_, Some(error_code::DIGEST_MISMATCH)) => {
            Error::Unavailable(message)
        }
        (status, code) => Error::Other((code.map_or_else(|| status.to_string(), str::to_owned), message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, code: &str, expected: &str) {
        let body = serde_json::to_vec(&Problem { code: code.to_owned(), message: "why".to_owned() }).unwrap();
        let error = refusal(&Response { status, headers: Vec::new(), body });
        assert_eq!(format!("{error:?}"), expected);
    }

    #[test]
    fn the_code_decides_what_the_host_does() {
        check(409, error_code::SUPERSEDED, "Error::Superseded");
        check(400, error_code::INVALID, "Error::Invalid(\"why\")");
        check(404, error_code::NOT_FOUND, "Error::NotFound");
        check(422, error_code::INVALID_ARCHIVE, "Error::Invalid(\"why\")");
        check(422, error_code::DIGEST_MISMATCH, "Error::Unavailable(\"why\")");
        check(507, error_code::DISK_FULL, "Error::Unavailable(\"why\")");
        check(503, error_code::UNAVAILABLE, "Error::Unavailable(\"why\")");
        check(401, error_code::UNAUTHENTICATED, "Error::Unavailable(\"why\")");
        check(418, "teapot", "Error::Other((\"teapot\", \"why\"))");
    }

    #[test]
    fn an_answer_that_is_no_problem_is_still_explained() {
        let error = refusal(&Response { status: 502, headers: Vec::new(), body: b"<html>".to_vec() });
        assert!(format!("{error:?}").contains("answered 502"), "{error:?}");
    }
}
