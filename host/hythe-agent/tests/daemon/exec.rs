//! Commands inside a workload.

use std::fs;

use agent_api::frame::Decoder;
use agent_api::{ExecRequest, Exit, WorkloadPhase, error_code};
use futures_util::StreamExt;
use http::StatusCode;
use model::ExecutionId;

use crate::machine::{Machine, Output, collect, forever, is_alive, refusal, shell, wait_until};

fn command(script: &str) -> ExecRequest {
    ExecRequest { argv: shell(script), ..ExecRequest::default() }
}

#[tokio::test]
async fn output_and_exit_are_told_apart() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&forever()).await;
    let run = async |request: ExecRequest| {
        collect(deployment.execute(ExecutionId::new(), &request).await.unwrap()).await
    };
    let output = run(command("echo out; echo err >&2; exit 42")).await;
    let expected =
        Output { stdout: "out\n".to_owned(), stderr: "err\n".to_owned(), exit: Some(Exit::Code(42)) };
    assert_eq!(output, expected);
    assert_eq!(run(command("kill -15 $$")).await.exit, Some(Exit::Signal("SIGTERM".to_owned())));
    let missing =
        run(ExecRequest { argv: vec!["no-such-program".to_owned()], ..ExecRequest::default() }).await;
    assert_eq!(missing.exit, Some(Exit::Code(127)));
    assert!(missing.stderr.contains("no-such-program"), "{}", missing.stderr);
    // Not through a shell.
    let argv = ["printf", "%s|", "a b", "$HOME", ""].map(str::to_owned).to_vec();
    assert_eq!(run(ExecRequest { argv, ..ExecRequest::default() }).await.stdout, "a b|$HOME||");
    // More than any buffer on the way.
    let large = run(command("head -c 3000000 /dev/zero | tr '\\0' x")).await;
    assert_eq!(large.stdout.len(), 3_000_000);
}

#[tokio::test]
async fn it_is_where_and_who_the_workload_is() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    let mut spec = forever();
    spec.env.insert("COLOUR".to_owned(), "blue".to_owned());
    let status = deployment.up(&spec).await;
    let mut request = command("id -u; pwd; echo $COLOUR $SIZE $HYTHE_INCARNATION");
    request.env.insert("SIZE".to_owned(), "large".to_owned());
    let output = collect(deployment.execute(ExecutionId::new(), &request).await.unwrap()).await;
    let process = fs::read_to_string(format!("/proc/{}/status", status.pid.unwrap())).unwrap();
    let uid = process
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    assert_eq!(output.stdout, format!("{uid}\n{}\nblue large 1\n", deployment.app().display()));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&forever()).await;
    let mut request = command("setsid sleep 1000000 & echo $!; sleep 1000000 & echo $!; wait");
    request.timeout_ms = Some(300);
    let output = collect(deployment.execute(ExecutionId::new(), &request).await.unwrap()).await;
    assert_eq!(output.exit, Some(Exit::TimedOut));
    let children: Vec<u32> = output.stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(children.len(), 2);
    assert!(!children.into_iter().any(is_alive));
}

#[tokio::test]
async fn an_id_runs_once_and_is_attached_to_from_any_cursor() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&forever()).await;
    let id = ExecutionId::new();
    let request =
        command("echo ran >> ran; echo first; while [ ! -e go ]; do sleep 0.01; done; echo second; exit 5");
    let mut body = deployment.execute(id, &request).await.unwrap();
    let mut decoder = Decoder::default();
    while decoder.consumed() == 0 {
        decoder.push(&body.next().await.unwrap().unwrap());
        decoder.next_frame().unwrap();
    }
    // The client goes away; the command doesn't.
    drop(body);
    let again = tokio::spawn(collect(deployment.execute(id, &request).await.unwrap()));
    let rest = tokio::spawn(collect(deployment.attach(id, decoder.consumed()).await.unwrap()));
    fs::write(deployment.app().join("go"), "").unwrap();
    assert_eq!(again.await.unwrap().stdout, "first\nsecond\n");
    let rest = rest.await.unwrap();
    assert_eq!((rest.stdout.as_str(), rest.exit), ("second\n", Some(Exit::Code(5))));
    // After its end too.
    assert_eq!(collect(deployment.attach(id, 0).await.unwrap()).await.stdout, "first\nsecond\n");
    assert_eq!(fs::read_to_string(deployment.app().join("ran")).unwrap(), "ran\n");
    assert_eq!(refusal(deployment.attach(ExecutionId::new(), 0).await).0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn it_outlives_the_daemon_and_ends_as_unknown_only_where_nobody_can_know() {
    let mut machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&forever()).await;
    let (kept, lost) = (ExecutionId::new(), ExecutionId::new());
    let script = "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo done; exit 6";
    for id in [kept, lost] {
        let mut body = deployment.execute(id, &command(script)).await.unwrap();
        body.next().await.unwrap().unwrap();
    }
    let ticket = deployment.ticket();
    let note = deployment.folder().join(format!("executions/{lost}/shim.json"));
    machine.kill();
    let note: serde_json::Value = serde_json::from_slice(&fs::read(note).unwrap()).unwrap();
    let shim = i32::try_from(note["process"]["pid"].as_u64().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    machine.run().await;
    let deployment = machine.again(ticket);
    let output = wait_until("it is known", async || deployment.attach(lost, 0).await.ok()).await;
    assert_eq!(collect(output).await.exit, Some(Exit::Unknown));
    let output = tokio::spawn(collect(deployment.attach(kept, 0).await.unwrap()));
    fs::write(deployment.app().join("go"), "").unwrap();
    let output = output.await.unwrap();
    assert_eq!((output.stdout.as_str(), output.exit), ("begun\ndone\n", Some(Exit::Code(6))));
}

#[tokio::test]
async fn it_needs_a_running_workload_and_ends_with_it() {
    let machine = Machine::start().await;
    let mut deployment = machine.deployment();
    deployment.up(&forever()).await;
    let id = ExecutionId::new();
    let mut body = deployment.execute(id, &command("echo $$; sleep 1000000")).await.unwrap();
    body.next().await.unwrap().unwrap();
    deployment.operation += 1;
    deployment.stop(0).await.unwrap();
    deployment.until(WorkloadPhase::Stopped).await;
    assert_eq!(deployment.processes(), Vec::<u32>::new());
    let output = collect(deployment.attach(id, 0).await.unwrap()).await;
    assert_eq!(output.exit, Some(Exit::Signal("SIGKILL".to_owned())));
    let (status, problem) = refusal(deployment.execute(ExecutionId::new(), &command("true")).await);
    assert_eq!((status, problem.code.as_str()), (StatusCode::CONFLICT, error_code::NOT_RUNNING));
}
