//! The few file system calls that durability rests on, behind a seam, so that a disk that fails, fills up or loses power
//! can sit under the store in tests. Log and index both go through it. It must not know what is written.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rights of a file that is made: its own user's alone.
pub(crate) const OWN_FILE: u32 = 0o600;

/// Rights of a folder that is made.
const OWN_FOLDER: u32 = 0o700;

/// Rights of everybody else.
const OF_OTHERS: u32 = 0o077;

/// An open file. Offsets are absolute; there is no position.
pub trait File: Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it is empty.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `bytes` from the offset on.
    ///
    /// # Errors
    /// What the system says, or the end of the file.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`, however many calls that takes.
    ///
    /// # Errors
    /// What the system says; then any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts or extends it, with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Returns when everything written is on disk (`fdatasync`).
    ///
    /// # Errors
    /// What the system says; then nothing is known of what was written since the last success.
    fn sync(&self) -> io::Result<()>;
}

/// The files of a folder.
pub trait Files: Debug + Send + Sync {
    /// Opens a file for reading and writing; makes it if told to and it is not there.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when names made, changed and removed in the folder are on disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// The paths in a folder, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Bytes that may still be written on the disk of the folder.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Files for Disk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(OWN_FILE);
        Ok(Arc::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Makes a folder, and those above it that are not there, for its own user alone; one that is there is left as it is. When
/// this returns, their names are on disk.
pub(crate) fn make_folder(files: &dyn Files, folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        fs::DirBuilder::new().recursive(true).mode(OWN_FOLDER).create(folder)?;
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        files.sync_folder(above.unwrap_or_else(|| Path::new(".")))?;
    }
    Ok(())
}

/// The folder, if others may look into it, and the files in it that they may read or write.
pub(crate) fn open_to_others(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let open = |path: &Path| Ok::<_, io::Error>(fs::metadata(path)?.mode() & OF_OTHERS != 0);
    if !open(folder)? {
        return Ok(Vec::new());
    }
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if open(&path)? {
            found.push(path);
        }
    }
    found[1..].sort();
    Ok(found)
}

/// Reads a whole file.
pub(crate) fn read_all(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path, false)?;
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Puts a file in place as a whole: written under another name, on disk, then renamed.
pub(crate) fn write_all(files: &dyn Files, folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = files.open(&new, true)?;
    file.set_len(0)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    files.rename(&new, path)?;
    files.sync_folder(folder)
}

/// Copies a file in pieces and puts the copy in place as a whole.
pub(crate) fn copy(files: &dyn Files, folder: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    let (source, target) = (files.open(from, false)?, files.open(&new, true)?);
    target.set_len(0)?;
    let length = source.len()?;
    let mut piece = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < length {
        let bytes = usize::try_from(length - offset).map_or(piece.len(), |rest| rest.min(piece.len()));
        source.read_at(offset, &mut piece[..bytes])?;
        target.write_at(offset, &piece[..bytes])?;
        offset += bytes as u64;
    }
    target.sync()?;
    files.rename(&new, to)?;
    files.sync_folder(folder)
}
