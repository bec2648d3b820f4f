//! The store of one machine: a folder with a log and two files of index. Opens, mends, closes; the work is in
//! `committer`. Used by whoever runs an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{Batch, Durability};
use crate::blobs::Blobs;
use crate::committer::{Core, Job};
use crate::error::{OpenError, StoreError};
use crate::files::{self, Disk, Files};
use crate::index::Facts;
use crate::lock::Lock;
use crate::log::Log;
use crate::memory::Memory;
use crate::metrics::{Counters, Metrics};
use crate::pair::{self, Pair};
use crate::report::{Damage, OpenReport};
use crate::store::{Done, Snapshot, Store, Value};
use crate::view::{At, View};
use crate::{keys, limits};

/// The format that this version writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// The file that names the format; it is written last when a store is made.
const FORMAT_NAME: &str = "FORMAT";

/// How a store uses its machine. The defaults suit an engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file system.
    pub files: Arc<dyn Files>,
    /// Cache for each of the two index files, in bytes.
    pub cache_bytes: usize,
    /// Commits held in memory before they move to the index, in bytes; twice that at most.
    pub memory_bytes: usize,
    /// Length of a segment of the log. Two or three of them exist.
    pub segment_bytes: u64,
    /// Batches that may wait for the committer.
    pub waiting_max: usize,
    /// Every page of an index file of up to this length is checked when it is opened, at about the speed of reading it.
    /// Longer ones are trusted, entry by entry, until [`Embedded::verify`].
    pub check_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            files: Arc::new(Disk),
            cache_bytes: limits::CACHE_BYTES,
            memory_bytes: limits::MEMORY_BYTES_MAX,
            segment_bytes: limits::SEGMENT_BYTES,
            waiting_max: limits::WAITING_MAX,
            check_bytes_max: 1 << 30,
        }
    }
}

/// An open store. Dropping it closes it.
#[derive(Debug)]
pub struct Embedded {
    core: Arc<Core>,
    blobs: Blobs,
    paths: [PathBuf; 2],
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: Lock,
}

/// What the file that names the format says.
enum Format {
    Is(u32),
    Missing,
    Damaged,
}

fn format_line(format: u32) -> Vec<u8> {
    let text = format!("ringway-store {format}");
    format!("{text} {:016x}\n", xxh3_64(text.as_bytes())).into_bytes()
}

fn read_format(files: &dyn Files, path: &Path) -> std::io::Result<Format> {
    if !path.exists() {
        return Ok(Format::Missing);
    }
    let bytes = files::read_all(files, path)?;
    let text = String::from_utf8_lossy(&bytes);
    let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
    Ok(match number {
        Some(number) if format_line(number) == bytes => Format::Is(number),
        _ => Format::Damaged,
    })
}

fn known_format(folder: &Path, found: u32) -> Result<(), OpenError> {
    if found == FORMAT {
        return Ok(());
    }
    let advice = if found > FORMAT {
        "run the version that wrote it, or restore a backup, which every later version reads"
    } else {
        "take a backup with the version that wrote it and restore it with this one"
    };
    Err(OpenError::Format { folder: folder.to_owned(), found, wanted: FORMAT, advice })
}

impl Embedded {
    /// Opens the store of a folder, makes one if there is none, mends what has a whole twin, and sets aside what cannot
    /// be read. Costs a read of the index if it is checked, and of the log.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if another engine has it; `Format`, `ReadOnly`, `DiskFull`, `Io`, `Index`.
    pub fn open(folder: &Path, options: Options) -> Result<(Self, OpenReport), OpenError> {
        let files = Arc::clone(&options.files);
        files::make_folder(&*files, folder).map_err(|source| OpenError::io(folder, folder, source))?;
        let lock = Lock::take(folder)?;
        // Looked at before anything is made in it. A file that comes or goes meanwhile is nobody's harm.
        let open_to_others = files::open_to_others(folder).unwrap_or_default();
        let mut report = OpenReport { open_to_others, ..OpenReport::default() };
        let (pair, facts, lost) = open_index(folder, &options, &mut report)?;
        let after = facts[0].revision.min(facts[1].revision);
        let released = Arc::new(AtomicU64::new(after));
        let io = |source| OpenError::io(folder, folder, source);
        let segment_bytes = options.segment_bytes;
        let opened = Log::open(Arc::clone(&files), folder, segment_bytes, Arc::clone(&released), lost);
        let (log, found) = opened.map_err(io)?;
        if !found.gaps.is_empty() {
            let set_aside = found.used.iter().map(|path| copy_aside(&*files, folder, path));
            let set_aside = set_aside.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
            for (first, last) in found.gaps {
                report.damage.push(Damage::CommitsLost { first, last, set_aside: set_aside.clone() });
            }
        }
        let memory = Memory::default();
        report.revision = after.max(facts[0].revision).max(facts[1].revision);
        report.replayed = found.batches.len() as u64;
        report.torn_bytes = found.torn_bytes;
        for batch in found.batches {
            report.revision = report.revision.max(batch.revision);
            for change in batch.changes {
                memory.insert(change.key, batch.revision, change.value);
            }
        }
        let counters = Arc::new(Counters::default());
        let paths = pair.paths.clone();
        let index = pair.readers(Arc::clone(&counters));
        let index = index.map_err(|reason| OpenError::Index { path: paths[0].clone(), reason })?;
        let view = View { active: Arc::new(memory), frozen: None, index: Arc::new(index) };
        let at = At { view: Arc::new(view), revision: report.revision };
        let core = Arc::new(Core::new(folder.to_owned(), options, counters, at, released));
        let blobs = Blobs::open(folder, Arc::clone(&core.options.files));
        let is_loss =
            |damage: &Damage| matches!(damage, Damage::FileLost { .. } | Damage::CommitsLost { .. });
        let holds_lost = report.damage.iter().any(is_loss);
        report.damage.extend(blobs.sweep(&core.current.read().clone(), holds_lost));
        if found.used.len() > 1 || lost {
            // Else each crash of an engine that crashes again and again would leave one segment more. And where the index
            // was lost, the next to open the store finds one, and believes marks again.
            core.move_now(&pair);
        }
        let spawn = |name: &str, life: Box<dyn FnOnce(Arc<Core>) + Send>| {
            let core = Arc::clone(&core);
            thread::Builder::new().name(name.to_owned()).spawn(move || life(core)).map_err(io)
        };
        let committer = spawn("store-commit", Box::new(move |core| core.commit_all(log)))?;
        let mover = match spawn("store-move", Box::new(move |core| core.move_all(&pair))) {
            Ok(mover) => mover,
            Err(error) => {
                core.close();
                return Err(error);
            }
        };
        Ok((Self { core, blobs, paths, threads: Mutex::new(vec![committer, mover]), _lock: lock }, report))
    }

    /// As [`Embedded::open`], where there is a store already; makes nothing where there is none.
    ///
    /// # Errors
    /// [`OpenError::NoStore`], else as [`Embedded::open`].
    pub fn open_existing(folder: &Path, options: Options) -> Result<(Self, OpenReport), OpenError> {
        let format = folder.join(FORMAT_NAME);
        let is_there = format.exists()
            || options.files.list(folder).is_ok_and(|paths| paths.iter().any(|path| is_segment(path)));
        if !is_there {
            return Err(OpenError::NoStore { folder: folder.to_owned() });
        }
        Self::open(folder, options)
    }

    /// Ends: writes what waits, moves memory to the index, lets the folder go.
    ///
    /// # Errors
    /// Why the store had failed before, if it had. Everything that was acknowledged is on disk all the same.
    pub fn close(self) -> Result<(), StoreError> {
        self.end(false);
        self.core.failure().map_or(Ok(()), Err)
    }

    /// Ends as if the process had been killed: nothing more is written.
    #[cfg(feature = "testing")]
    pub fn abandon(self) {
        self.end(true);
    }

    fn end(&self, abandoned: bool) {
        let mut threads = self.threads.lock();
        if abandoned {
            // Before the committer learns that it ends: it then leaves its log as it is.
            self.core.stop_mover(true);
        }
        self.core.close();
        // The committer first: the mover then moves everything that it has written.
        for (number, thread) in threads.drain(..).enumerate() {
            if number == 1 {
                self.core.stop_mover(abandoned);
            }
            // A thread that panicked has said so; the folder is let go all the same.
            drop(thread.join());
        }
    }

    /// Compares both copies of every entry and every seal. Costs a read of everything; commits go on meanwhile.
    #[must_use]
    pub fn verify(&self) -> Vec<Damage> {
        let at = self.at();
        let mut damage = Vec::new();
        let pending = |key: &[u8]| {
            let layers = [Some(&at.view.active), at.view.frozen.as_ref()];
            layers.into_iter().flatten().any(|memory| memory.get(key, u64::MAX).is_some())
        };
        at.view.index.verify(&self.paths, &pending, &mut damage);
        damage
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.core.counters.read()
    }

    /// Everything as of now, by keys within the whole store.
    pub(crate) fn at(&self) -> At {
        self.core.current.read().clone()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Store for Embedded {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        if let Some(error) = batch.too_large {
            return Err(error);
        }
        self.core.submit(Job::new(batch, durability, done))
    }

    fn wait_for_room(&self) {
        self.core.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(self.at()))
    }

    fn blobs(&self) -> Option<&Blobs> {
        Some(&self.blobs)
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.at().get(&keys::join(table, key))
    }
}

/// Opens or makes the index, and the file that names the format.
fn open_index(
    folder: &Path,
    options: &Options,
    report: &mut OpenReport,
) -> Result<(Pair, [Facts; 2], bool), OpenError> {
    let files = &*options.files;
    let io = |source| OpenError::io(folder, folder, source);
    let format_path = folder.join(FORMAT_NAME);
    let mut write_format = true;
    let mut fresh = false;
    match read_format(files, &format_path).map_err(io)? {
        Format::Is(found) => {
            known_format(folder, found)?;
            write_format = false;
        }
        Format::Damaged => {
            let set_aside = pair::set_aside(files, folder, &format_path).map_err(io)?;
            let reason = "its checksum does not fit it".to_owned();
            report.damage.push(Damage::FileReplaced { set_aside, reason });
        }
        // It is written last when a store is made. Without it and without a log, nothing was ever committed.
        Format::Missing => {
            let paths = files.list(folder).map_err(io)?;
            fresh = !paths.iter().any(|path| is_segment(path));
            if !fresh {
                report.damage.push(Damage::FileMissing { path: format_path.clone() });
            }
        }
    }
    let new = Facts { format: FORMAT, revision: 0 };
    let lengths = ["index-1.redb", "index-2.redb"]
        .map(|name| std::fs::metadata(folder.join(name)).map_or(0, |f| f.len()));
    let check = lengths.iter().all(|length| *length <= options.check_bytes_max);
    let mut damage = Vec::new();
    let opened = match lengths {
        [0, 0] if fresh => None,
        _ => Pair::open(files, folder, options, check, &mut damage)?,
    };
    // A making or restoring that was cut short: nothing was ever committed here, so that it begins anew.
    let opened = opened.filter(|(_, facts)| !fresh || facts.iter().any(|facts| facts.revision > 0));
    if !fresh || opened.is_some() {
        report.damage.extend(damage);
    }
    report.checked = check;
    let lost = opened.is_none() && !fresh;
    let (pair, facts) = match opened {
        Some((pair, facts)) => (pair, facts),
        None => (Pair::create(files, folder, options, new)?, [new, new]),
    };
    for facts in facts {
        known_format(folder, facts.format)?;
    }
    if write_format {
        files::write_all(files, folder, &format_path, &format_line(FORMAT)).map_err(io)?;
    }
    Ok((pair, facts, lost))
}

/// Whether a file is a part of the log.
fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "seg")
}

/// Keeps a copy of a file for a person to look at.
fn copy_aside(files: &dyn Files, folder: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let aside = path.with_extension("kept");
    files::copy(files, folder, path, &aside)?;
    pair::set_aside(files, folder, &aside)
}
