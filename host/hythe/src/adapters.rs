//! From the configuration's adapters to loaded ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adapter_runtime::{Adapter, AdapterRuntime};
use anyhow::{Context, bail};
use grants::{Grant, Grants, HttpTarget, Pattern, Target};
use model::RuntimeType;
use reconciler::LoadedAdapter;
use store::{AdapterRow, GrantRow};

use crate::config::{self, Config};
use crate::local_agent::CurrentClient;

/// Names a folder with the adapters that ship, before the usual places.
const FOLDER_VARIABLE: &str = "HYTHE_ADAPTERS_DIR";

/// Loads every adapter of the configuration.
///
/// # Errors
/// The first that can't be read or loaded, with its name.
pub async fn load_all(
    config: &Config,
    runtime: &AdapterRuntime,
    agents: &BTreeMap<String, CurrentClient>,
) -> anyhow::Result<BTreeMap<RuntimeType, Arc<LoadedAdapter>>> {
    let mut loaded = BTreeMap::new();
    for (runtime_type, adapter) in &config.adapters {
        let file = find(&adapter.component)?;
        let bytes = tokio::fs::read(&file).await.with_context(|| {
            format!("can't read the component {} of adapter {runtime_type}", file.display())
        })?;
        let component = runtime.load(runtime_type.as_str(), &bytes).await?;
        check(runtime_type, &component, adapter)?;
        let grants = grants(runtime_type, adapter, agents)?;
        let is_default = adapter.default || config.adapters.len() == 1;
        loaded
            .insert(runtime_type.clone(), Arc::new(LoadedAdapter { adapter: component, grants, is_default }));
    }
    Ok(loaded)
}

/// What the store mirrors.
pub fn rows(adapters: &BTreeMap<RuntimeType, Arc<LoadedAdapter>>) -> Vec<AdapterRow> {
    let row = |(name, loaded): (&RuntimeType, &Arc<LoadedAdapter>)| {
        let descriptor = loaded.adapter.descriptor();
        let grants = loaded.grants.iter().map(|(name, grant)| GrantRow {
            name: name.to_owned(),
            target: grant.target.to_string(),
            methods: grant.methods.clone(),
            paths: grant.paths.as_ref().map(|paths| paths.iter().map(ToString::to_string).collect()),
        });
        AdapterRow {
            name: name.clone(),
            component_sha256: loaded.adapter.sha256().to_owned(),
            version: descriptor.version.clone(),
            summary: descriptor.summary.clone(),
            exports: loaded.adapter.exports().iter().map(|export| (*export).to_owned()).collect(),
            spec_schema: descriptor.spec_schema.clone(),
            grants: grants.collect(),
            is_default: loaded.is_default,
        }
    };
    adapters.iter().map(row).collect()
}

/// A component that says what it is must be what the configuration calls it, and be given what it needs.
fn check(runtime_type: &RuntimeType, component: &Adapter, adapter: &config::Adapter) -> anyhow::Result<()> {
    let descriptor = component.descriptor();
    if &descriptor.runtime_type != runtime_type {
        bail!(
            "the component of [adapters.{runtime_type}] is an adapter for the runtime type `{}`: name the section [adapters.{}]",
            descriptor.runtime_type,
            descriptor.runtime_type
        );
    }
    for (name, what_for) in &descriptor.grants {
        if !adapter.grants.contains_key(name) {
            bail!(
                "adapter {runtime_type} needs the grant `{name}` ({what_for}): add [adapters.{runtime_type}.grants.{name}]"
            );
        }
    }
    Ok(())
}

fn grants(
    runtime_type: &RuntimeType,
    adapter: &config::Adapter,
    agents: &BTreeMap<String, CurrentClient>,
) -> anyhow::Result<Grants> {
    let mut grants = BTreeMap::new();
    for (name, grant) in &adapter.grants {
        let target = match (&grant.agent, &grant.address) {
            (Some(agent), _) => Target::Agent {
                name: agent.clone(),
                client: agents
                    .get(agent)
                    .cloned()
                    .with_context(|| format!("there is no daemon {agent:?}"))?,
            },
            (None, Some(address)) => {
                let authorization = grant.authorization.clone().map(Into::into);
                let target = HttpTarget::parse(address, authorization)
                    .with_context(|| format!("adapters.{runtime_type}.grants.{name}.address"))?;
                Target::Http(target)
            }
            (None, None) => bail!("adapters.{runtime_type}.grants.{name} leads nowhere"),
        };
        let methods =
            grant.methods.as_ref().map(|all| all.iter().map(|method| method.to_ascii_uppercase()).collect());
        let paths = grant.paths.as_ref().map(|all| all.iter().map(|path| Pattern::new(path)).collect());
        grants.insert(name.clone(), Grant { target, methods, paths });
    }
    Ok(Grants::new(grants))
}

/// A path as it is; a bare name among the adapters that ship.
fn find(component: &Path) -> anyhow::Result<PathBuf> {
    if component.components().count() != 1 {
        return Ok(component.to_owned());
    }
    let mut folders: Vec<PathBuf> =
        std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from).into_iter().collect();
    let program = std::env::current_exe().context("this program's own file can't be found")?;
    if let Some(folder) = program.parent() {
        folders.extend([
            folder.join("adapters"),
            folder.join("../lib/hythe/adapters"),
            folder.join("../adapters"),
        ]);
    }
    let found = folders.iter().map(|folder| folder.join(component)).find(|file| file.is_file());
    found.with_context(|| {
        let places = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
        format!(
            "the adapter {} is in none of {places}: build it, or name its folder in {FOLDER_VARIABLE}",
            component.display()
        )
    })
}
