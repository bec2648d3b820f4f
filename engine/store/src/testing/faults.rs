//! A disk that fails once it is told to: at a read, at a sync, for want of room, because it is mounted read-only, in the
//! middle of a write. Everything else passes to the operating system. It counts what is read of the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::files::{Disk, File, Files};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `fdatasync` fails with an I/O error, as after a lost cable.
    Sync,
    /// A file that is made, or grows, finds no room.
    Full,
    /// Nothing can be opened for writing.
    ReadOnly,
    /// Nothing can be read.
    Read,
    /// A write ends after half of its bytes.
    ShortWrite,
}

/// The faulty disk. Clones share their fault.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    fault: Arc<Mutex<Option<Fault>>>,
    log_bytes_read: Arc<AtomicU64>,
}

impl Faults {
    /// From now on this goes wrong, or nothing.
    pub fn set(&self, fault: Option<Fault>) {
        *self.fault.lock() = fault;
    }

    /// How many bytes of the log were read so far.
    #[must_use]
    pub fn log_bytes_read(&self) -> u64 {
        self.log_bytes_read.load(Ordering::Relaxed)
    }

    fn is(&self, fault: Fault) -> bool {
        *self.fault.lock() == Some(fault)
    }
}

#[derive(Debug)]
struct FaultyFile {
    faults: Faults,
    file: Arc<dyn File>,
    of_the_log: bool,
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if self.faults.is(Fault::Read) {
            return Err(io::Error::other("the disk did not give it"));
        }
        if self.of_the_log {
            self.faults.log_bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.faults.is(Fault::Full) && offset + bytes.len() as u64 > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.faults.is(Fault::ShortWrite) {
            self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        if self.faults.is(Fault::Full) && bytes > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.is(Fault::Sync) {
            return Err(io::Error::other("the disk did not take it"));
        }
        self.file.sync()
    }
}

impl Files for Faults {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        if self.is(Fault::ReadOnly) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let of_the_log = path.extension().is_some_and(|ending| ending == "seg");
        Ok(Arc::new(FaultyFile { faults: self.clone(), file: Disk.open(path, create)?, of_the_log }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Disk.sync_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        if self.is(Fault::Full) { Ok(0) } else { Disk.free_bytes(folder) }
    }
}
