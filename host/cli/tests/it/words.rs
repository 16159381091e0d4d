//! What is said when things are as they are: tables, errors, exit codes.

use axum::http::Method;
use serde_json::Value;

use crate::fake::{Fake, json, nothing, problem, run, run_to, text};
use crate::shapes::{DEPLOYMENT, adapter, deployment, page, project, wait, with};

#[tokio::test]
async fn a_refused_token_is_exit_4() {
    let fake = Fake::start(|_, _| problem("token_unknown", "the token is not known")).await;
    let ran = fake.run(&["ps"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    let said = ran.err.replace(&fake.url, "URL");
    insta::assert_snapshot!(said, @r"
    error: the token is not known
      where: GET URL/v1/deployments?limit=200
      hint: the token was refused: check --token, HYTHE_TOKEN or the file it came from
    ");
}

#[tokio::test]
async fn no_host_is_exit_5_and_says_how_to_get_one() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let api = format!("http://127.0.0.1:{port}");
    let here = std::path::Path::new(".");
    for command in [&["ps"][..], &["logs", "-f", "shop"], &["exec", "shop", "--", "ls"], &["events", "-f"]] {
        let ran = run(&api, here, command).await;
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.err.contains(&format!("error: no host answers at {api}: ")), "{ran:?}");
        assert!(ran.err.contains("hint: start one with `hythe up` or `hythe serve`"), "{ran:?}");
    }
    let ran = run(&api, here, &["--json", "ps"]).await;
    let said: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(said["error"]["exitCode"], 5);
}

#[tokio::test]
async fn what_is_not_there_is_exit_3() {
    let fake = Fake::start(|_, _| nothing()).await;
    for command in [
        &["status", DEPLOYMENT][..],
        &["stop", "shop"],
        &["rm", "shop"],
        &["projects", "show", "shop"],
        &["ps", "shop"],
        &["adapters", "show", "a/b"],
    ] {
        let ran = fake.run(command).await;
        assert_eq!(ran.code, 3, "{command:?}: {ran:?}");
    }
    let ran = fake.run(&["machines", "rm", "nope"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(fake.lines().contains(&"GET /v1/adapters/a%2Fb".to_owned()));
}

#[tokio::test]
async fn an_answer_of_something_else_is_told_as_such() {
    let fake = Fake::start(|_, _| text("<html>another server</html>")).await;
    let ran = fake.run(&["ps"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("the host's answer can't be read"), "{ran:?}");
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let fake = Fake::start(|asked, _| {
        if asked.path.contains("cursor=a%2Bb") {
            return json(200, &page(&[adapter("two")]));
        }
        json(200, &serde_json::json!({"items": [adapter("one")], "nextCursor": "a+b"}))
    })
    .await;
    let ran = fake.run(&["adapters"]).await;
    insta::assert_snapshot!(ran.out, @r"
    RUNTIME  VERSION  CAN   SUMMARY
    one      0.1.0    logs  Runs things by one.
    two      0.1.0    logs  Runs things by two.
    ");
}

#[tokio::test]
async fn ps_is_aligned_where_it_is_piped() {
    let fake = Fake::start(|_, _| {
        let long_ago = |value| with(value, "createdAt", "1970-01-01T00:00:00Z");
        let first = long_ago(deployment("running", "healthy", true));
        let second = long_ago(deployment("failed", "unknown", false));
        json(200, &page(&[with(second, "id", "dep_01h455vb4pex5vsknk084sn02r"), first]))
    })
    .await;
    let ran = fake.run(&["ps"]).await;
    let said: String = ran.out.split_inclusive('\n').map(without_age).collect();
    insta::assert_snapshot!("ps_piped", said);
    let ran = fake.run(&["--json", "ps"]).await;
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap().as_array().unwrap().len(), 2);
}

/// `20778d ago` grows by the day.
fn without_age(line: &str) -> String {
    let word = line
        .split_whitespace()
        .find(|word| word.ends_with('d') && word.starts_with(|c: char| c.is_ascii_digit()));
    word.map_or_else(|| line.to_owned(), |word| line.replace(word, "NNNNNd"))
}

#[tokio::test]
async fn status_tells_what_is_stuck() {
    let fake = Fake::start(|_, _| {
        let mut stuck = deployment("starting", "unknown", false);
        stuck["operation"] = serde_json::json!({
            "kind": "start", "startedAt": "2999-01-01T00:00:00Z", "tries": 4,
            "lastError": "no machine is free", "nextTryAt": "2999-01-01T00:00:00Z",
        });
        stuck["createdAt"] = "2999-01-01T00:00:00Z".into();
        json(200, &stuck)
    })
    .await;
    let ran = fake.run(&["status", DEPLOYMENT]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!("status_stuck", ran.out);
}

#[tokio::test]
async fn rm_waits_until_it_is_gone() {
    let fake = Fake::start(|asked, _| match (&asked.method, asked.path.as_str()) {
        (&Method::DELETE, _) => {
            json(202, &with(deployment("running", "healthy", true), "wantedState", "destroyed"))
        }
        (_, "/v1/projects/shop") => json(200, &project()),
        (_, path) if path.contains("/wait?") => {
            json(200, &wait("reached", &deployment("destroyed", "unknown", false)))
        }
        _ => json(200, &deployment("running", "healthy", true)),
    })
    .await;
    let ran = fake.run(&["rm", "shop", "--force"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, format!("{DEPLOYMENT} is gone\n").as_str()), "{ran:?}");
    assert!(fake.lines().contains(&format!("DELETE /v1/deployments/{DEPLOYMENT}?force=true")));
}

#[tokio::test]
async fn a_restart_waits_for_the_start_that_it_asked_for() {
    let fake = Fake::start(|asked, _| {
        let mut second = deployment("running", "healthy", true);
        second["wantedIncarnation"] = 2.into();
        match (&asked.method, asked.path.contains("/wait?")) {
            (&Method::POST, _) => json(202, &second),
            (_, true) => json(200, &wait("reached", &second)),
            _ => json(200, &deployment("running", "healthy", true)),
        }
    })
    .await;
    let ran = fake.run(&["restart", DEPLOYMENT]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let last = fake.lines().pop().unwrap();
    assert_eq!(last, format!("GET /v1/deployments/{DEPLOYMENT}/wait?incarnation=2&state=running&timeout=2"));
}

#[tokio::test]
async fn promote_is_about_the_newest_deployment() {
    let newest = "dep_01h455vb4pex5vsknk084sn02r";
    let fake = Fake::start(move |asked, _| match (&asked.method, asked.path.as_str()) {
        (&Method::POST, _) | (_, "/v1/projects/shop") => json(200, &project()),
        (_, path) if path.ends_with("/deployments?limit=200") => {
            let gone =
                with(deployment("destroyed", "unknown", false), "id", "dep_01h455vb4pex5vsknk084sn02s");
            let new = with(deployment("running", "healthy", false), "id", newest);
            json(200, &page(&[deployment("running", "healthy", true), gone, new]))
        }
        _ => json(200, &with(deployment("running", "healthy", true), "id", newest)),
    })
    .await;
    let ran = fake.run(&["promote", "shop"]).await;
    let said = format!("{newest}  running  http://shop.localhost:8080/\n");
    assert_eq!((ran.code, ran.out), (0, said), "{}", ran.err);
    assert!(fake.lines().contains(&format!("POST /v1/deployments/{newest}/promote")));
}

#[tokio::test]
async fn open_names_the_address() {
    let fake = Fake::start(|_, _| json(200, &deployment("running", "healthy", true))).await;
    let url = async |arguments: &[&str]| {
        let ran = fake.run(&[&["--json", "open", DEPLOYMENT][..], arguments].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str::<Value>(&ran.out).unwrap()["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(url(&[]).await, "http://shop.localhost:8080/");
    assert_eq!(url(&["--deployment"]).await, "http://dep-01h455vb4pex5vsknk084sn02q.localhost:8080/");
    assert_eq!(url(&["--service", "web"]).await, "http://shop.localhost:8080/");
    let ran = fake.run(&["--json", "open", DEPLOYMENT, "--service", "api"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("it has: web"), "{ran:?}");
}

#[tokio::test]
async fn a_reader_that_has_heard_enough_is_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let fake = Fake::start(|_, _| json(200, &page(&[adapter("one")]))).await;
    let ran = run_to(&fake.url, std::path::Path::new("."), &["adapters"], Box::new(Closed)).await;
    assert_eq!((ran.0, ran.1.as_str()), (0, ""));
}

#[tokio::test]
async fn completions_know_the_commands_and_need_no_host() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run("http://127.0.0.1:1", std::path::Path::new("."), &["completions", shell]).await;
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("deploy") && ran.out.contains("restart"), "{shell}");
    }
}
