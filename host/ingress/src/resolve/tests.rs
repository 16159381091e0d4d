//! Hosts against a naive model of the rules, and every form once.

use model::{Health, Seen, Service, ServiceName, WakePolicy, Wanted};
use proptest::prelude::*;

use super::*;
use crate::route::{Alias, DeploymentRoute, OldMachine};

const BASE: &str = "base.test";

fn deployment(slug: &str, services: &[(&str, u16)]) -> DeploymentRoute {
    let service = |(name, port): &(&str, u16)| Service {
        name: name.parse().unwrap(),
        port: *port,
        scheme: model::Scheme::Http,
    };
    DeploymentRoute {
        deployment: DeploymentId::new(),
        project: ProjectId::new(),
        slug: slug.parse().unwrap(),
        is_primary: true,
        incarnation: 1,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::None,
        services: services.iter().map(service).collect(),
    }
}

fn alias(host: &str, target: AliasTarget) -> Alias {
    Alias { host: host.to_owned(), target, service: None }
}

fn name(name: &str) -> ServiceSelector {
    ServiceSelector::Name(name.parse::<ServiceName>().unwrap())
}

type Found = Result<(DeploymentId, Option<ServiceSelector>), NoRoute>;

fn found(routes: &Routes, host: &str) -> Found {
    routes.resolve(host).map(|resolved| (resolved.deployment.id, resolved.service))
}

fn moved(routes: &Routes, host: &str) -> Option<String> {
    routes.resolve(host).unwrap().canonical.and_then(|canonical| canonical.host(BASE))
}

#[test]
fn hosts_of_old_are_served_and_have_a_canonical_one() {
    let routes = Routes::new(BASE);
    let shop = deployment("shop", &[("web", 3000), ("api", 4000)]);
    let lives = deployment("nine-lives", &[("web", 3000)]);
    let (machine, gone) = (MachineId::new(), MachineId::new());
    routes.replace_all(
        vec![shop.clone(), lives.clone()],
        vec![
            alias("9lives.base.test", AliasTarget::Project(lives.project)),
            alias("lost.base.test", AliasTarget::Gone),
        ],
    );
    routes.replace_machines([
        OldMachine { machine, deployment: Some(shop.deployment) },
        OldMachine { machine: gone, deployment: None },
    ]);
    let own = format!("dep-{}", shop.deployment.suffix());
    let port = |port| Some(ServiceSelector::Port(port));
    for (host, deployment, service, canonical) in [
        ("shop".to_owned(), &shop, None, None),
        ("4000--shop".to_owned(), &shop, port(4000), None),
        (format!("api--{own}"), &shop, Some(name("api")), None),
        ("4000__shop".to_owned(), &shop, port(4000), Some("4000--shop".to_owned())),
        (machine.to_string(), &shop, None, Some(own.clone())),
        (format!("80__{machine}"), &shop, port(80), Some(format!("80--{own}"))),
        (format!("{machine}.machines"), &shop, None, Some(own.clone())),
        (format!("80__{machine}.machines"), &shop, port(80), Some(format!("80--{own}"))),
        ("9lives".to_owned(), &lives, None, Some("nine-lives".to_owned())),
        ("81__9lives".to_owned(), &lives, port(81), Some("81--nine-lives".to_owned())),
        ("web--9lives".to_owned(), &lives, Some(name("web")), Some("web--nine-lives".to_owned())),
    ] {
        let host = format!("{host}.{BASE}");
        assert_eq!(found(&routes, &host), Ok((deployment.deployment, service)), "{host}");
        assert_eq!(moved(&routes, &host), canonical.map(|label| format!("{label}.{BASE}")), "{host}");
    }
    for (host, why) in [
        (gone.to_string(), NoRoute::MachineGone),
        (format!("80__{gone}.machines"), NoRoute::MachineGone),
        (MachineId::new().to_string(), NoRoute::MachineNotFound),
        ("lost".to_owned(), NoRoute::HostGone),
        ("80__nobody".to_owned(), NoRoute::ProjectNotFound),
        ("80__".to_owned(), NoRoute::ProjectNotFound),
    ] {
        assert_eq!(found(&routes, &format!("{host}.{BASE}")), Err(why), "{host}");
    }
    for host in ["shop.machines", "80__shop.machines", "mach_x", "0__shop", "a.shop"] {
        let refused = found(&routes, &format!("{host}.{BASE}"));
        assert!(matches!(refused, Err(NoRoute::InvalidHost(_))), "{host}: {refused:?}");
    }
}

#[test]
fn a_machine_of_another_project_does_not_answer_under_a_domain() {
    let routes = Routes::new(BASE);
    let (shop, other) = (deployment("shop", &[("web", 3000)]), deployment("other", &[("web", 3000)]));
    let (own, foreign) = (MachineId::new(), MachineId::new());
    routes.replace_all(
        vec![shop.clone(), other.clone()],
        vec![
            alias("shop.example", AliasTarget::Project(shop.project)),
            alias("*.shop.example", AliasTarget::Project(shop.project)),
        ],
    );
    routes.replace_machines([
        OldMachine { machine: own, deployment: Some(shop.deployment) },
        OldMachine { machine: foreign, deployment: Some(other.deployment) },
    ]);
    let port = Some(ServiceSelector::Port(80));
    assert_eq!(found(&routes, &format!("{own}.shop.example")), Ok((shop.deployment, None)));
    assert_eq!(found(&routes, &format!("80__{own}.shop.example")), Ok((shop.deployment, port)));
    assert_eq!(moved(&routes, &format!("{own}.shop.example")), None, "a domain's owner shows that domain");
    for host in [format!("{foreign}.shop.example"), format!("80__{foreign}.shop.example")] {
        assert_eq!(found(&routes, &host), Err(NoRoute::MachineNotFound), "{host}");
    }
}

#[test]
fn one_slug_has_one_project_whatever_the_order() {
    let (old, new) = (deployment("shop", &[("web", 3000)]), deployment("shop", &[("web", 3000)]));
    assert!(old.project < new.project);
    for order in [[&old, &new], [&new, &old]] {
        let routes = Routes::new(BASE);
        order.iter().for_each(|route| routes.upsert((*route).clone()));
        assert_eq!(found(&routes, "shop.base.test").unwrap().0, new.deployment);
        routes.replace_all(order.iter().map(|route| (*route).clone()).collect(), Vec::new());
        assert_eq!(found(&routes, "shop.base.test").unwrap().0, new.deployment);
        routes.remove(new.deployment);
        assert_eq!(found(&routes, "shop.base.test").unwrap().0, old.deployment, "the other one is left");
        routes.upsert(new.clone());
        routes.remove(old.deployment);
        assert_eq!(found(&routes, "shop.base.test").unwrap().0, new.deployment);
        routes.remove(new.deployment);
        assert_eq!(found(&routes, "shop.base.test"), Err(NoRoute::ProjectNotFound));
    }
}

#[test]
fn one_host_has_one_target_whatever_the_order() {
    let (a, b) = (deployment("a", &[("web", 1)]), deployment("b", &[("web", 1)]));
    let mut aliases = vec![
        alias("x.example", AliasTarget::Project(a.project)),
        alias("x.example", AliasTarget::Project(b.project)),
        alias("*.x.example", AliasTarget::Project(b.project)),
        alias("*.x.example", AliasTarget::Project(a.project)),
    ];
    for _ in 0..2 {
        let routes = Routes::new(BASE);
        routes.replace_all(vec![a.clone(), b.clone()], aliases.clone());
        assert_eq!(found(&routes, "x.example").unwrap().0, b.deployment);
        assert_eq!(found(&routes, "any.x.example").unwrap().0, b.deployment);
        aliases.reverse();
    }
}

#[test]
fn a_change_of_state_alone_moves_nothing_that_was_resolved() {
    let routes = Routes::new(BASE);
    let mut shop = deployment("shop", &[("web", 3000)]);
    routes.upsert(shop.clone());
    let version = routes.version();
    (shop.seen, shop.incarnation) = (Seen::Starting, 2);
    routes.upsert(shop.clone());
    assert_eq!(routes.version(), version);
    assert_eq!(routes.resolve("shop.base.test").unwrap().deployment.state.load().incarnation, 2);
    shop.is_primary = false;
    routes.upsert(shop.clone());
    assert_eq!(found(&routes, "shop.base.test"), Err(NoRoute::NoPrimary));
    assert_ne!(routes.version(), version);
    // A renamed project's old slug leads nowhere.
    (shop.is_primary, shop.slug) = (true, "store".parse().unwrap());
    routes.upsert(shop.clone());
    assert_eq!(found(&routes, "shop.base.test"), Err(NoRoute::ProjectNotFound));
    assert_eq!(found(&routes, "store.base.test").unwrap().0, shop.deployment);
}

#[test]
fn a_project_is_there_as_long_as_one_of_its_deployments() {
    let routes = Routes::new(BASE);
    let first = deployment("shop", &[("web", 3000)]);
    let second = DeploymentRoute { deployment: DeploymentId::new(), is_primary: false, ..first.clone() };
    let third = DeploymentRoute { deployment: DeploymentId::new(), ..second.clone() };
    routes.replace_all(vec![first.clone(), second.clone()], Vec::new());
    routes.upsert(third.clone());
    routes.upsert(third.clone());
    routes.remove(first.deployment);
    routes.remove(second.deployment);
    routes.remove(second.deployment);
    assert_eq!(found(&routes, "shop.base.test"), Err(NoRoute::NoPrimary));
    routes.remove(third.deployment);
    assert_eq!(found(&routes, "shop.base.test"), Err(NoRoute::ProjectNotFound));
}

#[test]
fn what_leaves_the_table_leaves_nothing_behind() {
    let routes = Routes::new(BASE);
    let shop = deployment("shop", &[("web", 3000)]);
    routes.upsert(shop.clone());
    let weak =
        |routes: &Routes| Arc::downgrade(&routes.resolve("shop.base.test").unwrap().deployment.project);
    let renamed = weak(&routes);
    routes.upsert(DeploymentRoute { slug: "store".parse().unwrap(), ..shop.clone() });
    assert_eq!(renamed.strong_count(), 0, "renamed");
    routes.upsert(shop.clone());
    let replaced = weak(&routes);
    routes.replace_all(Vec::new(), Vec::new());
    assert_eq!(replaced.strong_count(), 0, "replaced");
    routes.upsert(shop.clone());
    let removed = weak(&routes);
    routes.remove(shop.deployment);
    assert_eq!(removed.strong_count(), 0, "removed");
}

/// What the rules say, by trying every registered domain, the longest first.
fn naive(domains: &[(String, usize)], deployments: &[DeploymentRoute], host: &str) -> Found {
    let mut sorted: Vec<_> = domains.iter().collect();
    sorted.sort_by_key(|(domain, _)| {
        let parent = domain.strip_prefix("*.").unwrap_or(domain);
        (std::cmp::Reverse(parent.len()), domain.starts_with('*'))
    });
    let mut why = NoRoute::ForeignHost;
    for (domain, owner) in sorted {
        let owner = &deployments[*owner];
        if let Some(parent) = domain.strip_prefix("*.") {
            let label = host.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.'));
            if label.is_some_and(|label| !label.is_empty() && !label.contains('.')) {
                return Ok((owner.deployment, None));
            }
            continue;
        }
        let Some(before) = host.strip_suffix(domain.as_str()) else { continue };
        let selector = match before {
            "" => return Ok((owner.deployment, None)),
            _ if before.ends_with("--") => before.trim_end_matches("--"),
            _ if before.ends_with('.') => before.trim_end_matches('.'),
            _ => continue,
        };
        if let Ok(port) = selector.parse::<u16>() {
            if port > 0 && port.to_string() == selector {
                return Ok((owner.deployment, Some(ServiceSelector::Port(port))));
            }
            continue;
        }
        let Ok(service) = selector.parse::<ServiceName>() else { continue };
        if owner.services.iter().any(|known| known.name == service) {
            return Ok((owner.deployment, Some(ServiceSelector::Name(service))));
        }
        match selector {
            "opencode" => return Ok((owner.deployment, Some(ServiceSelector::Port(4096)))),
            "daemon" => return Ok((owner.deployment, Some(ServiceSelector::Port(3000)))),
            _ => why = NoRoute::ServiceNotFound(ServiceSelector::Name(service)),
        }
    }
    Err(why)
}

fn label() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "a", "b", "web", "api", "80", "0", "99999", "opencode", "daemon", "api--a", "80--a", "xn--a",
        "web--b",
    ])
    .prop_map(str::to_owned)
}

fn domain() -> impl Strategy<Value = String> {
    let exact = proptest::collection::vec(label(), 1..4).prop_map(|labels| labels.join(".") + ".test");
    (any::<bool>(), exact).prop_map(|(wild, domain)| if wild { format!("*.{domain}") } else { domain })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_longest_registered_domain_wins(
        domains in proptest::collection::btree_map(domain(), 0_usize..3, 0..12),
        hosts in proptest::collection::vec(proptest::collection::vec(label(), 0..5), 1..20),
    ) {
        let deployments =
            [deployment("a", &[("web", 3000)]), deployment("b", &[("web", 3000), ("api", 4000)]), deployment("c", &[("daemon", 9)])];
        let routes = Routes::new("elsewhere.invalid");
        routes.replace_all(deployments.to_vec(), Vec::new());
        let domains: Vec<(String, usize)> = domains.into_iter().collect();
        for (domain, owner) in &domains {
            routes.upsert_alias(alias(domain, AliasTarget::Project(deployments[*owner].project)));
        }
        for labels in &hosts {
            let host = labels.iter().map(|label| format!("{label}.")).collect::<String>() + "test";
            prop_assert_eq!(found(&routes, &host), naive(&domains, &deployments, &host), "{} of {:?}", host, domains);
        }
        for (domain, _) in &domains {
            routes.remove_alias(domain);
        }
        for labels in &hosts {
            let host = labels.join(".") + ".test";
            prop_assert_eq!(found(&routes, &host), Err(NoRoute::ForeignHost));
        }
    }

    #[test]
    fn any_host_is_resolved_or_refused(host in "[a-z0-9_.*-]{0,80}") {
        let routes = Routes::new("a");
        routes.upsert(deployment("b", &[]));
        routes.upsert_alias(alias("a.b", AliasTarget::Gone));
        let _ = routes.resolve(&host);
        let _ = routes.resolve(&format!("{host}.a"));
    }
}
