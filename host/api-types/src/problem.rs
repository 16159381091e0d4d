//! Answers that are not a success (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:hythe:problem:` and the code.
    #[schema(example = "urn:hythe:problem:not_found")]
    pub r#type: String,
    /// The kind of problem, the same for every occurrence.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// This occurrence, for a person: what, where, what to do.
    pub detail: String,
    /// Path of the request.
    pub instance: String,
    /// Stable; one of [`code`]. What a program decides by.
    #[schema(example = "not_found")]
    pub code: String,
    /// Each field that is wrong, where fields are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What to quote when asking for help; the host's log has it too.
    pub request_id: String,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// JSON pointer into the request's body (RFC 6901), such as `/spec/command/0`; for a query
    /// parameter or a header its name behind `?` or `#`, such as `?limit`.
    #[schema(example = "/spec/command/0")]
    pub pointer: String,
    pub message: String,
}

impl std::fmt::Display for Problem {
    /// For a terminal: the detail, then each field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        for error in &self.errors {
            write!(f, "\n  {}: {}", error.pointer, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Declares the codes once: the constant, its status and its title.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $title:literal;)+) => {
        /// Stable codes of [`Problem`].
        pub mod code {
            $($(#[$doc])* pub const $name: &str = $code;)+

            /// Every code with its HTTP status and its title.
            pub const ALL: &[(&str, u16, &str)] = &[$(($code, $status, $title)),+];
        }
    };
}

codes! {
    /// No `Authorization` header where one is needed.
    TOKEN_MISSING = "token_missing", 401, "A token is needed";
    /// An `Authorization` header that is not `Bearer hyt_…`.
    TOKEN_MALFORMED = "token_malformed", 401, "The Authorization header can't be read";
    /// No such token.
    TOKEN_UNKNOWN = "token_unknown", 401, "The token is not known";
    /// A token whose time is over.
    TOKEN_EXPIRED = "token_expired", 401, "The token has expired";
    /// The machine's one-time token is unknown, used or expired.
    REGISTRATION_REFUSED = "registration_refused", 401, "The registration token is not valid";
    /// No such route, or nothing of that id or name.
    NOT_FOUND = "not_found", 404, "Not found";
    /// The route does not take this method.
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "Method not allowed";
    /// An id of another kind, or no id at all.
    INVALID_ID = "invalid_id", 400, "Not an id of the expected kind";
    /// A query parameter, a header or the path is wrong.
    INVALID_REQUEST = "invalid_request", 400, "The request is not valid";
    /// A cursor of another list, or none at all.
    INVALID_CURSOR = "invalid_cursor", 400, "The cursor is not valid";
    /// The body is not JSON.
    INVALID_JSON = "invalid_json", 400, "The body is not valid JSON";
    /// The body is JSON of another shape, or a value in it is refused.
    VALIDATION_FAILED = "validation_failed", 422, "The request's content is refused";
    /// The body is of another media type than the route takes.
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "Unsupported media type";
    /// The body is longer than the route takes.
    TOO_LARGE = "too_large", 413, "The body is too large";
    /// No adapter for the runtime type.
    UNKNOWN_RUNTIME = "unknown_runtime", 422, "No adapter for this runtime type";
    /// The source must be uploaded first.
    SOURCE_MISSING = "source_missing", 422, "The source has not been uploaded";
    /// The body's SHA-256 is not the one in the path.
    DIGEST_MISMATCH = "digest_mismatch", 422, "The digest does not match";
    /// Not a tar.zst archive, or one that leads out of its own folder.
    INVALID_ARCHIVE = "invalid_archive", 422, "The archive is not acceptable";
    /// No space left for it.
    DISK_FULL = "disk_full", 507, "The disk is full";
    /// The name is taken.
    CONFLICT = "conflict", 409, "It is already there";
    /// The domain is another project's.
    DOMAIN_TAKEN = "domain_taken", 409, "The domain is in use";
    /// What it is in does not allow it: the detail says which state would.
    INVALID_STATE = "invalid_state", 409, "Not possible in its present state";
    /// Something still needs it.
    IN_USE = "in_use", 409, "It is in use";
    /// A deployment that does not run can't be talked to.
    NOT_RUNNING = "not_running", 409, "The deployment is not running";
    /// The deployment's adapter does not have the ability.
    UNSUPPORTED = "unsupported", 422, "The runtime can't do this";
    /// The key was used with another request.
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", 422, "The idempotency key was used for another request";
    /// The first request with this key has not ended.
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress", 409, "A request with this idempotency key is under way";
    /// Something that the host needs is away for the moment: try again.
    UNAVAILABLE = "unavailable", 503, "Unavailable for the moment";
    /// A fault of the host.
    INTERNAL = "internal", 500, "Internal error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_statuses_are_failures() {
        let mut seen = std::collections::BTreeSet::new();
        for (code, status, title) in code::ALL {
            assert!(seen.insert(code), "{code} twice");
            assert!((400..600).contains(status), "{code}");
            assert!(!title.is_empty());
        }
    }
}
