//! `Idempotency-Key`: a creating request that is repeated creates nothing a second time.
//!
//! The first answer is kept and given again. It may hold a secret that is shown once (a machine's key, a
//! one-time token), so it is kept sealed under a key that only the client can give again: its token and
//! its idempotency key. The database alone does not open it.

use std::sync::Arc;

use api_types::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, code};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::Idempotency;

use crate::api::ControlApi;
use crate::auth::Caller;
use crate::failure::Failure;

/// The longest key, in bytes.
const MAX_KEY: usize = 255;
const NONCE: usize = 24;

/// What a creating request made.
#[derive(Serialize, Deserialize)]
pub(crate) struct Made {
    status: u16,
    location: Option<String>,
    body: serde_json::Value,
}

impl Made {
    /// # Errors
    /// Where the body is no JSON: a fault of ours.
    pub(crate) fn new(
        status: StatusCode,
        location: Option<String>,
        body: &impl Serialize,
    ) -> Result<Self, Failure> {
        let body = serde_json::to_value(body).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Self { status: status.as_u16(), location, body })
    }
}

impl IntoResponse for Made {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = (status, axum::Json(self.body)).into_response();
        if let Some(location) = self.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// What makes a request the same as another.
pub(crate) struct Once {
    key: Option<String>,
    request: String,
}

impl<S: Sync> FromRequestParts<S> for Once {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let key = match parts.headers.get(IDEMPOTENCY_KEY) {
            None => None,
            Some(key) => Some(plain(key).ok_or_else(|| {
                let message =
                    format!("the key must have 1 to {MAX_KEY} visible ASCII characters, such as a UUID");
                Failure::field(code::INVALID_REQUEST, format!("#{IDEMPOTENCY_KEY}"), message)
            })?),
        };
        Ok(Self { key, request: format!("{} {}", parts.method, parts.uri) })
    }
}

fn plain(key: &HeaderValue) -> Option<String> {
    let key = key.to_str().ok()?;
    ((1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
        .then(|| key.to_owned())
}

impl Once {
    /// Carries the work out, or gives the answer of the request that did. With a key the work goes on to its end
    /// even where the client has gone.
    pub(crate) async fn run(
        self,
        api: &Arc<ControlApi>,
        caller: &Caller,
        body: &[u8],
        work: impl Future<Output = Result<Made, Failure>> + Send + 'static,
    ) -> Result<Response, Failure> {
        let Some(key) = self.key else { return Ok(work.await?.into_response()) };
        let mut hash = Sha256::new();
        hash.update(self.request.as_bytes());
        hash.update(b"\n");
        hash.update(body);
        let scope = format!("token:{}", caller.name);
        let seal = Seal::new(&caller.token, &key);
        match api.store.idempotency_begin(&scope, &key, &hash.finalize().into()).await? {
            Idempotency::Fresh => {}
            Idempotency::Replay { response, .. } => {
                let mut response = seal.open(&response)?.into_response();
                response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
                return Ok(response);
            }
            Idempotency::Mismatch => {
                return Err(Failure::new(
                    code::IDEMPOTENCY_KEY_REUSED,
                    format!(
                        "the idempotency key {key:?} was used for another request: use a new key for each"
                    ),
                ));
            }
            Idempotency::InProgress { since } => {
                let detail = format!(
                    "a request with the idempotency key {key:?} began at {since} and is not known to have ended: ask \
                     again; where this stays so, its host died in the middle: look whether what it should make is \
                     there, and use a new key if not"
                );
                return Err(Failure::new(code::IDEMPOTENCY_IN_PROGRESS, detail).retry_after(1));
            }
        }
        let store = api.store.clone();
        let task = tokio::spawn(async move {
            let made = match work.await {
                Ok(made) => made,
                Err(failure) => {
                    // Otherwise it is not known what was made: the key stays taken.
                    if failure.changed_nothing() {
                        store.idempotency_forget(&scope, &key).await?;
                    }
                    return Err(failure);
                }
            };
            let sealed = seal.close(&made)?;
            if let Err(error) = store.idempotency_finish(&scope, &key, made.status, &sealed).await {
                // What was asked is made; only a repeated request will not learn it.
                tracing::warn!(
                    error = crate::failure::chain(&error),
                    "an answer could not be kept for a repeated request"
                );
            }
            Ok(made)
        });
        match task.await {
            Ok(made) => Ok(made?.into_response()),
            Err(error) => Err(Failure::internal(error.to_string())),
        }
    }
}

/// XChaCha20-Poly1305 under a hash of the client's two secrets; a random nonce in front.
struct Seal(XChaCha20Poly1305);

impl Seal {
    fn new(token: &SecretString, key: &str) -> Self {
        let mut hash = Sha256::new();
        // Tokens have 192 bits of randomness: no slow hash is needed.
        hash.update(b"hythe: a kept answer\n");
        hash.update(token.expose_secret().as_bytes());
        hash.update(b"\n");
        hash.update(key.as_bytes());
        let key: [u8; 32] = hash.finalize().into();
        Self(XChaCha20Poly1305::new((&key).into()))
    }

    fn close(&self, made: &Made) -> Result<serde_json::Value, Failure> {
        let failed = |error: String| Failure::internal(format!("an answer can't be kept: {error}"));
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| failed(error.to_string()))?;
        let plain = serde_json::to_vec(made).map_err(|error| failed(error.to_string()))?;
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), plain.as_slice())
            .map_err(|error| failed(error.to_string()))?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()).into())
    }

    fn open(&self, kept: &serde_json::Value) -> Result<Made, Failure> {
        let read = || {
            let sealed = STANDARD.decode(kept.as_str()?).ok()?;
            let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
            let plain = self.0.decrypt(&XNonce::from(*nonce), sealed).ok()?;
            serde_json::from_slice(&plain).ok()
        };
        // The same caller's name with another token: the token was replaced in between.
        read().ok_or_else(|| {
            Failure::new(
                code::IDEMPOTENCY_KEY_REUSED,
                "the first request with this idempotency key was made with another token, and its answer can't be \
                 opened with this one: look whether what it made is there, and use a new key if not",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_opens_for_its_client_only() {
        let token = SecretString::from("hyt_1");
        let made = Made::new(StatusCode::CREATED, None, &"amt_secret").unwrap();
        let kept = Seal::new(&token, "key").close(&made).unwrap();
        assert!(!kept.to_string().contains("amt_secret"));
        assert_eq!(Seal::new(&token, "key").open(&kept).unwrap().body, "amt_secret");
        assert!(Seal::new(&token, "other").open(&kept).is_err());
        assert!(Seal::new(&SecretString::from("hyt_2"), "key").open(&kept).is_err());
    }
}
