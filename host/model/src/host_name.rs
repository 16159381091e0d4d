//! The host names that lead to deployments, and their one meaning.
//!
//! `<slug>.<base>` follows the project's primary deployment, `dep-<26 characters>.<base>` is one
//! deployment for good; `<service-or-port>--` before either names a service. Old forms are aliases,
//! looked up exactly and first; they are not parsed here.

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
        if label.len() > MAX_LABEL {
            return Err(HostNameError::TooLong(label.to_owned()));
        }
        let (service, name) = match label.split_once("--") {
            Some((service, name)) => (Some(parse_service(label, service)?), name),
            None => (None, label),
        };
        let invalid = |reason: String| HostNameError::Invalid { label: label.to_owned(), reason };
        let target = match name.strip_prefix("dep-") {
            Some(suffix) => HostTarget::Deployment(
                DeploymentId::from_suffix(suffix).map_err(|error| invalid(error.to_string()))?,
            ),
            None => HostTarget::Project(
                name.parse().map_err(|error: crate::NameError| invalid(error.to_string()))?,
            ),
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

fn parse_service(label: &str, service: &str) -> Result<ServiceSelector, HostNameError> {
    if service.starts_with(|c: char| c.is_ascii_digit()) {
        let canonical = !service.starts_with('0') && service.bytes().all(|b| b.is_ascii_digit());
        return match service.parse::<u16>() {
            Ok(port) if canonical => Ok(ServiceSelector::Port(port)),
            _ => Err(HostNameError::InvalidPort(service.to_owned())),
        };
    }
    service.parse().map(ServiceSelector::Name).map_err(|error: crate::NameError| HostNameError::Invalid {
        label: label.to_owned(),
        reason: error.to_string(),
    })
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
