//! Pages and the files they name.

use crate::client::{get, post, send};
use crate::program::Program;

#[test]
fn the_front_page_shows_the_harbour_and_its_files_can_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.as_str();
    let boat = serde_json::json!({"name": "<b>Bold</b>", "kind": "dinghy", "length": 4});
    assert_eq!(post(at, "/api/boats", &boat).status, 201);

    let answer = get(at, "/");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let page = answer.text();
    assert!(page.contains("Marigold") && page.contains("&lt;b&gt;Bold&lt;/b&gt;"), "{page}");
    assert!(!page.contains("<b>Bold"), "{page}");

    for name in ["harbour.css", "harbour.js", "harbour.svg"] {
        let at_name = page.find(&format!("/assets/{name}?v=")).expect("the page names the file with its tag");
        let (url, _) = page[at_name..].split_once('"').unwrap();
        let file = get(at, url);
        assert_eq!(file.header("cache-control"), Some("public, max-age=31536000, immutable"));
        let tag = file.header("etag").unwrap().to_owned();
        assert!(!file.body().is_empty());
        // Without the tag in the address it is asked about again, and the tag spares the bytes.
        let again =
            send(at, "GET", &format!("/assets/{name}"), &format!("if-none-match: W/\"x\", {tag}\r\n"), b"");
        assert_eq!((again.status, again.header("cache-control")), (304, Some("no-cache")));
    }
    assert_eq!(get(at, "/assets/../harbour.json").status, 404);
}

#[test]
fn every_page_answers_and_others_are_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.as_str();
    let id = get(at, "/api/boats").json()[0]["id"].clone();
    assert!(get(at, &format!("/boats/{id}")).text().contains("Marigold (cutter, 14.5 m) arrives"));
    assert!(get(at, "/log").text().contains("Patience moors at A1"));
    assert!(get(at, "/fragments/board").text().starts_with("<div class=\"facts\">"));

    let page = send(at, "GET", "/boats/999", "accept: text/html\r\n", b"");
    assert_eq!(page.status, 404);
    assert!(page.text().contains("there is no boat 999"));
    let other = get(at, "/nothing/here");
    assert_eq!(other.status, 404);
    assert_eq!(other.json()["message"], "there is nothing at /nothing/here");
}
