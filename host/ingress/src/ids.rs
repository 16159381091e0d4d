//! Names for requests. They tell requests apart in logs and traces; nothing may trust them as secrets.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// `00-<trace id>-<span id>-01` (W3C Trace Context, section 3.2).
const TRACEPARENT_LEN: usize = 55;
const ARENA: usize = 16 * 1024;

/// The 32 hex digits by which a request is known; the trace id of the `traceparent` that ingress made.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Bytes);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.0.clone()).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
    }

    /// A caller's id, where it is fit to be one: up to 128 letters, digits and `-_.:+/=`.
    pub(crate) fn from_trusted(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
        (!bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(fit))
            .then(|| Self(Bytes::copy_from_slice(bytes)))
    }
}

/// Makes ids, one source a worker.
pub(crate) struct IdSource {
    /// xoshiro256++ (Blackman and Vigna), seeded by the system.
    state: [u64; 4],
    arena: BytesMut,
}

impl IdSource {
    pub(crate) fn new() -> Self {
        let mut state = [0x9e37_79b9_7f4a_7c15, 2, 3, 4];
        for word in &mut state {
            // A system without randomness still gets ids, only not unique among hosts.
            *word ^= getrandom::u64().unwrap_or(1);
        }
        Self { state, arena: BytesMut::with_capacity(ARENA) }
    }

    /// A new id and the `traceparent` whose trace id it is.
    pub(crate) fn next(&mut self) -> (RequestId, HeaderValue) {
        if self.arena.capacity() < TRACEPARENT_LEN {
            self.arena = BytesMut::with_capacity(ARENA);
        }
        let words = [self.random(), self.random(), self.random()];
        self.arena.extend_from_slice(b"00-");
        self.hex(words[0]);
        self.hex(words[1]);
        self.arena.extend_from_slice(b"-");
        // A span id of zeros would be invalid.
        self.hex(words[2] | 1);
        self.arena.extend_from_slice(b"-01");
        let text = self.arena.split().freeze();
        let id = RequestId(text.slice(3..35));
        (id, HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("invalid")))
    }

    /// No secret.
    pub(crate) fn random(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    fn hex(&mut self, word: u64) {
        let mut text = [0; 16];
        for (pair, byte) in text.chunks_exact_mut(2).zip(word.to_be_bytes()) {
            pair.copy_from_slice(&HEX[usize::from(byte)]);
        }
        self.arena.extend_from_slice(&text);
    }
}

/// Each byte's two digits.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// Whether a `traceparent` is one that everybody reads in the same way.
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zeros = |range: std::ops::Range<usize>| value[range].iter().all(|byte| *byte == b'0');
    value.len() == TRACEPARENT_LEN
        && &value[..3] == b"00-"
        && value[35] == b'-'
        && value[52] == b'-'
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && !zeros(3..35)
        && !zeros(36..52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_and_differ() {
        let mut source = IdSource::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2000 {
            let (id, traceparent) = source.next();
            assert!(is_traceparent(traceparent.as_bytes()), "{traceparent:?}");
            assert_eq!(&traceparent.to_str().unwrap()[3..35], id.as_str());
            assert!(seen.insert(id.as_str().to_owned()));
        }
    }

    #[test]
    fn a_traceparent_is_checked() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good.as_bytes()));
        for bad in [
            "",
            &good[1..],
            &good.to_uppercase(),
            &good.replace("00-4", "01-4"),
            &good.replace("00f067aa0ba902b7", "0000000000000000"),
            &good.replace('-', "_"),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }
}
