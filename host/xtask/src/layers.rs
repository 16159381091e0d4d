//! Crates depend downwards only: the table of who may see whom, and the check.
//!
//! The order of the layers is the one in docs/ARCHITECTURE.md. A crate may depend on any crate of a
//! lower layer, and on an earlier one of its own layer where the layer says so. A crate that is not in
//! the table is an error: it must be given a place.

use anyhow::{Result, bail};

use crate::runtime_names;
use crate::workspace::{Workspace, root};

/// Crates that see the same crates below them.
struct Layer {
    /// What holds them together.
    what: &'static str,
    /// An earlier one never sees a later one.
    crates: &'static [&'static str],
    /// Whether a crate may see the earlier ones of its own layer.
    sees_earlier: bool,
}

/// From the lowest up.
const LAYERS: [Layer; 6] = [
    Layer { what: "pure", crates: &["model", "agent-api", "planner"], sees_earlier: true },
    Layer { what: "contracts", crates: &["wit-bindings", "api-types"], sees_earlier: false },
    Layer {
        what: "one outside thing each",
        crates: &[
            "telemetry",
            "serve",
            "embedded-postgres",
            "artifacts",
            "store",
            "adapter-runtime",
            "agent-client",
        ],
        sees_earlier: false,
    },
    Layer {
        what: "features",
        crates: &["ingress", "routing", "grants", "reconciler", "control-api"],
        sees_earlier: true,
    },
    Layer { what: "command line", crates: &["cli"], sees_earlier: false },
    Layer { what: "programs", crates: &["hythe-agent", "hythe"], sees_earlier: false },
];

/// Crates outside the order, and all of the workspace that they may see.
const BESIDE: [(&str, &[&str]); 10] = [
    ("bench", &["adapter-runtime", "model"]),
    ("test-kit", &["model", "agent-api", "api-types", "agent-client", "embedded-postgres", "serve", "store"]),
    ("xtask", &["test-kit", "embedded-postgres"]),
    ("daemon-driver", &["agent-api"]),
    ("machine", &["daemon-driver", "agent-api"]),
    ("process", &["daemon-driver", "agent-api"]),
    ("bad", &[]),
    ("steps-adapter", &[]),
    ("canary-adapter", &[]),
    ("harbour", &[]),
];

/// Crates that others may use in their tests only.
const FOR_TESTS: [&str; 1] = ["test-kit"];

/// Libraries of [`KEPT`] that any crate may use in its tests: to play a server there.
const FREE_IN_TESTS: [&str; 1] = ["axum"];

/// Pairs that the order would allow and that must not be, with the reason.
const NEVER: [(&str, &str, &str); 2] = [
    (
        "ingress",
        "store",
        "ingress reads a route table and calls a `Waker`, so that it serves on while the database is away",
    ),
    (
        "ingress",
        "adapter-runtime",
        "ingress asks through traits; whoever decides about requests comes in through `RouterFactory`",
    ),
];

/// Libraries that one place keeps to itself. A trailing `*` stands for any ending.
const KEPT: [(&str, &[&str], &str); 5] = [
    ("sqlx", &["store", "embedded-postgres", "test-kit", "xtask"], "SQL lives in `store`"),
    ("wasmtime*", &["wit-bindings", "adapter-runtime"], "guests are touched by `adapter-runtime` only"),
    ("axum", &["control-api", "harbour"], "`control-api` alone speaks through it"),
    ("utoipa-*", &["control-api"], "the API is described where it is served"),
    (
        "wit-bindgen",
        &["daemon-driver", "machine", "process", "bad", "steps-adapter", "canary-adapter"],
        "only components are guests",
    ),
];

/// Runs the check on this workspace.
///
/// # Errors
/// Every violation: which crate, what it did, what to do.
pub fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut wrong = violations(&workspace);
    let runtimes: Vec<_> = workspace.components("adapters").collect();
    wrong.extend(runtime_names::violations(root(), &runtimes)?);
    if !wrong.is_empty() {
        bail!("the layers are broken in {} places:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    Ok(())
}

/// What is wrong in who depends on what, one sentence each.
fn violations(workspace: &Workspace) -> Vec<String> {
    let ours = |name: &str| workspace.packages.iter().any(|package| package.name == name);
    let mut wrong = Vec::new();
    for package in &workspace.packages {
        let name = package.name.as_str();
        if place(name).is_none() && beside(name).is_none() {
            wrong.push(format!(
                "{name}: has no place among the layers; add it to the table in host/xtask/src/layers.rs"
            ));
            continue;
        }
        for dependency in &package.dependencies {
            let other = dependency.name.as_str();
            let in_tests = dependency.kind.as_deref() == Some("dev");
            let problem = if ours(other) {
                may_not_see(name, other, in_tests)
            } else if in_tests && FREE_IN_TESTS.contains(&other) {
                None
            } else {
                may_not_use(name, other)
            };
            wrong.extend(problem.map(|why| format!("{name} depends on {other}: {why}")));
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Why a crate may not depend on another of the workspace; none where it may.
fn may_not_see(name: &str, other: &str, in_tests: bool) -> Option<String> {
    if let Some((.., why)) = NEVER.iter().find(|(from, to, _)| *from == name && *to == other) {
        return Some((*why).to_owned());
    }
    if FOR_TESTS.contains(&other) && beside(name).is_none() {
        let why = format!("it is for tests; move it to [dev-dependencies] of {name}");
        return (!in_tests).then_some(why);
    }
    if let Some(allowed) = beside(name) {
        let why = match allowed {
            [] => "it may depend on no crate of the workspace".to_owned(),
            some => format!("of the workspace it may depend on {} only", some.join(", ")),
        };
        return (!allowed.contains(&other)).then_some(why);
    }
    let (from, earlier) = place(name)?;
    let Some((to, later)) = place(other) else {
        return Some("it is beside the layers; what both need belongs below".to_owned());
    };
    let (layer, below) = (&LAYERS[from], &LAYERS[to]);
    if to > from {
        return Some(format!(
            "{name} is in the layer \"{}\", {other} above it in \"{}\"; move what is needed down, or pass it in",
            layer.what, below.what
        ));
    }
    if to == from && !(layer.sees_earlier && later < earlier) {
        return Some(format!(
            "both are in the layer \"{}\", whose crates don't see {}; join them in a layer above",
            layer.what,
            if layer.sees_earlier { "later ones" } else { "each other" },
        ));
    }
    None
}

/// Why a crate may not use a library; none where it may.
fn may_not_use(name: &str, library: &str) -> Option<String> {
    let (_, keepers, why) = KEPT.iter().find(|(kept, ..)| match kept.strip_suffix('*') {
        Some(start) => library.starts_with(start),
        None => library == *kept,
    })?;
    (!keepers.contains(&name)).then(|| format!("{why}; allowed in {}", keepers.join(", ")))
}

/// The crate's layer and its place in it.
fn place(name: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, Layer { crates, .. })| {
        crates.iter().position(|member| *member == name).map(|position| (layer, position))
    })
}

fn beside(name: &str) -> Option<&'static [&'static str]> {
    BESIDE.iter().find(|(member, _)| *member == name).map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace in which `name` depends on each of `others`; a leading `dev:` for tests only. Those
    /// of the others that are ours are in it too.
    fn workspace(name: &str, others: &[&str]) -> Workspace {
        let dependencies: Vec<_> = others
            .iter()
            .map(|other| match other.strip_prefix("dev:") {
                Some(other) => serde_json::json!({"name": other, "kind": "dev"}),
                None => serde_json::json!({"name": other, "kind": null}),
            })
            .collect();
        let mut packages = vec![
            serde_json::json!({"name": name, "manifest_path": "/x/Cargo.toml", "dependencies": dependencies}),
        ];
        for other in others.iter().map(|other| other.trim_start_matches("dev:")) {
            if place(other).is_some() || beside(other).is_some() {
                packages.push(serde_json::json!({"name": other, "manifest_path": "/x/Cargo.toml"}));
            }
        }
        serde_json::from_value(serde_json::json!({ "packages": packages })).unwrap()
    }

    #[track_caller]
    fn check(name: &str, others: &[&str], expected: &[&str]) {
        assert_eq!(violations(&workspace(name, others)), expected);
    }

    #[test]
    fn downwards_is_allowed() {
        check("planner", &["model"], &[]);
        check("store", &["model", "sqlx", "dev:test-kit"], &[]);
        check("reconciler", &["planner", "store", "ingress", "agent-client"], &[]);
        check("hythe", &["cli", "control-api", "ingress", "store", "model"], &[]);
        check("process", &["daemon-driver", "wit-bindgen"], &[]);
    }

    #[test]
    fn upwards_is_refused() {
        check(
            "model",
            &["store"],
            &[
                "model depends on store: model is in the layer \"pure\", store above it in \"one outside thing \
               each\"; move what is needed down, or pass it in",
            ],
        );
        // In tests too: they would compile everything above.
        assert_eq!(violations(&workspace("model", &["dev:store"])).len(), 1);
    }

    #[test]
    fn siblings_are_kept_apart() {
        check(
            "artifacts",
            &["store"],
            &[
                "artifacts depends on store: both are in the layer \"one outside thing each\", whose crates don't \
               see each other; join them in a layer above",
            ],
        );
        check(
            "ingress",
            &["control-api"],
            &[
                "ingress depends on control-api: both are in the layer \"features\", whose crates don't see later \
               ones; join them in a layer above",
            ],
        );
    }

    #[test]
    fn ingress_never_sees_the_store() {
        let wrong = violations(&workspace("ingress", &["store"]));
        assert!(wrong[0].starts_with("ingress depends on store: ingress reads a route table"), "{wrong:?}");
    }

    #[test]
    fn libraries_are_kept_where_they_belong() {
        check(
            "control-api",
            &["sqlx"],
            &[
                "control-api depends on sqlx: SQL lives in `store`; allowed in store, embedded-postgres, test-kit, \
               xtask",
            ],
        );
        assert_eq!(violations(&workspace("reconciler", &["wasmtime-wasi"])).len(), 1);
        assert_eq!(violations(&workspace("ingress", &["axum"])).len(), 1);
        check("ingress", &["dev:axum"], &[]);
        assert_eq!(violations(&workspace("ingress", &["dev:sqlx"])).len(), 1);
        assert_eq!(violations(&workspace("hythe", &["wit-bindgen"])).len(), 1);
    }

    #[test]
    fn what_is_for_tests_stays_there() {
        check(
            "store",
            &["test-kit"],
            &["store depends on test-kit: it is for tests; move it to [dev-dependencies] of store"],
        );
    }

    #[test]
    fn guests_see_nothing_of_the_host() {
        check(
            "harbour",
            &["model"],
            &["harbour depends on model: it may depend on no crate of the workspace"],
        );
        check(
            "machine",
            &["model"],
            &["machine depends on model: of the workspace it may depend on daemon-driver, agent-api only"],
        );
    }

    #[test]
    fn a_new_crate_must_be_given_a_place() {
        check(
            "pool",
            &["model"],
            &["pool: has no place among the layers; add it to the table in host/xtask/src/layers.rs"],
        );
    }

    #[test]
    fn this_workspace_is_all_placed() {
        let workspace = Workspace::load().unwrap();
        for package in &workspace.packages {
            assert!(place(&package.name).is_some() || beside(&package.name).is_some(), "{}", package.name);
        }
        for name in LAYERS.iter().flat_map(|layer| layer.crates).chain(BESIDE.iter().map(|(name, _)| name)) {
            assert!(
                workspace.packages.iter().any(|package| package.name == *name),
                "{name} is gone: remove it"
            );
        }
    }
}
