//! One meaning for a host, however it was written.

use std::net::Ipv6Addr;

/// A host as all of ingress sees it: lower case, no trailing dot, the port in its one decimal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CanonicalHost {
    text: String,
    host_len: usize,
}

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostError {
    Name,
    Port,
}

impl CanonicalHost {
    /// Reads the value of a `Host` header, or a URI's authority (RFC 9110, section 7.2). Internationalised
    /// names come as `xn--` (RFC 5890): other bytes than ASCII are refused, as is user information.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, HostError> {
        if let Some(literal) = raw.strip_prefix(b"[") {
            return Self::parse_ipv6(literal);
        }
        let (host, port) = match raw.iter().position(|byte| *byte == b':') {
            Some(at) => (&raw[..at], Some(parse_port(&raw[at + 1..])?)),
            None => (raw, None),
        };
        let host = host.strip_suffix(b".").unwrap_or(host);
        if host.is_empty() || host.len() > 253 {
            return Err(HostError::Name);
        }
        let mut text = String::with_capacity(host.len() + 6);
        let mut label = 0;
        for byte in host {
            match byte {
                b'.' if label == 0 => return Err(HostError::Name),
                b'.' => label = 0,
                // `_` stands in old forms of hosts, which live on as aliases.
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'A'..=b'Z' if label < 63 => label += 1,
                _ => return Err(HostError::Name),
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
        if label == 0 {
            return Err(HostError::Name);
        }
        Ok(Self::with_port(text, port))
    }

    fn parse_ipv6(literal: &[u8]) -> Result<Self, HostError> {
        let at = literal.iter().position(|byte| *byte == b']').ok_or(HostError::Name)?;
        let address = std::str::from_utf8(&literal[..at]).map_err(|_| HostError::Name)?;
        let address: Ipv6Addr = address.parse().map_err(|_| HostError::Name)?;
        let port = match &literal[at + 1..] {
            [] => None,
            [b':', port @ ..] => Some(parse_port(port)?),
            _ => return Err(HostError::Name),
        };
        Ok(Self::with_port(format!("[{address}]"), port))
    }

    fn with_port(mut text: String, port: Option<u16>) -> Self {
        let host_len = text.len();
        if let Some(port) = port {
            text.push(':');
            text.push_str(&port.to_string());
        }
        Self { text, host_len }
    }

    /// Without the port.
    pub(crate) fn host(&self) -> &str {
        &self.text[..self.host_len]
    }

    /// With the port, where one was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn parse_port(port: &[u8]) -> Result<u16, HostError> {
    if port.is_empty() || port.len() > 5 || !port.iter().all(u8::is_ascii_digit) {
        return Err(HostError::Port);
    }
    let number = port.iter().fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(HostError::Port),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_in_many_ways_is_one_host() {
        let check = |raw: &str, host: &str, text: &str| {
            let canonical = CanonicalHost::parse(raw.as_bytes()).unwrap();
            assert_eq!((canonical.host(), canonical.as_str()), (host, text), "{raw}");
        };
        check("shop.localhost", "shop.localhost", "shop.localhost");
        check("SHOP.LocalHost.", "shop.localhost", "shop.localhost");
        check("shop.localhost.:0080", "shop.localhost", "shop.localhost:80");
        check("3000__shop.localhost:8080", "3000__shop.localhost", "3000__shop.localhost:8080");
        check("127.0.0.1:1", "127.0.0.1", "127.0.0.1:1");
        check("[0:0::1]:8080", "[::1]", "[::1]:8080");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for raw in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.b..",
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "a%2eb",
            "ä.localhost",
            "a\tb",
            "[::1",
            "[::1]x",
            "[x]",
            "a;b",
            "a\\b",
            "a#b",
            "a?b",
        ] {
            assert_eq!(CanonicalHost::parse(raw.as_bytes()), Err(HostError::Name), "{raw}");
        }
        for raw in ["a:", "a:0", "a:65536", "a:x", "a:+80", "a:80:80", "a: 80", "a:000080", "[::1]:"] {
            assert_eq!(CanonicalHost::parse(raw.as_bytes()), Err(HostError::Port), "{raw}");
        }
        assert!(CanonicalHost::parse("a".repeat(64).as_bytes()).is_err());
        assert!(CanonicalHost::parse(["a".repeat(63).as_str(); 4].join(".").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_canonical_host_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(canonical) = CanonicalHost::parse(&raw) {
                let again = CanonicalHost::parse(canonical.as_str().as_bytes()).unwrap();
                prop_assert_eq!(&again, &canonical);
                prop_assert!(canonical.as_str().bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
            }
        }

        #[test]
        fn case_dot_and_port_do_not_change_the_host(host in "[a-z0-9-]{1,20}(\\.[a-z0-9-]{1,20}){0,3}", port in 1_u16..) {
            let plain = CanonicalHost::parse(host.as_bytes()).unwrap();
            let dressed = format!("{}.:{port}", host.to_uppercase());
            let dressed = CanonicalHost::parse(dressed.as_bytes()).unwrap();
            prop_assert_eq!(plain.host(), dressed.host());
        }
    }
}
