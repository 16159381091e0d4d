//! Labels of host names as they were before, which stand in bookmarks, webhooks and OAuth settings.
//!
//! `<port>__<slug>`, `mach_<26 characters>`, `<port>__mach_<26 characters>`; before a custom domain also
//! `<port>` and `<service>` alone. They are served for good, and never made any more.

use crate::host_name::{HostNameError, parse_port};
use crate::id::MachineId;
use crate::name::{MAX_SERVICE, ServiceName};

/// What parts a port from what follows it.
const PORT_MARK: &str = "__";
/// What every label of a machine begins with.
const MACHINE_MARK: &str = "mach_";

/// A label in an old form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldLabel<'a> {
    /// None: the default service.
    pub port: Option<u16>,
    pub name: OldName<'a>,
}

/// Whom an old label names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldName<'a> {
    /// The deployment that took this machine's place.
    Machine(MachineId),
    /// A project, by a slug that may be of the old pattern (`^[a-z0-9-]+$`).
    Project(&'a str),
}

impl<'a> OldLabel<'a> {
    /// Reads one label, lower-cased already; none where it is not of an old form.
    ///
    /// # Errors
    /// A port that is none, or a machine's id that is none.
    pub fn parse(label: &'a str) -> Result<Option<Self>, HostNameError> {
        let (port, name) = match label.split_once(PORT_MARK) {
            Some((port, name)) => (Some(parse_port(port)?), name),
            None if label.starts_with(MACHINE_MARK) => (None, label),
            None => return Ok(None),
        };
        let name = if name.starts_with(MACHINE_MARK) {
            OldName::Machine(name.parse().map_err(|error: crate::IdError| HostNameError::Invalid {
                label: label.to_owned(),
                reason: error.to_string(),
            })?)
        } else {
            OldName::Project(name)
        };
        Ok(Some(Self { port, name }))
    }
}

/// The one label that may stand before a custom domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainPrefix {
    Port(u16),
    Service(ServiceName),
    Machine { port: Option<u16>, machine: MachineId },
}

impl DomainPrefix {
    /// Reads one label, lower-cased already; none where it is none of these.
    #[must_use]
    pub fn parse(label: &str) -> Option<Self> {
        match OldLabel::parse(label) {
            Ok(Some(OldLabel { port, name: OldName::Machine(machine) })) => {
                return Some(Self::Machine { port, machine });
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return None,
        }
        if label.starts_with(|c: char| c.is_ascii_digit()) {
            return parse_port(label).ok().map(Self::Port);
        }
        // Most labels before a wildcard's domain are no service's name: then without the cost of an error.
        let may_be_name = label.len() <= MAX_SERVICE && !label.contains("--");
        may_be_name.then(|| label.parse().ok().map(Self::Service)).flatten()
    }
}

/// The port that a service's name meant before, where the deployment declares no service of that name.
#[must_use]
pub fn old_service_port(service: &ServiceName) -> Option<u16> {
    match service.as_str() {
        "opencode" => Some(4096),
        "daemon" => Some(3000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "mach_01h455vb4pex5vsknk084sn02q";

    #[test]
    fn every_old_label_is_read() {
        let machine: MachineId = MACHINE.parse().unwrap();
        let check = |label: &str, port, name| {
            assert_eq!(OldLabel::parse(label), Ok(Some(OldLabel { port, name })), "{label}");
        };
        check("3000__shop", Some(3000), OldName::Project("shop"));
        check("1__9lives", Some(1), OldName::Project("9lives"));
        check(MACHINE, None, OldName::Machine(machine));
        check(&format!("65535__{MACHINE}"), Some(65535), OldName::Machine(machine));
        for label in ["shop", "3000--shop", "9lives", "", "machine", "3000"] {
            assert_eq!(OldLabel::parse(label), Ok(None), "{label}");
        }
        for label in ["0__shop", "65536__shop", "x__shop", "080__shop", "__shop", "+1__shop"] {
            assert!(matches!(OldLabel::parse(label), Err(HostNameError::InvalidPort(_))), "{label}");
        }
        for label in ["mach_", "mach_short", "80__mach_x", &format!("{MACHINE}0")] {
            assert!(matches!(OldLabel::parse(label), Err(HostNameError::Invalid { .. })), "{label}");
        }
    }

    #[test]
    fn what_may_stand_before_a_domain() {
        let machine: MachineId = MACHINE.parse().unwrap();
        assert_eq!(DomainPrefix::parse("3000"), Some(DomainPrefix::Port(3000)));
        assert_eq!(DomainPrefix::parse("api"), Some(DomainPrefix::Service("api".parse().unwrap())));
        assert_eq!(DomainPrefix::parse(MACHINE), Some(DomainPrefix::Machine { port: None, machine }));
        let with_port = format!("80__{MACHINE}");
        assert_eq!(DomainPrefix::parse(&with_port), Some(DomainPrefix::Machine { port: Some(80), machine }));
        for label in ["", "0", "65536", "03000", "80__shop", "mach_x", "a--b", "xn--a", "a_b", "-a"] {
            assert_eq!(DomainPrefix::parse(label), None, "{label}");
        }
    }
}
