//! The permission page: which functions of a callee one caller may call, one bit for each.
//!
//! The engine owns a page for every channel and both ends map it read-only; the callee looks at one bit for each call, so
//! a permission that is taken away holds from the next call on, also for calls that are in the ring already. Used by the
//! engine, which writes, and by workers, which read. It must not know why something is allowed.
//!
//! # Fields and who may touch them
//! Words of 64 bits, little-endian on every supported machine: word 0 is [`MAGIC`], word 1 is 1 once everything is revoked,
//! words 2 to 7 are 0, and from byte 64 there is a bit for each function index below [`INDEX_END`], lowest bit first.
//! The engine writes, everybody reads.
//!
//! # Invariants
//! - I1: the memory is one whole page of atomics for as long as a value lives (segment I1, I2; checked in `map`).
//! - I2: after `revoke` no bit is set any more and none is set again.
//!
//! Orderings: relaxed. A bit carries no other data, and a caller that is told of a permission is told by a socket.
//!
//! Checked by: tests below.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::limits::PAGE_BYTES;
use crate::segment::{Segment, SegmentError, SegmentOptions, SegmentView};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// First word of every permission page: `RWPERMIT`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RWPERMIT");

/// Function indexes with a bit lie below this number. All others are never allowed.
pub const INDEX_END: u32 = 16 << 10;

const REVOKED_WORD: usize = 1;
const FIRST_BITS_WORD: usize = 8;
const WORDS: usize = FIRST_BITS_WORD + INDEX_END as usize / 64;

const _: () = assert!(WORDS * 8 <= PAGE_BYTES);

/// Why a received page was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PermissionError {
    /// It is no segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// It does not start with [`MAGIC`].
    #[error("a permission page starts with {MAGIC:#018x}, found {found:#018x}")]
    Magic {
        /// Its first word.
        found: u64,
    },
}

/// The engine's end.
#[derive(Debug)]
pub struct PermissionPage {
    segment: Arc<Segment>,
    revoked: AtomicBool,
}

impl PermissionPage {
    /// Makes a page that allows the indexes for which `allow` says so. Costs a memfd and a few microseconds.
    ///
    /// # Errors
    /// Memory, descriptors or mappings run out.
    pub fn new(allow: impl Fn(u32) -> bool) -> Result<Self, SegmentError> {
        let segment = Segment::create("ringway-permission", PAGE_BYTES, SegmentOptions::default())?;
        let page = Self { segment, revoked: AtomicBool::new(false) };
        for word in page.words() {
            word.store(0, Ordering::Relaxed);
        }
        page.set_all(allow);
        page.words()[0].store(MAGIC, Ordering::Release);
        Ok(page)
    }

    /// Makes a page of words as [`Self::set_word`] takes them; words that are not given are zero.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_words(bits: &[u64]) -> Result<Self, SegmentError> {
        Self::new(|index| bits.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 != 0))
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: I1; `self` holds the segment for as long as it is borrowed.
        unsafe { words(self.segment.base()) }
    }

    /// Allows or forbids one index. Nothing happens after [`Self::revoke`], nor for an index without a bit.
    pub fn set(&self, index: u32, allowed: bool) {
        let Some((word, bit)) = place(index) else { return };
        if allowed && !self.revoked.load(Ordering::Relaxed) {
            self.words()[word].fetch_or(bit, Ordering::Relaxed);
        } else {
            // A callee that finds the bit gone also finds what it said of the function before it asked for that.
            self.words()[word].fetch_and(!bit, Ordering::Release);
        }
    }

    /// Allows the indexes for which `allow` says so, and no others. A reader sees 64 indexes change at a time.
    pub fn set_all(&self, allow: impl Fn(u32) -> bool) {
        if self.revoked.load(Ordering::Relaxed) {
            return;
        }
        for (word, first) in self.words()[FIRST_BITS_WORD..].iter().zip((0..INDEX_END).step_by(64)) {
            let bits = (0..64).filter(|bit| allow(first + bit)).fold(0, |bits, bit| bits | 1 << bit);
            word.store(bits, Ordering::Relaxed);
        }
    }

    /// Sets 64 indexes at once, from `64 * word`, lowest bit first. Nothing happens after [`Self::revoke`], nor for a word
    /// past the end.
    pub fn set_word(&self, word: u32, bits: u64) {
        let place = self.words().get(FIRST_BITS_WORD + word as usize);
        if let Some(place) = place.filter(|_| !self.revoked.load(Ordering::Relaxed)) {
            place.store(bits, Ordering::Relaxed);
        }
    }

    /// Forbids everything for good.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        self.words()[REVOKED_WORD].store(1, Ordering::Relaxed);
        for word in &self.words()[FIRST_BITS_WORD..] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Returns the descriptor to hand to both ends; `None` where segments have none.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.segment.fd()
    }
}

/// A worker's end.
#[derive(Clone, Debug)]
pub struct PermissionView {
    view: Arc<SegmentView>,
}

impl PermissionView {
    /// Maps a received page.
    ///
    /// # Errors
    /// [`PermissionError`] when it is not one.
    pub fn map(fd: OwnedFd) -> Result<Self, PermissionError> {
        // A view has at least one page (segment I2), which is I1.
        let page = Self { view: SegmentView::map(fd, PAGE_BYTES as u64)? };
        match page.words()[0].load(Ordering::Acquire) {
            MAGIC => Ok(page),
            found => Err(PermissionError::Magic { found }),
        }
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: I1; `self` holds the view for as long as it is borrowed. Nothing is stored through it.
        unsafe { words(self.view.base().cast_mut()) }
    }

    /// Says whether a function may be called. One load.
    #[inline]
    #[must_use]
    pub fn allows(&self, index: u32) -> bool {
        place(index).is_some_and(|(word, bit)| self.words()[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Says whether everything was forbidden for good.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.words()[REVOKED_WORD].load(Ordering::Relaxed) != 0
    }
}

/// The word and the bit of an index.
#[inline]
fn place(index: u32) -> Option<(usize, u64)> {
    (index < INDEX_END).then(|| (FIRST_BITS_WORD + index as usize / 64, 1 << (index % 64)))
}

/// Sees a page as words.
///
/// # Safety
/// `base` is the start of a mapped segment that lives as long as `'a`.
#[inline]
unsafe fn words<'a>(base: *mut u8) -> &'a [AtomicU64; WORDS] {
    #[expect(clippy::cast_ptr_alignment, reason = "segments are page-aligned")]
    let words = base.cast::<[AtomicU64; WORDS]>();
    // SAFETY: page-aligned and at least a page long by I1, alive by the caller's promise. Atomics may be written by another
    // process while we look at them.
    unsafe { &*words }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn view(page: &PermissionPage) -> PermissionView {
        PermissionView::map(page.fd().unwrap().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn a_reader_sees_each_index_by_itself() {
        let page = PermissionPage::new(|index| index.is_multiple_of(3)).unwrap();
        let view = view(&page);
        for index in 0..INDEX_END {
            assert_eq!(view.allows(index), index.is_multiple_of(3), "{index}");
        }
        page.set(1, true);
        page.set(3, false);
        page.set(INDEX_END - 1, true);
        let check = |index, allowed| assert_eq!(view.allows(index), allowed, "{index}");
        check(0, true);
        check(1, true);
        check(2, false);
        check(3, false);
        check(6, true);
        check(INDEX_END - 1, true);
        page.set_all(|index| index == 2);
        check(1, false);
        check(2, true);
    }

    #[test]
    fn whole_words_are_indexes_from_the_lowest_bit_up() {
        let page = PermissionPage::from_words(&[0b101, 1 << 63]).unwrap();
        let view = view(&page);
        let allowed = || (0..INDEX_END).filter(|index| view.allows(*index)).collect::<Vec<_>>();
        assert_eq!(allowed(), [0, 2, 127]);
        page.set_word(0, 0);
        page.set_word(255, 1);
        page.set_word(256, 1);
        assert_eq!(allowed(), [127, 255 * 64]);
    }

    #[test]
    fn an_index_without_a_bit_is_never_allowed() {
        let page = PermissionPage::new(|_| true).unwrap();
        let view = view(&page);
        for index in [INDEX_END, INDEX_END + 1, 1 << 20, u32::MAX] {
            page.set(index, true);
            assert!(!view.allows(index), "{index}");
        }
    }

    #[test]
    fn what_is_revoked_stays_revoked() {
        let page = PermissionPage::new(|_| true).unwrap();
        let view = view(&page);
        assert!(!view.is_revoked());
        page.revoke();
        page.set(5, true);
        page.set_all(|_| true);
        assert!(view.is_revoked());
        assert!((0..INDEX_END).all(|index| !view.allows(index)));
    }

    #[test]
    fn a_page_of_something_else_is_refused() {
        let segment = Segment::create("other", PAGE_BYTES, SegmentOptions::default()).unwrap();
        let fd = segment.fd().unwrap().try_clone_to_owned().unwrap();
        assert!(matches!(PermissionView::map(fd), Err(PermissionError::Magic { found: 0 })));
        let large = Segment::create("large", 2 * PAGE_BYTES, SegmentOptions::default()).unwrap();
        let fd = large.fd().unwrap().try_clone_to_owned().unwrap();
        assert!(matches!(PermissionView::map(fd), Err(PermissionError::Segment(SegmentError::Size { .. }))));
    }
}
