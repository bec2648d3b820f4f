//! Files that hold secrets: written so that their owner alone can read them, and refused where others could. Used for
//! keys and credentials. It must not know what is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The rights of a file that its owner alone can read and write.
const OWN_FILE: u32 = 0o600;
/// What others than the owner may do.
const OF_OTHERS: u32 = 0o077;
/// The largest file of this kind, in bytes; a chain of certificates has a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a file with a secret could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused.
    #[error("cannot use {}: {problem}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// Others could have read it.
    #[error(
        "wanted {} to be readable by its owner alone, found mode {mode:04o}; run `chmod 600 {}`, and make new keys if somebody may have read it",
        path.display(), path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// It is too long to be what was wanted.
    #[error("wanted at most {FILE_BYTES_MAX} bytes in {}, found more", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a text that others cannot read. May block on the disk.
///
/// # Errors
/// There is no such file, it is no UTF-8, it is too long, or its rights let others read or write it.
pub fn read_private(path: &Path) -> Result<String, FileError> {
    let system = |problem| FileError::System { path: path.to_owned(), problem };
    let file = File::open(path).map_err(system)?;
    // Of the file that was opened: the name may lead to another one by now.
    let mode = file.metadata().map_err(system)?.mode() & 0o7777;
    if mode & OF_OTHERS != 0 {
        return Err(FileError::OpenToOthers { path: path.to_owned(), mode });
    }
    text_of(file, path)
}

/// Reads a text that anybody may read, such as a certificate. May block on the disk.
///
/// # Errors
/// There is no such file, it is no UTF-8, or it is too long.
pub fn read_public(path: &Path) -> Result<String, FileError> {
    let file = File::open(path).map_err(|problem| FileError::System { path: path.to_owned(), problem })?;
    text_of(file, path)
}

fn text_of(file: File, path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|problem| FileError::System { path: path.to_owned(), problem })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    Ok(text)
}

/// Writes a new file that its owner alone can read and write, and waits until it is on disk.
///
/// # Errors
/// There is such a file already (a key that is in use is not to be lost by a second run), or the system refuses.
pub fn write_private(path: &Path, text: &str) -> Result<(), FileError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(OWN_FILE).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|problem| FileError::System { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_private(&path, "secret").unwrap();
        let check = |mode: u32, good: bool| {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_private(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}: {read:?}");
        };
        check(0o600, true);
        check(0o400, true);
        check(0o640, false);
        check(0o604, false);
        check(0o620, false);
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let told = read_private(&path).unwrap_err().to_string();
        assert!(told.contains("0644") && told.contains("chmod 600"), "{told}");
        assert_eq!(read_public(&path).unwrap(), "secret");
    }

    #[test]
    fn a_secret_is_written_for_its_owner_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write_private(&path, "first").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(write_private(&path, "second").is_err());
        assert_eq!(read_private(&path).unwrap(), "first");
    }

    #[test]
    fn what_is_no_such_file_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        assert!(matches!(read_private(&path), Err(FileError::System { .. })));
        write_private(&path, &"x".repeat((1 << 20) + 1)).unwrap();
        assert!(matches!(read_private(&path), Err(FileError::TooLong { .. })));
        std::fs::write(folder.path().join("bytes"), [0xff]).unwrap();
        assert!(matches!(read_public(&folder.path().join("bytes")), Err(FileError::System { .. })));
        assert!(read_private(folder.path()).is_err());
    }
}
