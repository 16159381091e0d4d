//! Control groups (version 2): bounds on a workload, and a way to end all of it at once.
//!
//! Everything here is a help that a machine may not offer: where it doesn't, a note says so and the
//! workload runs without.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_api::Limits;

/// `cpu.max` counts quota in this period, microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// Where this daemon keeps its workloads' groups.
#[derive(Debug, Clone)]
pub struct Cgroups {
    base: Result<PathBuf, String>,
}

impl Cgroups {
    /// Looks for a place where groups can be made. `name` parts this daemon's from others'.
    pub fn discover(name: &str) -> Self {
        let base = Self::make_base(name);
        match &base {
            Ok(path) => tracing::info!(cgroup.path = %path.display(), "workloads get control groups"),
            Err(why) => {
                tracing::warn!("workloads get no control groups, so their limits are not kept: {why}")
            }
        }
        Self { base }
    }

    fn make_base(name: &str) -> Result<PathBuf, String> {
        let mount = mount_point().ok_or("no cgroup2 file system is mounted")?;
        // Root may make groups at the top; another user only in the group that was delegated to it.
        let parent = if rustix::process::geteuid().is_root() { mount } else { own_group(&mount)? };
        let base = parent.join(name);
        fs::create_dir(&base).or_else(exists).map_err(|error| format!("{}: {error}", base.display()))?;
        for group in [&parent, &base] {
            for controller in ["memory", "cpu", "pids"] {
                // Not offered here, or not delegated: noted where a workload wants a limit.
                let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        Ok(base)
    }

    /// Makes the group of one workload with its limits. The notes say which ones can't be kept.
    pub fn prepare(&self, workload: &str, limits: &Limits) -> Vec<String> {
        let group = match &self.base {
            Ok(base) => base.join(workload),
            Err(_) if limits.is_empty() => return Vec::new(),
            Err(why) => return vec![format!("the limits are not kept on this machine: {why}")],
        };
        if let Err(error) = fs::create_dir(&group).or_else(exists) {
            return vec![format!("no control group could be made at {}: {error}", group.display())];
        }
        let mut notes = Vec::new();
        let mut set = |file: &str, value: Option<String>, what: &str| {
            let path = group.join(file);
            match fs::write(&path, value.as_deref().unwrap_or("max")) {
                Err(error) if value.is_some() => {
                    notes.push(format!(
                        "the limit on {what} is not kept on this machine ({}: {error})",
                        path.display()
                    ));
                }
                _ => {}
            }
        };
        set("memory.max", limits.memory_mb.map(|mb| (mb * 1024 * 1024).to_string()), "memory");
        set("pids.max", limits.processes.map(|count| count.to_string()), "processes");
        set("cpu.max", limits.cpus.map(cpu_max), "processors");
        notes
    }

    /// The group of a workload, where it has one.
    pub fn existing(&self, workload: &str) -> Option<PathBuf> {
        self.base.as_ref().ok().map(|base| base.join(workload)).filter(|group| group.is_dir())
    }

    /// Leaves nothing behind where no workload has a group any more.
    pub fn remove_base(&self) {
        if let Ok(base) = &self.base {
            let _ = fs::remove_dir(base);
        }
    }
}

fn cpu_max(cpus: f64) -> String {
    // Below 1 ms the kernel refuses the quota.
    let quota = (cpus * CPU_PERIOD_US as f64).max(1000.0) as u64;
    format!("{quota} {CPU_PERIOD_US}")
}

fn exists(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

fn own_group(mount: &Path) -> Result<PathBuf, String> {
    let groups =
        fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(mount.join(path.ok_or("this process is in no cgroup2 group")?))
}

/// Processes in the group.
pub fn processes(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills all in the group at once, also what forks meanwhile (Linux 5.14 and later).
pub fn kill(group: &Path) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
}

/// Removes the empty group; zombies keep it for a moment.
pub fn remove(group: &Path) {
    for _ in 0..20 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(5))
            }
            _ => return,
        }
    }
    tracing::debug!(cgroup.path = %group.display(), "the control group is still busy");
}

/// While it lives, this process is in the group, so that what it starts begins there.
pub struct Entered {
    back: PathBuf,
}

impl Entered {
    /// Goes into the group.
    pub fn enter(group: &Path) -> io::Result<Self> {
        let mount = mount_point().ok_or_else(|| io::Error::other("no cgroup2 file system is mounted"))?;
        let back = own_group(&mount).map_err(io::Error::other)?;
        fs::write(group.join("cgroup.procs"), "0")?;
        Ok(Self { back })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = fs::write(self.back.join("cgroup.procs"), "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_become_a_quota() {
        assert_eq!(cpu_max(0.5), "50000 100000");
        assert_eq!(cpu_max(2.0), "200000 100000");
        assert_eq!(cpu_max(0.0001), "1000 100000");
    }
}
