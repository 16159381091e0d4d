//! Files that only the host may read, written whole or not at all.

use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// Writes a file of mode 0600: a temporary one beside it, then a rename.
///
/// # Errors
/// Where the folder can't be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    // `tempfile` makes its files 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("can't write into {}", folder.display()))?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .with_context(|| format!("can't write {}", path.display()))?;
    file.persist(path).with_context(|| format!("can't write {}", path.display()))?;
    Ok(())
}
