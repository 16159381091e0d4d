//! Uploads.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent_api::{error_code, path};
use agent_client::{Body, Request};
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};

use crate::machine::{Machine, archive, is_root, refusal};

fn stored(machine: &Machine) -> usize {
    fs::read_dir(machine.data().join("sources")).unwrap().count()
}

/// An archive whose names no builder would write.
fn hostile(path: &str, link: Option<&str>) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_mode(0o644);
    header.set_size(0);
    if let Some(link) = link {
        header.set_entry_type(tar::EntryType::Symlink);
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &[][..]).unwrap();
    zstd::encode_all(builder.into_inner().unwrap().as_slice(), 1).unwrap()
}

#[tokio::test]
async fn a_source_is_stored_once_and_found() {
    let machine = Machine::start().await;
    let digest = machine.upload(&[("a", b"a", 0o644)]).await;
    assert_eq!(machine.put_source(&digest, archive(&[("a", b"a", 0o644)])).await.unwrap(), StatusCode::OK);
    let head =
        |digest: &str| Request { method: Method::HEAD, path: path::source(digest), ..Request::default() };
    assert_eq!(machine.client().send(head(&digest)).await.unwrap().status, StatusCode::OK);
    assert_eq!(machine.client().send(head(&"0".repeat(64))).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(machine.client().send(head("../x")).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(stored(&machine), 1);
}

#[tokio::test]
async fn a_bad_archive_is_refused_and_leaves_nothing() {
    let machine = Machine::start().await;
    let check = async |archive: Vec<u8>, digest: Option<String>, code: &str, because: &str| {
        let digest = digest.unwrap_or_else(|| hex::encode(Sha256::digest(&archive)));
        let (status, problem) = refusal(machine.put_source(&digest, archive).await);
        assert_eq!((status, problem.code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, code), "{problem:?}");
        assert!(problem.message.contains(because), "{problem:?}");
        assert_eq!(stored(&machine), 0);
    };
    let invalid = error_code::INVALID_ARCHIVE;
    check(hostile("../escaped", None), None, invalid, "has `..`").await;
    check(hostile("/tmp/escaped", None), None, invalid, "absolute").await;
    check(hostile("link", Some("../../escaped")), None, invalid, "leads out").await;
    check(hostile("link", Some("/etc/passwd")), None, invalid, "leads out").await;
    check(b"not an archive".to_vec(), None, invalid, "not a whole tar.zst").await;
    let mut noise = vec![0; 400_000];
    getrandom::fill(&mut noise).unwrap();
    let whole = archive(&[("noise", &noise, 0o644)]);
    check(whole[..whole.len() / 2].to_vec(), None, invalid, "not a whole tar.zst").await;
    check(whole, Some("0".repeat(64)), error_code::DIGEST_MISMATCH, "it changed on its way").await;
    machine.client().health().await.unwrap();
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let machine = Machine::start().await;
    let mut noise = vec![0; 300_000];
    getrandom::fill(&mut noise).unwrap();
    let whole = archive(&[("noise", &noise, 0o644)]);
    let digest = hex::encode(Sha256::digest(&whole));
    let pieces =
        [Ok(whole[..100_000].to_vec().into()), Err(std::io::Error::other("the client's disk broke"))];
    let request = Request {
        method: Method::PUT,
        path: path::source(&digest),
        body: Body::stream(futures_util::stream::iter(pieces)),
        ..Request::default()
    };
    machine.client().send(request).await.unwrap_err();
    crate::machine::wait_until("the part is gone", async || (stored(&machine) == 0).then_some(())).await;
}

/// A small disk, where this user may mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "none"]).arg(at).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let mut machine = Machine::joined();
    let sources = machine.data().join("sources");
    fs::create_dir_all(&sources).unwrap();
    let disk = is_root().then(|| SmallDisk::mount(&sources)).flatten();
    let Some(_disk) = disk else {
        println!("no small disk can be mounted here: not tested");
        return;
    };
    machine.run().await;
    let mut noise = vec![0; 3 << 20];
    getrandom::fill(&mut noise).unwrap();
    let large = archive(&[("noise", &noise, 0o644)]);
    let digest = hex::encode(Sha256::digest(&large));
    let (status, problem) = refusal(machine.put_source(&digest, large).await);
    assert_eq!((status, problem.code.as_str()), (StatusCode::INSUFFICIENT_STORAGE, error_code::DISK_FULL));
    assert_eq!(stored(&machine), 0);
    // There is room again for what fits.
    machine.upload(&[("small", b"small", 0o644)]).await;
    machine.kill();
}
