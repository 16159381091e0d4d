//! What workloads print.

use agent_api::LogQuery;

use crate::machine::{Machine, sh, wait_until};

const ALL: LogQuery = LogQuery { lines: 10_000, follow: false, since_ms: None };

#[tokio::test]
async fn streams_are_told_apart_and_followed_across_the_daemons_death() {
    let mut machine = Machine::start().await;
    let deployment = machine.deployment();
    let script = "echo one; echo two >&2; n=0; while :; do if [ -e say ]; then rm say; n=$((n+1)); echo said $n; fi; sleep 0.01; done";
    deployment.up(&sh(script)).await;
    let mut lines = deployment.logs(&LogQuery { follow: true, ..ALL }).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let line = lines.next_printed().await.unwrap();
        assert!(line.at_ms > 1_600_000_000_000);
        seen.push((line.origin, line.text));
    }
    seen.sort();
    assert_eq!(seen, [("stderr".to_owned(), "two".to_owned()), ("stdout".to_owned(), "one".to_owned())]);
    let app = deployment.app();
    std::fs::set_permissions(&app, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let say = || std::fs::write(app.join("say"), "").unwrap();
    say();
    assert_eq!(lines.next_printed().await.unwrap().text, "said 1");

    // Printed while no daemon is there.
    let ticket = deployment.ticket();
    machine.kill();
    say();
    wait_until("it was said", async || (!app.join("say").exists()).then_some(())).await;
    machine.run().await;
    let deployment = machine.again(ticket);
    let mut lines = deployment.logs(&LogQuery { follow: true, ..ALL }).await;
    let mut texts = Vec::new();
    while texts.last().is_none_or(|last| last != "said 2") {
        texts.push(lines.next_printed().await.unwrap().text);
    }
    assert_eq!(texts.iter().filter(|text| text.starts_with("said")).count(), 2);
}

#[tokio::test]
async fn the_newest_lines_are_given_and_the_disk_is_bounded() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    // About 40 MB, faster than anybody reads.
    let script = "i=0; line=$(printf 'x%.0s' $(seq 1 4000)); while [ $i -lt 10000 ]; do echo $i $line; i=$((i+1)); done; touch done; exec sleep 1000000";
    deployment.up(&sh(script)).await;
    deployment.file("done", |_| true).await;
    let lines = wait_until("the last line", async || {
        let lines = deployment.logs(&LogQuery { lines: 3, ..ALL }).await.all().await;
        lines.last().is_some_and(|line| line.text.starts_with("9999 ")).then_some(lines)
    })
    .await;
    let numbers: Vec<_> = lines.iter().map(|line| line.text.split(' ').next().unwrap()).collect();
    assert_eq!(numbers, ["9997", "9998", "9999"]);
    let files = std::fs::read_dir(deployment.folder().join("log")).unwrap().flatten();
    let bytes: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 16 << 20, "{bytes}");
}

#[tokio::test]
async fn lines_since_a_time_and_a_line_without_an_end() {
    let machine = Machine::start().await;
    let deployment = machine.deployment();
    deployment.up(&sh("echo early; printf 'prompt> '; exec sleep 1000000")).await;
    let lines = wait_until("the prompt", async || {
        let lines = deployment.logs(&ALL).await.all().await;
        lines.iter().any(|line| line.text == "prompt> ").then_some(lines)
    })
    .await;
    let prompt = lines.iter().find(|line| line.text == "prompt> ").unwrap();
    let later = deployment.logs(&LogQuery { since_ms: Some(prompt.at_ms), ..ALL }).await.all().await;
    assert!(later.iter().all(|line| line.text != "early"));
    assert!(later.contains(prompt));
}
