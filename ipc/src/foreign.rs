//! The only module that reads memory which a peer can write.
//!
//! Frames are copied out word by word ([`copy_words`]); payloads are range-checked parts of a peer's segment
//! ([`ForeignBytes`]). Used by rings and channels. It must not know what the bytes mean.
//!
//! Fields: a [`ForeignBytes`] holds its view, an offset and a length; nobody changes them.
//!
//! Invariants.
//! - I1: `offset + bytes <= view.len()`, checked once in [`slice()`] and true for ever, as a view never changes its size
//!   (segment I4).
//! - I2: the address `view.base() + offset` has the alignment asked of [`slice()`].
//!
//! Orderings: the loads here are relaxed. What makes the data current is the Acquire load of the stamp that announced it,
//! in `ring`.
//!
//! Checked by: tests below, one with a writer that never stops, also under `AddressSanitizer`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::segment::SegmentView;
use crate::sync::{AtomicU64, Ordering};

/// Why a part of a peer's segment cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The part ends outside the segment.
    #[error(
        "a payload of {bytes} bytes at offset {offset} does not lie in a segment of {segment_bytes} bytes"
    )]
    Range {
        /// Where the part starts.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The size of the segment.
        segment_bytes: u64,
    },
    /// The part does not start at a multiple of the alignment, or the alignment is no power of two.
    #[error("a payload at offset {offset} is not aligned to {align} bytes")]
    Alignment {
        /// Where the part starts.
        offset: u64,
        /// The alignment wanted.
        align: u32,
    },
}

/// Copies words that a peer may be writing right now. Each word is whole; together they may mix old and new, so check
/// the copy.
///
/// # Panics
/// If the two slices differ in length.
#[inline]
pub fn copy_words(src: &[AtomicU64], dst: &mut [u64]) {
    assert_eq!(src.len(), dst.len(), "the copy is as long as its source");
    for (to, from) in dst.iter_mut().zip(src) {
        *to = from.load(Ordering::Relaxed);
    }
}

/// Has the processor fetch the cache line of a word that will be read soon. Nothing is read by it, and where the processor
/// has no such hint it does nothing.
#[inline]
pub fn prefetch(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which accesses nothing and faults on no address; the instruction is part of every x86-64.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(word).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _no_hint = word;
}

/// Checks a part of a peer's segment and returns it. `align` is 1 where none is needed. Costs a reference count.
///
/// # Errors
/// [`ForeignError`] when it does not lie in the segment or is not aligned.
pub fn slice(
    view: &Arc<SegmentView>,
    offset: u64,
    bytes: u64,
    align: u32,
) -> Result<ForeignBytes, ForeignError> {
    let segment_bytes = view.len() as u64;
    let range = ForeignError::Range { offset, bytes, segment_bytes };
    if offset.checked_add(bytes).is_none_or(|end| end > segment_bytes) {
        return Err(range);
    }
    let (Ok(start), Ok(length)) = (usize::try_from(offset), usize::try_from(bytes)) else {
        return Err(range);
    };
    let address = view.base().addr() as u64 + offset;
    if !align.is_power_of_two() || !address.is_multiple_of(u64::from(align)) {
        return Err(ForeignError::Alignment { offset, align });
    }
    Ok(ForeignBytes { view: Arc::clone(view), offset: start, bytes: length })
}

/// Read-only bytes in a peer's segment; keeps them mapped.
///
/// The peer is the only one who can write them (segment I3). Inside one zone it keeps them as they are while the block is
/// on lease to us, and then [`Deref`] reads them in place. Anything from another zone is copied out first
/// ([`Self::copy_to`]) and the copy is checked.
#[derive(Clone)]
pub struct ForeignBytes {
    view: Arc<SegmentView>,
    offset: usize,
    bytes: usize,
}

impl ForeignBytes {
    /// Returns the segment that holds the bytes.
    pub fn view(&self) -> &Arc<SegmentView> {
        &self.view
    }

    /// Returns where the bytes start in the segment.
    pub fn offset(&self) -> u64 {
        self.offset as u64
    }

    #[inline]
    fn start(&self) -> *const u8 {
        // SAFETY: inside the view by I1.
        unsafe { self.view.base().add(self.offset) }
    }

    /// Returns a part of these bytes, `start..start + bytes` counted from their beginning.
    ///
    /// # Errors
    /// [`ForeignError::Range`] when it does not lie in them.
    pub fn part(&self, start: u64, bytes: u64) -> Result<Self, ForeignError> {
        if start.checked_add(bytes).is_none_or(|end| end > self.bytes as u64) {
            let (offset, segment_bytes) = (start, self.bytes as u64);
            return Err(ForeignError::Range { offset, bytes, segment_bytes });
        }
        slice(&self.view, self.offset as u64 + start, bytes, 1)
    }

    /// Copies all bytes to `dst`, whatever the peer does meanwhile: the copy may mix old and new, but it is a copy, so
    /// what is checked is what is used. Runs at the speed of memory for large payloads.
    ///
    /// # Panics
    /// If `dst` has another length.
    pub fn copy_to(&self, dst: &mut [u8]) {
        assert_eq!(dst.len(), self.bytes, "the copy is as long as its source");
        let mut from = self.start();
        let head_bytes = from.align_offset(align_of::<u64>()).min(dst.len());
        let (head, rest) = dst.split_at_mut(head_bytes);
        let (body, tail) = rest.split_at_mut(rest.len() & !7);
        for byte in head {
            *byte = read_byte(&mut from);
        }
        for word in body.chunks_exact_mut(8) {
            #[expect(clippy::cast_ptr_alignment, reason = "a multiple of 8 after the head")]
            let place = from.cast::<u64>();
            // SAFETY: eight bytes inside the view by I1, at a multiple of 8 after the head. A volatile read takes the word
            // once, even if the peer is writing it.
            let value = unsafe { place.read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
            // SAFETY: at most one past the end of these bytes, inside or one past the view.
            from = unsafe { from.add(8) };
        }
        for byte in tail {
            *byte = read_byte(&mut from);
        }
    }

    /// Copies all bytes to a new vector, as [`Self::copy_to`] does.
    pub fn to_private(&self) -> Vec<u8> {
        let mut copy = vec![0; self.bytes];
        self.copy_to(&mut copy);
        copy
    }
}

/// Reads one byte of a [`ForeignBytes`] and steps on. Called for its head and tail only.
fn read_byte(from: &mut *const u8) -> u8 {
    // SAFETY: `copy_to` calls this once per byte of `dst`, which is as long as the bytes are, so I1 holds.
    let value = unsafe { from.read_volatile() };
    // SAFETY: at most one past the end of the bytes.
    *from = unsafe { from.add(1) };
    value
}

/// Reads in place. Within a zone only: the peer promised not to change a block that is on lease, and breaking that promise
/// is undefined behaviour in whoever reads. For peers that are not trusted that far there is [`ForeignBytes::copy_to`].
impl Deref for ForeignBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped and in range by I1 for as long as `self` holds the view; the one writer leaves a leased block
        // alone by the contract of a zone, stated above.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes) }
    }
}

impl AsRef<[u8]> for ForeignBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for ForeignBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignBytes").field("offset", &self.offset).field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
