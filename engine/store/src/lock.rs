//! One engine for one folder. The lock is the kernel's, on an open file, so that it goes with the process that holds it,
//! however that ends; the file's text only says who that is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::OpenError;
use crate::files;

/// Held while a store is open.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Never read: closing it lets the lock go.
    _file: File,
}

impl Lock {
    pub(crate) fn take(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("LOCK");
        let io = |source| OpenError::io(folder, &path, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(files::OWN_FILE);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = std::fs::read(&path).unwrap_or_default();
                let holder = String::from_utf8_lossy(&text).trim().to_owned();
                let holder = if holder.is_empty() { "unknown".to_owned() } else { holder };
                return Err(OpenError::Locked { folder: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(io)?;
        Ok(Self { _file: file })
    }
}
