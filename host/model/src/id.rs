//! TypeIDs: a prefix, `_`, and 26 base32 characters of a UUIDv7 (TypeID specification 0.3).
//!
//! In memory and in the database an id is its UUID; the prefix exists at the edges (API, logs, WIT).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

/// Why a string is not an id of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is not a {what} id: expected `{prefix}_` and 26 characters, such as `{prefix}_01h455vb4pex5vsknk084sn02q`"
)]
pub struct IdError {
    value: String,
    what: &'static str,
    prefix: &'static str,
}

/// Which thing an id names: its prefix and the word for it in messages.
pub trait IdKind: StaticType + Copy + Eq + Ord + std::hash::Hash {
    /// The word for people: "deployment".
    const WHAT: &'static str;
}

/// A suffix by itself.
#[derive(Default)]
struct Bare;
impl StaticType for Bare {
    const TYPE: &'static str = "";
}

/// An identifier that can't be confused with one of another kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypedId<K> {
    uuid: Uuid,
    kind: std::marker::PhantomData<K>,
}

impl<K: IdKind> TypedId<K> {
    /// A new id, sorting after the earlier ones of this process.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each call gives another id")]
    pub fn new() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The id that the database column holds.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self { uuid, kind: std::marker::PhantomData }
    }

    /// What the database column holds.
    #[must_use]
    pub const fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The 26 characters after the prefix, as in a deployment's host label.
    #[must_use]
    pub fn suffix(&self) -> String {
        let text = self.to_string();
        text[K::TYPE.len() + 1..].to_owned()
    }

    /// The id whose [`suffix`](Self::suffix) this is.
    ///
    /// # Errors
    /// Where it is not 26 characters of the TypeID alphabet.
    pub fn from_suffix(suffix: &str) -> Result<Self, IdError> {
        // Without a copy: host names are read this way, once for many requests.
        suffix.parse::<TypeSafeId<Bare>>().map(|id| Self::from_uuid(id.uuid())).map_err(|_| IdError {
            value: suffix.to_owned(),
            what: K::WHAT,
            prefix: K::TYPE,
        })
    }
}

impl<K: IdKind> fmt::Display for TypedId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TypeSafeId::<K>::from_uuid(self.uuid).fmt(f)
    }
}

impl<K: IdKind> fmt::Debug for TypedId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<K: IdKind> FromStr for TypedId<K> {
    type Err = IdError;

    fn from_str(value: &str) -> Result<Self, IdError> {
        value.parse::<TypeSafeId<K>>().map(|id| Self::from_uuid(id.uuid())).map_err(|_| IdError {
            value: value.to_owned(),
            what: K::WHAT,
            prefix: K::TYPE,
        })
    }
}

impl<K: IdKind> Serialize for TypedId<K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: IdKind> Deserialize<'de> for TypedId<K> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $alias:ident, $kind:ident, $prefix:literal, $what:literal) => {
        #[doc(hidden)]
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $kind;
        impl StaticType for $kind {
            const TYPE: &'static str = $prefix;
        }
        impl IdKind for $kind {
            const WHAT: &'static str = $what;
        }
        $(#[$doc])*
        pub type $alias = TypedId<$kind>;
    };
}

id!(/// `prj_…`
    ProjectId, ProjectKind, "prj", "project");
id!(/// `dep_…`
    DeploymentId, DeploymentKind, "dep", "deployment");
id!(/// `mach_…`
    MachineId, MachineKind, "mach", "machine");
id!(/// `agt_…`: an agent of the user's domain, not the daemon.
    AgentId, AgentKind, "agt", "agent");
id!(/// `adp_…`
    AdapterId, AdapterKind, "adp", "adapter");
id!(/// `exec_…`: one command run inside a deployment.
    ExecutionId, ExecutionKind, "exec", "execution");
id!(/// `usr_…`
    UserId, UserKind, "usr", "user");
id!(/// `org_…`
    OrganizationId, OrganizationKind, "org", "organization");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_uuid_are_the_same_id() {
        let id = DeploymentId::new();
        assert_eq!(id.to_string().parse::<DeploymentId>().unwrap(), id);
        assert_eq!(DeploymentId::from_suffix(&id.suffix()).unwrap(), id);
        assert_eq!(id.suffix().len(), 26);
    }

    #[test]
    fn another_kinds_id_is_refused_with_what_was_wanted() {
        let error = ProjectId::new().to_string().parse::<DeploymentId>().unwrap_err();
        assert!(error.to_string().contains("is not a deployment id: expected `dep_`"), "{error}");
    }
}
