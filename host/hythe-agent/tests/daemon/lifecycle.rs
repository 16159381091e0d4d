//! Starting, restarting, failing, stopping, removing.

use std::fs;
use std::os::unix::fs::MetadataExt;

use agent_api::{Exit, Limits, RestartPolicy, WorkloadPhase, WorkloadService, error_code};
use http::StatusCode;

use crate::machine::{Machine, echo, echo_program, forever, is_alive, is_root, refusal, sh, shell};

#[tokio::test]
async fn what_keeps_ending_is_restarted_and_then_failed_with_its_last_words() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.put(&sh("echo $$ >> pids; echo out of luck >&2; exit 3")).await.unwrap();
    let status = deployment.until(WorkloadPhase::Failed).await;
    let detail = status.detail.unwrap();
    assert!(detail.starts_with("it ended with exit code 3 after 3 restarts in a row"), "{detail}");
    assert!(detail.contains("out of luck"), "{detail}");
    assert_eq!((status.attempts, status.last_exit), (3, Some(Exit::Code(3))));
    assert_eq!(deployment.noted().0.len(), 4);
}

#[tokio::test]
async fn what_can_t_be_started_fails_at_once_and_says_why() {
    let machine = Machine::start().await;
    let check = async |change: &dyn Fn(&mut agent_api::WorkloadSpec), because: &str| {
        let deployment = machine.deployment();
        let mut spec = forever();
        change(&mut spec);
        deployment.put(&spec).await.unwrap();
        let status = deployment.until(WorkloadPhase::Failed).await;
        let detail = status.detail.unwrap();
        assert!(detail.contains(because), "{detail}");
        assert_eq!(status.attempts, 0);
    };
    check(&|spec| spec.command = vec!["no-such-program".to_owned()], "the program \"no-such-program\"").await;
    check(&|spec| spec.command = vec!["/etc/passwd".to_owned()], "may not be run").await;
    check(&|spec| spec.cwd = Some("nowhere".to_owned()), "the folder nowhere to run in doesn't exist").await;
    check(&|spec| spec.setup = vec![shell("echo no compiler; exit 9")], "ended with exit code 9").await;
    check(&|spec| spec.setup = vec![shell("echo no compiler; exit 9")], "no compiler").await;
}

#[tokio::test]
async fn a_start_that_takes_too_long_fails_and_leaves_nothing() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = forever();
    spec.services = vec![WorkloadService { name: "web".to_owned(), port: 80 }];
    spec.start_timeout_ms = 300;
    deployment.put(&spec).await.unwrap();
    let status = deployment.until(WorkloadPhase::Failed).await;
    assert!(status.detail.unwrap().contains("must listen on the port that PORT names"));
    assert_eq!(deployment.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn running_means_that_the_port_accepts() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let source = machine.upload(&[("echo", &echo_program(), 0o755)]).await;
    let mut spec = echo(source);
    spec.command = shell("while [ ! -e go ]; do sleep 0.01; done; exec ./echo");
    deployment.put(&spec).await.unwrap();
    deployment.file("../run/child.json", |text| text.contains("\"is_command\": true")).await;
    assert_eq!(deployment.status().await.unwrap().phase, WorkloadPhase::Starting);
    fs::write(deployment.app().join("go"), "").unwrap();
    let status = deployment.until(WorkloadPhase::Running).await;
    let port = status.services[0].local_port;
    assert!((20_000..=32_767).contains(&port));
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn a_stop_leaves_nothing_whatever_it_has_become() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    // Ignores SIGTERM; has children in its group, in a session of their own, and without our marks.
    let script = "trap '' TERM; echo $$ >> pids; sleep 1000001 & setsid sleep 1000002 &
        setsid env -i /bin/sh -c 'sleep 1000003 & exec sleep 1000004' & while :; do sleep 0.01; done";
    deployment.up(&sh(script)).await;
    deployment.file("pids", |text| text.ends_with('\n')).await;
    let mine = || {
        let all =
            ["1000001", "1000002", "1000003", "1000004"].iter().flat_map(|n| Machine::processes_with(n));
        let own = std::process::id();
        let mut all: Vec<u32> = all.filter(|pid| *pid != own && is_alive(*pid)).collect();
        all.dedup();
        all
    };
    crate::machine::wait_until("all children", async || (mine().len() >= 5).then_some(())).await;
    deployment.operation += 1;
    deployment.stop(50).await.unwrap();
    let status = deployment.until(WorkloadPhase::Stopped).await;
    assert_eq!(status.last_exit, Some(Exit::Signal("SIGKILL".to_owned())));
    assert_eq!((mine(), deployment.processes()), (vec![], vec![]));
}

#[tokio::test]
async fn a_stop_during_setup_starts_nothing_more() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    let mut spec = forever();
    // Takes SIGTERM as success, as some tools do.
    spec.setup = vec![
        shell("trap 'exit 0' TERM; echo one >> setup; while :; do sleep 0.01; done"),
        shell("echo two >> setup"),
    ];
    deployment.put(&spec).await.unwrap();
    deployment.file("setup", |text| text == "one\n").await;
    deployment.operation += 1;
    deployment.stop(60_000).await.unwrap();
    deployment.until(WorkloadPhase::Stopped).await;
    assert_eq!(fs::read_to_string(deployment.app().join("setup")).unwrap(), "one\n");
    assert!(deployment.noted().0.is_empty());
}

#[tokio::test]
async fn files_and_the_setup_outlive_an_incarnation_and_go_with_the_deployment() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    let source = machine.upload(&[("page", b"first", 0o644)]).await;
    let mut spec = forever();
    spec.source = Some(source);
    spec.setup = vec![shell("echo done >> setup")];
    deployment.up(&spec).await;
    fs::write(deployment.app().join("page"), "edited").unwrap();
    deployment.operation += 1;
    deployment.incarnation += 1;
    deployment.up(&spec).await;
    assert_eq!(fs::read_to_string(deployment.app().join("page")).unwrap(), "edited");
    assert_eq!(fs::read_to_string(deployment.app().join("setup")).unwrap(), "done\n");
    deployment.operation += 1;
    deployment.delete().await.unwrap();
    deployment.until(WorkloadPhase::Destroyed).await;
    assert!(!deployment.folder().exists());
    assert_eq!(deployment.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_workload_is_given_what_it_needs_and_nothing_of_the_daemons() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = sh("env > env.new; id -u > uid; pwd > pwd; mv env.new env; exec sleep 1000000");
    spec.env.insert("GREETING".to_owned(), "hello world".to_owned());
    deployment.up(&spec).await;
    let env = deployment.file("env", |text| !text.is_empty()).await;
    let mut names: Vec<&str> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !["_", "SHLVL", "PWD", "OLDPWD"].contains(name));
    names.sort_unstable();
    let expected = ["GREETING", "HOME", "HYTHE_DEPLOYMENT", "HYTHE_INCARNATION", "HYTHE_WORKLOAD", "PATH"];
    assert_eq!(names, expected);
    assert!(env.contains(&format!("HOME={}\n", deployment.folder().join("home").display())));
    let uid: u32 = deployment.file("uid", |text| text.ends_with('\n')).await.trim().parse().unwrap();
    assert_eq!(fs::metadata(deployment.app()).unwrap().uid(), uid);
    if is_root() {
        assert!((61_184..=65_519).contains(&uid));
        // The daemon's own files are closed to it, and so are another workload's.
        let other = machine.deployment();
        other.up(&forever()).await;
        let closed = [
            machine.data().join("key.pem"),
            machine.data().join("state"),
            other.app(),
            other.folder().join("log"),
        ];
        for place in closed {
            let script = format!(
                "if ls {0} > /dev/null 2>&1 && cat {0}; then echo open; fi; id -G > groups; exec sleep 1000000",
                place.display()
            );
            let intruder = machine.deployment();
            intruder.up(&sh(&format!("({script}) > seen 2>&1"))).await;
            let groups = intruder.file("groups", |text| text.ends_with('\n')).await;
            assert_eq!(groups.split_whitespace().count(), 1, "{groups}");
            let seen = fs::read_to_string(intruder.app().join("seen")).unwrap();
            assert!(!seen.contains("open") && !seen.contains("PRIVATE"), "{}: {seen}", place.display());
        }
    } else {
        println!("not root: workloads share the daemon's user, so their walls are not tested");
    }
}

#[tokio::test]
async fn limits_that_the_machine_can_t_keep_are_said_and_don_t_fail_the_start() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = forever();
    spec.limits = Limits { memory_mb: Some(256), cpus: Some(0.5), processes: Some(50) };
    let status = deployment.up(&spec).await;
    // Either all are kept, or the detail says which are not.
    let detail = status.detail.unwrap_or_default();
    for (file, what) in [("memory.max", "memory"), ("cpu.max", "processors"), ("pids.max", "processes")] {
        let pid = status.pid.unwrap();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let kept = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().any(|mount| {
            fs::read_to_string(format!("{mount}/{group}/{file}")).is_ok_and(|value| !value.starts_with("max"))
        });
        let said = detail.contains(&format!("the limit on {what} is not kept"))
            || detail.contains("the limits are not kept");
        assert!(kept != said, "{what}: kept {kept}, detail {detail:?}");
    }
}

#[tokio::test]
async fn a_spec_that_can_t_be_run_or_has_no_source_is_refused_before_anything_is_done() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = forever();
    spec.command.clear();
    let (status, problem) = refusal(deployment.put(&spec).await);
    assert_eq!((status, problem.code.as_str()), (StatusCode::BAD_REQUEST, error_code::INVALID));
    let mut spec = forever();
    spec.source = Some("0".repeat(64));
    let (status, problem) = refusal(deployment.put(&spec).await);
    assert_eq!((status, problem.code.as_str()), (StatusCode::FAILED_DEPENDENCY, error_code::SOURCE_MISSING));
    assert_eq!(refusal(deployment.status().await).0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn no_restart_means_none() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = sh("echo $$ >> pids");
    spec.restart = RestartPolicy { max_attempts: 0, ..RestartPolicy::default() };
    deployment.put(&spec).await.unwrap();
    let status = deployment.until(WorkloadPhase::Failed).await;
    assert!(status.detail.unwrap().contains("is not to be restarted"));
    assert_eq!(deployment.noted().0.len(), 1);
}
