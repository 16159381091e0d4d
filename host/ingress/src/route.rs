//! Which deployment a host name leads to.
//!
//! A deployment and a project are one object each for as long as they are in the table; what changes
//! about them (state, incarnation, which one is primary) is swapped inside. So a change of state touches no
//! map at all, and whoever holds a deployment sees its present state.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use model::{
    DeploymentId, Health, HostName, HostNameError, HostTarget, ProjectId, Seen, Service, ServiceSelector,
    Slug, WakePolicy, Wanted,
};
use parking_lot::Mutex;

use crate::activity::{Activity, ActivityReport};
use crate::slot::{Slot, Slots};
use crate::table::Sharded;

/// What ingress has to know of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentRoute {
    pub deployment: DeploymentId,
    pub project: ProjectId,
    /// The project's.
    pub slug: Slug,
    /// Whether the project's host leads here.
    pub is_primary: bool,
    pub incarnation: u64,
    pub seen: Seen,
    pub wanted: Wanted,
    pub health: Health,
    pub wake: WakePolicy,
    /// The first one is the default service.
    pub services: Vec<Service>,
}

/// A host of its own beside the derived ones; looked up exactly, and before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Lower case, without port and trailing dot.
    pub host: String,
    pub target: AliasTarget,
    /// None: the default service.
    pub service: Option<ServiceSelector>,
}

/// Whom an alias names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AliasTarget {
    /// The project's primary deployment.
    Project(ProjectId),
    Deployment(DeploymentId),
}

/// The route table: shared by all workers, changed from outside at any time.
///
/// Look-ups take no lock and allocate nothing that grows with the table; a change of a deployment's state
/// copies nothing, and a new or removed one copies a thousandth of a map.
pub struct Routes {
    base_domain: String,
    deployments: Sharded<ById<Deployment>>,
    projects: Sharded<ById<Project>>,
    slugs: Sharded<BySlug>,
    aliases: Sharded<ByHost>,
    /// Counts changes, for what caches look-ups.
    version: AtomicU64,
    writer: Mutex<Writer>,
}

/// What only writers need, one at a time.
#[derive(Default)]
struct Writer {
    /// Lists of services that came lately. Most deployments have one of few, and share it.
    services: VecDeque<Arc<[Service]>>,
}

/// Lists to compare a new one with.
const KNOWN_SERVICES: usize = 32;

impl Writer {
    fn share(&mut self, services: Vec<Service>) -> Arc<[Service]> {
        if let Some(known) = self.services.iter().find(|known| ***known == *services) {
            return Arc::clone(known);
        }
        let services: Arc<[Service]> = services.into();
        self.services.push_front(Arc::clone(&services));
        self.services.truncate(KNOWN_SERVICES);
        services
    }
}

pub(crate) struct Project {
    id: ProjectId,
    slug: Slug,
    primary: ArcSwapOption<Deployment>,
    /// Deployments in the table that name it. Changed by writers only.
    members: AtomicU64,
}

pub(crate) struct Deployment {
    pub(crate) id: DeploymentId,
    pub(crate) project: Arc<Project>,
    pub(crate) state: ArcSwap<State>,
    pub(crate) activity: Arc<Activity>,
}

/// What is so of a deployment at one moment.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) incarnation: u64,
    pub(crate) seen: Seen,
    pub(crate) wanted: Wanted,
    pub(crate) wake: WakePolicy,
    pub(crate) services: Arc<[Service]>,
    /// The leases of this incarnation: another incarnation begins with none. Made when the first is asked
    /// for.
    slots: OnceLock<Arc<Slots>>,
}

/// Where a host leads.
pub(crate) struct Resolved {
    pub(crate) deployment: Arc<Deployment>,
    /// None: the default service.
    pub(crate) service: Option<ServiceSelector>,
}

/// Why a host leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoRoute {
    InvalidHost(HostNameError),
    /// Neither an alias nor below the base domain.
    ForeignHost,
    ProjectNotFound,
    /// The project is there, and none of its deployments is primary.
    NoPrimary,
    DeploymentNotFound,
}

impl Routes {
    /// An empty table. `base_domain` is lower-cased.
    #[must_use]
    pub fn new(base_domain: &str) -> Self {
        Self {
            base_domain: base_domain.trim_matches('.').to_ascii_lowercase(),
            deployments: Sharded::new(),
            projects: Sharded::new(),
            slugs: Sharded::new(),
            aliases: Sharded::new(),
            version: AtomicU64::new(0),
            writer: Mutex::default(),
        }
    }

    #[must_use]
    pub fn base_domain(&self) -> &str {
        &self.base_domain
    }

    /// Makes these the whole table: what is not among them goes. Deployments that were known keep their
    /// leases (of the same incarnation), activity and connections.
    pub fn replace_all(&self, deployments: Vec<DeploymentRoute>, aliases: Vec<Alias>) {
        let mut writer = self.writer.lock();
        let mut projects: HashMap<ProjectId, Arc<Project>> = HashMap::new();
        let mut next = Vec::with_capacity(deployments.len());
        for route in deployments {
            let project = Arc::clone(projects.entry(route.project).or_insert_with(|| {
                match self.projects.get(&route.project) {
                    Some(known) if known.0.slug == route.slug => {
                        known.0.members.store(0, Ordering::Relaxed);
                        known.0
                    }
                    _ => Arc::new(Project::new(route.project, route.slug.clone())),
                }
            }));
            project.members.fetch_add(1, Ordering::Relaxed);
            next.push(self.enter(&mut writer, route, project));
        }
        let present: HashSet<DeploymentId> = next.iter().map(|deployment| deployment.id).collect();
        for project in projects.values() {
            if project.primary.load().as_ref().is_some_and(|primary| !present.contains(&primary.id)) {
                project.primary.store(None);
            }
        }
        self.projects.replace_all(projects.values().map(|project| ById(Arc::clone(project))));
        self.slugs.replace_all(projects.values().map(|project| BySlug(Arc::clone(project))));
        let rung = next.clone();
        self.deployments.replace_all(next.into_iter().map(ById));
        self.aliases.replace_all(aliases.into_iter().map(|alias| ByHost(Arc::new(alias))));
        self.changed();
        for deployment in rung {
            deployment.activity.ring();
        }
    }

    /// Puts one deployment in, or brings it up to date. A new primary takes the project's host from the
    /// old one in one step.
    pub fn upsert(&self, route: DeploymentRoute) {
        let mut writer = self.writer.lock();
        let known = self.deployments.get(&route.deployment).map(|known| known.0);
        let project = match self.projects.get(&route.project) {
            Some(project) if project.0.slug == route.slug => project.0,
            old => {
                // A new project, or one with a new slug: the old slug leads nowhere any more.
                let project = Arc::new(Project::new(route.project, route.slug.clone()));
                if let Some(old) = old {
                    project.primary.store(old.0.primary.load_full());
                    project.members.store(old.0.members.load(Ordering::Relaxed), Ordering::Relaxed);
                    self.take_slug(&old.0);
                }
                self.projects.put(ById(Arc::clone(&project)));
                self.slugs.put(BySlug(Arc::clone(&project)));
                project
            }
        };
        if known.is_none() {
            project.members.fetch_add(1, Ordering::Relaxed);
        }
        let deployment = self.enter(&mut writer, route, Arc::clone(&project));
        if known.is_none_or(|known| !Arc::ptr_eq(&known, &deployment)) {
            self.deployments.put(ById(Arc::clone(&deployment)));
        }
        self.changed();
        deployment.activity.ring();
    }

    /// Takes one deployment out. Requests that run on it run on.
    pub fn remove(&self, deployment: DeploymentId) {
        let _turn = self.writer.lock();
        let Some(ById(gone)) = self.deployments.take(&deployment) else { return };
        // For requests that wait for it.
        gone.state.rcu(|state| State { seen: Seen::Destroyed, ..State::clone(state) });
        let Some(ById(project)) = self.projects.get(&gone.project.id) else { return };
        if project.primary.load().as_ref().is_some_and(|primary| primary.id == deployment) {
            project.primary.store(None);
        }
        if project.members.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.projects.take(&project.id);
            self.take_slug(&project);
        }
        self.changed();
        gone.activity.ring();
    }

    /// Puts an alias in, or in the place of the one with the same host.
    pub fn upsert_alias(&self, alias: Alias) {
        let _turn = self.writer.lock();
        self.aliases.put(ByHost(Arc::new(alias)));
        self.changed();
    }

    /// Takes an alias out.
    pub fn remove_alias(&self, host: &str) {
        let _turn = self.writer.lock();
        self.aliases.take(host);
        self.changed();
    }

    /// How many deployments the table has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deployments.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What goes on at a deployment; none where the table does not have it.
    #[must_use]
    pub fn activity(&self, deployment: DeploymentId) -> Option<ActivityReport> {
        self.deployments.get(&deployment).map(|known| known.0.activity.report())
    }

    /// Every deployment that has had a request since it came into the table, with what goes on at it.
    #[must_use]
    pub fn active(&self) -> Vec<(DeploymentId, ActivityReport)> {
        let mut active = Vec::new();
        self.deployments.for_each(|known| {
            if known.0.activity.live_if_any().is_some() {
                active.push((known.0.id, known.0.activity.report()));
            }
        });
        active
    }

    pub(crate) fn for_each_active(&self, mut f: impl FnMut(&Arc<Deployment>)) {
        self.deployments.for_each(|known| {
            if known.0.activity.live_if_any().is_some() {
                f(&known.0);
            }
        });
    }

    /// Counts changes. What was resolved at one version is right until it grows.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Where a canonical host (lower case, no port, no trailing dot) leads.
    pub(crate) fn resolve(&self, host: &str) -> Result<Resolved, NoRoute> {
        if let Some(ByHost(alias)) = self.aliases.get(host) {
            let deployment = match alias.target {
                AliasTarget::Project(project) => self
                    .projects
                    .get(&project)
                    .ok_or(NoRoute::ProjectNotFound)?
                    .0
                    .primary
                    .load_full()
                    .ok_or(NoRoute::NoPrimary)?,
                AliasTarget::Deployment(id) => {
                    self.deployments.get(&id).ok_or(NoRoute::DeploymentNotFound)?.0
                }
            };
            return Ok(Resolved { deployment, service: alias.service.clone() });
        }
        let label = host
            .strip_suffix(&*self.base_domain)
            .and_then(|rest| rest.strip_suffix('.'))
            .ok_or(NoRoute::ForeignHost)?;
        // A bare slug is the common case, and needs neither parsing nor a copy.
        if let Some(BySlug(project)) = self.slugs.get(label) {
            let deployment = project.primary.load_full().ok_or(NoRoute::NoPrimary)?;
            return Ok(Resolved { deployment, service: None });
        }
        let name = HostName::parse(label).map_err(NoRoute::InvalidHost)?;
        let deployment = match name.target {
            HostTarget::Project(slug) => self
                .slugs
                .get(slug.as_str())
                .ok_or(NoRoute::ProjectNotFound)?
                .0
                .primary
                .load_full()
                .ok_or(NoRoute::NoPrimary)?,
            HostTarget::Deployment(id) => self.deployments.get(&id).ok_or(NoRoute::DeploymentNotFound)?.0,
        };
        Ok(Resolved { deployment, service: name.service })
    }

    /// A deployment of the same project as another.
    pub(crate) fn member(&self, id: DeploymentId, of: &Deployment) -> Option<Arc<Deployment>> {
        let found = self.deployments.get(&id)?.0;
        (found.project.id == of.project.id).then_some(found)
    }

    /// Brings the deployment's object up to date, or makes it, and its project's primary with it.
    fn enter(&self, writer: &mut Writer, route: DeploymentRoute, project: Arc<Project>) -> Arc<Deployment> {
        let before = self.deployments.get(&route.deployment).map(|known| known.0);
        let activity = before.as_ref().map_or_else(Arc::default, |before| Arc::clone(&before.activity));
        let slots = match before.as_ref().map(|before| before.state.load()) {
            Some(state) if state.incarnation == route.incarnation => state.slots.clone(),
            _ => OnceLock::new(),
        };
        let state = Arc::new(State {
            incarnation: route.incarnation,
            seen: route.seen,
            wanted: route.wanted,
            wake: route.wake,
            services: writer.share(route.services),
            slots,
        });
        let known = before.filter(|before| Arc::ptr_eq(&before.project, &project));
        let deployment = match known {
            Some(known) => {
                known.state.store(state);
                known
            }
            None => Arc::new(Deployment {
                id: route.deployment,
                project: Arc::clone(&project),
                state: ArcSwap::new(state),
                activity,
            }),
        };
        let leads = project.primary.load().as_ref().map(|primary| primary.id);
        if route.is_primary {
            project.primary.store(Some(Arc::clone(&deployment)));
        } else if leads == Some(route.deployment) {
            project.primary.store(None);
        }
        deployment
    }

    /// Takes the project's slug out, unless another project has it by now.
    fn take_slug(&self, project: &Project) {
        if self.slugs.get(project.slug.as_str()).is_some_and(|found| found.0.id == project.id) {
            self.slugs.take(project.slug.as_str());
        }
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl Project {
    fn new(id: ProjectId, slug: Slug) -> Self {
        Self { id, slug, primary: ArcSwapOption::empty(), members: AtomicU64::new(0) }
    }
}

impl State {
    /// The lease of a service. Two states of one incarnation share it, unless it was first asked for while
    /// one followed the other: then it is asked for twice.
    pub(crate) fn slot(&self, service: &ServiceKey) -> Arc<Slot> {
        self.slots.get_or_init(Arc::default).slot(service)
    }

    /// The service that a request is for: `None` where the deployment declares no such name. A port
    /// that is none of the services' is for the adapter to judge.
    pub(crate) fn service(&self, selector: Option<&ServiceSelector>) -> Option<ServiceKey> {
        match selector {
            None => self.services.first().map(|service| ServiceKey::Named(service.name.clone())),
            Some(ServiceSelector::Name(name)) => self
                .services
                .iter()
                .find(|service| service.name == *name)
                .map(|service| ServiceKey::Named(service.name.clone())),
            Some(ServiceSelector::Port(port)) => Some(
                self.services
                    .iter()
                    .find(|service| service.port == *port)
                    .map_or(ServiceKey::Port(*port), |service| ServiceKey::Named(service.name.clone())),
            ),
        }
    }
}

/// A service as leases are asked for: two hosts that mean the same one share a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServiceKey {
    Named(model::ServiceName),
    Port(u16),
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// Found by its id.
struct ById<T>(Arc<T>);
/// Found by its slug.
#[derive(Clone)]
struct BySlug(Arc<Project>);
/// Found by its host.
#[derive(Clone)]
struct ByHost(Arc<Alias>);

impl<T> Clone for ById<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

macro_rules! found_by {
    ($type:ty, $key:ty, |$this:ident| $get:expr) => {
        impl Borrow<$key> for $type {
            fn borrow(&self) -> &$key {
                let $this = &self.0;
                $get
            }
        }
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                Borrow::<$key>::borrow(self) == Borrow::<$key>::borrow(other)
            }
        }
        impl Eq for $type {}
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                Borrow::<$key>::borrow(self).hash(state);
            }
        }
    };
}

found_by!(ById<Deployment>, DeploymentId, |this| &this.id);
found_by!(ById<Project>, ProjectId, |this| &this.id);
found_by!(BySlug, str, |this| this.slug.as_str());
found_by!(ByHost, str, |this| this.host.as_str());
