use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn link(&self, link: &str, target: &str) {
        symlink(target, self.path().join(link)).unwrap();
    }

    fn pack(&self) -> Result<Archive, ArchiveError> {
        pack(self.path(), Options::default(), &|_| {})
    }

    /// Path → what it is.
    fn packed(&self) -> BTreeMap<String, String> {
        listing(&self.pack().unwrap()).into_iter().collect()
    }
}

fn listing(archive: &Archive) -> Vec<(String, String)> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(archive.open().unwrap()).unwrap());
    let mut entries = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let header = entry.header();
        assert_eq!(
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
            (0, 0, 0),
            "{path}"
        );
        let mode = header.mode().unwrap();
        let what = match header.entry_type() {
            EntryType::Directory => format!("folder {mode:o}"),
            EntryType::Symlink => format!("link {}", entry.link_name().unwrap().unwrap().display()),
            _ => {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                format!("{mode:o} {text}")
            }
        };
        entries.push((path, what));
    }
    entries
}

#[test]
fn the_same_files_give_the_same_archive() {
    let files = [("b/two", "2"), ("a", "1"), ("b.txt", "3"), ("run.sh", "#!/bin/sh\n")];
    let first = Folder::new(&files);
    let second = Folder::new(&files.iter().rev().copied().collect::<Vec<_>>());
    for (folder, mode) in [(&first, 0o700), (&second, 0o775)] {
        fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(mode & 0o666)).unwrap();
    }
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    File::options().write(true).open(second.path().join("a")).unwrap().set_modified(long_ago).unwrap();
    let (first, second) = (first.pack().unwrap(), second.pack().unwrap());
    assert_eq!(first.sha256, second.sha256);
    insta::assert_debug_snapshot!(listing(&first), @r##"
    [
        (
            "a",
            "644 1",
        ),
        (
            "b",
            "folder 755",
        ),
        (
            "b.txt",
            "644 3",
        ),
        (
            "b/two",
            "644 2",
        ),
        (
            "run.sh",
            "755 #!/bin/sh\n",
        ),
    ]
    "##);
    let mut bytes = Vec::new();
    first.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&bytes)), first.sha256);
    assert_eq!((bytes.len() as u64, first.files, first.unpacked_bytes), (first.bytes, 4, 13));
}

#[test]
fn what_is_ignored_stays() {
    let folder = Folder::new(&[
        (".gitignore", "*.log\ndist/\n"),
        (".hytheignore", "secret.txt\n!dist/\n"),
        ("app.js", "run"),
        ("debug.log", "no"),
        ("secret.txt", "no"),
        ("dist/app.js", "built"),
        (".env", "KEPT=1"),
        (".git/config", "no"),
        ("node_modules/x/index.js", "no"),
        ("lib/node_modules/y.js", "no"),
        ("env/pyvenv.cfg", "no"),
        ("pkg/__pycache__/a.pyc", "no"),
    ]);
    let names: Vec<_> = folder.packed().into_keys().collect();
    assert_eq!(names, [".env", ".gitignore", ".hytheignore", "app.js", "dist", "dist/app.js", "lib", "pkg"]);
    let forced = pack(folder.path(), Options { with_node_modules: true }, &|_| {}).unwrap();
    assert!(listing(&forced).iter().any(|(path, _)| path == "node_modules/x/index.js"));
}

#[test]
fn rules_above_count_only_in_the_same_repository() {
    let outer = Folder::new(&[(".gitignore", "*.txt"), ("shop/a.txt", "1"), ("shop/b.js", "2")]);
    let names = || {
        let archive = pack(&outer.path().join("shop"), Options::default(), &|_| {}).unwrap();
        listing(&archive).into_iter().map(|(path, _)| path).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["a.txt", "b.js"]);
    fs::create_dir(outer.path().join(".git")).unwrap();
    assert_eq!(names(), ["b.js"]);
}

#[test]
fn links_inside_are_kept_as_links() {
    let folder = Folder::new(&[("a/file", "1")]);
    folder.link("a/up", "../a/file");
    folder.link("later", "a/not/yet");
    let packed = folder.packed();
    assert_eq!(packed["a/up"], "link ../a/file");
    assert_eq!(packed["later"], "link a/not/yet");
}

#[test]
fn links_leading_out_are_refused_by_name() {
    #[track_caller]
    fn refused(link: &str, target: &str) {
        let folder = Folder::new(&[("a/file", "1")]);
        folder.link(link, target);
        let failure = Failure::from(folder.pack().unwrap_err());
        assert!(failure.what.contains(&format!("the link {link} leads out")), "{failure}");
        assert!(failure.hint.unwrap().contains(".hytheignore"));
        // Ignoring it is a way out.
        fs::write(folder.path().join(".hytheignore"), link).unwrap();
        folder.pack().unwrap();
    }
    refused("out", "/etc/passwd");
    refused("out", "..");
    refused("a/out", "../../elsewhere");
    refused("a/out", "../a/../../x");
}

#[test]
fn links_leading_out_by_way_of_another_are_refused() {
    let outer = Folder::new(&[("inner/a/b/c/file", "1"), ("inner/x/file", "2"), ("secret", "3")]);
    outer.link("inner/a/b/c/up", "../../../x");
    // As text this stays inside; the file system goes from `inner/x` two up.
    outer.link("inner/out", "a/b/c/up/../../secret");
    let inner = outer.path().join("inner");
    let error = pack(&inner, Options::default(), &|_| {}).unwrap_err();
    assert!(matches!(error, ArchiveError::LeadsOut { .. }), "{error}");
}

#[test]
fn an_empty_folder_is_refused() {
    let folder = Folder::new(&[]);
    fs::create_dir(folder.path().join("nothing")).unwrap();
    let failure = Failure::from(folder.pack().unwrap_err());
    assert!(failure.what.contains("has no files to upload"), "{failure}");
    let missing = pack(&folder.path().join("missing"), Options::default(), &|_| {}).unwrap_err();
    assert!(matches!(missing, ArchiveError::NotAFolder { .. }));
    assert!(matches!(pack(Path::new("/"), Options::default(), &|_| {}), Err(ArchiveError::TooWide { .. })));
}

#[test]
fn sockets_are_skipped_and_said() {
    let folder = Folder::new(&[("a", "1")]);
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("sock")).unwrap();
    let archive = folder.pack().unwrap();
    assert_eq!(archive.skipped, [PathBuf::from("sock")]);
    assert_eq!(archive.files, 1);
}

#[test]
fn long_names_survive() {
    let long = format!("{0}/{0}/{0}", "n".repeat(90));
    let folder = Folder::new(&[(long.as_str(), "1")]);
    assert!(folder.packed().contains_key(&long));
}
