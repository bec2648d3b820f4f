//! The handles of a block: a [`Loan`] while it may be written, [`Block`]s while it may be read, and the [`Chunk`] that both
//! stand on. Used by `arena`, whose header has the invariants named here. It must not know how blocks are found.

use super::runs::Run;
use super::*;
#[cfg(loom)]
use crate::sync::{UnsafeCell, cell_ptr};

/// The place of one block. Made when a run is cut, kept in its class's `free` list while nobody has a handle.
pub(super) struct Chunk {
    arena: Weak<Arena>,
    segment: Arc<Segment>,
    segment_id: SegmentId,
    class: usize,
    offset: usize,
    run_offset: usize,
    /// Handles to this block: 0 in the `free` list, 1 for a loan.
    refs: AtomicUsize,
    /// Stands for the bytes in the model checker, which cannot see the bytes themselves.
    #[cfg(loom)]
    bytes: UnsafeCell<()>,
}

// SAFETY: loom's cell only records accesses; the rest of the fields may be shared.
#[cfg(loom)]
unsafe impl Sync for Chunk {}

impl Chunk {
    pub(super) fn new(arena: &Arc<Arena>, run: &Run, class: usize, offset: usize) -> Arc<Self> {
        Arc::new(Self {
            arena: Arc::downgrade(arena),
            segment: Arc::clone(&run.segment),
            segment_id: run.segment_id,
            class,
            offset,
            run_offset: run.offset,
            refs: AtomicUsize::new(0),
            #[cfg(loom)]
            bytes: UnsafeCell::new(()),
        })
    }

    #[inline]
    pub(super) fn class(&self) -> usize {
        self.class
    }

    #[inline]
    pub(super) fn segment_id(&self) -> SegmentId {
        self.segment_id
    }

    /// The run that it was cut from.
    pub(super) fn run(&self) -> (SegmentId, usize) {
        (self.segment_id, self.run_offset)
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        // SAFETY: the chunk lies in its segment by I2.
        unsafe { self.segment.base().add(self.offset) }
    }
}

/// Memory of an arena that one owner may write: the only handle to its bytes. Dropped, it goes back unused.
pub struct Loan {
    block: Block,
}

impl Loan {
    #[inline]
    pub(super) fn new(chunk: Arc<Chunk>, len: usize) -> Self {
        // Relaxed: the class lock ordered this thread after the last user, and nobody else has a handle (I1).
        chunk.refs.store(1, Ordering::Relaxed);
        Self { block: Block { chunk: Some(chunk), start: 0, len } }
    }

    /// Returns the length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "as a slice it has is_empty")]
    pub fn len(&self) -> usize {
        self.block.len
    }

    /// Returns how many bytes the block has in all: at least its length.
    pub fn capacity(&self) -> usize {
        class::bytes(self.block.chunk().class)
    }

    /// Changes the length, for data whose size turns out only as it is written. Returns whether the block is large
    /// enough; if not, nothing changes.
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.capacity();
        if fits {
            self.block.len = len;
        }
        fits
    }

    /// Ends writing: the bytes stay as they are from here on and can be shared and lent. No cost.
    #[inline]
    pub fn freeze(self) -> Block {
        self.block
    }
}

impl Deref for Loan {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block
    }
}

impl DerefMut for Loan {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let chunk = self.block.chunk();
        #[cfg(loom)]
        cell_ptr(&chunk.bytes);
        let (start, len) = (chunk.start(), self.block.len);
        // SAFETY: `len` bytes from `start` lie in the chunk (`len` is at most the class's size by `loan` and `set_len`;
        // a loan starts at 0) and nobody else has a handle to them (I1). Mapped shared memory is initialised.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loan").field(&self.block).finish()
    }
}

/// Bytes of an arena that nobody writes any more. Clones share them; the last one's drop recycles the block.
pub struct Block {
    /// `Some` until dropped.
    chunk: Option<Arc<Chunk>>,
    start: usize,
    len: usize,
}

impl Block {
    #[inline]
    fn chunk(&self) -> &Arc<Chunk> {
        self.chunk.as_ref().expect("a block has its chunk until it is dropped")
    }

    /// Returns the segment that holds the bytes.
    #[inline]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.chunk().segment
    }

    /// Returns the number of that segment in its arena.
    #[inline]
    pub fn segment_id(&self) -> SegmentId {
        self.chunk().segment_id
    }

    /// Returns where the bytes start, counted from the segment's start.
    #[inline]
    pub fn offset(&self) -> u64 {
        (self.chunk().offset + self.start) as u64
    }

    /// Returns the length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "as a slice it has is_empty")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Has its arena left behind, unless it has been: see [`Arena::leave_behind`].
    pub fn leave_behind(&self) {
        let chunk = self.chunk();
        if let Some(arena) = chunk.arena.upgrade()
            && !arena.is_left_behind(chunk)
        {
            arena.leave_behind();
        }
    }

    /// Returns a part of the block that shares it, or `None` if the range does not lie in it.
    pub fn part(&self, range: Range<u64>) -> Option<Self> {
        if !checked_range(&range, self.len()) {
            return None;
        }
        let mut part = self.clone();
        part.start += usize::try_from(range.start).ok()?;
        part.len = usize::try_from(range.end - range.start).ok()?;
        Some(part)
    }
}

impl Clone for Block {
    #[inline]
    fn clone(&self) -> Self {
        let chunk = Arc::clone(self.chunk());
        // Relaxed: whoever clones has a handle, so the count is at least 1 and orders nothing. It cannot overflow: each
        // step also raises the Arc's count, which ends the process long before.
        chunk.refs.fetch_add(1, Ordering::Relaxed);
        Self { chunk: Some(chunk), start: self.start, len: self.len }
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        let Some(chunk) = self.chunk.take() else { return };
        // Release orders this handle's reads before the count; Acquire, of the last handle, pairs with it, so that all
        // reads are over before the block is loaned again.
        if chunk.refs.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(arena) = chunk.arena.upgrade()
        {
            arena.recycle(chunk);
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let chunk = self.chunk();
        #[cfg(loom)]
        chunk.bytes.with(|_| ());
        let start = chunk.start().wrapping_add(self.start);
        // SAFETY: `start..start + len` lies in the chunk (`part` checks the range, `loan` and `set_len` the length), and a
        // writer exists only as the `Loan` that wraps this very value (I1).
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("segment_id", &self.segment_id())
            .field("offset", &self.offset())
            .field("len", &self.len)
            .finish()
    }
}
