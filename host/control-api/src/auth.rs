//! Who calls: the bearer token of the control API.

use std::sync::Arc;

use api_types::code;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use store::TokenInfo;

use crate::api::ControlApi;
use crate::failure::Failure;

/// The longest token that is looked up.
const MAX_TOKEN: usize = 200;
/// Where a token is, for those who have none.
const WHERE: &str = "the host showed its admin token at its first start, and keeps it as `admin-token` in its data \
                     directory";

/// Whose token it was, and the token: answers that are kept for a repeated request are sealed under it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) name: Arc<str>,
    pub(crate) token: SecretString,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // Only a route outside of `layer` could come here without.
        parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(|| Failure::internal("a route that needs a caller has none"))
    }
}

/// Around all routes that need a token.
pub(crate) async fn layer(State(api): State<Arc<ControlApi>>, mut request: Request, next: Next) -> Response {
    match check(&api, request.headers()).await {
        Ok(caller) => {
            tracing::debug!(caller.name = %caller.name, "authenticated");
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

async fn check(api: &ControlApi, headers: &HeaderMap) -> Result<Caller, Failure> {
    let token = bearer(headers)?;
    let info = admit(api.store.api_token_check(token).await?, Utc::now())?;
    Ok(Caller { name: info.name.into(), token: SecretString::from(token) })
}

/// The token's row, where it is still good.
fn admit(info: Option<TokenInfo>, now: DateTime<Utc>) -> Result<TokenInfo, Failure> {
    let Some(info) = info else {
        let detail =
            "the token in the header `authorization` is not one of this host's, was replaced, or has expired";
        return Err(Failure::new(code::TOKEN_UNKNOWN, format!("{detail}: {WHERE}")));
    };
    match info.expires_at {
        Some(at) if at <= now => Err(Failure::new(
            code::TOKEN_EXPIRED,
            format!("the token {:?} expired at {at}: {WHERE}", info.name),
        )),
        _ => Ok(info),
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    let malformed = |what: &str| {
        let detail = format!("{what}: expected the one header `authorization: Bearer hyt_…`");
        Failure::new(code::TOKEN_MALFORMED, detail)
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Failure::new(
            code::TOKEN_MISSING,
            format!("this route needs a token in the header `authorization: Bearer hyt_…`; {WHERE}"),
        ));
    };
    if values.next().is_some() {
        return Err(malformed("there are several `authorization` headers"));
    }
    let value = value.to_str().map_err(|_| malformed("the header `authorization` is not plain text"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed("the header `authorization` is of another scheme than Bearer"));
    }
    let token = token.trim();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !token.starts_with("hyt_") || token.len() > MAX_TOKEN || !token.bytes().all(is_plain) {
        return Err(malformed(
            "the header `authorization` bears no token of Hythe, which begins with `hyt_`",
        ));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_token_is_good_until_its_time() {
        let now = Utc::now();
        let token = |expires_at| Some(TokenInfo { name: "ci".to_owned(), created_at: now, expires_at });
        assert!(admit(token(None), now).is_ok());
        assert!(admit(token(Some(now + TimeDelta::seconds(1))), now).is_ok());
        assert_eq!(admit(token(Some(now)), now).unwrap_err().code(), "token_expired");
        assert_eq!(admit(None, now).unwrap_err().code(), "token_unknown");
    }
}
