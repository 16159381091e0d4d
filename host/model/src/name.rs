//! Names that become DNS labels: slugs, service names. Checked when they are made, never cut.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest DNS label (RFC 1035, section 2.3.4), in bytes.
pub const MAX_LABEL: usize = 63;
/// The longest slug, in bytes: leaves room for `<service>--` before it in one label.
const MAX_SLUG: usize = 50;
/// The longest service name, in bytes: IANA's bound for service names (RFC 6335, section 5.1).
pub(crate) const MAX_SERVICE: usize = 15;
/// Names that mean something else in a host name.
const RESERVED: [&str; 4] = ["xn", "machines", "prj", "org"];

/// Why a name is refused. Says what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} is empty: give it 1 to {max} characters")]
    Empty { what: &'static str, max: usize },
    #[error("{what} {name:?} has {length} characters: at most {max} fit in a host name")]
    TooLong { what: &'static str, name: String, length: usize, max: usize },
    #[error(
        "{what} {name:?} has {found:?} at character {at}: only a-z, 0-9 and `-` may stand in a host name"
    )]
    BadCharacter { what: &'static str, name: String, found: char, at: usize },
    #[error("{what} {name:?} must begin with a letter")]
    BadStart { what: &'static str, name: String },
    #[error("{what} {name:?} must end with a letter or a digit")]
    BadEnd { what: &'static str, name: String },
    #[error("{what} {name:?} has `--`, which parts a service from a name in a host name")]
    DoubleHyphen { what: &'static str, name: String },
    #[error("{what} {name:?} is reserved: choose another")]
    Reserved { what: &'static str, name: String },
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    let named = || name.to_owned();
    if name.is_empty() {
        return Err(NameError::Empty { what, max });
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some((index, found)) = name.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return Err(NameError::BadCharacter { what, name: named(), found, at: index + 1 });
    }
    if name.len() > max {
        return Err(NameError::TooLong { what, name: named(), length: name.len(), max });
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(NameError::BadStart { what, name: named() });
    }
    if name.ends_with('-') {
        return Err(NameError::BadEnd { what, name: named() });
    }
    if name.contains("--") {
        return Err(NameError::DoubleHyphen { what, name: named() });
    }
    if name.starts_with("dep-") || RESERVED.contains(&name) {
        return Err(NameError::Reserved { what, name: named() });
    }
    Ok(())
}

/// A short text in place: copied without an allocation, as request paths do.
///
/// Ordered and hashed by its bytes, zeros behind them; no name has a zero, so this is the order of the texts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Short([u8; MAX_SERVICE]);

impl Short {
    fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(MAX_SERVICE);
        // Made from a checked name only, which is ASCII.
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl From<&str> for Short {
    fn from(name: &str) -> Self {
        let mut bytes = [0; MAX_SERVICE];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Self(bytes)
    }
}

/// A text of its own length: two words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Long(Box<str>);

impl Long {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Long {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:expr, $storage:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type($storage);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($type)).field(&self.as_str()).finish()
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check($what, name, $max)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(/// A project's name in host names: `^[a-z]([a-z0-9-]*[a-z0-9])?$`, at most 50 characters, no `--`,
      /// no `dep-` in front, none of the reserved words.
      Slug, "slug", MAX_SLUG, Long);
name!(/// A service's name in host names: as a slug, at most 15 characters.
      ServiceName, "service name", MAX_SERVICE, Short);
name!(/// What a deployment's `runtimeType` names: an adapter. As a slug.
      RuntimeType, "runtime type", MAX_SLUG, Long);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn refused(name: &str, because: &str) {
        let error = name.parse::<Slug>().unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn bad_slugs_are_refused_with_the_reason() {
        refused("", "is empty");
        refused("Shop", "'S' at character 1");
        refused("my_shop", "'_' at character 3");
        refused("9lives", "begin with a letter");
        refused("shop-", "must end with");
        refused("a--b", "parts a service from a name");
        refused("dep-x", "reserved");
        refused("org", "reserved");
        refused(&"a".repeat(51), "at most 50");
    }

    proptest! {
        #[test]
        fn a_name_is_the_text_that_it_was_made_of(a in "[a-z0-9-]{1,16}", b in "[a-z0-9-]{1,16}") {
            let (Ok(short), Ok(long)) = (a.parse::<ServiceName>(), a.parse::<Slug>()) else { return Ok(()) };
            prop_assert_eq!((short.as_str(), long.as_str()), (a.as_str(), a.as_str()));
            prop_assert_eq!(serde_json::to_value(&short).unwrap(), a.as_str());
            if let (Ok(other), Ok(other_long)) = (b.parse::<ServiceName>(), b.parse::<Slug>()) {
                prop_assert_eq!(short.cmp(&other), a.cmp(&b));
                prop_assert_eq!(long.cmp(&other_long), a.cmp(&b));
            }
        }

        #[test]
        fn what_is_accepted_is_a_dns_label(name in "[a-z0-9-]{1,70}") {
            if let Ok(slug) = name.parse::<Slug>() {
                prop_assert!(slug.as_str().len() <= MAX_LABEL);
                prop_assert!(!slug.as_str().starts_with('-') && !slug.as_str().ends_with('-'));
            }
        }
    }
}
