//! Uploads, over real connections.

use artifacts::{ArtifactStore, Digest, Limits};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::{World, archive};

/// Serves the API on a port of its own.
async fn serve(world: &World) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

async fn upload(world: &World, base: &str, digest: &Digest, bytes: Vec<u8>) -> (StatusCode, Value) {
    let request = reqwest::Client::new().put(format!("{base}/v1/sources/{digest}")).bearer_auth(&world.token);
    let answer = request.body(bytes).send().await.unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    (status, answer.json().await.unwrap())
}

#[tokio::test]
async fn an_archive_is_stored_once() {
    let world = World::new().await;
    let base = serve(&world).await;
    let (bytes, digest) = archive("hello");
    let head = || world.request("HEAD".parse().unwrap(), &format!("/v1/sources/{digest}")).send();
    assert_eq!(head().await.status, StatusCode::NOT_FOUND);
    let (status, stored) = upload(&world, &base, &digest, bytes.clone()).await;
    assert_eq!((status, &stored["sizeBytes"]), (StatusCode::CREATED, &json!(bytes.len())));
    assert_eq!(upload(&world, &base, &digest, bytes).await, (StatusCode::OK, stored));
    assert_eq!(head().await.status, StatusCode::OK);
    world.request("HEAD".parse().unwrap(), "/v1/sources/abc").send().await;
}

#[tokio::test]
async fn what_is_refused_is_said_although_the_client_still_sends() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { archive_bytes: 1 << 20, ..Default::default() };
    let artifacts = ArtifactStore::open_with(dir.path(), limits).unwrap();
    let world = World::with_artifacts(dir, artifacts).await;
    let base = serve(&world).await;
    let (_, digest) = archive("hello");
    let (status, problem) = upload(&world, &base, &digest, vec![7; 2 << 20]).await;
    assert_eq!((status, &problem["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    assert!(problem["detail"].as_str().unwrap().contains("1048576"), "{problem}");
    let (status, problem) = upload(&world, &base, &digest, vec![7; 1000]).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("digest_mismatch")));
    let noise = vec![7; 1000];
    let (_, problem) = upload(&world, &base, &Digest::of(&noise), noise).await;
    assert_eq!(problem["code"], "invalid_archive");
    assert!(!world.artifacts.exists(&digest).await.unwrap());
}

#[tokio::test]
async fn a_full_disk_is_said_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(arguments).arg(dir.path()).status().is_ok_and(|status| status.success())
    };
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !mount("mount", &["-t", "tmpfs", "-o", "size=128k", "hythe-test"]) {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    }
    let artifacts = ArtifactStore::open(dir.path()).unwrap();
    let world = World::with_artifacts(tempfile::tempdir().unwrap(), artifacts).await;
    let base = serve(&world).await;
    let noise: Vec<u8> = (0..300_000_u32)
        .flat_map(|number| Digest::of(&number.to_le_bytes()).to_string().into_bytes())
        .collect();
    let (status, problem) = upload(&world, &base, &Digest::of(&noise), noise).await;
    let left = std::fs::read_dir(dir.path().join("incoming")).unwrap().count();
    let unmounted = mount("umount", &[]);
    assert_eq!((status, &problem["code"]), (StatusCode::INSUFFICIENT_STORAGE, &json!("disk_full")));
    assert!(problem["detail"].as_str().unwrap().contains("free some space"), "{problem}");
    assert_eq!((left, unmounted), (0, true));
}
