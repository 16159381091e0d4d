//! The daemon killed or frozen exactly at its side effects.

use agent_api::WorkloadPhase;

use crate::machine::{Machine, forever, refusal, wait_until};

/// Runs to the fault, then a daemon without one.
async fn crash_at(point: &str, nth: u32, act: impl AsyncFnOnce(&Machine)) -> Machine {
    let mut machine = Machine::joined();
    machine.faults = Some(format!("daemon.{point}=SIGKILL@{nth}"));
    machine.run().await;
    act(&machine).await;
    machine.ended().await;
    machine.faults = None;
    machine.run().await;
    machine
}

#[tokio::test]
async fn a_crash_anywhere_in_a_start_ends_in_one_process() {
    for (point, nth) in [
        ("before_state_write", 1),
        ("after_state_write", 1),
        ("before_state_write", 2),
        ("after_state_write", 2),
        ("before_spawn", 1),
        ("after_spawn", 1),
        ("before_state_write", 3),
        ("after_state_write", 3),
    ] {
        let mut ticket = None;
        let machine = crash_at(point, nth, async |machine| {
            let deployment = machine.deployment();
            ticket = Some(deployment.ticket());
            // The answer may be lost with the daemon.
            let _ = deployment.put(&forever()).await;
        })
        .await;
        let deployment = machine.again(ticket.unwrap());
        // The host repeats the operation whose answer it never got.
        deployment.up(&forever()).await;
        let noted = wait_until("one lives", async || {
            let (noted, living) = deployment.noted();
            (living == 1).then_some(noted)
        })
        .await;
        assert_eq!(deployment.processes(), noted[noted.len() - 1..], "{point}@{nth}: {noted:?}");
        if point == "after_spawn" {
            assert_eq!(noted.len(), 1, "it was taken up");
        }
    }
}

#[tokio::test]
async fn a_crash_anywhere_in_a_stop_or_removal_ends_in_none() {
    for (point, nth) in [
        ("before_kill", 1),
        ("after_kill", 1),
        ("before_state_write", 4),
        ("after_state_write", 4),
        ("before_state_write", 5),
    ] {
        for removal in [false, true] {
            let mut ticket = None;
            let machine = crash_at(point, nth, async |machine| {
                let mut deployment = machine.deployment();
                deployment.up(&forever()).await;
                deployment.operation += 1;
                ticket = Some(deployment.ticket());
                let _ = if removal { deployment.delete().await } else { deployment.stop(1000).await };
            })
            .await;
            let deployment = machine.again(ticket.unwrap());
            let end = if removal { WorkloadPhase::Destroyed } else { WorkloadPhase::Stopped };
            let _ = if removal {
                deployment.delete().await.unwrap()
            } else {
                deployment.stop(1000).await.unwrap()
            };
            deployment.until(end).await;
            assert_eq!(deployment.processes(), Vec::<u32>::new(), "{point}@{nth}");
            assert_eq!(deployment.folder().exists(), !removal);
        }
    }
}

#[tokio::test]
async fn a_frozen_daemon_goes_on_where_it_was_and_then_refuses_what_is_late() {
    let mut machine = Machine::joined();
    machine.faults = Some("daemon.before_spawn=SIGSTOP".to_owned());
    machine.run().await;
    let deployment = machine.deployment();
    deployment.put(&forever()).await.unwrap();
    wait_until("it is frozen", async || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", machine.pid())).ok()?;
        stat.contains(") T ").then_some(())
    })
    .await;
    assert!(deployment.noted().0.is_empty());
    let pid = rustix::process::Pid::from_raw(i32::try_from(machine.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    deployment.until(WorkloadPhase::Running).await;
    let mut later = machine.again(deployment.ticket());
    later.operation = 3;
    later.stop(0).await.unwrap();
    later.until(WorkloadPhase::Stopped).await;
    let mut late = machine.again(deployment.ticket());
    late.operation = 2;
    late.incarnation = 2;
    refusal(late.put(&forever()).await);
    assert_eq!(deployment.processes(), Vec::<u32>::new());
}
