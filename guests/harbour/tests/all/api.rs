//! The JSON API: what it does and how it refuses.

use serde_json::{Value, json};

use crate::client::{get, post, send};
use crate::program::Program;

#[track_caller]
fn refused(answer: crate::client::Answer, status: u16, code: &str, contains: &str) {
    assert_eq!(answer.status, status);
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert!(problem["message"].as_str().unwrap().contains(contains), "{problem}");
}

#[test]
fn a_boat_comes_moors_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.as_str();

    let answer = post(at, "/api/boats", &json!({"name": "Kittiwake", "kind": "ketch", "length": 9.5}));
    assert_eq!(answer.status, 201);
    let place = answer.header("location").unwrap().to_owned();
    let boat = answer.json();
    assert_eq!(boat["berth"], Value::Null);
    assert_eq!(get(at, &place).json(), boat);

    let berth = format!("{place}/berth");
    assert_eq!(post(at, &berth, &json!({"berth": "B3"})).json()["berth"], "B3");
    let board = get(at, "/api/board").json();
    let b3 = board["berths"].as_array().unwrap().iter().find(|berth| berth["name"] == "B3").unwrap();
    assert_eq!(b3["boat"]["name"], "Kittiwake");
    assert_eq!(send(at, "DELETE", &berth, "", b"").json()["berth"], Value::Null);

    assert_eq!(send(at, "DELETE", &place, "", b"").status, 204);
    refused(get(at, &place), 404, "not-found", "there is no boat");
}

#[test]
fn refusals_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.as_str();
    let boat = |body: &Value| post(at, "/api/boats", body);

    refused(boat(&json!({"name": "", "kind": "ketch", "length": 9})), 422, "invalid", "name is empty");
    refused(
        boat(&json!({"name": "A", "kind": "ketch", "length": 900})),
        422,
        "invalid",
        "no length of a boat",
    );
    refused(boat(&json!({"name": "A", "kind": "submarine", "length": 9})), 422, "invalid-body", "submarine");
    refused(
        boat(&json!({"name": "A", "kind": "ketch", "length": 9, "flag": 1})),
        422,
        "invalid-body",
        "flag",
    );
    refused(boat(&json!({"name": "Marigold", "kind": "ketch", "length": 9})), 409, "name-taken", "Marigold");
    let broken = send(at, "POST", "/api/boats", "content-type: application/json\r\n", b"{");
    refused(broken, 400, "invalid-body", "EOF");
    refused(send(at, "POST", "/api/boats", "", b"{}"), 415, "invalid-body", "application/json");
    let long = vec![b'x'; 100 * 1024];
    let long = send(at, "POST", "/api/boats", "content-type: application/json\r\n", &long);
    refused(long, 413, "invalid-body", "limit");
    refused(post(at, "/api/boats/x/berth", &json!({"berth": "A1"})), 404, "not-found", "ids are numbers");
    refused(get(at, "/api/messages?before=1"), 400, "invalid-query", "before");
    refused(get(at, "/api/nothing"), 404, "not-found", "API");
    assert_eq!(send(at, "PATCH", "/api/boats", "", b"").status, 405);
    // Nothing of it left a trace.
    assert_eq!(get(at, "/api/boats").json().as_array().unwrap().len(), 5);
}

#[test]
fn messages_are_kept_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.as_str();
    let say =
        |text: &str| post(at, "/api/messages", &json!({"author": "me", "text": text})).json()["id"].clone();
    let (first, second) = (say("one"), say("two"));
    let after = get(at, &format!("/api/messages?after={first}")).json();
    assert_eq!(after.as_array().unwrap().len(), 1);
    assert_eq!(after[0]["text"], "two");
    assert_eq!(send(at, "DELETE", &format!("/api/messages/{second}"), "", b"").status, 204);
    assert_eq!(get(at, &format!("/api/messages?after={first}")).json(), json!([]));
}

#[test]
fn it_says_what_of_a_request_reached_it() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let info =
        send(&harbour.address, "GET", "/api/info", "x-forwarded-proto: https\r\ncookie: a=1\r\n", b"").json();
    assert_eq!(info["headers"]["x-forwarded-proto"], "https");
    assert_eq!(info["headers"]["cookie"], "a=1");
    assert_eq!(get(&harbour.address, "/healthz").json(), json!({"status": "ok", "boats": 5}));
}
