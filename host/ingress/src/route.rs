//! The route table: who is where. How a host is looked up in it is in `resolve`.
//!
//! A deployment and a project are one object each for as long as they are in the table; what changes
//! about them (state, incarnation, which one is primary) is swapped inside. So a change of state touches no
//! map at all, and whoever holds a deployment sees its present state.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use model::{
    DeploymentId, Health, MachineId, ProjectId, Seen, Service, ServiceSelector, Slug, WakePolicy, Wanted,
};
use parking_lot::Mutex;

use crate::activity::{ActivityReport, LazyActivity};
use crate::slot::Slot;
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

/// A host beside the derived ones: a custom domain, or a host of old.
///
/// One below the base domain is of old: browsers are sent on to the host that is derived now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Lower case, without port and trailing dot. `*.` in front stands for any one label, for domains that
    /// are not below the base domain.
    pub host: String,
    pub target: AliasTarget,
    /// None: the default service.
    pub service: Option<ServiceSelector>,
}

/// Whom an alias names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasTarget {
    /// Nobody any more: 410.
    Gone,
    /// The project's primary deployment.
    Project(ProjectId),
    Deployment(DeploymentId),
}

/// A machine of old, which hosts and links still name: what has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldMachine {
    pub machine: MachineId,
    /// None: it is gone, 410.
    pub deployment: Option<DeploymentId>,
}

/// The route table: shared by all workers, changed from outside at any time.
///
/// Look-ups take no lock and allocate nothing; a change of a deployment's state copies nothing, and a new or
/// removed one copies a thousandth of a map.
///
/// A host has one meaning whatever the order of changes: where two projects come with one slug (as when one
/// takes the slug of another that goes, and is heard of first), the one with the greater, later id has it.
pub struct Routes {
    base_domain: String,
    pub(crate) deployments: Sharded<ById<Deployment>>,
    pub(crate) projects: Sharded<ById<Project>>,
    pub(crate) slugs: Sharded<BySlug>,
    /// Exact hosts.
    pub(crate) hosts: Sharded<ByHost>,
    /// By what follows `*.`.
    pub(crate) wildcards: Sharded<ByHost>,
    pub(crate) machines: Sharded<ByMachine>,
    /// Counts changes, for what caches look-ups.
    version: AtomicU64,
    writer: Mutex<Writer>,
}

/// What only writers need, one at a time.
#[derive(Default)]
struct Writer {
    /// States that came lately. Most deployments are in one of few, and share it.
    states: VecDeque<Arc<State>>,
    /// Lists of services, likewise.
    services: VecDeque<Arc<Vec<Service>>>,
    /// How many deployments of a project the table has beyond the first, where there are any.
    more: HashMap<ProjectId, u32>,
    /// Projects whose slug another has.
    contested: HashMap<Slug, Vec<Arc<Project>>>,
}

/// States and lists to compare a new one with.
const KNOWN: usize = 32;

fn share<T: PartialEq>(known: &mut VecDeque<Arc<T>>, new: T) -> Arc<T> {
    if let Some(known) = known.iter().find(|known| ***known == new) {
        return Arc::clone(known);
    }
    let new = Arc::new(new);
    known.push_front(Arc::clone(&new));
    known.truncate(KNOWN);
    new
}

pub(crate) struct Project {
    pub(crate) id: ProjectId,
    pub(crate) slug: Slug,
    pub(crate) primary: ArcSwapOption<Deployment>,
}

pub(crate) struct Deployment {
    pub(crate) id: DeploymentId,
    pub(crate) project: Arc<Project>,
    pub(crate) state: ArcSwap<State>,
    pub(crate) activity: LazyActivity,
}

/// What is so of a deployment at one moment. Deployments of which the same is so may share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) incarnation: u64,
    pub(crate) seen: Seen,
    pub(crate) wanted: Wanted,
    pub(crate) wake: WakePolicy,
    pub(crate) services: Arc<Vec<Service>>,
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
            hosts: Sharded::new(),
            wildcards: Sharded::new(),
            machines: Sharded::new(),
            version: AtomicU64::new(0),
            writer: Mutex::default(),
        }
    }

    #[must_use]
    pub fn base_domain(&self) -> &str {
        &self.base_domain
    }

    /// Makes these the deployments and aliases: what is not among them goes. Deployments that were known keep
    /// their leases (of the same incarnation), activity and connections.
    pub fn replace_all(&self, deployments: Vec<DeploymentRoute>, aliases: Vec<Alias>) {
        let mut writer = self.writer.lock();
        let mut projects: HashMap<ProjectId, Arc<Project>> = HashMap::new();
        let mut next = Vec::with_capacity(deployments.len());
        let mut present: HashSet<DeploymentId> = HashSet::with_capacity(deployments.len());
        writer.more.clear();
        for route in deployments {
            let is_new = present.insert(route.deployment);
            let project = match projects.get(&route.project) {
                Some(project) => {
                    writer.join(route.project, is_new);
                    Arc::clone(project)
                }
                None => {
                    let project = match self.projects.get(&route.project) {
                        Some(ById(known)) if known.slug == route.slug => known,
                        _ => Arc::new(Project::new(route.project, route.slug.clone())),
                    };
                    projects.insert(route.project, Arc::clone(&project));
                    project
                }
            };
            next.push(self.enter(&mut writer, route, project).deployment);
        }
        for project in projects.values() {
            if project.primary.load().as_ref().is_some_and(|primary| !present.contains(&primary.id)) {
                project.primary.store(None);
            }
        }
        let mut gone = Vec::new();
        self.deployments.for_each(|known| {
            if !present.contains(&known.0.id) {
                gone.push(Arc::clone(&known.0));
            }
        });
        let mut past = Vec::new();
        self.projects.for_each(|known| {
            if !projects.get(&known.0.id).is_some_and(|next| Arc::ptr_eq(next, &known.0)) {
                past.push(Arc::clone(&known.0));
            }
        });
        let mut by_slug: HashMap<&Slug, &Arc<Project>> = HashMap::new();
        let mut losers = Vec::new();
        for project in projects.values() {
            if let Some(other) = by_slug.insert(&project.slug, project) {
                let (winner, loser) = if other.id > project.id { (other, project) } else { (project, other) };
                by_slug.insert(&project.slug, winner);
                losers.push((winner, loser));
            }
        }
        self.slugs.replace_all(by_slug.values().map(|project| BySlug(Arc::clone(project))));
        writer.contested.clear();
        for (winner, loser) in losers {
            writer.contest(winner, loser);
        }
        drop(by_slug);
        self.projects.replace_all(projects.into_values().map(ById));
        let rung = next.clone();
        self.deployments.replace_all(next.into_iter().map(ById));
        let (wildcards, hosts): (Vec<_>, Vec<_>) =
            one_for_each_host(aliases).map(Entry::new).partition(|entry| entry.is_wildcard());
        self.hosts.replace_all(hosts.into_iter().map(|entry| ByHost(Arc::new(entry))));
        self.wildcards.replace_all(wildcards.into_iter().map(|entry| ByHost(Arc::new(entry))));
        self.changed();
        for project in past {
            // A primary holds its project, and would for ever.
            project.primary.store(None);
        }
        for deployment in gone {
            deployment.go();
        }
        for deployment in rung {
            deployment.activity.ring();
        }
    }

    /// Puts one deployment in, or brings it up to date. A new primary takes the project's host from the
    /// old one in one step.
    pub fn upsert(&self, route: DeploymentRoute) {
        let mut writer = self.writer.lock();
        let is_new = self.deployments.get(&route.deployment).is_none();
        let old = self.projects.get(&route.project).map(|known| known.0);
        writer.join(route.project, is_new && old.is_some());
        let (project, past) = match old {
            Some(project) if project.slug == route.slug => (project, None),
            old => {
                // A new project, or one with a new slug: the old slug leads nowhere any more.
                let project = Arc::new(Project::new(route.project, route.slug.clone()));
                if let Some(old) = &old {
                    project.primary.store(old.primary.load_full());
                    self.give_slug_up(&mut writer, old);
                }
                self.projects.put(ById(Arc::clone(&project)));
                self.claim_slug(&mut writer, &project);
                (project, old)
            }
        };
        let Entered { deployment, is_another, leads_elsewhere } = self.enter(&mut writer, route, project);
        if is_another {
            self.deployments.put(ById(Arc::clone(&deployment)));
        }
        if leads_elsewhere || past.is_some() {
            self.changed();
        }
        if let Some(past) = past {
            past.primary.store(None);
        }
        deployment.activity.ring();
    }

    /// Takes one deployment out. Requests that run on it run on.
    pub fn remove(&self, deployment: DeploymentId) {
        let mut writer = self.writer.lock();
        let Some(ById(gone)) = self.deployments.take(&deployment) else { return };
        if let Some(ById(project)) = self.projects.get(&gone.project.id) {
            if project.primary.load().as_ref().is_some_and(|primary| primary.id == deployment) {
                project.primary.store(None);
            }
            if writer.leave(project.id) {
                self.projects.take(&project.id);
                self.give_slug_up(&mut writer, &project);
            }
        }
        self.changed();
        gone.go();
    }

    /// Puts an alias in, or in the place of the one with the same host.
    pub fn upsert_alias(&self, alias: Alias) {
        let _turn = self.writer.lock();
        let entry = Entry::new(alias);
        let map = if entry.is_wildcard() { &self.wildcards } else { &self.hosts };
        map.put(ByHost(Arc::new(entry)));
        self.changed();
    }

    /// Takes an alias out; `host` as it was put in.
    pub fn remove_alias(&self, host: &str) {
        let _turn = self.writer.lock();
        match host.strip_prefix(WILDCARD) {
            Some(parent) => self.wildcards.take(parent),
            None => self.hosts.take(host),
        };
        self.changed();
    }

    /// Makes these the machines of old.
    pub fn replace_machines(&self, machines: impl IntoIterator<Item = OldMachine>) {
        let _turn = self.writer.lock();
        self.machines.replace_all(machines.into_iter().map(ByMachine));
        self.changed();
    }

    /// Puts a machine of old in, or in the place of what was known of it.
    pub fn upsert_machine(&self, machine: OldMachine) {
        let _turn = self.writer.lock();
        self.machines.put(ByMachine(machine));
        self.changed();
    }

    /// Forgets a machine of old: 404.
    pub fn remove_machine(&self, machine: MachineId) {
        let _turn = self.writer.lock();
        self.machines.take(&machine);
        self.changed();
    }

    /// The deployment that a host (lower case, no port, no trailing dot) leads to.
    #[must_use]
    pub fn deployment_at(&self, host: &str) -> Option<DeploymentId> {
        self.resolve(host).ok().map(|resolved| resolved.deployment.id)
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

    /// A deployment of the same project as another.
    pub(crate) fn member(&self, id: DeploymentId, of: &Deployment) -> Option<Arc<Deployment>> {
        let found = self.deployments.get(&id)?.0;
        (found.project.id == of.project.id).then_some(found)
    }

    /// Brings the deployment's object up to date, or makes it, and its project's primary with it.
    fn enter(&self, writer: &mut Writer, route: DeploymentRoute, project: Arc<Project>) -> Entered {
        let services = share(&mut writer.services, route.services);
        let state = share(
            &mut writer.states,
            State {
                incarnation: route.incarnation,
                seen: route.seen,
                wanted: route.wanted,
                wake: route.wake,
                services,
            },
        );
        let known = self.deployments.get(&route.deployment).map(|known| known.0);
        let same_project = known.as_ref().filter(|known| Arc::ptr_eq(&known.project, &project));
        let (deployment, is_another, mut leads_elsewhere) = match same_project {
            Some(known) => {
                let before = known.state.swap(Arc::clone(&state));
                known.activity.end_slots_but(state.incarnation);
                (Arc::clone(known), false, before.services != state.services)
            }
            None => {
                let activity = known.map_or_else(LazyActivity::default, |known| known.activity.share());
                let made = Deployment {
                    id: route.deployment,
                    project: Arc::clone(&project),
                    state: ArcSwap::new(state),
                    activity,
                };
                (Arc::new(made), true, true)
            }
        };
        let led_to = project.primary.load().as_ref().map(Arc::clone);
        let led_here = led_to.as_ref().is_some_and(|primary| primary.id == route.deployment);
        if route.is_primary {
            let same = led_to.is_some_and(|primary| Arc::ptr_eq(&primary, &deployment));
            leads_elsewhere |= !same;
            project.primary.store(Some(Arc::clone(&deployment)));
        } else if led_here {
            leads_elsewhere = true;
            project.primary.store(None);
        }
        Entered { deployment, is_another, leads_elsewhere }
    }

    /// Makes the project's slug lead to it, unless one with a greater id has it.
    fn claim_slug(&self, writer: &mut Writer, project: &Arc<Project>) {
        match self.slugs.get(project.slug.as_str()) {
            Some(BySlug(other)) if other.id > project.id => writer.contest(&other, project),
            other => {
                self.slugs.put(BySlug(Arc::clone(project)));
                if let Some(BySlug(other)) = other {
                    writer.contest(project, &other);
                }
            }
        }
    }

    /// The project's slug leads to it no more; to the next one that has come with it, if any.
    fn give_slug_up(&self, writer: &mut Writer, project: &Project) {
        let slug = &project.slug;
        if let Some(losers) = writer.contested.get_mut(slug) {
            losers.retain(|loser| loser.id != project.id);
        }
        let has_it = self.slugs.get(slug.as_str()).is_some_and(|found| found.0.id == project.id);
        let next = match writer.contested.get_mut(slug) {
            Some(losers) if has_it => {
                let greatest = (0..losers.len()).max_by_key(|at| losers[*at].id);
                greatest.map(|at| losers.swap_remove(at))
            }
            _ => None,
        };
        if writer.contested.get(slug).is_some_and(Vec::is_empty) {
            writer.contested.remove(slug);
        }
        match next {
            Some(next) => self.slugs.put(BySlug(next)),
            None if has_it => {
                self.slugs.take(slug.as_str());
            }
            None => {}
        }
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// What came of a route.
struct Entered {
    deployment: Arc<Deployment>,
    /// Not the object that was in the table.
    is_another: bool,
    /// Whether what was resolved before may be wrong.
    leads_elsewhere: bool,
}

impl Writer {
    /// One more of a project that has some.
    fn join(&mut self, project: ProjectId, is_one_more: bool) {
        if is_one_more {
            *self.more.entry(project).or_default() += 1;
        }
    }

    /// One less. Whether it was the last.
    fn leave(&mut self, project: ProjectId) -> bool {
        let Some(more) = self.more.get_mut(&project) else { return true };
        *more -= 1;
        if *more == 0 {
            self.more.remove(&project);
        }
        false
    }

    fn contest(&mut self, winner: &Arc<Project>, loser: &Arc<Project>) {
        tracing::warn!(slug = %loser.slug, project.winner = %winner.id, project.loser = %loser.id,
            "two projects have one slug: the later one has its host");
        self.contested.entry(loser.slug.clone()).or_default().push(Arc::clone(loser));
    }
}

/// Of several aliases with one host the one with the greatest target, whatever their order.
fn one_for_each_host(aliases: Vec<Alias>) -> impl Iterator<Item = Alias> {
    let mut by_host: HashMap<String, Alias> = HashMap::with_capacity(aliases.len());
    for alias in aliases {
        let Some(other) = by_host.get(&alias.host) else {
            by_host.insert(alias.host.clone(), alias);
            continue;
        };
        tracing::warn!(host = %alias.host, targets = ?[other.target, alias.target],
            "one host was given to two targets: the greater one has it");
        if alias.target > other.target {
            by_host.insert(alias.host.clone(), alias);
        }
    }
    by_host.into_values()
}

impl std::fmt::Debug for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployment").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Project {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Project").field("id", &self.id).field("slug", &self.slug).finish_non_exhaustive()
    }
}

impl Deployment {
    /// It is not in the table any more: for requests that wait for it.
    fn go(&self) {
        self.state.rcu(|state| State { seen: Seen::Destroyed, ..State::clone(state) });
        self.activity.ring();
    }

    /// The lease of a service of the state's incarnation: shared by all who ask under it.
    pub(crate) fn slot(&self, state: &State, service: &ServiceKey) -> Arc<Slot> {
        self.activity.live().slots(state.incarnation).slot(service)
    }
}

impl Project {
    fn new(id: ProjectId, slug: Slug) -> Self {
        Self { id, slug, primary: ArcSwapOption::empty() }
    }
}

impl State {
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

/// An alias, as the table keeps it.
pub(crate) struct Entry {
    host: Box<str>,
    pub(crate) target: AliasTarget,
    pub(crate) service: Option<ServiceSelector>,
}

const WILDCARD: &str = "*.";

impl Entry {
    fn new(alias: Alias) -> Self {
        Self { host: alias.host.into(), target: alias.target, service: alias.service }
    }

    fn is_wildcard(&self) -> bool {
        self.host.starts_with(WILDCARD)
    }

    fn key(&self) -> &str {
        self.host.strip_prefix(WILDCARD).unwrap_or(&self.host)
    }
}

/// Found by its id.
pub(crate) struct ById<T>(pub(crate) Arc<T>);
/// Found by its slug.
#[derive(Clone)]
pub(crate) struct BySlug(pub(crate) Arc<Project>);
/// Found by its host, or what follows `*.` in it.
#[derive(Clone)]
pub(crate) struct ByHost(pub(crate) Arc<Entry>);
/// Found by its id.
#[derive(Clone)]
pub(crate) struct ByMachine(pub(crate) OldMachine);

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
found_by!(ByHost, str, |this| this.key());
found_by!(ByMachine, MachineId, |this| &this.machine);
