//! Large things by reference: files beside the store, named by the BLAKE3 hash of what they hold, so that the same bytes lie
//! there once and damage shows. An entry of the store that names one holds it; what nobody holds is removed. Used by durable
//! workers, which write a hold in the same batch as what names the blob. It must not know what a blob means.
//!
//! | moment | on disk | after a crash there |
//! |---|---|---|
//! | written | `PROCESS-N.new`, in part | swept when the store is opened |
//! | put | `ID`, synced, its name too; a pin in memory | swept: nobody holds it |
//! | held | and a [`HOLD`] entry, in the batch of whoever names it | stays |
//! | let go | the entry is deleted, in the batch of whoever named it | swept |
//! | collected | nothing | nothing |
//!
//! Where damage took entries of the store, nobody knows who held what: what nobody seems to hold is then renamed to `ID.lost`
//! instead of being swept, and stays until a person looks.

mod id;
mod writer;

pub use id::{BlobId, ParseBlobIdError};
pub use writer::BlobWriter;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::error::{StoreError, is_full};
use crate::files::{self, File, Files};
use crate::limits;
use crate::report::Damage;
use crate::store::{Scan, Snapshot, Store};

/// Who holds which blob: the id's 32 bytes, then the holder's name.
pub const HOLD: &str = "blob.hold";

/// Pieces that are read and hashed at once.
const PIECE: usize = 1 << 20;

/// Holds that are read at once.
const PAGE: usize = 4096;

/// Why a blob was not written or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// It is longer than one may be.
    #[error("a blob has more than {max} bytes, which is all that one takes: split it")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// There is none of this id.
    #[error("there is no blob {id}: it was deleted, or its file is gone")]
    Missing {
        /// The id.
        id: BlobId,
    },
    /// The file does not hold what its name says.
    #[error("blob {id} is damaged: its file {} does not have that hash; restore it from a backup", path.display())]
    Damaged {
        /// The id.
        id: BlobId,
        /// Its file, which is left as it is.
        path: PathBuf,
    },
    /// There is no room on the disk.
    #[error("the disk of {} is full: {reason}; make room there", folder.display())]
    DiskFull {
        /// The folder of the blobs.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BlobError {
    /// Whether asking again finds the same: the blob itself is gone or damaged. Everything else may be a moment of the disk,
    /// the process or the store.
    #[must_use]
    pub fn lasts(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. })
    }

    /// The code under which users know it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "BLOB_TOO_LARGE",
            Self::Missing { .. } => "BLOB_NOT_FOUND",
            Self::Damaged { .. } => "BLOB_DAMAGED",
            Self::DiskFull { .. } => "BLOB_DISK_FULL",
            Self::Io { .. } | Self::Store(_) => "BLOB_ERROR",
        }
    }
}

/// The key of a hold. Its value is one byte, the version 1.
#[must_use]
pub fn hold_key(id: &BlobId, holder: &[u8]) -> Vec<u8> {
    [id.as_bytes(), holder].concat()
}

/// The blob and the holder that such a key names.
#[must_use]
pub fn split_hold_key(key: &[u8]) -> Option<(BlobId, &[u8])> {
    let (id, holder) = key.split_first_chunk()?;
    Some((BlobId::read(id), holder))
}

/// The value of a hold.
pub const HOLD_VALUE: [u8; 1] = [1];

/// The blobs of a store.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    files: Arc<dyn Files>,
    pins: Arc<Pins>,
    next: AtomicU64,
    /// Whether the folder is known to be there, its name on disk.
    made: Mutex<bool>,
}

/// What may not be collected now. The lock is never held over work on the disk: pins come and go on threads that must not
/// wait for it.
#[derive(Debug, Default)]
struct Pins {
    kept: Mutex<Kept>,
    /// Told whenever a blob leaves [`Kept::removing`].
    removed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    /// Blobs that were put and may not be held yet, with how often.
    pinned: HashMap<BlobId, usize>,
    /// Blobs whose file is being removed, if nobody holds them. Whoever wants to pin one waits, and writes it anew.
    removing: HashSet<BlobId>,
    /// Backups under way: nothing is collected meanwhile.
    backups: usize,
    /// What would have been.
    postponed: Vec<BlobId>,
}

/// Keeps a blob while there is no hold on disk yet. Dropping it removes nothing: whoever could not write his hold calls
/// [`Blobs::collect`].
#[derive(Debug)]
pub struct Pin {
    id: BlobId,
    bytes: u64,
    pins: Arc<Pins>,
}

impl Pin {
    fn new(pins: &Arc<Pins>, id: BlobId, bytes: u64) -> Self {
        let mut kept = pins.kept.lock();
        while kept.removing.contains(&id) {
            pins.removed.wait(&mut kept);
        }
        *kept.pinned.entry(id).or_default() += 1;
        drop(kept);
        Self { id, bytes, pins: Arc::clone(pins) }
    }

    /// The blob.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let pinned = &mut self.pins.kept.lock().pinned;
        if let Some(count) = pinned.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pinned.remove(&self.id);
            }
        }
    }
}

/// One blob that is being removed; over when it is dropped.
struct Removing<'p> {
    id: BlobId,
    pins: &'p Pins,
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.pins.kept.lock().removing.remove(&self.id);
        self.pins.removed.notify_all();
    }
}

impl Blobs {
    /// The blobs of a store's folder. Theirs is made with the first of them.
    pub(crate) fn open(store: &Path, files: Arc<dyn Files>) -> Self {
        let (pins, next, made) = (Arc::default(), AtomicU64::new(0), Mutex::default());
        Self { folder: store.join("blobs"), files, pins, next, made }
    }

    /// Where they lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn make_folder(&self) -> io::Result<()> {
        // Of two who come at once the second waits, and puts nothing into a folder whose name is not on disk yet.
        let mut made = self.made.lock();
        if !*made || !self.folder.exists() {
            files::make_folder(&*self.files, &self.folder)?;
            // A process that made it before may have ended before it had synced the name.
            self.folder.parent().map_or(Ok(()), |store| self.files.sync_folder(store))?;
            *made = true;
        }
        Ok(())
    }

    /// The file of a blob.
    #[must_use]
    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    fn failed(&self, path: &Path, error: &io::Error) -> BlobError {
        let reason = error.to_string();
        if is_full(error) {
            return BlobError::DiskFull { folder: self.folder.clone(), reason };
        }
        BlobError::Io { path: path.to_owned(), reason }
    }

    /// Puts bytes; when this returns they are on disk. Bytes that lie there already are read instead of written. Costs two
    /// `fdatasync`, or one.
    ///
    /// # Errors
    /// `TooLarge`, `DiskFull`, `Io`.
    pub fn put(&self, bytes: &[u8]) -> Result<Pin, BlobError> {
        let id = BlobId::of(bytes);
        let length = bytes.len() as u64;
        if length > limits::BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { max: limits::BLOB_BYTES_MAX });
        }
        // Pinned before it is looked for, so that it is not collected in between.
        let pin = Pin::new(&self.pins, id, length);
        if self.is_whole(&id) {
            // Whoever wrote it may not have come so far.
            let synced = self.files.sync_folder(&self.folder);
            return synced.map(|()| pin).map_err(|error| self.failed(&self.folder, &error));
        }
        let mut writer = self.writer()?;
        writer.write(bytes)?;
        writer.finish_as(id)?;
        Ok(pin)
    }

    /// Begins a blob whose bytes come piece by piece.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub fn writer(&self) -> Result<BlobWriter<'_>, BlobError> {
        self.make_folder().map_err(|error| self.failed(&self.folder, &error))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}.new", std::process::id()));
        let file = self.files.open(&path, true).map_err(|error| self.failed(&path, &error))?;
        Ok(BlobWriter::new(self, path, file))
    }

    fn is_whole(&self, id: &BlobId) -> bool {
        self.read(id).is_ok()
    }

    fn open_file(&self, id: &BlobId) -> Result<Arc<dyn File>, BlobError> {
        let path = self.path(id);
        self.files.open(&path, false).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BlobError::Missing { id: *id },
            _ => self.failed(&path, &error),
        })
    }

    /// The length of a blob.
    ///
    /// # Errors
    /// `Missing`, `Io`.
    pub fn bytes(&self, id: &BlobId) -> Result<u64, BlobError> {
        self.open_file(id)?.len().map_err(|error| self.failed(&self.path(id), &error))
    }

    /// Reads a whole blob, and checks it.
    ///
    /// # Errors
    /// `Missing`, `Damaged`, `Io`.
    pub fn read(&self, id: &BlobId) -> Result<Vec<u8>, BlobError> {
        let file = self.open_file(id)?;
        let length = file.len().map_err(|error| self.failed(&self.path(id), &error))?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.fill(id, &*file, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a whole blob into memory of its length, and checks it.
    ///
    /// # Errors
    /// As [`Blobs::read`]; `Damaged` too where the length is another.
    pub fn read_into(&self, id: &BlobId, bytes: &mut [u8]) -> Result<(), BlobError> {
        self.fill(id, &*self.open_file(id)?, bytes)
    }

    fn fill(&self, id: &BlobId, file: &dyn File, bytes: &mut [u8]) -> Result<(), BlobError> {
        let damaged = || BlobError::Damaged { id: *id, path: self.path(id) };
        if file.len().map_err(|error| self.failed(&self.path(id), &error))? != bytes.len() as u64 {
            return Err(damaged());
        }
        file.read_at(0, bytes).map_err(|error| self.failed(&self.path(id), &error))?;
        if BlobId::of(bytes) == *id { Ok(()) } else { Err(damaged()) }
    }

    /// Reads a blob piece by piece, and checks it at the end: what `each` was given is to be used only when this succeeds.
    ///
    /// # Errors
    /// As [`Blobs::read`], and those of `each`.
    pub fn read_pieces<E: From<BlobError>>(
        &self,
        id: &BlobId,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error: &io::Error| self.failed(&self.path(id), error);
        let file = self.open_file(id)?;
        let length = file.len().map_err(|error| failed(&error))?;
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE];
        let mut offset = 0;
        while offset < length {
            let bytes = usize::try_from(length - offset).map_or(PIECE, |rest| rest.min(PIECE));
            file.read_at(offset, &mut piece[..bytes]).map_err(|error| failed(&error))?;
            hasher.update(&piece[..bytes]);
            each(&piece[..bytes])?;
            offset += bytes as u64;
        }
        if BlobId::from(hasher.finalize()) == *id {
            return Ok(());
        }
        Err(BlobError::Damaged { id: *id, path: self.path(id) }.into())
    }

    /// Removes a blob that nobody holds and nobody is about to hold. Returns whether it did. To be called when a hold has been
    /// deleted, and when one could not be written.
    ///
    /// # Errors
    /// `Io`, and those of the store.
    pub fn collect(&self, store: &dyn Store, id: &BlobId) -> Result<bool, BlobError> {
        let mut kept = self.pins.kept.lock();
        while kept.removing.contains(id) {
            self.pins.removed.wait(&mut kept);
        }
        if kept.backups > 0 {
            kept.postponed.push(*id);
            return Ok(false);
        }
        if kept.pinned.contains_key(id) {
            return Ok(false);
        }
        kept.removing.insert(*id);
        drop(kept);
        // Nobody can pin it from here on, so that nobody can come to hold it either.
        let _removing = Removing { id: *id, pins: &self.pins };
        if !store.scan(&Scan::table(HOLD).prefix(id.as_bytes()).limit(1))?.is_empty() {
            return Ok(false);
        }
        self.remove(&self.path(id))
    }

    /// Has nothing be collected until [`Blobs::collect_again`]. Waits for what is being removed.
    pub(crate) fn collect_nothing(&self) {
        let mut kept = self.pins.kept.lock();
        kept.backups += 1;
        while !kept.removing.is_empty() {
            self.pins.removed.wait(&mut kept);
        }
    }

    /// Ends a [`Blobs::collect_nothing`], and collects what was left meanwhile.
    pub(crate) fn collect_again(&self, store: &dyn Store) -> Result<(), BlobError> {
        let mut kept = self.pins.kept.lock();
        kept.backups -= 1;
        let postponed = if kept.backups == 0 { std::mem::take(&mut kept.postponed) } else { Vec::new() };
        drop(kept);
        // One that cannot be removed keeps no other.
        let collected: Vec<_> = postponed.iter().map(|id| self.collect(store, id)).collect();
        collected.into_iter().try_for_each(|collected| collected.map(drop))
    }

    fn remove(&self, path: &Path) -> Result<bool, BlobError> {
        match self.files.remove(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(path, &error)),
        }
    }

    /// Removes what nobody holds. For the start, before anybody puts. This is housekeeping, without which the store opens as
    /// well: what could not be done is told and left to the next start. `lost` says that damage took entries, so that what
    /// nobody seems to hold may have been held; it is set aside. Costs a list of the folder and a read of the holds.
    pub(crate) fn sweep(&self, snapshot: &dyn Snapshot, lost: bool) -> Vec<Damage> {
        if !self.folder.is_dir() {
            return Vec::new();
        }
        let mut told = Vec::new();
        let unswept = |path: &Path, reason: String| Damage::Unswept { path: path.to_owned(), reason };
        let held = held(snapshot).map_err(|error| told.push(unswept(&self.folder, error.to_string()))).ok();
        let paths = match self.files.list(&self.folder) {
            Ok(paths) => paths,
            Err(error) => {
                told.push(unswept(&self.folder, error.to_string()));
                return told;
            }
        };
        let mut set_aside = 0;
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unfinished = path.extension().is_some_and(|ending| ending == "new");
            let is_held = |id: BlobId| held.as_ref().is_none_or(|held| held.contains(&id));
            let stray = name.parse().is_ok_and(|id| !is_held(id));
            let done = if stray && lost {
                set_aside += 1;
                self.files.rename(&path, &path.with_extension("lost"))
            } else if stray || unfinished {
                self.files.remove(&path)
            } else {
                Ok(())
            };
            told.extend(done.err().map(|error| unswept(&path, error.to_string())));
        }
        if set_aside > 0 {
            let synced = self.files.sync_folder(&self.folder);
            told.extend(synced.err().map(|error| unswept(&self.folder, error.to_string())));
            told.push(Damage::BlobsSetAside { folder: self.folder.clone(), count: set_aside });
        }
        told
    }
}

/// Every blob that somebody holds.
pub(crate) fn held(snapshot: &dyn Snapshot) -> Result<HashSet<BlobId>, StoreError> {
    let mut held = HashSet::new();
    let mut last: Option<Vec<u8>> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let page = snapshot.scan(&Scan::table(HOLD).range(from, Bound::Unbounded).limit(PAGE))?;
        let Some(end) = page.last() else { return Ok(held) };
        last = Some(end.key.clone());
        held.extend(page.iter().filter_map(|entry| Some(split_hold_key(&entry.key)?.0)));
    }
}
