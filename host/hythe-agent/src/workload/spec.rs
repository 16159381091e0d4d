//! Is this a specification that can be run? And what a workload's processes are given.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use agent_api::{ServicePort, WorkloadSpec};
use sha2::{Digest, Sha256};

use super::record::Record;
use crate::data::WorkloadFolder;
use crate::problem::Refusal;
use crate::source::check_digest;

/// Marks every process of a workload, so that it can be found whatever became of its parents. The value
/// is the workload's folder: no other daemon has the same.
pub const MARK: &str = "HYTHE_WORKLOAD";

/// Says what is wrong, by the field.
pub fn check(spec: &WorkloadSpec) -> Result<(), Refusal> {
    check_command("command", &spec.command)?;
    for (index, command) in spec.setup.iter().enumerate() {
        check_command(&format!("setup[{index}]"), command)?;
    }
    check_environment("env", &spec.env)?;
    check_cwd("cwd", spec.cwd.as_deref())?;
    if let Some(digest) = &spec.source {
        check_digest(digest).map_err(|error| Refusal::invalid(format!("source: {error}")))?;
    }
    if spec.limits.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0) {
        return Err(Refusal::invalid("limits.cpus must be greater than 0"));
    }
    if spec.limits.memory_mb == Some(0) || spec.limits.processes == Some(0) {
        return Err(Refusal::invalid("limits.memoryMb and limits.processes must be greater than 0"));
    }
    if spec.limits.memory_mb.is_some_and(|mb| mb.checked_mul(1024 * 1024).is_none()) {
        return Err(Refusal::invalid("limits.memoryMb is larger than any machine's memory"));
    }
    let mut names = HashSet::new();
    for service in &spec.services {
        if service.name.parse::<model::ServiceName>().is_err() || service.port == 0 {
            return Err(Refusal::invalid(format!(
                "services: {:?} with port {} is none: a name has a-z, 0-9 and `-`, a port is 1 to 65535",
                service.name, service.port
            )));
        }
        if !names.insert(variable_of(&service.name)) {
            return Err(Refusal::invalid(format!("services: {:?} is there twice", service.name)));
        }
    }
    Ok(())
}

pub fn check_command(field: &str, command: &[String]) -> Result<(), Refusal> {
    if command.first().is_none_or(String::is_empty) {
        return Err(Refusal::invalid(format!("{field} is empty: give it a program and its arguments")));
    }
    if command.iter().any(|part| part.contains('\0')) {
        return Err(Refusal::invalid(format!("{field} has a zero byte")));
    }
    Ok(())
}

pub fn check_environment(field: &str, env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Refusal::invalid(format!(
                "{field}: {name:?} can't be set: a name is not empty and has no `=`, and neither name nor value has a zero byte"
            )));
        }
    }
    Ok(())
}

pub fn check_cwd(field: &str, cwd: Option<&str>) -> Result<(), Refusal> {
    let stays = |path: &str| {
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
            && !path.contains('\0')
    };
    match cwd {
        Some(path) if !stays(path) => Err(Refusal::invalid(format!(
            "{field} {path:?} must be a folder below the source's own: no `..`, no `/` in front"
        ))),
        _ => Ok(()),
    }
}

/// The folder to run in, and what a person knows it by.
pub fn cwd(folder: &WorkloadFolder, cwd: Option<&str>) -> (PathBuf, String) {
    match cwd {
        // Joining an empty path would add a `/`.
        None | Some("") => (folder.app(), ".".to_owned()),
        Some(cwd) => (folder.app().join(cwd), cwd.to_owned()),
    }
}

/// Services with the local ports that they get.
pub fn services(spec: &WorkloadSpec, ports: &[u16]) -> Vec<ServicePort> {
    let services = spec.services.iter().zip(ports);
    services
        .map(|(service, port)| ServicePort {
            name: service.name.clone(),
            port: service.port,
            local_port: *port,
        })
        .collect()
}

/// All of the environment of a workload's processes. `extra` wins over the specification, and what the
/// daemon says wins over both.
pub fn environment(
    record: &Record,
    folder: &WorkloadFolder,
    path: &str,
    extra: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
    env.extend(record.spec.env.clone());
    env.extend(extra.clone());
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set("HOME", folder.home().display().to_string());
    set("HYTHE_DEPLOYMENT", record.deployment.to_string());
    set("HYTHE_INCARNATION", record.incarnation.to_string());
    set(MARK, folder.path().display().to_string());
    if let Some(first) = record.services.first() {
        set("PORT", first.local_port.to_string());
    }
    for service in &record.services {
        set(&variable_of(&service.name), service.local_port.to_string());
    }
    env
}

fn variable_of(service: &str) -> String {
    format!("PORT_{}", service.to_ascii_uppercase().replace('-', "_"))
}

/// Names a set-up: another source or other commands are another.
pub fn setup_key(spec: &WorkloadSpec) -> String {
    let setup = (&spec.source, &spec.setup, &spec.cwd);
    hex::encode(Sha256::digest(serde_json::to_vec(&setup).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use agent_api::WorkloadService;

    use super::*;

    fn spec() -> WorkloadSpec {
        WorkloadSpec {
            command: vec!["run".to_owned()],
            services: vec![
                WorkloadService { name: "web".to_owned(), port: 3000 },
                WorkloadService { name: "web-socket".to_owned(), port: 3001 },
            ],
            ..WorkloadSpec::default()
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut WorkloadSpec), because: &str) {
        let mut spec = spec();
        change(&mut spec);
        let refusal = check(&spec).unwrap_err();
        assert!(refusal.message.contains(because), "{refusal}");
    }

    #[test]
    fn what_can_t_be_run_is_named() {
        check(&spec()).unwrap();
        refused(|spec| spec.command.clear(), "command is empty");
        refused(|spec| spec.setup = vec![vec![]], "setup[0] is empty");
        refused(|spec| spec.cwd = Some("../x".to_owned()), "cwd \"../x\"");
        refused(|spec| spec.cwd = Some("/x".to_owned()), "cwd \"/x\"");
        refused(|spec| spec.env = BTreeMap::from([("A=B".to_owned(), String::new())]), "env: \"A=B\"");
        refused(|spec| spec.source = Some("abc".to_owned()), "is not a digest");
        refused(|spec| spec.limits.cpus = Some(0.0), "limits.cpus");
        refused(|spec| spec.services[1].name = "web".to_owned(), "\"web\" is there twice");
        refused(|spec| spec.services[0].port = 0, "a port is 1 to 65535");
    }

    #[test]
    fn the_daemons_variables_win() {
        let mut record =
            Record::unseen(model::DeploymentId::from_suffix("01h455vb4pex5vsknk084sn02q").unwrap());
        record.spec = spec();
        record.spec.env =
            BTreeMap::from([("PORT".to_owned(), "1".to_owned()), ("A".to_owned(), "b".to_owned())]);
        record.services = services(&record.spec, &[20_001, 20_002]);
        record.incarnation = 3;
        let data = tempfile::tempdir().unwrap();
        let folder = crate::data::DataFolder::open(data.path()).unwrap().workload(record.deployment);
        let env = environment(&record, &folder, "/bin", &BTreeMap::new());
        for (name, value) in [
            ("PORT", "20001"),
            ("PORT_WEB", "20001"),
            ("PORT_WEB_SOCKET", "20002"),
            ("A", "b"),
            ("PATH", "/bin"),
            ("HYTHE_INCARNATION", "3"),
            ("HYTHE_DEPLOYMENT", "dep_01h455vb4pex5vsknk084sn02q"),
        ] {
            assert_eq!(env[name], value, "{name}");
        }
        assert_eq!(env.len(), 9, "{env:?}");
    }
}
