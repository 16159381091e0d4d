//! Name → certificate. Immutable; a change makes another.

use std::collections::HashMap;
use std::sync::Arc;

use super::certificate::{Certificate, CertificateWarning};
use super::development::DevelopmentCa;

#[derive(Debug)]
pub(super) struct Table {
    exact: HashMap<String, Arc<Certificate>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<Certificate>>,
    default: Option<Arc<Certificate>>,
    development: Option<Arc<DevelopmentCa>>,
    /// In the order of the settings.
    certificates: Vec<Arc<Certificate>>,
}

impl Table {
    /// Of certificates from files. Warns of names that two have.
    pub(super) fn new(
        certificates: Vec<Arc<Certificate>>,
        development: Option<Arc<DevelopmentCa>>,
    ) -> (Self, Vec<CertificateWarning>) {
        let mut warnings = Vec::new();
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        for certificate in &certificates {
            for name in &certificate.by_name().exact {
                put(&mut exact, name, name.clone(), certificate, &mut warnings);
            }
            for name in &certificate.by_name().wildcard {
                put(&mut wildcard, name, format!("*.{name}"), certificate, &mut warnings);
            }
        }
        let default = certificates.iter().find(|certificate| certificate.is_default()).cloned();
        (Self { exact, wildcard, default, development, certificates }, warnings)
    }

    /// `name` in lower case; `None`: the client named none.
    pub(super) fn find(&self, name: Option<&str>) -> Option<Arc<Certificate>> {
        let Some(name) = name else {
            return self.default.clone().or_else(|| self.development.as_ref()?.unnamed());
        };
        if let Some(certificate) = self.exact.get(name) {
            return Some(certificate.clone());
        }
        if let Some((_, parent)) = name.split_once('.')
            && let Some(certificate) = self.wildcard.get(parent)
        {
            return Some(certificate.clone());
        }
        self.development
            .as_ref()
            .and_then(|development| development.certificate(name))
            .or_else(|| self.default.clone())
    }

    pub(super) fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    pub(super) fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.development.is_none()
    }
}

/// The one that ends later answers; of equals the earlier in the settings.
fn put(
    map: &mut HashMap<String, Arc<Certificate>>,
    key: &str,
    shown: String,
    certificate: &Arc<Certificate>,
    warnings: &mut Vec<CertificateWarning>,
) {
    let Some(other) = map.get(key) else {
        map.insert(key.to_owned(), certificate.clone());
        return;
    };
    if Arc::ptr_eq(other, certificate) {
        return;
    }
    let later = certificate.not_after() > other.not_after();
    let (used, unused) = if later { (certificate, other) } else { (other, certificate) };
    let path = |of: &Arc<Certificate>| of.path().unwrap_or(std::path::Path::new("")).to_owned();
    warnings.push(CertificateWarning::SameName { name: shown, used: path(used), unused: path(unused) });
    if later {
        map.insert(key.to_owned(), certificate.clone());
    }
}
