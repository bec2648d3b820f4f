//! A store in one file, apart from any format of index or log, and back. A backup shows one revision and is taken while
//! commits go on. Used by the command line; it must not know how entries are stored.
//!
//! `RWBACKUP`, version (4), revision (8); then per entry lengths of key (4) and value (4), revision (8), seal (8), key,
//! value; then four bytes of ones, the number of entries (8). Since version 2 the blobs follow that entries hold: a byte 1, id
//! (32), length (8), bytes; a byte 0 ends them. Last, a checksum of everything before (8). Little-endian.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::blobs::{self, BlobError, BlobId, Blobs};
use crate::embedded::{Embedded, FORMAT, Options};
use crate::error::OpenError;
use crate::index::Facts;
use crate::memory::Version;
use crate::pair::Pair;
use crate::store::Store;
use crate::{files, keys, limits};

const MAGIC: &[u8; 8] = b"RWBACKUP";
const VERSION: u32 = 2;
/// The version before blobs, which is read too.
const VERSION_WITHOUT_BLOBS: u32 = 1;
const END: u32 = u32::MAX;
const BLOB_FOLLOWS: u8 = 1;
const BLOBS_END: u8 = 0;

/// Entries that are read or written at once.
const CHUNK: usize = 4096;

/// Bytes of a blob that are read at once.
const PIECE: usize = 1 << 20;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// The revision that it shows.
    pub revision: u64,
    /// How many entries it has.
    pub entries: u64,
    /// How many blobs it has. One that is held and was damaged or missing is left out.
    pub blobs: u64,
}

/// Counts a checksum over what passes.
struct Summed<T> {
    inner: T,
    sum: Xxh3,
}

impl<T: Write> Summed<T> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Summed<T> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.sum.update(&bytes);
        Ok(bytes)
    }

    fn take_vec(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.inner.read_exact(&mut bytes)?;
        self.sum.update(&bytes);
        Ok(bytes)
    }
}

/// Writes everything as of now to a file, which appears when it is whole and on disk. Replaces a file of that name. Only
/// its own user can read it.
///
/// # Errors
/// [`OpenError::Target`] if the path is something else than a file; `Io` and `DiskFull` for the target,
/// [`OpenError::Store`] if an entry cannot be read. Then nothing is replaced.
pub fn backup(store: &dyn Store, path: &Path) -> Result<Backup, OpenError> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let io = |source| OpenError::io(folder, path, source);
    if path.file_name().is_none() || fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(OpenError::Target { path: path.to_owned() });
    }
    let (new, file) = create_beside(path).map_err(io)?;
    let blobs = store.blobs();
    // What is held now is to be there when its turn comes.
    blobs.inspect(|blobs| blobs.collect_nothing());
    let taken = write(store, file, &io).and_then(|taken| {
        fs::rename(&new, path).map_err(io)?;
        Ok(taken)
    });
    // What could not be removed is swept when the store is opened.
    blobs.inspect(|blobs| drop(blobs.collect_again(store)));
    match taken {
        Ok(taken) => {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
            Ok(taken)
        }
        Err(error) => {
            // What went wrong before is what matters.
            let _left = fs::remove_file(&new);
            Err(error)
        }
    }
}

/// Makes a file of a new name in the folder of another, so that two backups at once do not write into one.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default();
    let process = std::process::id();
    for number in 0_u32.. {
        let mut new = OsString::from(".");
        new.push(name);
        new.push(format!(".{process}-{number}.new"));
        let new = path.with_file_name(new);
        match OpenOptions::new().write(true).create_new(true).mode(files::OWN_FILE).open(&new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok((new, made?)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn write(store: &dyn Store, file: File, io: &impl Fn(io::Error) -> OpenError) -> Result<Backup, OpenError> {
    let at = store.snapshot()?;
    let mut file = Summed { inner: BufWriter::new(file), sum: Xxh3::new() };
    file.put(MAGIC).map_err(io)?;
    file.put(&VERSION.to_le_bytes()).map_err(io)?;
    file.put(&at.revision().to_le_bytes()).map_err(io)?;
    let mut entries = 0_u64;
    let mut after: Option<Arc<[u8]>> = None;
    loop {
        let chunk = at.all(after.as_deref(), CHUNK)?;
        for (key, value) in &chunk {
            let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(END).to_le_bytes();
            file.put(&length(key)).map_err(io)?;
            file.put(&length(&value.bytes)).map_err(io)?;
            file.put(&value.revision.to_le_bytes()).map_err(io)?;
            file.put(&keys::seal(key, value.revision, &value.bytes).to_le_bytes()).map_err(io)?;
            file.put(key).map_err(io)?;
            file.put(&value.bytes).map_err(io)?;
            entries += 1;
        }
        match chunk.last() {
            Some((key, _)) if chunk.len() == CHUNK => after = Some(Arc::clone(key)),
            _ => break,
        }
    }
    file.put(&END.to_le_bytes()).map_err(io)?;
    file.put(&entries.to_le_bytes()).map_err(io)?;
    let blobs = match store.blobs() {
        Some(blobs) => write_blobs(blobs, blobs::held(&*at)?, &mut file, io)?,
        None => 0,
    };
    file.put(&[BLOBS_END]).map_err(io)?;
    let sum = file.sum.digest();
    file.inner.write_all(&sum.to_le_bytes()).map_err(io)?;
    let file = file.inner.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    Ok(Backup { revision: at.revision(), entries, blobs })
}

fn write_blobs(
    blobs: &Blobs,
    held: HashSet<BlobId>,
    file: &mut Summed<impl Write>,
    io: &impl Fn(io::Error) -> OpenError,
) -> Result<u64, OpenError> {
    let mut held: Vec<BlobId> = held.into_iter().collect();
    held.sort_unstable();
    let mut count = 0;
    for id in held {
        // Read twice, since its length comes first and it may not be whole.
        let whole = blobs.read_pieces(&id, |_| Ok::<_, BlobError>(())).and_then(|()| blobs.bytes(&id));
        let length = match whole {
            Ok(length) => length,
            // There is nothing that a later backup could have; for anything else this one is not whole.
            Err(error) if error.lasts() => continue,
            Err(error) => return Err(unread(blobs, &id, error)),
        };
        file.put(&[BLOB_FOLLOWS]).map_err(io)?;
        file.put(id.as_bytes()).map_err(io)?;
        file.put(&length.to_le_bytes()).map_err(io)?;
        let pieces = blobs.read_pieces(&id, |piece| file.put(piece).map_err(BlobFailure::Write));
        pieces.map_err(|failure| match failure {
            BlobFailure::Write(error) => io(error),
            BlobFailure::Read(error) => unread(blobs, &id, error),
        })?;
        count += 1;
    }
    Ok(count)
}

/// A blob that cannot be read now.
fn unread(blobs: &Blobs, id: &BlobId, error: BlobError) -> OpenError {
    match error {
        BlobError::Store(error) => OpenError::Store(error),
        BlobError::Io { path, reason } => OpenError::Io { path, source: io::Error::other(reason) },
        other => OpenError::Io { path: blobs.path(id), source: io::Error::other(other.to_string()) },
    }
}

/// Why a blob did not come into a backup.
enum BlobFailure {
    Write(io::Error),
    Read(BlobError),
}

impl From<BlobError> for BlobFailure {
    fn from(error: BlobError) -> Self {
        Self::Read(error)
    }
}

/// Makes a store from a backup. The backup is read twice: nothing is made from one that is not whole.
///
/// # Errors
/// [`OpenError::NotEmpty`] if there is anything in the folder, [`OpenError::Backup`] if the backup is not whole.
pub fn restore(path: &Path, folder: &Path, options: &Options) -> Result<Backup, OpenError> {
    read(path, &mut |_| Ok(()), None)?;
    let io = |source| OpenError::io(folder, folder, source);
    files::make_folder(&*options.files, folder).map_err(io)?;
    if fs::read_dir(folder).map_err(io)?.next().is_some() {
        return Err(OpenError::NotEmpty { folder: folder.to_owned() });
    }
    let new = Facts { format: FORMAT, revision: 0 };
    let pair = Pair::create(&*options.files, folder, options, new)?;
    let mut chunk: Vec<Version> = Vec::new();
    let mut bytes = 0;
    let index = |reason| OpenError::Index { path: pair.paths[0].clone(), reason };
    let blobs = Blobs::open(folder, Arc::clone(&options.files));
    let mut each = |version: Version| {
        bytes += version.2.as_ref().map_or(0, |value| value.len());
        chunk.push(version);
        if chunk.len() < CHUNK && bytes < limits::MEMORY_BYTES_MAX {
            return Ok(());
        }
        bytes = 0;
        let versions = std::mem::take(&mut chunk);
        pair.apply(|| Box::new(versions.clone().into_iter()), new).map_err(index)
    };
    let backup = read(path, &mut each, Some(&blobs))?;
    // The revision comes last: a restore that was cut short lacks the file that names the format, and is made anew.
    let facts = Facts { format: FORMAT, revision: backup.revision };
    pair.apply(|| Box::new(chunk.clone().into_iter()), facts).map_err(index)?;
    drop(pair);
    let (store, _) = Embedded::open(folder, options.clone())?;
    store.close()?;
    Ok(backup)
}

/// Reads a backup and checks it.
///
/// # Errors
/// [`OpenError::Backup`] if it is not whole.
pub fn check(path: &Path) -> Result<Backup, OpenError> {
    read(path, &mut |_| Ok(()), None)
}

/// Reads a backup, gives each entry away, and writes its blobs where there is a place for them.
fn read(
    path: &Path,
    entry: &mut dyn FnMut(Version) -> Result<(), OpenError>,
    blobs: Option<&Blobs>,
) -> Result<Backup, OpenError> {
    let bad = |reason: String| OpenError::Backup { path: path.to_owned(), reason };
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => bad("it ends early".to_owned()),
        _ => OpenError::Io { path: path.to_owned(), source: error },
    };
    let file = File::open(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let mut file = Summed { inner: BufReader::new(file), sum: Xxh3::new() };
    if &file.take().map_err(cut)? != MAGIC {
        return Err(bad("it does not begin like one".to_owned()));
    }
    let version = u32::from_le_bytes(file.take().map_err(cut)?);
    if ![VERSION, VERSION_WITHOUT_BLOBS].contains(&version) {
        return Err(bad(format!("wanted version {VERSION}, found {version}")));
    }
    let revision = u64::from_le_bytes(file.take().map_err(cut)?);
    let mut entries = 0_u64;
    loop {
        let key = u32::from_le_bytes(file.take().map_err(cut)?);
        if key == END {
            break;
        }
        let value = u32::from_le_bytes(file.take().map_err(cut)?);
        let (key, value) = (key as usize, value as usize);
        if key > limits::KEY_BYTES_MAX + limits::TABLE_BYTES_MAX + 1 || value > limits::VALUE_BYTES_MAX {
            return Err(bad(format!("entry {entries} has a length that no entry has")));
        }
        let written = u64::from_le_bytes(file.take().map_err(cut)?);
        let seal = u64::from_le_bytes(file.take().map_err(cut)?);
        let (key, value) = (file.take_vec(key).map_err(cut)?, file.take_vec(value).map_err(cut)?);
        if seal != keys::seal(&key, written, &value) {
            return Err(bad(format!("the seal of entry {entries} does not fit it")));
        }
        entry((Arc::from(key), written, Some(Arc::from(value))))?;
        entries += 1;
    }
    let told = u64::from_le_bytes(file.take().map_err(cut)?);
    let mut blob_count = 0;
    while version != VERSION_WITHOUT_BLOBS && file.take::<1>().map_err(cut)? == [BLOB_FOLLOWS] {
        let id: [u8; 32] = file.take().map_err(cut)?;
        let length = u64::from_le_bytes(file.take().map_err(cut)?);
        if length > limits::BLOB_BYTES_MAX {
            return Err(bad(format!("blob {blob_count} has a length that no blob has")));
        }
        let mut left = length;
        let mut writer = blobs.map(Blobs::writer).transpose().map_err(|error| bad(error.to_string()))?;
        while left > 0 {
            let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let bytes = file.take_vec(piece).map_err(cut)?;
            if let Some(writer) = &mut writer {
                writer.write(&bytes).map_err(|error| bad(error.to_string()))?;
            }
            left -= piece as u64;
        }
        if let Some(writer) = writer {
            let pin = writer.finish().map_err(|error| bad(error.to_string()))?;
            if pin.id().as_bytes() != id {
                return Err(bad(format!("blob {blob_count} does not have the hash that names it")));
            }
        }
        blob_count += 1;
    }
    let sum = file.sum.digest();
    let mut end = [0; 8];
    file.inner.read_exact(&mut end).map_err(cut)?;
    if told != entries || u64::from_le_bytes(end) != sum {
        return Err(bad("its checksum does not fit it".to_owned()));
    }
    Ok(Backup { revision, entries, blobs: blob_count })
}
