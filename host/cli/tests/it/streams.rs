//! Streams that break: `exec`, `logs -f`, `events -f`.

use axum::http::Method;
use serde_json::json;

use crate::fake::{Asked, Fake, cut, json as answer, nothing, problem, text};
use crate::shapes::{DEPLOYMENT, deployment, exit, log, project, stdout};

const STARTED: &str = "{\"type\":\"started\",\"executionId\":\"exec_01h455vb4pex5vsknk084sn02q\"}\n";

fn running(asked: &Asked) -> axum::response::Response {
    match asked.path.as_str() {
        "/v1/projects/shop" => answer(200, &project()),
        path if path == format!("/v1/deployments/{DEPLOYMENT}") => {
            answer(200, &deployment("running", "healthy", true))
        }
        _ => nothing(),
    }
}

#[tokio::test]
async fn exec_attaches_again_where_its_output_was_cut() {
    let fake = Fake::start(|asked, earlier| {
        if asked.is(&Method::POST, &format!("/v1/deployments/{DEPLOYMENT}/exec")) {
            let half = stdout("never printed", 99);
            return cut(&format!("{STARTED}{}{}", stdout("one\n", 9), &half[..half.len() - 5]));
        }
        if asked.is(&Method::GET, &format!("/v1/deployments/{DEPLOYMENT}/executions/")) {
            return match earlier {
                // Ends in good order, but without an exit: cut as well.
                0 => text(format!("{STARTED}{}", stdout("two\n", 18))),
                1 => problem("unavailable", "the machine is away"),
                _ => text(format!(
                    "{STARTED}{{\"type\":\"stderr\",\"data\":\"w6k=\",\"encoding\":\"base64\",\"cursor\":26}}\n{}",
                    exit(&json!({"kind": "code", "value": 3}))
                )),
            };
        }
        running(asked)
    })
    .await;
    let ran = fake.run(&["exec", "shop", "--env", "A=b=c", "--timeout", "9", "--", "ls", "-l"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "one\ntwo\n", "é"));

    let asked = fake.asked();
    let begun: Vec<_> = asked.iter().filter(|asked| asked.method == Method::POST).collect();
    assert_eq!(begun.len(), 1, "begun once: {:?}", fake.lines());
    assert_eq!(begun[0].headers["accept"], "application/x-ndjson");
    assert_eq!(begun[0].headers["authorization"], "Bearer hyt_test");
    let request = begun[0].json();
    let id = request["executionId"].as_str().unwrap();
    assert_eq!(
        request,
        json!({"argv": ["ls", "-l"], "env": {"A": "b=c"}, "timeoutMs": 9000, "executionId": id})
    );
    let attached: Vec<_> = fake.lines().into_iter().filter(|line| line.contains("/executions/")).collect();
    let at = |cursor| format!("GET /v1/deployments/{DEPLOYMENT}/executions/{id}?cursor={cursor}");
    assert_eq!(attached, [at(9), at(18), at(18)]);
}

#[tokio::test]
async fn exec_that_was_cut_before_its_first_frame_is_begun_again_under_the_same_id() {
    let fake = Fake::start(|asked, earlier| {
        if asked.method == Method::POST {
            return match earlier {
                0 => cut(""),
                _ => text(format!("{STARTED}{}", exit(&json!({"kind": "signal", "value": "SIGKILL"})))),
            };
        }
        running(asked)
    })
    .await;
    let ran = fake.run(&["exec", DEPLOYMENT, "--", "work"]).await;
    assert_eq!(ran.code, 128 + 9, "{ran:?}");
    let ids: Vec<_> = fake
        .asked()
        .iter()
        .filter(|asked| asked.method == Method::POST)
        .map(|asked| asked.json()["executionId"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn exec_ends_by_its_own_time_or_by_a_problem() {
    async fn check(frame: String, code: u8, said: &str) {
        let fake = Fake::start(move |asked, _| {
            if asked.method == Method::POST { text(format!("{STARTED}{frame}")) } else { running(asked) }
        })
        .await;
        let ran = fake.run(&["exec", DEPLOYMENT, "--", "work"]).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
    }
    check(exit(&json!({"kind": "timedOut"})), 124, "ran out of its time").await;
    check(exit(&json!({"kind": "unknown"})), 1, "its exit code is lost").await;
    let problem = json!({"type": "error", "problem": {
        "type": "urn:hythe:problem:unsupported", "title": "", "status": 422,
        "detail": "the runtime has no exec", "instance": "/", "code": "unsupported", "requestId": "r",
    }});
    check(format!("{problem}\n"), 1, "the runtime has no exec").await;
}

#[tokio::test]
async fn exec_with_json_gives_each_frame_once() {
    let fake = Fake::start(|asked, _| match asked.method {
        Method::POST => cut(&format!("{STARTED}{}", stdout("one\n", 9))),
        _ if asked.path.contains("/executions/") => {
            text(format!("{STARTED}{}", exit(&json!({"kind": "code", "value": 0}))))
        }
        _ => running(asked),
    })
    .await;
    let ran = fake.run(&["--json", "exec", DEPLOYMENT, "--", "ls"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let kinds: Vec<String> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].to_string())
        .collect();
    assert_eq!(kinds, ["\"started\"", "\"stdout\"", "\"exit\""]);
}

#[tokio::test]
async fn logs_follow_over_breaks_without_a_line_lost_or_twice() {
    let fake = Fake::start(|asked, earlier| {
        let logs = format!("/v1/deployments/{DEPLOYMENT}/logs");
        let own = format!("/v1/deployments/{DEPLOYMENT}");
        if asked.path.starts_with(&logs) {
            return match earlier {
                0 => {
                    let remark = log(9000, "the log breaks off here").replace("stdout", "hythe");
                    cut(&[log(1000, "a"), log(2000, "b"), log(2000, "c"), remark].concat())
                }
                // Breaks off again, for the same reason.
                1 => cut(&log(9500, "the log breaks off here").replace("stdout", "hythe")),
                // From that millisecond on: two are known, the third is new.
                2 => text([log(2000, "b"), log(2000, "c"), log(2000, "d"), log(3000, "e")].concat()),
                _ => text(log(3000, "e")),
            };
        }
        // Asked for once to find it, then after each stream.
        if asked.path == own && earlier >= 4 {
            return answer(200, &deployment("destroyed", "unknown", false));
        }
        running(asked)
    })
    .await;
    let ran = fake.run(&["logs", "-f", "-n", "7", DEPLOYMENT]).await;
    let expected = "a\nb\nc\n[hythe] the log breaks off here\nd\ne\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, expected), "{ran:?}");
    let queries: Vec<_> = fake
        .lines()
        .iter()
        .filter_map(|line| line.split_once("/logs?").map(|(_, query)| query.to_owned()))
        .collect();
    assert_eq!(
        queries,
        [
            "follow=true&lines=7",
            "follow=true&lines=100000&since=1970%2D01%2D01T00%3A00%3A02Z",
            "follow=true&lines=100000&since=1970%2D01%2D01T00%3A00%3A02Z",
            "follow=true&lines=100000&since=1970%2D01%2D01T00%3A00%3A03Z",
        ]
    );
}

#[tokio::test]
async fn logs_once_say_that_they_were_cut() {
    let fake = Fake::start(
        |asked, _| {
            if asked.path.contains("/logs?") { cut(&log(1000, "a")) } else { running(asked) }
        },
    )
    .await;
    let ran = fake.run(&["logs", "-t", DEPLOYMENT]).await;
    assert_eq!((ran.code, ran.out.as_str()), (5, "1970-01-01T00:00:01.000Z a\n"));
    assert!(ran.err.contains("the connection to the host broke"), "{ran:?}");
}

#[tokio::test]
async fn events_follow_over_breaks() {
    let event = |seq: u64| {
        let data = json!({"seq": seq, "at": "2026-11-21T20:00:00Z", "name": "e", "data": {}});
        format!("id: {seq}\nevent: e\ndata: {data}\n\n")
    };
    let fake = Fake::start(move |_, earlier| match earlier {
        0 => answer(
            200,
            &json!({"items": [{"seq": 4, "at": "2026-11-21T20:00:00Z", "name": "old", "data": {}}]}),
        ),
        1 => cut(&format!(": hello\n\n{}{}data: {{\"seq\":", event(5), event(6))),
        2 => text(format!("{}{}", event(6), event(7))),
        _ => problem("token_expired", "the token's time is over"),
    })
    .await;
    let ran = fake.run(&["--json", "events", "-f"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    let seen: Vec<u64> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seen, [4, 5, 6, 7]);
    assert_eq!(
        fake.lines(),
        [
            "GET /v1/events?last=50",
            "GET /v1/events?after=4&follow=true",
            "GET /v1/events?after=6&follow=true",
            "GET /v1/events?after=7&follow=true",
        ]
    );
}
