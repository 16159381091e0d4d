//! What handlers take from a request, with every way to be wrong said as a problem.

use std::str::FromStr;

use api_types::{FieldError, code};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::IdError;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;

/// The longest JSON body, in bytes.
pub(crate) const MAX_JSON: usize = 1 << 20;

/// A JSON body and its bytes.
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        if !is_json(request.headers()) {
            return Err(Failure::new(
                code::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON: send it with the header `content-type: application/json`",
            ));
        }
        let bytes = match Limited::new(request.into_body(), MAX_JSON).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Failure::new(
                    code::TOO_LARGE,
                    format!("the JSON body is longer than {MAX_JSON} bytes"),
                ));
            }
            Err(_) => return Err(Failure::new(code::INVALID_REQUEST, "the body broke off before its end")),
        };
        let value = parse(&bytes)?;
        Ok(Self { value, bytes })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence =
        |value: &HeaderValue| Some(value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase());
    headers.get(header::CONTENT_TYPE).and_then(essence).is_some_and(|media| {
        media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(code::INVALID_JSON, "the body is empty: send a JSON object"));
    }
    let mut nul = Vec::new();
    if contains(bytes, br"\u0000") {
        // Postgres can keep no such text, in `jsonb` or elsewhere.
        let value: Value = serde_json::from_slice(bytes).map_err(|error| syntax(&error))?;
        find_nul(&value, String::new(), &mut nul);
    }
    if !nul.is_empty() {
        return Err(Failure::fields(code::VALIDATION_FAILED, nul));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        if error.is_data() {
            Failure::field(code::VALIDATION_FAILED, pointer, error.to_string())
        } else {
            syntax(&error)
        }
    })?;
    json.end().map_err(|error| syntax(&error))?;
    Ok(value)
}

fn syntax(error: &serde_json::Error) -> Failure {
    Failure::new(code::INVALID_JSON, format!("the body is not valid JSON: {error}"))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn find_nul(value: &Value, pointer: String, found: &mut Vec<FieldError>) {
    let mut found_at = |pointer: String, what: &str| {
        found.push(FieldError {
            pointer,
            message: format!("the {what} holds the character U+0000, which can't be stored"),
        });
    };
    match value {
        Value::String(text) if text.contains('\0') => found_at(pointer, "text"),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                find_nul(item, format!("{pointer}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                if key.contains('\0') {
                    found.push(FieldError {
                        pointer: pointer.clone(),
                        message: "a field's name holds the character U+0000, which can't be stored"
                            .to_owned(),
                    });
                }
                find_nul(value, format!("{pointer}/{}", escape(key)), found);
            }
        }
        _ => {}
    }
}

/// As RFC 6901 writes a name.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", escape(key)),
        // A variant of an enum: not a place of its own in JSON as it is written here.
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

/// Query parameters.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            match text.split_once(": ") {
                Some((name, message)) if !name.contains(' ') => Failure::query(name, message),
                _ => Failure::new(code::INVALID_REQUEST, format!("the query string is refused: {text}")),
            }
        })?;
        Ok(Self(params))
    }
}

/// Parts of the path, decoded.
pub(crate) struct Segments<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(Failure::new(
                code::INVALID_REQUEST,
                format!("the path can't be read: {}", error.body_text()),
            )),
            Err(other) => Err(Failure::internal(other.body_text())),
        }
    }
}

/// An id of the wanted kind.
pub(crate) fn id<T: FromStr<Err = IdError>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: IdError| Failure::new(code::INVALID_ID, error.to_string()))
}

/// Whether the client asks for this media type by name. `*/*` is not asking.
pub(crate) fn asks_for(headers: &HeaderMap, media_type: &str) -> bool {
    let names = |value: &str| {
        value.split(',').any(|range| {
            range.split(';').next().is_some_and(|range| range.trim().eq_ignore_ascii_case(media_type))
        })
    };
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(names)
}
