//! What a route costs in memory, and that looking one up costs none. A program of its own: its allocator counts.

#![expect(clippy::unwrap_used, reason = "tests")]

mod counting;

use ingress::{Alias, AliasTarget, DeploymentRoute, OldMachine, Routes};
use model::{DeploymentId, Health, MachineId, ProjectId, Scheme, Seen, Service, WakePolicy, Wanted};

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

const ROUTES: usize = 100_000;
/// All in: the deployment, its project, its state, and their places in the maps.
const BYTES_A_ROUTE: usize = 200;

fn route(number: usize, incarnation: u64) -> DeploymentRoute {
    DeploymentRoute {
        deployment: DeploymentId::new(),
        project: ProjectId::new(),
        slug: format!("project-{number}").parse().unwrap(),
        is_primary: true,
        incarnation,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::None,
        services: vec![
            Service { name: "web".parse().unwrap(), port: 3000, scheme: Scheme::Http },
            Service { name: "api".parse().unwrap(), port: 4000, scheme: Scheme::Http },
        ],
    }
}

/// One test: what another one allocated meanwhile would be counted too.
#[test]
fn routes_are_small_and_looking_up_allocates_nothing() {
    for (what, incarnation) in
        [("alike", (|_| 1) as fn(usize) -> u64), ("none like another", |number| number as u64)]
    {
        let before = counting::bytes();
        let routes = Routes::new("base.test");
        let empty = counting::bytes();
        for number in 0..ROUTES {
            routes.upsert(route(number, incarnation(number)));
        }
        let each = (counting::bytes() - empty) / ROUTES;
        assert!(each <= BYTES_A_ROUTE, "{what}: {each} bytes a route");
        drop(routes);
        // Deployments and projects hold each other while they are in the table.
        assert!(counting::bytes() < before + ROUTES * BYTES_A_ROUTE);
    }

    let routes = Routes::new("base.test");
    let all: Vec<_> = (0..1000).map(|number| route(number, 1)).collect();
    let aliases = all.iter().enumerate().flat_map(|(number, route)| {
        let target = AliasTarget::Project(route.project);
        [format!("shop-{number}.example"), format!("*.shop-{number}.example")].map(|host| Alias {
            host,
            target,
            service: None,
        })
    });
    routes.replace_all(all.clone(), aliases.collect());
    let machines: Vec<_> = all.iter().map(|route| (MachineId::new(), route.deployment)).collect();
    routes.replace_machines(
        machines
            .iter()
            .map(|(machine, deployment)| OldMachine { machine: *machine, deployment: Some(*deployment) }),
    );
    let hosts: Vec<(String, DeploymentId)> = all
        .iter()
        .enumerate()
        .flat_map(|(number, route)| {
            let (slug, own) = (format!("project-{number}.base.test"), route.deployment.suffix());
            [
                slug.clone(),
                format!("api--{slug}"),
                format!("3000--{slug}"),
                format!("dep-{own}.base.test"),
                format!("api--dep-{own}.base.test"),
                format!("3000__{slug}"),
                format!("80__{}.machines.base.test", machines[number].0),
                format!("shop-{number}.example"),
                format!("api.shop-{number}.example"),
                format!("80--shop-{number}.example"),
                format!("{}.shop-{number}.example", machines[number].0),
                format!("anything.shop-{number}.example"),
                format!("more-than-a-service-name.shop-{number}.example"),
            ]
            .map(|host| (host, route.deployment))
        })
        .collect();
    let calls = counting::calls();
    let wrong = hosts.iter().filter(|(host, owner)| routes.deployment_at(host) != Some(*owner)).count();
    assert_eq!((wrong, counting::calls() - calls), (0, 0), "wrong answers, allocations");
}
