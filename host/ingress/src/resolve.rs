//! Which deployment a host name leads to.
//!
//! In this order; nothing here allocates but for an error, and the cost does not grow with the table:
//! 1. the host itself, where it is registered (a custom domain, or a whole host of old);
//! 2. below the base domain, the derived forms (`<slug>`, `dep-…`, each with `<service-or-port>--` before it),
//!    then those of old (`<port>__<slug>`, `[<port>__]mach_…[.machines]`);
//! 3. elsewhere, the longest registered domain that it fits: `<service-or-port>--` before an exact one's
//!    first label, then one label before an exact one (`<port>.`, `<service>.`, `[<port>__]mach_….`), then a
//!    wildcard. A service's name fits only where the deployment has that service (or it is a name of old);
//!    a machine's only where its deployment belongs to the domain's project, so that no tenant
//!    answers under another one's domain.
//!
//! A wildcard's label is the app's own to read: no service or port is looked for in it.

use std::sync::Arc;

use model::{
    DeploymentId, DomainPrefix, HostLabel, HostName, HostNameError, HostTarget, MachineId, NameRef, OldLabel,
    OldName, ProjectId, ServiceSelector, old_service_port,
};

use crate::route::{AliasTarget, ByHost, ById, BySlug, Deployment, Entry, Project, Routes};

/// Where a host leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) deployment: Arc<Deployment>,
    /// None: the default service.
    pub(crate) service: Option<ServiceSelector>,
    /// The host was of an old form: browsers are sent on there.
    pub(crate) canonical: Option<Canonical>,
}

/// The derived host of what an old one led to.
#[derive(Debug, Clone)]
pub(crate) struct Canonical {
    service: Option<ServiceSelector>,
    name: CanonicalName,
}

#[derive(Debug, Clone)]
enum CanonicalName {
    Project(Arc<Project>),
    Deployment(DeploymentId),
}

impl Canonical {
    /// The whole host; none where it would not fit into a label.
    pub(crate) fn host(&self, base: &str) -> Option<String> {
        let target = match &self.name {
            CanonicalName::Project(project) => HostTarget::Project(project.slug.clone()),
            CanonicalName::Deployment(id) => HostTarget::Deployment(*id),
        };
        let label = HostName { service: self.service.clone(), target }.label().ok()?;
        Some(format!("{label}.{base}"))
    }
}

/// Why a host leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoRoute {
    InvalidHost(HostNameError),
    /// Neither registered nor below the base domain.
    ForeignHost,
    ProjectNotFound,
    /// The project is there, and none of its deployments is primary.
    NoPrimary,
    DeploymentNotFound,
    /// What stands before a custom domain is no service of its deployment.
    ServiceNotFound(ServiceSelector),
    MachineNotFound,
    MachineGone,
    HostGone,
}

impl Routes {
    /// Where a canonical host (lower case, no port, no trailing dot) leads.
    pub(crate) fn resolve(&self, host: &str) -> Result<Resolved, NoRoute> {
        let label = host.strip_suffix(self.base_domain()).and_then(|rest| rest.strip_suffix('.'));
        if let Some(ByHost(entry)) = self.hosts.get(host) {
            return self.entry(&entry, None, label.is_some());
        }
        match label {
            Some(label) => self.below_base(host, label),
            None => self.custom_domain(host),
        }
    }

    fn below_base(&self, host: &str, label: &str) -> Result<Resolved, NoRoute> {
        // A bare slug is the common case, and needs no reading.
        if let Some(BySlug(project)) = self.slugs.get(label) {
            return primary(&project).map(|deployment| Resolved {
                deployment,
                service: None,
                canonical: None,
            });
        }
        let (old_label, is_below_machines) = match label.strip_suffix(".machines") {
            Some(label) => (label, true),
            None => (label, false),
        };
        match OldLabel::parse(old_label).map_err(NoRoute::InvalidHost)? {
            Some(OldLabel { port, name: OldName::Machine(machine) }) => {
                return self.machine(machine, port.map(ServiceSelector::Port), None);
            }
            Some(OldLabel { port, name: OldName::Project(name) }) if !is_below_machines => {
                let service = port.map(ServiceSelector::Port);
                if let Some(BySlug(project)) = self.slugs.get(name) {
                    let canonical = Canonical {
                        service: service.clone(),
                        name: CanonicalName::Project(Arc::clone(&project)),
                    };
                    let deployment = primary(&project)?;
                    return Ok(Resolved { deployment, service, canonical: Some(canonical) });
                }
                // `<slug>.<base>` where the slug itself is of old.
                let rest = &host[label.len() - name.len()..];
                let ByHost(entry) = self.hosts.get(rest).ok_or(NoRoute::ProjectNotFound)?;
                return self.entry(&entry, service, true);
            }
            _ => {}
        }
        let HostLabel { service, name } = HostLabel::parse(label).map_err(NoRoute::InvalidHost)?;
        let deployment = match name {
            NameRef::Deployment(id) => self.deployment(id)?,
            NameRef::Project(slug) => match self.slugs.get(slug) {
                Some(BySlug(project)) => primary(&project)?,
                None => {
                    let rest = &host[label.len() - slug.len()..];
                    if let Some(service) = service
                        && let Some(ByHost(entry)) = self.hosts.get(rest)
                    {
                        return self.entry(&entry, Some(service), true);
                    }
                    HostName::parse(label).map_err(NoRoute::InvalidHost)?;
                    return Err(NoRoute::ProjectNotFound);
                }
            },
        };
        Ok(Resolved { deployment, service, canonical: None })
    }

    fn custom_domain(&self, host: &str) -> Result<Resolved, NoRoute> {
        let (label, parent) = host.split_once('.').ok_or(NoRoute::ForeignHost)?;
        let mut why = NoRoute::ForeignHost;
        if let Some((service, own)) = label.split_once("--")
            && let Some(ByHost(entry)) = self.hosts.get(&host[label.len() - own.len()..])
            && let Ok(service) = ServiceSelector::parse(label, service)
        {
            match self.service_of(&entry, service) {
                Err(error) if may_fit_elsewhere(&error) => why = error,
                result => return result,
            }
        }
        if let Some(ByHost(entry)) = self.hosts.get(parent)
            && let Some(prefix) = DomainPrefix::parse(label)
        {
            let result = match prefix {
                DomainPrefix::Port(port) => self.service_of(&entry, ServiceSelector::Port(port)),
                DomainPrefix::Service(name) => self.service_of(&entry, ServiceSelector::Name(name)),
                DomainPrefix::Machine { port, machine } => {
                    let project = self.project_of(&entry)?;
                    self.machine(machine, port.map(ServiceSelector::Port), Some(project))
                }
            };
            match result {
                Err(error) if may_fit_elsewhere(&error) => why = error,
                result => return result,
            }
        }
        match self.wildcards.get(parent) {
            Some(ByHost(entry)) => self.entry(&entry, None, false),
            None => Err(why),
        }
    }

    /// What an alias leads to. `is_old`: it is one of old, and browsers are sent on.
    fn entry(
        &self,
        entry: &Entry,
        service: Option<ServiceSelector>,
        is_old: bool,
    ) -> Result<Resolved, NoRoute> {
        let service = service.or_else(|| entry.service.clone());
        let (deployment, name) = match entry.target {
            AliasTarget::Gone => return Err(NoRoute::HostGone),
            AliasTarget::Project(id) => {
                let ById(project) = self.projects.get(&id).ok_or(NoRoute::ProjectNotFound)?;
                (primary(&project)?, CanonicalName::Project(project))
            }
            AliasTarget::Deployment(id) => (self.deployment(id)?, CanonicalName::Deployment(id)),
        };
        let canonical = is_old.then(|| Canonical { service: service.clone(), name });
        Ok(Resolved { deployment, service, canonical })
    }

    /// A service that stands before a domain: one that the deployment has, a port, or a name of old.
    fn service_of(&self, entry: &Entry, service: ServiceSelector) -> Result<Resolved, NoRoute> {
        let mut resolved = self.entry(entry, None, false)?;
        let service = match service {
            ServiceSelector::Port(_) => service,
            ServiceSelector::Name(name) => {
                let has =
                    resolved.deployment.state.load().services.iter().any(|service| service.name == name);
                match old_service_port(&name) {
                    _ if has => ServiceSelector::Name(name),
                    Some(port) => ServiceSelector::Port(port),
                    None => return Err(NoRoute::ServiceNotFound(ServiceSelector::Name(name))),
                }
            }
        };
        resolved.service = Some(service);
        Ok(resolved)
    }

    /// The deployment that has taken a machine's place; one of `within` only, where that is given.
    fn machine(
        &self,
        machine: MachineId,
        service: Option<ServiceSelector>,
        within: Option<ProjectId>,
    ) -> Result<Resolved, NoRoute> {
        let known = self.machines.get(&machine).ok_or(NoRoute::MachineNotFound)?.0;
        let id = known.deployment.ok_or(NoRoute::MachineGone)?;
        let deployment = self.deployment(id)?;
        match within {
            Some(project) if deployment.project.id != project => Err(NoRoute::MachineNotFound),
            Some(_) => Ok(Resolved { deployment, service, canonical: None }),
            None => {
                let name = CanonicalName::Deployment(id);
                let canonical = Some(Canonical { service: service.clone(), name });
                Ok(Resolved { deployment, service, canonical })
            }
        }
    }

    fn project_of(&self, entry: &Entry) -> Result<ProjectId, NoRoute> {
        match entry.target {
            AliasTarget::Gone => Err(NoRoute::HostGone),
            AliasTarget::Project(id) => Ok(id),
            AliasTarget::Deployment(id) => Ok(self.deployment(id)?.project.id),
        }
    }

    fn deployment(&self, id: DeploymentId) -> Result<Arc<Deployment>, NoRoute> {
        self.deployments.get(&id).map(|known| known.0).ok_or(NoRoute::DeploymentNotFound)
    }
}

fn primary(project: &Project) -> Result<Arc<Deployment>, NoRoute> {
    project.primary.load_full().ok_or(NoRoute::NoPrimary)
}

/// Whether a wildcard may be meant: what stood before the domain is nothing of its deployment's.
fn may_fit_elsewhere(error: &NoRoute) -> bool {
    matches!(error, NoRoute::ServiceNotFound(_))
}

#[cfg(test)]
mod tests;
