//! An arena is a pool of payload blocks that are recycled one by one (elsewhere the word means memory freed all at once).
//!
//! `loan` gives writable memory before the data exists, `freeze` makes it a shared, read-only [`Block`], and the last
//! clone's drop puts it back on top of its size class, warm. Used by the SDK for payloads that do not fit a slot. It must
//! not know who reads a block: a clone in a lease table keeps it as any other clone does.
//!
//! Blocks are cut from runs of granules, runs from segments; the segments are few and large, grow by doubling, and go
//! when they are empty and more than `keep_bytes` are free. All of this bookkeeping is in private memory: a reader of the
//! segments sees payloads only, and a crashed or lying peer can corrupt nothing here.
//!
//! Fields and who may touch them. `classes[c]` has its own spinning lock, held for one push or pop, longer only in a trim. `runs` is locked for one
//! search. `growing` is held while a segment is made or trimmed, which can take milliseconds; it is taken before the other
//! two and never waited for by a loan that finds a recycled block, nor by a return that stays below `keep_bytes`.
//! `Chunk::refs` counts the `Loan` or `Block`s of one block.
//!
//! Invariants.
//! - I1: a chunk is in its class's `free` list exactly if its `refs` is 0 and no handle to it exists; so a `Loan` is the
//!   only handle to its bytes.
//! - I2: the bytes of a chunk lie in its segment and overlap no other chunk's (`runs` gives out each granule once).
//! - I3: a handle keeps its chunk, a chunk keeps its segment mapped. Neither keeps the arena: what comes back after its
//!   end is dropped, and the last chunk of a segment unmaps it.
//! - I4: a `free` list has room for every chunk of its class, so a return never allocates.
//!
//! Orderings. `refs`: the Release in a handle's drop pairs with the Acquire of the last one, so every read is over before
//! the block is loaned again; the class lock carries that to the next loan.
//!
//! Checked by: loom (`loom_tests`), and a property test against a simple model.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Weak};

use crate::limits;
use crate::lock::SpinLock;
use crate::segment::{Segment, SegmentError, SegmentOptions};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};

mod class;
mod handle;
mod runs;

pub use handle::{Block, Loan};

use handle::Chunk;
use runs::Runs;

/// The number of a segment within its arena: from 1, never used twice.
pub type SegmentId = u32;

/// Where an arena's segments come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentSource {
    /// Sealed memory that other processes can be given; the portable backend where the system has none.
    #[default]
    Shared,
    /// Ordinary memory: for tests, model checkers and peers inside one process.
    Heap,
    /// Named memory of the portable backend.
    Portable,
}

/// How an arena is made. All limits are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Names the segments in `/proc/PID/maps`.
    pub label: String,
    /// Size of the first segment. Each further one doubles what there is, up to `segment_bytes`.
    pub segment_bytes_first: usize,
    /// Size of a full-grown shared segment. A block of more than half of it gets a segment of its own.
    pub segment_bytes: usize,
    /// The most that all segments may have together.
    pub bytes_max: u64,
    /// The largest block that may be asked for.
    pub block_bytes_max: usize,
    /// How much free memory is kept warm before empty segments go back to the system. Looked at when a segment is made,
    /// and when a block of more than 1 MiB comes back, for the free blocks of its size: a return adds up no others.
    pub keep_bytes: u64,
    /// Ask for huge pages.
    pub huge_pages: bool,
    /// Touch every page when a segment is made, in the thread whose loan needed it.
    pub prefault: bool,
    /// Where segments come from.
    pub source: SegmentSource,
}

impl Default for ArenaConfig {
    /// One MiB at first, half of the machine's memory at most, 2 GiB kept warm.
    fn default() -> Self {
        Self {
            label: "ringway-arena".to_owned(),
            segment_bytes_first: 1 << 20,
            segment_bytes: 64 << 20,
            bytes_max: half_of_memory(),
            block_bytes_max: usize::try_from(limits::BLOCK_BYTES_MAX).unwrap_or(usize::MAX / 2),
            keep_bytes: 2 << 30,
            huge_pages: false,
            prefault: false,
            source: SegmentSource::Shared,
        }
    }
}

fn half_of_memory() -> u64 {
    #[cfg(target_os = "linux")]
    return crate::sys::machine::memory_bytes() / 2;
    #[cfg(not(target_os = "linux"))]
    return 4 << 30;
}

/// Why a loan was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// The block is larger than any may be.
    #[error("a block of {wanted} bytes was asked for, the limit block_bytes_max is {block_bytes_max}")]
    TooLarge {
        /// The length asked for.
        wanted: usize,
        /// The limit.
        block_bytes_max: usize,
    },
    /// An alignment that is no power of two, or more than a page.
    #[error("an alignment of {wanted} bytes was asked for, it must be a power of two up to {align_max}")]
    Alignment {
        /// The alignment asked for.
        wanted: usize,
        /// The limit.
        align_max: usize,
    },
    /// The arena is full, also after everything free was given up.
    #[error(
        "the arena holds {held_bytes} bytes, {wanted} more would pass its limit bytes_max of {bytes_max}"
    )]
    Full {
        /// What one more segment would add.
        wanted: u64,
        /// What it holds.
        held_bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Too many segments.
    #[error("the arena has {segments_max} segments, the limit")]
    Segments {
        /// The limit.
        segments_max: usize,
    },
    /// The system refused a segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// What an arena holds and has done. Block bytes are the sizes of classes, not the lengths asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Blocks ready to be loaned again.
    pub free_blocks: u64,
    /// Their bytes.
    pub free_bytes: u64,
    /// Bytes not cut into blocks.
    pub uncut_bytes: u64,
    /// Loans given, ever.
    pub loans: u64,
    /// Segments made, ever.
    pub grows: u64,
    /// Segments given back to the system, ever.
    pub shrinks: u64,
    /// Loans refused, ever.
    pub failures: u64,
}

type OnSegment = Box<dyn Fn(SegmentId, &Arc<Segment>) + Send + Sync>;
type OnSegmentFreed = Box<dyn Fn(SegmentId) + Send + Sync>;

/// A pool of blocks; shared by every thread of a worker.
pub struct Arena {
    config: ArenaConfig,
    classes: Box<[Class]>,
    runs: Mutex<Runs>,
    growing: Mutex<Observers>,
    /// Segments up to this number are used no more: what comes back of them is dropped.
    left_behind: AtomicU64,
    grows: AtomicU64,
    shrinks: AtomicU64,
    failures: AtomicU64,
}

#[derive(Default)]
struct Observers {
    made: Vec<OnSegment>,
    freed: Vec<OnSegmentFreed>,
}

/// One size class, alone on its cache line.
#[repr(align(64))]
struct Class(SpinLock<ClassState>);

#[derive(Default)]
struct ClassState {
    /// Free blocks; the warmest is last.
    free: Vec<Arc<Chunk>>,
    /// Blocks of this class, free or not.
    chunks: usize,
    loans: u64,
}

impl Arena {
    /// Makes an arena. It makes its first segment when it gives its first loan.
    pub fn new(config: ArenaConfig) -> Arc<Self> {
        let block_bytes_max = config.block_bytes_max.min(usize::MAX / 2);
        let block_bytes_max = match usize::try_from(limits::BLOCK_BYTES_MAX) {
            Ok(limit) => block_bytes_max.min(limit),
            Err(_) => block_bytes_max,
        };
        // Rounded up for the strictest alignment: no loan asks for a larger class.
        let last = class::aligned(block_bytes_max, limits::PAGE_BYTES);
        let classes = (0..=last).map(|_| Class(SpinLock::new(ClassState::default()))).collect();
        Arc::new(Self {
            config: ArenaConfig { block_bytes_max, ..config },
            classes,
            runs: Mutex::new(Runs::default()),
            growing: Mutex::new(Observers::default()),
            left_behind: AtomicU64::new(0),
            grows: AtomicU64::new(0),
            shrinks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// Returns how this arena was made.
    pub fn config(&self) -> &ArenaConfig {
        &self.config
    }

    /// Lends `len` bytes of writable memory that start at a multiple of `align`, and of 64 in any case, of a page from
    /// 64 KiB on. They hold whatever was there before. `align` is a power of two up to 4096.
    ///
    /// A recycled block costs about 20 ns whatever its size: no system call, no page touched. Otherwise a run is cut, or
    /// a segment made, which blocks while the kernel clears it (about 0.25 ms a MiB).
    ///
    /// # Errors
    /// [`ArenaError`], which names the limit.
    #[inline]
    pub fn loan(self: &Arc<Self>, len: usize, align: usize) -> Result<Loan, ArenaError> {
        let class = self.class_for(len, align)?;
        let recycled = self.classes[class].pop();
        match recycled {
            Some(chunk) => Ok(Loan::new(chunk, len)),
            None => self.loan_slowly(class, len),
        }
    }

    #[inline]
    fn class_for(&self, len: usize, align: usize) -> Result<usize, ArenaError> {
        if len > self.config.block_bytes_max {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(ArenaError::TooLarge { wanted: len, block_bytes_max: self.config.block_bytes_max });
        }
        if align > 64 {
            if !align.is_power_of_two() || align > limits::PAGE_BYTES {
                self.failures.fetch_add(1, Ordering::Relaxed);
                return Err(ArenaError::Alignment { wanted: align, align_max: limits::PAGE_BYTES });
            }
            return Ok(class::aligned(len, align));
        }
        if !align.is_power_of_two() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Err(ArenaError::Alignment { wanted: align, align_max: limits::PAGE_BYTES });
        }
        Ok(class::of(len))
    }

    #[cold]
    fn loan_slowly(self: &Arc<Self>, class: usize, len: usize) -> Result<Loan, ArenaError> {
        let chunk = self.warm_neighbour(class).map_or_else(|| self.cut(class), Ok);
        match chunk {
            Ok(chunk) => Ok(Loan::new(chunk, len)),
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Looks for a free block of up to a quarter more than a large class has: touching new pages costs far more than
    /// the bytes left unused.
    fn warm_neighbour(&self, class: usize) -> Option<Arc<Chunk>> {
        if class < class::LARGE {
            return None;
        }
        self.classes.iter().skip(class + 1).take(4).find_map(Class::pop)
    }

    /// Cuts a new run into blocks and returns the first.
    fn cut(self: &Arc<Self>, class: usize) -> Result<Arc<Chunk>, ArenaError> {
        let observers = self.growing.lock();
        // Another thread may have cut a run, or returned a block, while this one waited.
        if let Some(chunk) = self.classes[class].pop() {
            return Ok(chunk);
        }
        let (blocks, run_bytes) = class::run(class);
        let taken = self.runs.lock().take(run_bytes);
        let run = match taken {
            Some(run) => run,
            None => self.grow(&observers, run_bytes)?,
        };
        let mut chunks =
            (0..blocks).map(|index| Chunk::new(self, &run, class, run.offset + index * class::bytes(class)));
        let first = chunks.next().expect("a run is cut into at least one block");
        let mut state = self.classes[class].0.lock();
        state.chunks += blocks;
        state.loans += 1;
        let room = state.chunks - state.free.len();
        state.free.reserve(room);
        // The lowest is loaned next.
        state.free.extend(chunks.rev());
        Ok(first)
    }

    /// Makes room for a run of `run_bytes` and takes it.
    fn grow(&self, observers: &Observers, run_bytes: usize) -> Result<runs::Run, ArenaError> {
        // Memory that is free but cut into other sizes serves first what is over the threshold, then all of it.
        self.trim_locked(observers, self.config.keep_bytes);
        if let Some(run) = self.runs.lock().take(run_bytes) {
            return Ok(run);
        }
        let mut result = self.add_segment(observers, run_bytes);
        if matches!(
            result,
            Err(ArenaError::Full { .. } | ArenaError::Segments { .. } | ArenaError::Segment(_))
        ) {
            self.trim_locked(observers, 0);
            if let Some(run) = self.runs.lock().take(run_bytes) {
                return Ok(run);
            }
            result = self.add_segment(observers, run_bytes);
        }
        result?;
        // Nobody else can take from the new segment in between: taking needs `growing`, which is held.
        Ok(self.runs.lock().take(run_bytes).expect("the new segment has room for the run it was made for"))
    }

    fn add_segment(&self, observers: &Observers, run_bytes: usize) -> Result<(), ArenaError> {
        let (held_bytes, segments) = {
            let runs = self.runs.lock();
            (runs.held_bytes(), runs.len())
        };
        if segments >= limits::ARENA_SEGMENTS_MAX {
            return Err(ArenaError::Segments { segments_max: limits::ARENA_SEGMENTS_MAX });
        }
        let bytes_max = self.config.bytes_max;
        let room = bytes_max.saturating_sub(held_bytes);
        if run_bytes as u64 > room {
            return Err(ArenaError::Full { wanted: run_bytes as u64, held_bytes, bytes_max });
        }
        let wanted = self.next_segment_bytes(held_bytes, run_bytes);
        let bytes = if wanted as u64 > room { run_bytes } else { wanted };
        let segment = self.make_segment(bytes)?;
        let id = self.runs.lock().next_id();
        // Announced before anyone can loan a block of it.
        for made in &observers.made {
            made(id, &segment);
        }
        self.runs.lock().insert(id, segment);
        self.grows.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn next_segment_bytes(&self, held_bytes: u64, run_bytes: usize) -> usize {
        let full = self.config.segment_bytes;
        if run_bytes > full / 2 {
            return run_bytes;
        }
        let doubled =
            usize::try_from(held_bytes).unwrap_or(full).max(self.config.segment_bytes_first).min(full);
        doubled.max(run_bytes).next_multiple_of(limits::GRANULE_BYTES)
    }

    fn make_segment(&self, bytes: usize) -> Result<Arc<Segment>, SegmentError> {
        let options = SegmentOptions { huge_pages: self.config.huge_pages, prefault: self.config.prefault };
        match self.config.source {
            SegmentSource::Shared => Segment::create(&self.config.label, bytes, options),
            SegmentSource::Heap => Ok(Segment::heap(bytes)),
            SegmentSource::Portable => Segment::portable(bytes),
        }
    }

    /// Puts a block back. Called by the last handle to it.
    #[inline]
    fn recycle(&self, chunk: Arc<Chunk>) {
        let class = chunk.class();
        let free_bytes = {
            let mut state = self.classes[class].0.lock();
            if self.is_left_behind(&chunk) {
                state.chunks -= 1;
                // The last one unmaps its segment, which is not to be waited for.
                drop(state);
                return;
            }
            // I4: there is room.
            state.free.push(chunk);
            state.free.len() * class::bytes(class)
        };
        if class >= class::LARGE && free_bytes as u64 > self.config.keep_bytes {
            self.shed();
        }
    }

    /// Loans nothing more of the memory that there is now. What is in use of it stays as it is; what comes back is dropped,
    /// and a segment goes with its last block and its last reader (I3). For an owner who has lost sight of somebody that
    /// may still read a block. Later loans make segments anew, and touch their pages for the first time.
    pub fn leave_behind(&self) {
        let observers = self.growing.lock();
        let (last, segments) = self.runs.lock().remove_all();
        // Relaxed: the lock of each class orders it. A block that comes back finds it, or is in its list when that is emptied.
        self.left_behind.store(u64::from(last), Ordering::Relaxed);
        for class in &self.classes {
            let mut state = class.0.lock();
            // Those in use never come back to it, so it needs no room for them (I4).
            let free = std::mem::take(&mut state.free);
            state.chunks -= free.len();
            drop(state);
            drop(free);
        }
        for (id, segment) in segments {
            self.shrinks.fetch_add(1, Ordering::Relaxed);
            drop(segment);
            for freed in &observers.freed {
                freed(id);
            }
        }
    }

    #[inline]
    fn is_left_behind(&self, chunk: &Chunk) -> bool {
        u64::from(chunk.segment_id()) <= self.left_behind.load(Ordering::Relaxed)
    }

    #[cold]
    fn shed(&self) {
        // Whoever holds it now makes a segment, which trims first, or trims.
        if let Some(observers) = self.growing.try_lock() {
            self.trim_locked(&observers, self.config.keep_bytes);
        }
    }

    /// Gives free memory back to the system until at most `keep_bytes` of it are left, as far as whole segments are free.
    /// Call it now and then from an idle thread. May block for milliseconds; loans of recycled blocks go on meanwhile.
    pub fn trim(&self, keep_bytes: u64) {
        self.trim_locked(&self.growing.lock(), keep_bytes);
    }

    fn trim_locked(&self, observers: &Observers, keep_bytes: u64) {
        self.remove_empty(observers, keep_bytes);
        // What is still too much is cut into blocks: those of wholly free runs become uncut again, largest first.
        let mut excess = self.free_bytes().saturating_sub(keep_bytes);
        for (class, state) in self.classes.iter().enumerate().rev() {
            if excess == 0 {
                break;
            }
            let freed = state.uncut(class, excess);
            let (blocks, run_bytes) = class::run(class);
            // The tail of a run that no block covers was not counted as free.
            excess = excess.saturating_sub((freed.len() * blocks * class::bytes(class)) as u64);
            let mut runs = self.runs.lock();
            for (segment_id, offset) in freed {
                runs.give_back(segment_id, offset, run_bytes);
            }
        }
        self.remove_empty(observers, keep_bytes);
    }

    /// Gives empty segments back to the system while more than `keep_bytes` are free.
    fn remove_empty(&self, observers: &Observers, keep_bytes: u64) {
        while self.free_bytes() > keep_bytes {
            let Some((id, segment)) = self.runs.lock().remove_empty() else { break };
            self.shrinks.fetch_add(1, Ordering::Relaxed);
            for freed in &observers.freed {
                freed(id);
            }
            drop(segment);
        }
    }

    /// Bytes that nobody uses, cut into blocks or not.
    fn free_bytes(&self) -> u64 {
        let cut: u64 = self.classes.iter().enumerate().map(|(class, state)| state.free_bytes(class)).sum();
        cut + self.runs.lock().free_bytes()
    }

    /// Makes `count` blocks of `len` bytes ready, so that as many loans cost no growth later.
    ///
    /// # Errors
    /// As [`Self::loan`]; what could be made stays ready.
    pub fn reserve(self: &Arc<Self>, len: usize, align: usize, count: usize) -> Result<(), ArenaError> {
        let loans: Result<Vec<Loan>, ArenaError> = (0..count).map(|_| self.loan(len, align)).collect();
        loans.map(drop)
    }

    /// Calls `made` for each segment there is and for each new one before the first block of it is loaned. It runs in
    /// the thread whose loan needed the segment and must not use this arena.
    pub fn on_segment(&self, made: impl Fn(SegmentId, &Arc<Segment>) + Send + Sync + 'static) {
        let mut observers = self.growing.lock();
        let segments: Vec<_> =
            self.runs.lock().iter().map(|(id, segment)| (id, Arc::clone(segment))).collect();
        for (id, segment) in &segments {
            made(*id, segment);
        }
        observers.made.push(Box::new(made));
    }

    /// Calls `freed` for each segment that goes back to the system. It must not use this arena.
    pub fn on_segment_freed(&self, freed: impl Fn(SegmentId) + Send + Sync + 'static) {
        self.growing.lock().freed.push(Box::new(freed));
    }

    /// Counts what the arena holds and has done. Takes each lock once: for people, not for hot paths.
    pub fn stats(&self) -> ArenaStats {
        let mut stats = ArenaStats {
            grows: self.grows.load(Ordering::Relaxed),
            shrinks: self.shrinks.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            ..ArenaStats::default()
        };
        {
            let runs = self.runs.lock();
            stats.segments = runs.len() as u64;
            stats.held_bytes = runs.held_bytes();
            stats.uncut_bytes = runs.free_bytes();
        }
        for (class, state) in self.classes.iter().enumerate() {
            let state = state.0.lock();
            let (free, all) = (state.free.len() as u64, state.chunks as u64);
            let bytes = class::bytes(class) as u64;
            stats.free_blocks += free;
            stats.free_bytes += free * bytes;
            stats.live_blocks += all - free;
            stats.live_bytes += (all - free) * bytes;
            stats.loans += state.loans;
        }
        stats
    }

    /// Lists the segments there are now, for inspection.
    pub fn segments(&self) -> Vec<(SegmentId, Arc<Segment>)> {
        self.runs.lock().iter().map(|(id, segment)| (id, Arc::clone(segment))).collect()
    }
}

impl Class {
    /// Takes the warmest free block.
    #[inline]
    fn pop(&self) -> Option<Arc<Chunk>> {
        let mut state = self.0.lock();
        let chunk = state.free.pop()?;
        state.loans += 1;
        Some(chunk)
    }

    fn free_bytes(&self, class: usize) -> u64 {
        (self.0.lock().free.len() * class::bytes(class)) as u64
    }

    /// Removes the blocks of runs that are wholly free, the coldest first, until `wanted` bytes are, and returns where
    /// those runs start.
    fn uncut(&self, class: usize, wanted: u64) -> Vec<(SegmentId, usize)> {
        let (blocks, _) = class::run(class);
        let run_free_bytes = blocks * class::bytes(class);
        let mut state = self.0.lock();
        let mut free: HashMap<(SegmentId, usize), usize> = HashMap::new();
        for chunk in &state.free {
            *free.entry(chunk.run()).or_default() += 1;
        }
        let mut chosen = Vec::new();
        for chunk in &state.free {
            if (chosen.len() * run_free_bytes) as u64 >= wanted {
                break;
            }
            // Taken out of the map, so each run is chosen once.
            if free.get(&chunk.run()) == Some(&blocks) {
                free.remove(&chunk.run());
                chosen.push(chunk.run());
            }
        }
        if !chosen.is_empty() {
            let mut removed = chosen.clone();
            removed.sort_unstable();
            state.free.retain(|chunk| removed.binary_search(&chunk.run()).is_err());
            state.chunks -= chosen.len() * blocks;
        }
        chosen
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("config", &self.config).field("stats", &self.stats()).finish()
    }
}

/// A range of a block, checked.
fn checked_range(range: &Range<u64>, len: u64) -> bool {
    range.start <= range.end && range.end <= len
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
