//! The store of archives, on a real disk: what is kept, what is refused, what stays behind.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use artifacts::{ArtifactError, ArtifactStore, Digest, Limits, Stored};
use bytes::Bytes;
use futures_util::stream;
use tar::{Builder, EntryType, Header};

type Tar = Builder<Vec<u8>>;

fn tar_zst(fill: impl FnOnce(&mut Tar)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    fill(&mut builder);
    zstd(&builder.into_inner().unwrap())
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Writes the name into the header as it is: the builder's own functions refuse what is tested here.
fn entry(tar: &mut Tar, kind: EntryType, name: &str, target: Option<&str>, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    if let Some(target) = target {
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
    }
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn file(tar: &mut Tar, name: &str, content: &[u8]) {
    entry(tar, EntryType::Regular, name, None, content);
}

fn symlink(tar: &mut Tar, name: &str, target: &str) {
    entry(tar, EntryType::Symlink, name, Some(target), b"");
}

fn good() -> Vec<u8> {
    tar_zst(|tar| {
        entry(tar, EntryType::XGlobalHeader, "pax_global_header", None, b"19 comment=abcdefg\n");
        entry(tar, EntryType::Directory, "./", None, b"");
        file(tar, "./index.html", b"<h1>Hythe</h1>");
        entry(tar, EntryType::Directory, "node_modules/.bin/", None, b"");
        file(tar, "node_modules/vite/bin/vite.js", b"run()");
        symlink(tar, "node_modules/.bin/vite", "../vite/bin/vite.js");
        entry(tar, EntryType::Link, "copy.html", Some("./index.html"), b"");
        symlink(tar, "loop", "loop");
    })
}

async fn put(store: &ArtifactStore, archive: &[u8]) -> Result<Stored, ArtifactError> {
    put_as(store, &Digest::of(archive), archive).await
}

async fn put_as(store: &ArtifactStore, digest: &Digest, archive: &[u8]) -> Result<Stored, ArtifactError> {
    let chunks: Vec<_> =
        archive.chunks(1000).map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk))).collect();
    store.put(digest, stream::iter(chunks)).await
}

fn store() -> (tempfile::TempDir, ArtifactStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(dir.path().join("sources")).unwrap();
    (dir, store)
}

/// All files below, by their paths.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn what_is_put_is_got() {
    let (_dir, store) = store();
    let archive = good();
    let digest = Digest::of(&archive);
    assert!(!store.exists(&digest).await.unwrap());
    assert!(matches!(store.get(&digest).await, Err(ArtifactError::NotFound { .. })));

    let size = archive.len() as u64;
    assert_eq!(put(&store, &archive).await.unwrap(), Stored { size, created: true });
    assert_eq!(put(&store, &archive).await.unwrap(), Stored { size, created: false });
    assert_eq!(store.size(&digest).await.unwrap(), Some(size));
    let mut read = Vec::new();
    store.get(&digest).await.unwrap().into_std().await.read_to_end(&mut read).unwrap();
    assert_eq!(read, archive);

    // Also where it is there already, another's bytes are not taken for it.
    assert!(matches!(put_as(&store, &digest, b"other").await, Err(ArtifactError::DigestMismatch { .. })));
}

#[tokio::test]
async fn concurrent_uploads_of_one_archive_all_succeed() {
    let (dir, store) = store();
    let archive = good();
    let uploads = (0..8).map(|_| put(&store, &archive));
    for stored in futures_util::future::join_all(uploads).await {
        stored.unwrap();
    }
    assert_eq!(files(dir.path()).len(), 1);
}

#[track_caller]
fn refused(result: Result<Stored, ArtifactError>, because: &str) {
    let error = result.expect_err(because).to_string();
    assert!(error.contains(because), "{error:?} does not say {because:?}");
}

#[tokio::test]
async fn archives_that_are_none_are_refused() {
    let (dir, store) = store();
    refused(put(&store, b"PK\x03\x04 a zip file, say").await, "not a tar archive compressed with zstd");
    refused(put(&store, b"").await, "the archive is refused");
    refused(put(&store, &zstd(&[b'x'; 4096])).await, "not a tar archive compressed with zstd");
    refused(put(&store, &zstd(&[0; 10240])).await, "has no entries");
    let archive = tar_zst(|tar| file(tar, "noise", &noise(100_000)));
    for cut in [archive.len() / 2, archive.len() - 1] {
        refused(put(&store, &archive[..cut]).await, "cut off");
    }
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

/// Bytes that don't compress; the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn what_leads_out_of_the_tree_is_refused() {
    let (dir, store) = store();
    let check = async |because: &str, fill: &dyn Fn(&mut Tar)| {
        let archive = tar_zst(|tar| {
            file(tar, "first", b"1");
            fill(tar);
        });
        refused(put(&store, &archive).await, because);
    };
    check("`..` in its path", &|tar| file(tar, "../evil", b"")).await;
    check("`..` in its path", &|tar| file(tar, "a/b/../../../evil", b"")).await;
    check("absolute path", &|tar| file(tar, "/etc/passwd", b"")).await;
    check("\"out\" leads out of the archive, to \"../x\"", &|tar| symlink(tar, "out", "../x")).await;
    check("leads out of the archive", &|tar| symlink(tar, "a/out", "../../x")).await;
    check("leads out of the archive", &|tar| symlink(tar, "a/out", "/usr/bin/python3")).await;
    // Inside when read as text, outside when followed.
    check("leads out of the archive", &|tar| {
        symlink(tar, "x", ".");
        symlink(tar, "y", "x/x/x/../../..");
    })
    .await;
    check("leads out of the archive", &|tar| {
        symlink(tar, "y", "deep/x/../..");
        symlink(tar, "deep/x", "..");
    })
    .await;
    check("lies behind the symbolic link \"link\"", &|tar| {
        symlink(tar, "link", "folder");
        file(tar, "link/file", b"");
    })
    .await;
    check("has the name of a symbolic link", &|tar| {
        symlink(tar, "link", "first");
        file(tar, "link", b"");
    })
    .await;
    check("hard link \"hard\" leads out", &|tar| entry(tar, EntryType::Link, "hard", Some("../x"), b""))
        .await;
    check("hard link \"hard\" leads out", &|tar| {
        entry(tar, EntryType::Link, "hard", Some("/etc/passwd"), b"")
    })
    .await;
    check("names a symbolic link", &|tar| {
        symlink(tar, "a/up", "..");
        entry(tar, EntryType::Link, "hard", Some("a/up"), b"");
    })
    .await;
    check("is a device", &|tar| entry(tar, EntryType::Char, "null", None, b"")).await;
    check("is a device", &|tar| entry(tar, EntryType::Block, "disk", None, b"")).await;
    check("is a named pipe", &|tar| entry(tar, EntryType::Fifo, "pipe", None, b"")).await;
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn bounds_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { archive_bytes: 10_000, unpacked_bytes: 100_000, entries: 5 };
    let store = ArtifactStore::open_with(dir.path(), limits).unwrap();
    refused(put(&store, &noise(10_001)).await, "too many bytes: the limit is 10000");
    let bomb = tar_zst(|tar| file(tar, "zeros", &[0; 100_001]));
    refused(put(&store, &bomb).await, "unpacks to too many bytes: the limit is 100000");
    let many = tar_zst(|tar| (0..6).for_each(|n| file(tar, &n.to_string(), b"")));
    refused(put(&store, &many).await, "too many entries: the limit is 5");
    // A long name is kept in memory by whoever reads the archive.
    let long_name =
        tar_zst(|tar| entry(tar, EntryType::GNULongName, "././@LongLink", None, &[b'a'; 1 << 20]));
    refused(put(&store, &long_name).await, "bytes of headers");
    let after_the_end =
        zstd(&[Vec::from_iter(zstd::decode_all(good().as_slice()).unwrap()), vec![0; 1 << 20]].concat());
    let store = ArtifactStore::open(dir.path()).unwrap();
    refused(put(&store, &after_the_end).await, "bytes of headers");
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_broken_or_abandoned_upload_leaves_nothing() {
    let (dir, store) = store();
    let broken =
        stream::iter([Ok(Bytes::from_static(b"abc")), Err(std::io::Error::other("connection reset"))]);
    let error = store.put(&Digest::of(b"abcdef"), broken).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Body { received: 3, .. }), "{error}");
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());

    let (sent, received) = tokio::sync::oneshot::channel();
    let mut sent = Some(sent);
    let endless = stream::poll_fn(move |_| match sent.take() {
        Some(sent) => {
            sent.send(()).unwrap();
            std::task::Poll::Ready(Some(Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))))
        }
        None => std::task::Poll::Pending,
    });
    let upload = {
        let store = store.clone();
        tokio::spawn(async move { store.put(&Digest::of(b"abcdef"), endless).await })
    };
    received.await.unwrap();
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_a_crash_left_is_removed_at_open() {
    let (dir, store) = store();
    let archive = good();
    put(&store, &archive).await.unwrap();
    std::fs::File::create(dir.path().join("sources/incoming/x.part")).unwrap().write_all(b"half").unwrap();
    let store = ArtifactStore::open(dir.path().join("sources")).unwrap();
    assert_eq!(files(dir.path()).len(), 1);
    assert!(store.exists(&Digest::of(&archive)).await.unwrap());
}

/// A file system of its own with 128 KiB; none where the process may not mount.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k", "hythe-test"])
            .arg(dir.path())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_the_upload_and_keeps_nothing_of_it() {
    let Some(disk) = TinyDisk::mount() else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let store = ArtifactStore::open(disk.0.path()).unwrap();
    let small = good();
    put(&store, &small).await.unwrap();
    let large = tar_zst(|tar| file(tar, "noise", &noise(300_000)));
    let error = put(&store, &large).await.unwrap_err();
    assert!(matches!(error, ArtifactError::DiskFull), "{error:?}");
    assert_eq!(files(disk.0.path()).len(), 1);
    assert!(!store.exists(&Digest::of(&large)).await.unwrap());
    // And there is room again for what fits.
    let fits = tar_zst(|tar| file(tar, "noise", &noise(20_000)));
    put(&store, &fits).await.unwrap();
}
