//! Custom domains: names that users own, and lead to their projects.

use std::fmt;
use std::str::FromStr;

use crate::name::MAX_LABEL;

/// The longest host name, in bytes (RFC 1035, section 2.3.4, without the root).
pub const MAX_HOST: usize = 253;
/// What stands before a domain whose every direct child is meant.
const WILDCARD: &str = "*.";

/// A registered domain: `shop.example.com`, or `*.shop.example.com` for every name that is one label longer.
///
/// Lower case, without a dot at the end; international names in their `xn--` form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Box<str>);

/// Why a text is no domain. Says what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("the domain {domain:?} has {length} characters: it must have 1 to {MAX_HOST}")]
    Length { domain: String, length: usize },
    #[error("the domain {domain:?} has the part {label:?}: each part has 1 to {MAX_LABEL} characters")]
    LabelLength { domain: String, label: String },
    #[error(
        "the domain {domain:?} has the part {label:?}: only a-z, 0-9 and, inside, `-` may stand in it (international names in their `xn--` form)"
    )]
    BadLabel { domain: String, label: String },
    #[error(
        "the domain {0:?} has a `*` that is not its whole first part: write `*.example.com`, which stands for one part"
    )]
    BadWildcard(String),
    #[error(
        "{0:?} is no domain that one can own: give one of at least two parts, such as `shop.example.com`"
    )]
    TooShort(String),
    #[error("{0:?} is an address: give a domain, such as `shop.example.com`")]
    Address(String),
}

impl Domain {
    /// As it is registered, `*.` and all.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for every name that is one label longer.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(WILDCARD)
    }

    /// Without `*.`.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.0.strip_prefix(WILDCARD).unwrap_or(&self.0)
    }

    /// Whether it is that domain or lies below it (a wildcard also where its children do).
    #[must_use]
    pub fn is_within(&self, domain: &str) -> bool {
        let below = |name: &str, domain: &str| {
            name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        below(self.parent(), domain)
            || (self.is_wildcard() && domain.split_once('.').is_some_and(|(_, rest)| rest == self.parent()))
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let domain = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if domain.is_empty() || domain.len() > MAX_HOST {
            return Err(DomainError::Length { length: domain.len(), domain });
        }
        let name = domain.strip_prefix(WILDCARD).unwrap_or(&domain);
        for label in name.split('.') {
            if label.contains('*') {
                return Err(DomainError::BadWildcard(domain));
            }
            let label = label.to_owned();
            if label.is_empty() || label.len() > MAX_LABEL {
                return Err(DomainError::LabelLength { domain, label });
            }
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !label.bytes().all(allowed) || label.starts_with('-') || label.ends_with('-') {
                return Err(DomainError::BadLabel { domain, label });
            }
        }
        match name.rsplit_once('.') {
            None => Err(DomainError::TooShort(domain)),
            // No top-level domain is a number (RFC 3696, section 2); an IPv4 address ends in one.
            Some((_, top)) if top.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(DomainError::Address(domain))
            }
            Some(_) => Ok(Self(domain.into())),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_for_each_domain() {
        let check = |text: &str, spelt: &str, is_wildcard: bool| {
            let domain: Domain = text.parse().unwrap();
            assert_eq!((domain.as_str(), domain.is_wildcard()), (spelt, is_wildcard));
        };
        check("Shop.Example.COM.", "shop.example.com", false);
        check("*.shop.example.com", "*.shop.example.com", true);
        check("xn--bcher-kva.example", "xn--bcher-kva.example", false);
        check("3000.example.com", "3000.example.com", false);
    }

    #[test]
    fn what_is_no_domain_is_refused_with_the_reason() {
        let check = |text: &str, because: &str| {
            let error = text.parse::<Domain>().unwrap_err().to_string();
            assert!(error.contains(because), "{text}: {error}");
        };
        check("", "0 characters");
        check(&"a.".repeat(150), "299 characters");
        check(&format!("{}.com", "a".repeat(64)), "each part has 1 to 63");
        check("a..com", "each part");
        check("bücher.example", "xn--");
        check("a_b.example", "only a-z");
        check("-a.example", "only a-z");
        check("a.example:80", "only a-z");
        check("*.*.example.com", "`*`");
        check("a.*.com", "`*`");
        check("*a.example.com", "`*`");
        check("localhost", "at least two parts");
        check("*.com", "at least two parts");
        check("127.0.0.1", "an address");
    }

    #[test]
    fn within_means_at_or_below() {
        let within = |text: &str, base: &str| text.parse::<Domain>().unwrap().is_within(base);
        assert!(within("apps.example.com", "apps.example.com"));
        assert!(within("a.b.apps.example.com", "apps.example.com"));
        assert!(within("*.apps.example.com", "apps.example.com"));
        assert!(within("*.example.com", "apps.example.com"), "it stands for the base itself too");
        assert!(!within("myapps.example.com", "apps.example.com"));
        assert!(!within("example.com", "apps.example.com"));
        assert!(within("shop.localhost", "localhost"));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "[*a-z0-9.-]{0,40}") {
            if let Ok(domain) = text.parse::<Domain>() {
                prop_assert_eq!(domain.as_str().parse::<Domain>().unwrap(), domain);
            }
        }
    }
}
