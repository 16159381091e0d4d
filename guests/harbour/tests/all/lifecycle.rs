//! The program's own start and end.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use crate::client::{event, get, post};
use crate::program::Program;

#[test]
fn it_ends_on_sigterm_and_finds_its_state_again() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.clone();
    assert_eq!(post(&at, "/api/boats", &json!({"name": "Tern", "kind": "cutter", "length": 11})).status, 201);
    // A stream that would last for ever, and a request that ends by itself.
    let mut events = get(&at, "/api/events");
    assert_eq!(event(&mut events).0, "hello");
    let mut slow = get(&at, "/api/slow?ms=200&every=100");
    assert_eq!(slow.chunk().as_deref(), Some(b"0\n".as_slice()));

    harbour.signal(Signal::TERM);
    // The one is ended in order, the other comes to its end.
    while events.chunk().is_some() {}
    assert!(slow.text().ends_with("done\n"));
    let (status, lines) = harbour.ended();
    assert_eq!(status.code(), Some(0));
    assert_eq!(lines, ["harbour: closing", "harbour: closed"]);

    let harbour = Program::start(folder.path());
    let boats = get(&harbour.address, "/api/boats").json();
    assert!(boats.as_array().unwrap().iter().any(|boat| boat["name"] == "Tern"), "{boats}");
}

#[test]
fn kill_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    for number in 0..50 {
        let boat = json!({"name": format!("Boat {number}"), "kind": "barge", "length": 11});
        assert_eq!(post(&harbour.address, "/api/boats", &boat).status, 201);
    }
    harbour.signal(Signal::KILL);
    assert!(!harbour.ended().0.success());
    let kept = std::fs::read(folder.path().join("harbour.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert!(kept["boats"].as_array().unwrap().len() >= 5);
    assert_eq!(get(&Program::start(folder.path()).address, "/healthz").status, 200);
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    let public = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("public");
    let refused = |port: &str, public: &std::path::Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_harbour"))
            .current_dir(folder.path())
            .env("PORT", port)
            .env("HARBOUR_PUBLIC", public)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("sea", &public).contains("PORT is \"sea\": set it to a port"));
    assert!(
        refused(&taken.to_string(), &public)
            .contains(&format!("can't listen on 127.0.0.1:{taken}: set PORT"))
    );
    let no_files = refused("0", folder.path().join("nowhere").as_path());
    assert!(no_files.contains("run where `public` is, or set HARBOUR_PUBLIC"), "{no_files}");
}
