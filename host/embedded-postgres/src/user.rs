//! As whom Postgres runs: the host's own user, or another where the host is root.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::error::Error;

/// A user to run Postgres as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The user to drop to; none where the host's own will do.
pub(crate) fn choose() -> Result<Option<User>, Error> {
    let uid = rustix::process::geteuid().as_raw();
    if uid != 0 {
        return if id(&["-un"]).is_some() { Ok(None) } else { Err(Error::NamelessUser { uid }) };
    }
    ["postgres", "nobody"].into_iter().find_map(look_up).map(Some).ok_or(Error::NoUser)
}

fn look_up(name: &str) -> Option<User> {
    let number = |flag| id(&[flag, name])?.parse().ok();
    Some(User { name: name.to_owned(), uid: number("-u")?, gid: number("-g")? })
}

/// The system's own look-up (POSIX `id`), which knows directories beyond /etc/passwd.
fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Whether the user can get to `path`: every folder above it must let it through. By mode bits; access
/// lists are not read.
pub(crate) fn check_reachable(user: &User, path: &Path) -> Result<(), Error> {
    let blocked: Vec<_> = path.ancestors().skip(1).filter(|folder| !may_enter(user, folder)).collect();
    match blocked.last() {
        None => Ok(()),
        Some(folder) => Err(Error::Unreachable {
            user: user.name.clone(),
            path: path.to_owned(),
            blocked: (*folder).to_owned(),
            mode: std::fs::metadata(folder).map_or(0, |data| data.mode() & 0o7777),
        }),
    }
}

fn may_enter(user: &User, folder: &Path) -> bool {
    let Ok(data) = std::fs::metadata(folder) else { return true };
    let bit = if data.uid() == user.uid {
        0o100
    } else if data.gid() == user.gid {
        0o010
    } else {
        0o001
    };
    data.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        let (outer, inner) = (root.path().join("outer"), root.path().join("outer/inner"));
        std::fs::create_dir_all(&inner).unwrap();
        set(root.path(), 0o755);
        set(&inner, 0o755);
        let stranger = User { name: "stranger".to_owned(), uid: 4_000_000, gid: 4_000_000 };
        set(&outer, 0o711);
        check_reachable(&stranger, &inner.join("data")).unwrap();
        set(&outer, 0o700);
        let error = check_reachable(&stranger, &inner.join("data")).unwrap_err().to_string();
        assert!(
            error.contains("`stranger`") && error.contains(&format!("{} (mode 0700)", outer.display())),
            "{error}"
        );
    }
}
