//! kill -9 of the daemon at any point: one process of a workload at most, and what was wanted comes about.

use std::fs;

use agent_api::{Exit, WorkloadPhase};

use crate::machine::{Machine, forever, is_alive, sh, shell, wait_until};

#[tokio::test]
async fn a_running_workload_is_taken_up_and_not_started_again() {
    let mut machine = Machine::start().await;
    let deployment = machine.deployment();
    let before = deployment.up_forever(1).await;
    let ticket = deployment.ticket();
    for _ in 0..3 {
        machine.kill();
        machine.run().await;
        let after = machine.again(ticket).until(WorkloadPhase::Running).await;
        assert_eq!((after.pid, after.attempts), (before.pid, 0));
    }
    let deployment = machine.again(ticket);
    assert_eq!(deployment.noted(), (vec![before.pid.unwrap()], 1));
    // Adopted, it is still watched.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(before.pid.unwrap()).unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let restarted = wait_until("a restart", async || {
        deployment
            .status()
            .await
            .ok()
            .filter(|status| status.attempts == 1 && status.phase == WorkloadPhase::Running)
    })
    .await;
    assert_eq!(restarted.last_exit, Some(Exit::Signal("SIGKILL".to_owned())));
    deployment.file("pids", |text| text.lines().count() == 2).await;
    assert_eq!(deployment.noted().1, 1);
}

#[tokio::test]
async fn what_ended_while_no_daemon_was_there_is_restarted_with_its_true_exit() {
    let mut machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&sh("echo $$ >> pids; while [ ! -e end ]; do sleep 0.01; done; rm end; exit 7")).await;
    deployment.file("pids", |text| text.ends_with('\n')).await;
    let (ticket, app) = (deployment.ticket(), deployment.app());
    let (pids, _) = deployment.noted();
    machine.kill();
    fs::write(app.join("end"), "").unwrap();
    fs::set_permissions(&app, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    wait_until("it ends", async || (!is_alive(pids[0])).then_some(())).await;
    machine.run().await;
    let deployment = machine.again(ticket);
    let status = wait_until("a restart", async || {
        deployment
            .status()
            .await
            .ok()
            .filter(|status| status.attempts == 1 && status.phase == WorkloadPhase::Running)
    })
    .await;
    assert_eq!((status.last_exit, status.incarnation), (Some(Exit::Code(7)), 1));
    deployment.file("pids", |text| text.lines().count() == 2).await;
    assert_eq!(deployment.noted().1, 1);
}

#[tokio::test]
async fn a_setup_goes_on_without_the_daemon_and_runs_once() {
    let mut machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = forever();
    spec.setup =
        vec![shell("echo one >> setup; while [ ! -e go ]; do sleep 0.01; done"), shell("echo two >> setup")];
    deployment.put(&spec).await.unwrap();
    deployment.file("setup", |text| text == "one\n").await;
    let ticket = deployment.ticket();
    machine.kill();
    machine.run().await;
    let deployment = machine.again(ticket);
    assert_eq!(deployment.status().await.unwrap().phase, WorkloadPhase::Starting);
    fs::write(deployment.app().join("go"), "").unwrap();
    deployment.until(WorkloadPhase::Running).await;
    assert_eq!(fs::read_to_string(deployment.app().join("setup")).unwrap(), "one\ntwo\n");
    deployment.file("pids", |text| text.ends_with('\n')).await;
    assert_eq!(deployment.noted().1, 1);
}

#[tokio::test]
async fn a_stop_under_way_is_finished() {
    let mut machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment
        .up(&sh("echo $$ >> pids; trap 'echo asked >> asked' TERM; while :; do sleep 0.01; done"))
        .await;
    deployment.file("pids", |text| text.ends_with('\n')).await;
    deployment.operation += 1;
    assert_eq!(deployment.stop(60_000).await.unwrap().phase, WorkloadPhase::Stopping);
    deployment.file("asked", |text| !text.is_empty()).await;
    let ticket = deployment.ticket();
    machine.kill();
    assert_eq!(machine.again(ticket).noted().1, 1);
    machine.run().await;
    let mut deployment = machine.again(ticket);
    assert_eq!(deployment.status().await.unwrap().phase, WorkloadPhase::Stopping);
    // A more impatient request hastens it.
    deployment.operation += 1;
    deployment.stop(0).await.unwrap();
    deployment.until(WorkloadPhase::Stopped).await;
    assert_eq!((deployment.noted().1, deployment.processes()), (0, vec![]));
}

#[tokio::test]
async fn a_removal_under_way_is_finished() {
    let mut machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment.up(&sh("trap 'echo asked >> asked' TERM; while :; do sleep 0.01; done")).await;
    deployment.operation += 1;
    deployment.stop(2000).await.unwrap();
    deployment.operation += 1;
    assert_eq!(deployment.delete().await.unwrap().phase, WorkloadPhase::Stopping);
    let ticket = deployment.ticket();
    machine.kill();
    machine.run().await;
    let deployment = machine.again(ticket);
    deployment.until(WorkloadPhase::Destroyed).await;
    assert!(!deployment.folder().exists());
    assert_eq!(deployment.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_killed_shim_leaves_nothing_that_would_run_twice() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&sh("echo $$ >> pids; setsid sleep 1000000 & exec sleep 1000000")).await;
    deployment.file("pids", |text| text.ends_with('\n')).await;
    let note: serde_json::Value =
        serde_json::from_slice(&fs::read(deployment.folder().join("run/shim.json")).unwrap()).unwrap();
    let shim = i32::try_from(note["process"]["pid"].as_u64().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    wait_until("a restart", async || {
        deployment
            .status()
            .await
            .ok()
            .filter(|status| status.attempts == 1 && status.phase == WorkloadPhase::Running)
    })
    .await;
    deployment.file("pids", |text| text.lines().count() == 2).await;
    assert_eq!(deployment.noted().1, 1);
    wait_until("two sleeps of the second run", async || (deployment.processes().len() == 2).then_some(()))
        .await;
}

#[tokio::test]
async fn two_daemons_don_t_share_a_folder() {
    let machine = Machine::start().await;
    let output = machine.command().stderr(std::process::Stdio::piped()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(error.contains(&format!("in use by the hythe-agent with pid {}", machine.pid())), "{error}");
    machine.client().health().await.unwrap();
}

#[tokio::test]
async fn on_exit_stop_ends_workloads_and_the_next_daemon_starts_them_again() {
    let mut machine = Machine::joined();
    machine.arguments = ["--on-exit", "stop"].map(str::to_owned).to_vec();
    machine.run().await;
    let deployment = machine.deployment();
    deployment.up_forever(1).await;
    let ticket = deployment.ticket();
    machine.terminate().await;
    assert_eq!(machine.again(ticket).processes(), Vec::<u32>::new());
    machine.run().await;
    let deployment = machine.again(ticket);
    let status = deployment.until(WorkloadPhase::Running).await;
    assert_eq!((status.incarnation, status.attempts), (1, 0));
    deployment.file("pids", |text| text.lines().count() == 2).await;
    assert_eq!(deployment.noted().1, 1);
}

#[tokio::test]
async fn on_exit_keep_leaves_workloads_alone() {
    let mut machine = Machine::start().await;
    let deployment = machine.deployment();
    let before = deployment.up_forever(1).await;
    let ticket = deployment.ticket();
    machine.terminate().await;
    assert!(is_alive(before.pid.unwrap()));
    machine.run().await;
    assert_eq!(machine.again(ticket).until(WorkloadPhase::Running).await.pid, before.pid);
}
