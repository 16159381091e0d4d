//! What the route table costs with so many routes: `routes [1000000]`. Prints one JSON line.
//!
//! `bytes_a_route`: asked of the allocator, all in. `rss_bytes_a_route`: what the process grew by. `look_up_ns`: one look-up of a random
//! host, with few and with all routes. `visible_us`: from a change's call until a look-up shows it.

#[path = "../tests/memory/counting.rs"]
mod counting;

use std::time::Instant;

use ingress::{Alias, AliasTarget, DeploymentRoute, Routes};
use model::{DeploymentId, Health, ProjectId, Scheme, Seen, Service, WakePolicy, Wanted};

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

type Failure = Box<dyn std::error::Error>;

fn route(number: usize) -> Result<DeploymentRoute, Failure> {
    Ok(DeploymentRoute {
        deployment: DeploymentId::new(),
        project: ProjectId::new(),
        slug: format!("project-{number}").parse()?,
        is_primary: true,
        incarnation: 1 + number as u64 % 50,
        seen: Seen::Running,
        wanted: Wanted::Running,
        health: Health::Healthy,
        wake: WakePolicy::None,
        services: vec![Service { name: "web".parse()?, port: 3000, scheme: Scheme::Http }],
    })
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Nanoseconds a look-up, over hosts far apart.
fn look_up_ns(routes: &Routes, hosts: &[String]) -> u128 {
    const ROUNDS: usize = 2_000_000;
    let began = Instant::now();
    let mut at = 0;
    let mut missed = 0;
    for _ in 0..ROUNDS {
        at = (at + 7919) % hosts.len();
        missed += usize::from(routes.deployment_at(&hosts[at]).is_none());
    }
    assert_eq!(missed, 0, "every host is there");
    began.elapsed().as_nanos() / ROUNDS as u128
}

#[expect(clippy::print_stdout, reason = "a program for people and scripts")]
fn main() -> Result<(), Failure> {
    let count: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let few = Routes::new("base.test");
    let few_hosts: Vec<String> = (0..100).map(|number| format!("project-{number}.base.test")).collect();
    for number in 0..100 {
        few.upsert(route(number)?);
    }
    let hosts: Vec<String> = (0..count).map(|number| format!("project-{number}.base.test")).collect();

    let (before, resident_before) = (counting::bytes(), resident());
    let routes = Routes::new("base.test");
    let began = Instant::now();
    for number in 0..count {
        routes.upsert(route(number)?);
    }
    let filled = began.elapsed();
    let (bytes, rss) = (counting::bytes() - before, resident().saturating_sub(resident_before));

    let mut visible = Vec::new();
    for number in 0..20_000 {
        let mut new = route(count + number)?;
        let host = format!("{}.base.test", new.slug);
        let domain = format!("shop-{number}.example");
        let alias = Alias { host: domain.clone(), target: AliasTarget::Project(new.project), service: None };
        let began = Instant::now();
        routes.upsert(new.clone());
        routes.upsert_alias(alias);
        let found = routes.deployment_at(&host).is_some() && routes.deployment_at(&domain).is_some();
        visible.push(began.elapsed());
        assert!(found, "a change is seen at once");
        new.seen = Seen::Stopped;
        let began = Instant::now();
        routes.upsert(new);
        visible.push(began.elapsed());
    }
    visible.sort();
    let us = |part: f64| visible[((visible.len() - 1) as f64 * part) as usize].as_micros();
    let calls = counting::calls();
    let look_up = (look_up_ns(&few, &few_hosts), look_up_ns(&routes, &hosts));
    println!(
        "{{\"routes\": {count}, \"bytes_a_route\": {}, \"rss_bytes_a_route\": {}, \"fill_us_a_route\": {:.1}, \
         \"look_up_ns\": {{\"routes_100\": {}, \"routes_all\": {}}}, \"look_up_allocations\": {}, \
         \"visible_us\": {{\"p50\": {}, \"p99\": {}, \"max\": {}}}}}",
        bytes / count,
        rss / count,
        filled.as_micros() as f64 / count as f64,
        look_up.0,
        look_up.1,
        counting::calls() - calls,
        us(0.5),
        us(0.99),
        us(1.0),
    );
    Ok(())
}
