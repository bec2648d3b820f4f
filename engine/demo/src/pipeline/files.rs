//! Finds the files of the pipeline — the toolchain's libraries by default, or a folder — and reads blocks of them into
//! memory that the caller provides, which may be a loan of shared memory. It knows nothing of chunks.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Folder depth at which a walk stops.
const DEPTH_MAX: usize = 64;
/// Skipped files named in a report, beyond which they are only counted.
const SKIPPED_NAMED_MAX: usize = 8;

/// How much to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilesBudget {
    /// Bytes in all.
    pub bytes_max: u64,
    /// Files in all.
    pub files_max: u32,
}

impl Default for FilesBudget {
    /// 512 MiB in 20,000 files.
    fn default() -> Self {
        Self { bytes_max: 512 << 20, files_max: 20_000 }
    }
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileEntry {
    /// Its number in the list.
    pub index: u32,
    /// Its path below the folder.
    pub name: String,
    /// Its length when it was found.
    pub bytes: u64,
}

/// The files of one run. Only these can be read through it.
#[derive(Debug, Clone)]
pub struct FileList {
    root: PathBuf,
    entries: Vec<FileEntry>,
    skipped: FilesSkipped,
}

/// Files that were seen and not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilesSkipped {
    /// Symbolic links, sockets and the like.
    pub special: u64,
    /// Empty files.
    pub empty: u64,
    /// Files and folders that cannot be read.
    pub unreadable: u64,
    /// Files beyond the budget.
    pub beyond_budget: u64,
    /// Bytes of those.
    pub beyond_budget_bytes: u64,
    /// The first few unreadable ones, with reasons.
    pub named: Vec<String>,
}

/// Why there are no files, or why one could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The folder is missing or cannot be opened.
    #[error("cannot read the folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in it to read.
    #[error("no files to read in {path} ({unreadable} unreadable, {empty} empty)")]
    Empty {
        /// The folder.
        path: PathBuf,
        /// Unreadable files and folders.
        unreadable: u64,
        /// Empty files.
        empty: u64,
    },
    /// The toolchain's libraries could not be found.
    #[error("cannot find the toolchain's libraries ({reason}); name a folder with --input")]
    NoToolchain {
        /// What went wrong.
        reason: String,
    },
    /// A request names a file that is not in the list.
    #[error("no file has the number {index}")]
    Unknown {
        /// The number.
        index: u32,
    },
    /// A file cannot be opened or read.
    #[error("cannot read {name}: {source}")]
    File {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

impl FileList {
    /// Finds the toolchain's libraries by asking `rustc` (or what `RUSTC` names) for its folder.
    ///
    /// # Errors
    /// [`FilesError`] if there is no such toolchain, or it has no libraries.
    pub fn toolchain(budget: FilesBudget) -> Result<Self, FilesError> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let no_toolchain = |reason: String| FilesError::NoToolchain { reason };
        let output = Command::new(&rustc)
            .args(["--print", "sysroot"])
            .output()
            .map_err(|error| no_toolchain(format!("cannot run {}: {error}", rustc.to_string_lossy())))?;
        let sysroot = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || sysroot.trim().is_empty() {
            return Err(no_toolchain(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Self::folder(&Path::new(sysroot.trim()).join("lib"), budget)
    }

    /// Finds the files below a folder, in the order of their names. Links are not followed. A file that does not fit
    /// what is left of the budget is left out and counted, and smaller ones after it may still fit.
    ///
    /// # Errors
    /// [`FilesError`] if the folder is missing or holds nothing to read.
    pub fn folder(root: &Path, budget: FilesBudget) -> Result<Self, FilesError> {
        drop(fs::read_dir(root).map_err(|source| FilesError::Folder { path: root.to_owned(), source })?);
        let mut found = Vec::new();
        let mut skipped = FilesSkipped::default();
        walk(root, root, 0, &mut found, &mut skipped);
        found.sort();
        let mut list = Self { root: root.to_owned(), entries: Vec::new(), skipped };
        let mut bytes_total = 0_u64;
        for (name, bytes) in found {
            let index = u32::try_from(list.entries.len()).unwrap_or(u32::MAX);
            if index >= budget.files_max || bytes_total.saturating_add(bytes) > budget.bytes_max {
                list.skipped.beyond_budget += 1;
                list.skipped.beyond_budget_bytes += bytes;
                continue;
            }
            bytes_total += bytes;
            list.entries.push(FileEntry { index, name, bytes });
        }
        if list.entries.is_empty() {
            let FilesSkipped { unreadable, empty, .. } = list.skipped;
            return Err(FilesError::Empty { path: root.to_owned(), unreadable, empty });
        }
        Ok(list)
    }

    /// Returns the files.
    #[must_use]
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Returns what was not taken.
    #[must_use]
    pub fn skipped(&self) -> &FilesSkipped {
        &self.skipped
    }

    /// Returns the bytes of all files in the list.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// Opens a file of the list.
    ///
    /// # Errors
    /// [`FilesError`] for a number that is not in the list, or a file that cannot be opened.
    pub fn open(&self, index: u32) -> Result<BlockReader, FilesError> {
        let place = usize::try_from(index).map_err(|_| FilesError::Unknown { index })?;
        let entry = self.entries.get(place).ok_or(FilesError::Unknown { index })?;
        let file = fs::File::open(self.root.join(&entry.name))
            .map_err(|source| FilesError::File { name: entry.name.clone(), source })?;
        Ok(BlockReader { file, entry: entry.clone() })
    }
}

/// An open file, read in blocks of the caller's choosing.
#[derive(Debug)]
pub struct BlockReader {
    file: fs::File,
    entry: FileEntry,
}

/// What a read of a block gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockRead {
    /// Bytes at the front of the buffer that were filled.
    pub bytes: u64,
    /// Whether the file ends with them.
    pub is_last: bool,
}

impl BlockReader {
    /// Returns the file.
    #[must_use]
    pub fn entry(&self) -> &FileEntry {
        &self.entry
    }

    /// Returns how long a block at `offset` is, if blocks have `block_bytes` at most: what to ask a loan for.
    #[must_use]
    pub fn block_bytes(&self, offset: u64, block_bytes: u64) -> u64 {
        self.entry.bytes.saturating_sub(offset).min(block_bytes)
    }

    /// Fills `buffer` from `offset` on, straight from the file. A file that has grown ends where it ended when it was
    /// found, one that has shrunk ends early. Blocks.
    ///
    /// # Errors
    /// [`FilesError::File`] if the system refuses.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<BlockRead, FilesError> {
        let left = usize::try_from(self.entry.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let mut filled = 0;
        while filled < wanted {
            match self.file.read_at(&mut buffer[filled..wanted], offset + filled as u64) {
                Ok(0) => return Ok(BlockRead { bytes: filled as u64, is_last: true }),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FilesError::File { name: self.entry.name.clone(), source }),
            }
        }
        Ok(BlockRead { bytes: filled as u64, is_last: filled == left })
    }
}

fn walk(
    root: &Path,
    folder: &Path,
    depth: usize,
    found: &mut Vec<(String, u64)>,
    skipped: &mut FilesSkipped,
) {
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    let unreadable = |skipped: &mut FilesSkipped, path: &Path, error: &io::Error| {
        skipped.unreadable += 1;
        if skipped.named.len() < SKIPPED_NAMED_MAX {
            skipped.named.push(format!("{}: {error}", relative(path)));
        }
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return unreadable(skipped, folder, &error),
    };
    for entry in entries {
        match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) {
            Ok((path, metadata)) if metadata.is_dir() => {
                if depth < DEPTH_MAX {
                    walk(root, &path, depth + 1, found, skipped);
                }
            }
            Ok((path, metadata)) if metadata.is_file() => {
                // Names that are no UTF-8 could not be opened again by the name that is passed on.
                match path.strip_prefix(root).ok().and_then(Path::to_str) {
                    Some(_) if metadata.len() == 0 => skipped.empty += 1,
                    Some(name) => found.push((name.to_owned(), metadata.len())),
                    None => skipped.special += 1,
                }
            }
            Ok(_) => skipped.special += 1,
            Err(error) => unreadable(skipped, folder, &error),
        }
    }
}
