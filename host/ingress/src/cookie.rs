//! Keeps tenants' cookies to themselves: all hosts below the base domain share it as a parent, so a cookie
//! for it would reach every other tenant's app.

use http::{HeaderMap, HeaderValue, header};

/// Takes the `Domain` attribute from every cookie that names the base domain, or a parent of it: the
/// cookie then belongs to the host that set it (RFC 6265, section 5.3, step 6).
pub(crate) fn restrict_cookies(headers: &mut HeaderMap, base: &str) {
    let header::Entry::Occupied(mut entry) = headers.entry(header::SET_COOKIE) else { return };
    for value in entry.iter_mut() {
        if let Some(restricted) = restrict(value.as_bytes(), base) {
            *value = restricted;
        }
    }
}

fn restrict(cookie: &[u8], base: &str) -> Option<HeaderValue> {
    // An attribute ends at the next semicolon, quotes or not (RFC 6265, section 5.2).
    let mut parts = cookie.split(|byte| *byte == b';');
    let pair = parts.next()?;
    if !parts.clone().any(|attribute| is_too_wide(attribute, base)) {
        return None;
    }
    let mut kept = pair.to_vec();
    for attribute in parts.filter(|attribute| !is_too_wide(attribute, base)) {
        kept.push(b';');
        kept.extend_from_slice(attribute);
    }
    HeaderValue::from_bytes(&kept).ok()
}

fn is_too_wide(attribute: &[u8], base: &str) -> bool {
    let Some(at) = attribute.iter().position(|byte| *byte == b'=') else { return false };
    if !attribute[..at].trim_ascii().eq_ignore_ascii_case(b"domain") {
        return false;
    }
    let domain = attribute[at + 1..].trim_ascii();
    let domain = domain.strip_prefix(b"\"").unwrap_or(domain);
    let domain = domain.strip_suffix(b"\"").unwrap_or(domain);
    let domain = domain.strip_prefix(b".").unwrap_or(domain);
    let domain = domain.strip_suffix(b".").unwrap_or(domain);
    let base = base.as_bytes();
    if domain.is_empty() || domain.len() > base.len() {
        return false;
    }
    let (front, back) = base.split_at(base.len() - domain.len());
    back.eq_ignore_ascii_case(domain) && (front.is_empty() || front.ends_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_for_all_tenants_becomes_one_for_its_host() {
        let check = |cookie: &str, expected: &str| {
            let mut headers = HeaderMap::new();
            headers.append(header::SET_COOKIE, HeaderValue::from_static("first=1; Path=/"));
            headers.append(header::SET_COOKIE, HeaderValue::from_str(cookie).unwrap());
            restrict_cookies(&mut headers, "apps.example.com");
            let all: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
            assert_eq!(all, ["first=1; Path=/", expected], "{cookie}");
        };
        check("a=b; Domain=apps.example.com; Path=/", "a=b; Path=/");
        check("a=b; path=/; DOMAIN = .Apps.Example.COM", "a=b; path=/");
        check("a=b;domain=example.com;Secure", "a=b;Secure");
        check("a=b; Domain=com.", "a=b");
        check("a=b; Domain=\"apps.example.com\"", "a=b");
        check("a=b; Domain=shop.apps.example.com", "a=b; Domain=shop.apps.example.com");
        check("a=b; Domain=other.org; HttpOnly", "a=b; Domain=other.org; HttpOnly");
        check("a=b; Domain=ps.example.com", "a=b; Domain=ps.example.com");
        check("a=domain=apps.example.com", "a=domain=apps.example.com");
        check("a=b; Domain=", "a=b; Domain=");
        check("a=b; Domain=apps.example.com; Domain=example.com", "a=b");
    }
}
