//! One meaning for a request's target: refused where readers differ about it, and otherwise passed on byte
//! for byte, since only the app knows what `..` or `%2F` are to it.
//!
//! A fragment never gets here: the library under us drops it from every target, and apps get it without.

/// Why a path can be read in two ways.
///
/// `target`: path and query, as they came.
pub(crate) fn check(target: &str) -> Result<(), &'static str> {
    let bytes = target.as_bytes();
    let path_end = bytes.iter().position(|byte| *byte == b'?').unwrap_or(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            // RFC 3986, section 2: nothing else is a character of a URI. Browsers send some of these in queries.
            0..=b' ' | 0x7f.. => {
                return Err("the request's target holds a byte that must be percent-encoded");
            }
            b'\\' if at < path_end => {
                return Err(
                    "the request's path holds a backslash, which some take for a slash: encode it as %5C",
                );
            }
            b'%' if at < path_end => match bytes.get(at + 1..at + 3) {
                Some(b"00") => return Err("the request's path holds an encoded NUL"),
                Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {}
                _ => return Err("the request's path holds a % that is not followed by two hex digits"),
            },
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_differ_about_is_refused() {
        for good in ["/", "*", "/a/../b", "/%2e%2E/%2F", "//a", "/a?b=%zz\\", "/?a=%00", "/a;b=c:@!$&'()*+,"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["/a\\b", "/%zz", "/%", "/%a", "/a%00", "/\u{e4}", "/a b", "/?\u{e4}", "/\t"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
