//! The host names that lead to deployments, and their one meaning.
//!
//! `<slug>.<base>` follows the project's primary deployment, `dep-<26 characters>.<base>` is one
//! deployment for good; `<service-or-port>--` before either names a service. Old forms are in `old_label`.

use crate::id::DeploymentId;
use crate::name::{MAX_LABEL, ServiceName, Slug};

/// What a label says about the service: its name, or a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceSelector {
    Name(ServiceName),
    Port(u16),
}

impl std::fmt::Display for ServiceSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// Whom a label names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostTarget {
    /// The project's primary deployment.
    Project(Slug),
    /// This deployment.
    Deployment(DeploymentId),
}

/// Whom a label names, and not yet whether that can be: borrowed, for the request path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRef<'a> {
    /// Not checked: no project has a slug that is none.
    Project(&'a str),
    Deployment(DeploymentId),
}

/// A label below the base domain, read without a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLabel<'a> {
    /// None: the default service.
    pub service: Option<ServiceSelector>,
    pub name: NameRef<'a>,
}

impl<'a> HostLabel<'a> {
    /// Reads one label, lower-cased already, without the base domain. Allocates only for errors.
    ///
    /// # Errors
    /// Where the label is too long, or its service or its deployment is none.
    pub fn parse(label: &'a str) -> Result<Self, HostNameError> {
        if label.len() > MAX_LABEL {
            return Err(HostNameError::TooLong(label.to_owned()));
        }
        let (service, name) = match label.split_once("--") {
            Some((service, name)) => (Some(ServiceSelector::parse(label, service)?), name),
            None => (None, label),
        };
        let name = match name.strip_prefix("dep-") {
            Some(suffix) => NameRef::Deployment(DeploymentId::from_suffix(suffix).map_err(|error| {
                HostNameError::Invalid { label: label.to_owned(), reason: error.to_string() }
            })?),
            None => NameRef::Project(name),
        };
        Ok(Self { service, name })
    }
}

/// A host below the base domain, understood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName {
    /// None: the default service.
    pub service: Option<ServiceSelector>,
    pub target: HostTarget,
}

/// Why a label leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    #[error("the host label {0:?} is longer than 63 characters")]
    TooLong(String),
    #[error("the port {0:?} in the host name is not a number from 1 to 65535")]
    InvalidPort(String),
    #[error("the host label {label:?} names no project, deployment or service: {reason}")]
    Invalid { label: String, reason: String },
}

impl HostName {
    /// Reads one label, lower-cased already, without the base domain.
    ///
    /// # Errors
    /// Where it is not of one of the forms above.
    pub fn parse(label: &str) -> Result<Self, HostNameError> {
        let HostLabel { service, name } = HostLabel::parse(label)?;
        let target = match name {
            NameRef::Deployment(id) => HostTarget::Deployment(id),
            NameRef::Project(slug) => {
                HostTarget::Project(slug.parse().map_err(|error: crate::NameError| {
                    HostNameError::Invalid { label: label.to_owned(), reason: error.to_string() }
                })?)
            }
        };
        Ok(Self { service, target })
    }

    /// The label, where it fits into one.
    ///
    /// # Errors
    /// Where it would pass 63 characters; nothing is cut.
    pub fn label(&self) -> Result<String, HostNameError> {
        let name = match &self.target {
            HostTarget::Project(slug) => slug.to_string(),
            HostTarget::Deployment(id) => format!("dep-{}", id.suffix()),
        };
        let label = match &self.service {
            Some(service) => format!("{service}--{name}"),
            None => name,
        };
        if label.len() > MAX_LABEL { Err(HostNameError::TooLong(label)) } else { Ok(label) }
    }
}

impl ServiceSelector {
    /// Reads what stands before `--` in `label`.
    ///
    /// # Errors
    /// Where it is neither a port nor a service's name.
    pub fn parse(label: &str, service: &str) -> Result<Self, HostNameError> {
        if service.starts_with(|c: char| c.is_ascii_digit()) {
            return parse_port(service).map(Self::Port);
        }
        service.parse().map(Self::Name).map_err(|error: crate::NameError| HostNameError::Invalid {
            label: label.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// A port in its one decimal form.
pub(crate) fn parse_port(port: &str) -> Result<u16, HostNameError> {
    let canonical = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if canonical => Ok(port),
        _ => Err(HostNameError::InvalidPort(port.to_owned())),
    }
}

/// All labels that a deployment's services give under this slug and its own name. Used to refuse,
/// when a deployment is made, names that would not fit.
///
/// # Errors
/// The first label that would pass 63 characters.
pub fn host_labels<'a>(
    slug: &Slug,
    deployment: DeploymentId,
    services: impl IntoIterator<Item = &'a ServiceName>,
) -> Result<Vec<String>, HostNameError> {
    let targets = [HostTarget::Project(slug.clone()), HostTarget::Deployment(deployment)];
    let mut labels = Vec::new();
    for target in &targets {
        labels.push(HostName { service: None, target: target.clone() }.label()?);
    }
    for service in services {
        for target in &targets {
            let service = Some(ServiceSelector::Name(service.clone()));
            labels.push(HostName { service, target: target.clone() }.label()?);
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read() {
        let id: DeploymentId = "dep_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        let slug: Slug = "shop".parse().unwrap();
        let check = |label: &str, service: Option<ServiceSelector>, target: HostTarget| {
            let host = HostName { service, target };
            assert_eq!(HostName::parse(label).as_ref(), Ok(&host));
            assert_eq!(host.label().unwrap(), label);
        };
        let web = ServiceSelector::Name("web".parse().unwrap());
        check("shop", None, HostTarget::Project(slug.clone()));
        check("web--shop", Some(web.clone()), HostTarget::Project(slug.clone()));
        check("3000--shop", Some(ServiceSelector::Port(3000)), HostTarget::Project(slug));
        check("dep-01h455vb4pex5vsknk084sn02q", None, HostTarget::Deployment(id));
        check("web--dep-01h455vb4pex5vsknk084sn02q", Some(web), HostTarget::Deployment(id));
    }

    #[test]
    fn what_is_none_of_the_forms_is_refused() {
        for label in [
            "",
            "0--shop",
            "65536--shop",
            "080--shop",
            "80x--shop",
            "dep-short",
            "a--b--c",
            "Shop",
            "--shop",
            "web--",
        ] {
            assert!(HostName::parse(label).is_err(), "{label}");
        }
        assert!(matches!(HostName::parse(&"a".repeat(64)), Err(HostNameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn a_label_that_is_read_is_written_the_same(label in "[a-z0-9-]{0,66}") {
            if let Ok(host) = HostName::parse(&label) {
                prop_assert_eq!(host.label().unwrap(), label);
            }
        }
    }
}
