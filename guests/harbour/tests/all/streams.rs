//! Bodies that stream, both ways.

use std::io::Write as _;

use serde_json::json;

use crate::client::{answer, get, open, send};
use crate::program::Program;

#[test]
fn a_blob_has_every_byte_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    for bytes in [0, 1, 250, 65_536, 65_537, 1_000_003] {
        let blob = get(&harbour.address, &format!("/api/blob?bytes={bytes}"));
        assert_eq!(blob.header("content-length"), Some(bytes.to_string().as_str()));
        let body = blob.body();
        assert_eq!(body.len(), bytes);
        assert!(body.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }
    assert_eq!(get(&harbour.address, "/api/blob?bytes=99999999999").json()["field"], "bytes");
    assert_eq!(get(&harbour.address, "/api/blob").status, 400);
}

#[test]
fn an_echo_answers_before_the_body_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let mut stream = open(&harbour.address, "POST", "/api/echo", "content-type: text/x-boat\r\n", 10);
    stream.write_all(b"first").unwrap();
    let mut echo = answer(stream.try_clone().unwrap());
    assert_eq!(echo.header("content-type"), Some("text/x-boat"));
    assert_eq!(echo.chunk().unwrap(), b"first");
    stream.write_all(b"later").unwrap();
    assert_eq!(echo.body(), b"later");
}

#[test]
fn an_upload_is_counted_and_summed() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    // Longer than any buffer on the way, and than the limit of JSON bodies.
    let body = b"foobar".repeat(500_000);
    let counted = send(&harbour.address, "POST", "/api/upload", "", &body).json();
    assert_eq!(counted["bytes"], 3_000_000);
    let small = send(&harbour.address, "POST", "/api/upload", "", b"foobar").json();
    assert_eq!(small, json!({"bytes": 6, "fnv1a64": "85944171f73967e8"}));
}

#[test]
fn a_slow_answer_comes_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let mut slow = get(&harbour.address, "/api/slow?ms=30&every=10");
    for line in ["0\n", "10\n", "20\n", "done\n"] {
        assert_eq!(slow.chunk().as_deref(), Some(line.as_bytes()));
    }
    assert_eq!(slow.chunk(), None);
    assert_eq!(get(&harbour.address, "/api/slow?ms=5&every=0").json()["field"], "every");
}
