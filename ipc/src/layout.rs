//! Every type that lives in a channel segment, byte by byte.
//!
//! A channel has two ends and each end makes one segment: a page of facts and progress lines, then the slots
//! of the ring that this end writes. `docs/layout.md` draws the same bytes, and a golden test holds the two
//! together. This module must not know what a frame means, only where its bytes lie.
//!
//! All of it is made of atomics, so a peer that scribbles on its own segment while we read it gives us
//! nonsense but never undefined behaviour. Lines written by different processes, or at different rates by one,
//! are 128 bytes apart: Intel's and AMD's L2 prefetchers fetch cache lines in pairs (Intel 64 and IA-32
//! Architectures Optimization Reference Manual, "Spatial Prefetcher"; crossbeam's `CachePadded` uses the same).

use crate::sync::{AtomicU64, Ordering};

/// First word of every channel segment: `RINGWAY` and a NUL, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RINGWAY\0");

/// Version of everything in this file. A different one is refused when a channel is set up.
pub const LAYOUT_VERSION: u32 = 1;

/// Stride of a slot in bytes: one header line and 192 bytes of inline area.
pub const SLOT_BYTES: usize = 256;

/// Bytes of a frame's header, the stamp included.
pub const HEADER_BYTES: usize = 64;

/// Words of a frame's header without its stamp.
pub const HEADER_WORDS: usize = HEADER_BYTES / 8 - 1;

/// Bytes that travel inside a slot, behind the header.
pub const INLINE_BYTES: usize = SLOT_BYTES - HEADER_BYTES;

/// Words of the inline area.
pub const INLINE_WORDS: usize = INLINE_BYTES / 8;

/// Offset of slot 0 from the start of the segment, in bytes.
pub const SLOTS_OFFSET: usize = 4096;

/// Fewest and most slots of a ring. Always a power of two.
pub const SLOT_COUNT_MIN: u32 = 2;
/// See [`SLOT_COUNT_MIN`].
pub const SLOT_COUNT_MAX: u32 = 1 << 16;

/// The consumer is polling: the producer need not ring.
pub const ATTENTION_POLLING: u64 = 0;
/// A thread sleeps on the channel's own doorbell.
pub const ATTENTION_CHANNEL_BELL: u64 = 1;
/// The worker's dispatcher answers for this ring: ring the worker's doorbell.
pub const ATTENTION_WORKER_BELL: u64 = 2;

/// One 64-bit word alone in a pair of cache lines.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Line {
    /// The word.
    pub word: AtomicU64,
    pad: [AtomicU64; 15],
}

impl Line {
    fn new(value: u64) -> Self {
        Self { word: AtomicU64::new(value), pad: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// Page 0 of a channel segment. Written by the segment's owner only.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct EndPage {
    /// `[MAGIC, version | slot_bytes << 32, slot_count | flags << 32, owner's worker id, channel id, 0…]`.
    /// Written once before the segment is handed over; read once by the peer at set-up.
    pub facts: [AtomicU64; 16],
    /// How many frames of the *opposite* ring this end has consumed. Written by this end before it acts on a
    /// frame, read by the peer for flow control, and after this end's death to tell what was never started.
    pub consumed: Line,
    /// Which doorbell to ring after publishing on the opposite ring: an `ATTENTION_` value.
    pub attention: Line,
    /// Counts leases returned by this end outside frames; reserved, 0 in version 1.
    pub reserved: Line,
}

/// A slot: the stamp, the rest of the header, the inline area.
#[repr(C, align(256))]
#[derive(Debug)]
pub struct Slot {
    /// Position + 1 of the frame in this slot, stored last with Release. 0 before the first lap.
    pub stamp: AtomicU64,
    /// Header words 1 to 7. Valid only after the stamp was seen.
    pub header: [AtomicU64; HEADER_WORDS],
    /// Inline area.
    pub inline: [AtomicU64; INLINE_WORDS],
}

// Under loom an atomic is a handle, so the sizes hold only for the real ones.
#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Line>() == 128);
    assert!(size_of::<EndPage>() == 512 && size_of::<EndPage>() <= SLOTS_OFFSET);
    assert!(size_of::<Slot>() == SLOT_BYTES && align_of::<Slot>() == SLOT_BYTES);
    assert!(std::mem::offset_of!(EndPage, consumed) == 128);
    assert!(std::mem::offset_of!(EndPage, attention) == 256);
    assert!(std::mem::offset_of!(Slot, header) == 8 && std::mem::offset_of!(Slot, inline) == HEADER_BYTES);
    assert!(SLOTS_OFFSET.is_multiple_of(SLOT_BYTES));
};

impl Slot {
    /// An empty slot, for rings in ordinary memory.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            stamp: AtomicU64::new(0),
            header: std::array::from_fn(|_| AtomicU64::new(0)),
            inline: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// What a segment says about itself; see [`EndPage::facts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Slots of the ring, a power of two.
    pub slot_count: u32,
    /// Bit 0: this end issues a process-wide memory barrier before it sleeps ([`crate::ring`], I4).
    pub flags: u32,
    /// The worker that made the segment.
    pub owner: u64,
    /// The channel it belongs to, chosen by the caller.
    pub channel: u64,
}

/// Facts bit 0: the owner issues `membarrier` before it sleeps, so registered producers may skip their fence.
pub const FACT_BARRIER_BEFORE_SLEEP: u32 = 1;

/// Why a segment's facts were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The first word is not [`MAGIC`].
    #[error("the segment starts with {found:#018x} instead of Ringway's magic number")]
    Magic {
        /// The first word.
        found: u64,
    },
    /// Another layout version or slot stride.
    #[error(
        "the peer lays out rings as version {version} with {slot_bytes} B slots, this build as version {LAYOUT_VERSION} with {SLOT_BYTES} B"
    )]
    Version {
        /// The peer's layout version.
        version: u32,
        /// The peer's slot stride.
        slot_bytes: u32,
    },
    /// Not a power of two or out of range, or more slots than the segment holds.
    #[error("a ring of {slot_count} slots does not fit a segment of {segment_bytes} B")]
    SlotCount {
        /// The peer's slot count.
        slot_count: u32,
        /// Length of its segment.
        segment_bytes: usize,
    },
}

#[expect(clippy::cast_possible_truncation, reason = "a word is split into its two halves")]
fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

impl EndPage {
    /// A fresh page, for rings in ordinary memory.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            facts: std::array::from_fn(|_| AtomicU64::new(0)),
            consumed: Line::new(0),
            attention: Line::new(ATTENTION_WORKER_BELL),
            reserved: Line::new(0),
        }
    }

    /// Writes every field of a new page. The magic number goes last.
    pub fn initialise(&self, facts: Facts) {
        let words = [
            0,
            u64::from(LAYOUT_VERSION) | (SLOT_BYTES as u64) << 32,
            u64::from(facts.slot_count) | u64::from(facts.flags) << 32,
            facts.owner,
            facts.channel,
        ];
        for (place, word) in self.facts.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.consumed.word.store(0, Ordering::Relaxed);
        self.attention.word.store(ATTENTION_WORKER_BELL, Ordering::Relaxed);
        self.reserved.word.store(0, Ordering::Relaxed);
        // Pairs with the Acquire in `read_facts`; the hand-over of the descriptor orders it anyway.
        self.facts[0].store(MAGIC, Ordering::Release);
    }

    /// Copies the facts out once and checks the copy against the segment's length.
    ///
    /// # Errors
    /// [`LayoutError`] when the page is not one that this build can use.
    pub fn read_facts(&self, segment_bytes: usize) -> Result<Facts, LayoutError> {
        let magic = self.facts[0].load(Ordering::Acquire);
        let words: [u64; 4] = std::array::from_fn(|at| self.facts[at + 1].load(Ordering::Relaxed));
        if magic != MAGIC {
            return Err(LayoutError::Magic { found: magic });
        }
        let (version, slot_bytes) = split(words[0]);
        if version != LAYOUT_VERSION || slot_bytes as usize != SLOT_BYTES {
            return Err(LayoutError::Version { version, slot_bytes });
        }
        let (slot_count, flags) = split(words[1]);
        let in_range = (SLOT_COUNT_MIN..=SLOT_COUNT_MAX).contains(&slot_count);
        if !in_range || !slot_count.is_power_of_two() || end_bytes(slot_count) > segment_bytes {
            return Err(LayoutError::SlotCount { slot_count, segment_bytes });
        }
        Ok(Facts { slot_count, flags, owner: words[2], channel: words[3] })
    }
}

/// Bytes of a channel segment with `slot_count` slots.
#[must_use]
pub const fn end_bytes(slot_count: u32) -> usize {
    SLOTS_OFFSET + slot_count as usize * SLOT_BYTES
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_page() {
        let page = EndPage::empty();
        let facts = Facts { slot_count: 256, flags: FACT_BARRIER_BEFORE_SLEEP, owner: 7, channel: 9 };
        page.initialise(facts);
        assert_eq!(page.read_facts(end_bytes(256)), Ok(facts));
    }

    #[test]
    fn foreign_facts_are_refused() {
        let cases: [(usize, u64); 5] = [(0, 1), (1, 2), (1, u64::from(LAYOUT_VERSION)), (2, 3), (2, 1 << 20)];
        for (word, value) in cases {
            let page = EndPage::empty();
            page.initialise(Facts { slot_count: 256, flags: 0, owner: 1, channel: 1 });
            page.facts[word].store(value, Ordering::Relaxed);
            assert!(page.read_facts(end_bytes(256)).is_err(), "word {word} = {value}");
        }
        let page = EndPage::empty();
        page.initialise(Facts { slot_count: 256, flags: 0, owner: 1, channel: 1 });
        assert!(page.read_facts(end_bytes(256) - 1).is_err(), "more slots than the segment holds");
    }
}
