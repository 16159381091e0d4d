//! A WebSocket's handshake with an app, made for a client that has none of its own (RFC 8441).

use http::header::{self, HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A key that nobody has used before.
pub(crate) fn key() -> HeaderValue {
    HeaderValue::try_from(generate_key()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether the answer is to this key (RFC 6455, section 4.1).
pub(crate) fn accepts(key: &HeaderValue, headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
    let wanted = derive_accept_key(key.as_bytes());
    given.next().is_some_and(|given| given.as_bytes() == wanted.as_bytes()) && given.next().is_none()
}
