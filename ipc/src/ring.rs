//! The ring: one process writes frames, one process reads them, nothing is shared but the frames themselves.
//!
//! Used by [`crate::channel`], which pairs two rings. Knows no frame kinds, no functions and no sleeping
//! policy; it only says when the other side must be woken.
//!
//! # Fields and who may touch them
//! - slots and their stamps: written by the producer, read by the consumer;
//! - `consumed` and `attention`: written by the consumer (in *its* segment), read by the producer;
//! - positions (`next`, `consumed_seen`): private to one side. Each side is `&mut`; [`crate::channel`] keeps
//!   each behind a lock in private memory, so a thread that dies or stalls holds up nobody in another process.
//!
//! # Invariants
//! - **I1** A frame at position `p` lies in slot `p mod slot_count`, and that slot's stamp is `p + 1` from the
//!   moment the frame is complete until the producer begins position `p + slot_count`.
//! - **I2** The producer writes position `p` only after it has read `consumed > p - slot_count`. So the
//!   consumer, which raises `consumed` only after copying a frame out, never copies a slot being rewritten.
//! - **I3** `consumed` never falls and never passes the producer's next position; a peer that breaks this has
//!   broken the protocol and its channel is closed, because nothing it says can be used any more.
//! - **I4** No wake-up is lost. The consumer stores `attention`, fences, and looks at the next stamp; the
//!   producer stores the stamp, fences, and looks at `attention`. At least one of them sees the other's store
//!   (Dekker). Where the consumer's process issues `membarrier(GLOBAL_EXPEDITED)` in place of its fence and the
//!   producer's process is registered for it, the producer's fence shrinks to a compiler fence: the barrier
//!   runs on the producer's core either before its stamp store is followed by the attention load (then the
//!   load sees the news) or after (then the stamp is visible to the consumer's second look). See membarrier(2). A consumer
//!   may put the barrier off for a short sleep, at whose end it looks again ([`crate::nap`]).
//!
//! # Orderings in pairs
//! - stamp: Release in [`Producer::push`], Acquire in [`Consumer::poll`] — carries header and inline words;
//! - `consumed`: Release in [`Consumer::poll`], Acquire in [`Producer::room`] — the copy is done before reuse;
//! - `attention`: Relaxed on both sides, ordered by the fences of I4.
//!
//! # What checks it
//! Loom models below (wrap-around, flow control, the sleep handshake); a property test against a `VecDeque`;
//! the fuzz target and the hostile peer, which scribble on the slots and lines between any two steps.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::frame::{Header, Inline};
use crate::layout::{self, EndPage, Facts, LayoutError, SLOTS_OFFSET, Slot};
use crate::segment::{Segment, SegmentView};
use crate::sync::{AtomicU64, Ordering, fence};

/// One end's segment, seen as page and slots.
#[derive(Debug, Clone)]
pub struct EndMemory {
    page: NonNull<EndPage>,
    slots: NonNull<Slot>,
    slot_count: u32,
    _keep: Keep,
}

#[derive(Debug, Clone)]
#[expect(dead_code, reason = "held only so that the memory outlives the pointers")]
enum Keep {
    Own(Arc<Segment>),
    Peer(Arc<SegmentView>),
    Heap(Arc<HeapEnd>),
}

#[derive(Debug)]
struct HeapEnd {
    page: EndPage,
    slots: Box<[Slot]>,
}

// SAFETY: the pointers lead to atomics that `_keep` keeps alive; atomics may be used from any thread.
unsafe impl Send for EndMemory {}
// SAFETY: as above.
unsafe impl Sync for EndMemory {}

impl EndMemory {
    /// Lays out a new end in a segment of this process. The segment must hold `end_bytes(facts.slot_count)`.
    ///
    /// # Errors
    /// [`LayoutError::SlotCount`] when the ring does not fit.
    pub fn create(segment: Arc<Segment>, facts: Facts) -> Result<Self, LayoutError> {
        let memory = Self {
            page: page_of(segment.base()),
            slots: slots_of(segment.base()),
            slot_count: facts.slot_count,
            _keep: Keep::Own(Arc::clone(&segment)),
        };
        if segment.len() < SLOTS_OFFSET || facts.slot_count > layout::SLOT_COUNT_MAX {
            return Err(LayoutError::SlotCount {
                slot_count: facts.slot_count,
                segment_bytes: segment.len(),
            });
        }
        memory.page().initialise(facts);
        memory.page().read_facts(segment.len())?;
        for position in 0..u64::from(facts.slot_count) {
            memory.slot(position).stamp.store(0, Ordering::Relaxed);
        }
        Ok(memory)
    }

    /// Reads a peer's end.
    ///
    /// # Errors
    /// [`LayoutError`] when the peer's page is not one this build can use.
    pub fn map(view: Arc<SegmentView>) -> Result<(Self, Facts), LayoutError> {
        if view.len() < SLOTS_OFFSET {
            return Err(LayoutError::SlotCount { slot_count: 0, segment_bytes: view.len() });
        }
        let base = view.base().cast_mut();
        let (page, slots) = (page_of(base), slots_of(base));
        let bytes = view.len();
        let mut memory = Self { page, slots, slot_count: 0, _keep: Keep::Peer(view) };
        let facts = memory.page().read_facts(bytes)?;
        memory.slot_count = facts.slot_count;
        Ok((memory, facts))
    }

    /// An end in ordinary memory, for tests and for model checking.
    #[must_use]
    pub fn heap(slot_count: u32) -> Self {
        let slots = (0..slot_count).map(|_| Slot::empty()).collect();
        let heap = Arc::new(HeapEnd { page: EndPage::empty(), slots });
        Self {
            page: NonNull::from(&heap.page),
            slots: NonNull::from(&*heap.slots).cast(),
            slot_count,
            _keep: Keep::Heap(heap),
        }
    }

    /// Slots of the ring that this end writes.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        self.slot_count
    }

    #[inline]
    pub(crate) fn page(&self) -> &EndPage {
        // SAFETY: every constructor made sure that a page lies there, made of atomics, which any bytes are and
        // any process may write; `_keep` holds the memory for as long as `self` lives.
        unsafe { self.page.as_ref() }
    }

    /// The slot of a position.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to below 2^16")]
    pub(crate) fn slot(&self, position: u64) -> &Slot {
        let index = position as usize & (self.slot_count as usize - 1);
        // SAFETY: `slot_count` is a power of two that `read_facts` or `heap` checked against the memory, and
        // the mask keeps `index` below it.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: in bounds as above; slots are atomics, kept alive by `_keep`.
        unsafe { slot.as_ref() }
    }

    /// The page of an end that this process made, to be written at will: what a peer that lies does to its own segment.
    /// For tests. `None` for a peer's end, which is mapped for reading only.
    #[must_use]
    pub fn own_page(&self) -> Option<&EndPage> {
        (!matches!(self._keep, Keep::Peer(_))).then(|| self.page())
    }

    /// The slot of a position of an end that this process made; see [`EndMemory::own_page`].
    #[must_use]
    pub fn own_slot(&self, position: u64) -> Option<&Slot> {
        (!matches!(self._keep, Keep::Peer(_))).then(|| self.slot(position))
    }

    /// What the owner of this end asks for, to be read after publishing on the opposite ring: after every push,
    /// or once after several.
    #[inline]
    #[must_use]
    pub fn attention(&self, sleep_fence: SleepFence) -> Attention {
        // I4, pairs with `Consumer::ask_for_bell`.
        match sleep_fence {
            SleepFence::Both => fence(Ordering::SeqCst),
            SleepFence::ConsumerOnly => std::sync::atomic::compiler_fence(Ordering::SeqCst),
        }
        Attention(self.page().attention.word.load(Ordering::Relaxed))
    }

    /// What the owner of this end asks for at present, for a thread of its own process that does not hold the consumer.
    #[inline]
    #[must_use]
    pub(crate) fn request(&self) -> Attention {
        Attention(self.page().attention.word.load(Ordering::Relaxed))
    }

    /// Frames of the opposite ring that the owner of this end has consumed. Readable after its death.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.page().consumed.word.load(Ordering::Acquire)
    }
}

fn page_of(base: *mut u8) -> NonNull<EndPage> {
    NonNull::new(base.cast()).expect("a mapped segment is not at address 0")
}

fn slots_of(base: *mut u8) -> NonNull<Slot> {
    NonNull::new(base.wrapping_add(SLOTS_OFFSET).cast()).expect("a mapped segment is not at address 0")
}

/// Why a frame was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Every slot holds a frame that the peer has not consumed.
    #[error("the ring is full")]
    Full,
    /// The peer broke I3.
    #[error(transparent)]
    Violation(#[from] RingViolation),
}

/// What a peer did that no correct peer does. The channel cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingViolation {
    /// The peer's consumption line fell, or passed what was published.
    #[error("the peer says it consumed {found} frames; it may say {from} to {to}")]
    Consumed {
        /// What the line says.
        found: u64,
        /// The last value seen.
        from: u64,
        /// What was published.
        to: u64,
    },
    /// A stamp that is neither the awaited one nor the one of the lap before.
    #[error("slot stamped {found} where {awaited} is awaited")]
    Stamp {
        /// What the stamp says.
        found: u64,
        /// What it must become.
        awaited: u64,
    },
    /// Lengths in the header that do not fit the slot.
    #[error("header of frame {position} claims more bytes than a slot has")]
    Sizes {
        /// The frame's position.
        position: u64,
    },
}

/// A consumer's attention line: which doorbell it asks for, in the low two bits, and above them how often it has
/// asked. The count makes every request distinct, so a producer that has rung for one need not ring again for it
/// ([`Answered`]). A consumer that was woken must therefore ask anew before it sleeps again, also where nothing had come:
/// the ring may have been for a frame that it had taken before it asked, and the next frame would ring for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention(pub u64);

impl Attention {
    /// An `ATTENTION_` value. What a peer writes beyond the three known ones counts as the worker's bell.
    #[inline]
    #[must_use]
    pub fn bell(self) -> u64 {
        self.0 & 3
    }
}

/// The last request for a bell that a producer has answered; shared by the threads that publish.
#[derive(Debug, Default)]
pub struct Answered(AtomicU64);

impl Answered {
    /// Whether a request is still to be answered; whoever hears yes rings.
    #[inline]
    #[must_use]
    pub fn is_new(&self, request: Attention) -> bool {
        // An exchange, so that of several threads only one rings. What orders the frame before the ring is the system call.
        self.0.swap(request.0, Ordering::Relaxed) != request.0
    }
}

/// Whether the producer must fence between its stamp and its look at `attention` (I4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SleepFence {
    /// `fence(SeqCst)` on both sides.
    Both,
    /// The consumer issues a process-wide barrier; the producer's process is registered for it.
    ConsumerOnly,
}

/// The writing side of a ring.
#[derive(Debug)]
pub struct Producer {
    own: EndMemory,
    peer: EndMemory,
    next: u64,
    consumed_seen: u64,
    sleep_fence: SleepFence,
}

impl Producer {
    /// Writes the ring in `own`; flow control comes from `peer`'s consumption line.
    #[must_use]
    pub fn new(own: EndMemory, peer: EndMemory, sleep_fence: SleepFence) -> Self {
        Self { own, peer, next: 0, consumed_seen: 0, sleep_fence }
    }

    /// Position of the next frame: how many were published so far.
    #[inline]
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Free slots, reading the peer's line only when the last reading says there are none.
    ///
    /// # Errors
    /// [`RingViolation::Consumed`] when the peer's line breaks I3.
    #[inline]
    pub fn room(&mut self) -> Result<u64, RingViolation> {
        let slots = u64::from(self.own.slot_count);
        let free = slots - (self.next - self.consumed_seen);
        if free > 0 {
            return Ok(free);
        }
        self.refresh()?;
        Ok(slots - (self.next - self.consumed_seen))
    }

    #[cold]
    fn refresh(&mut self) -> Result<(), RingViolation> {
        // Acquire pairs with the Release in `Consumer::poll`: the copy out of the slot is over.
        let found = self.peer.page().consumed.word.load(Ordering::Acquire);
        if found < self.consumed_seen || found > self.next {
            return Err(RingViolation::Consumed { found, from: self.consumed_seen, to: self.next });
        }
        self.consumed_seen = found;
        Ok(())
    }

    /// Publishes a frame and returns its position. Costs one cache line for the header and what the inline
    /// area needs; no system call. The caller then asks [`Producer::attention`].
    ///
    /// # Errors
    /// [`PushError::Full`] when the peer is a whole ring behind; nothing was written.
    #[inline]
    pub fn push(&mut self, header: &Header, inline: &Inline) -> Result<u64, PushError> {
        if self.room()? == 0 {
            return Err(PushError::Full);
        }
        debug_assert!(header.check(), "our own header fits its slot");
        let position = self.next;
        let slot = self.own.slot(position);
        // The line of the stamp comes last, header and stamp together: the peer polls it, and would take it away again
        // while the lines of the inline area are still on their way here.
        let words = usize::from(header.inline_len).div_ceil(8);
        for (place, word) in slot.inline.iter().zip(inline.words()).take(words) {
            place.store(*word, Ordering::Relaxed);
        }
        for (place, word) in slot.header.iter().zip(header.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
        // I1. Release pairs with the Acquire in `Consumer::poll`.
        slot.stamp.store(position + 1, Ordering::Release);
        self.next = position + 1;
        Ok(position)
    }

    /// What the consumer asks for after what was just published; see [`Attention`].
    #[inline]
    #[must_use]
    pub fn attention(&self) -> Attention {
        self.peer.attention(self.sleep_fence)
    }

    /// How many published frames the peer has not consumed, by its own line; readable after its death.
    ///
    /// # Errors
    /// [`RingViolation::Consumed`] when the peer's line breaks I3.
    pub fn backlog(&mut self) -> Result<u64, RingViolation> {
        self.refresh()?;
        Ok(self.next - self.consumed_seen)
    }
}

/// After so many frames in a row the producer is taken to be some frames ahead, and lines are fetched in advance. Not
/// before: a line that the producer is about to write would be taken away from it.
const BACKLOG: u32 = 4;
/// How many slots ahead of the one being read the processor is told to fetch: with 64 calls in flight this took a call
/// from 416 to 338 ns between cores that are far from each other (medians of five runs each, in turns).
const AHEAD: u64 = 4;

/// The reading side of a ring.
#[derive(Debug)]
pub struct Consumer {
    own: EndMemory,
    peer: EndMemory,
    next: u64,
    asked: u64,
    /// Frames taken since the ring was last found empty, up to [`BACKLOG`].
    streak: u32,
}

impl Consumer {
    /// Reads the ring in `peer`; progress and attention are published in `own`.
    #[must_use]
    pub fn new(own: EndMemory, peer: EndMemory) -> Self {
        Self { own, peer, next: 0, asked: 0, streak: 0 }
    }

    /// Frames consumed so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Whether a frame is there. One load, of a line that stays in this core's cache until the peer writes it.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> bool {
        self.peer.slot(self.next).stamp.load(Ordering::Relaxed) == self.next + 1
    }

    /// Takes the next frame: copies header and inline area out once, checks the copy, and publishes progress
    /// before returning, so that after our death the peer knows what was never started.
    ///
    /// # Errors
    /// [`RingViolation`] when the peer wrote what no correct peer writes.
    // Always: apart from its caller it costs 40 instructions more, most of them to hand the header over.
    #[inline(always)]
    pub fn poll(&mut self, inline: &mut Inline) -> Result<Option<Header>, RingViolation> {
        let slot = self.peer.slot(self.next);
        // Acquire pairs with the Release in `Producer::push`.
        let stamp = slot.stamp.load(Ordering::Acquire);
        if stamp != self.next + 1 {
            self.streak = 0;
            return self.not_yet(stamp);
        }
        if self.streak == BACKLOG {
            self.fetch_ahead();
        } else {
            self.streak += 1;
        }
        let words: [u64; layout::HEADER_WORDS] =
            std::array::from_fn(|at| slot.header[at].load(Ordering::Relaxed));
        let header = Header::from_words(&words);
        if !header.check() {
            return Err(RingViolation::Sizes { position: self.next });
        }
        let words = usize::from(header.inline_len).div_ceil(8);
        crate::foreign::copy_words(&slot.inline[..words], &mut inline.words_mut()[..words]);
        self.next += 1;
        // Release pairs with the Acquire in `Producer::refresh` (I2).
        self.own.page().consumed.word.store(self.next, Ordering::Release);
        Ok(Some(header))
    }

    #[inline(never)]
    fn fetch_ahead(&self) {
        let ahead = self.peer.slot(self.next + AHEAD);
        crate::foreign::prefetch(&ahead.stamp);
        crate::foreign::prefetch(&ahead.inline[0]);
    }

    fn not_yet(&self, stamp: u64) -> Result<Option<Header>, RingViolation> {
        let awaited = self.next + 1;
        let lap_before = awaited.saturating_sub(u64::from(self.peer.slot_count));
        if stamp == lap_before || stamp == 0 && lap_before == 0 {
            return Ok(None);
        }
        Err(RingViolation::Stamp { found: stamp, awaited })
    }

    /// Says that this side is polling and no doorbell is needed.
    #[inline]
    pub fn stop_bell(&self) {
        self.own.page().attention.word.store(layout::ATTENTION_POLLING, Ordering::Relaxed);
    }

    /// Asks for a doorbell, an `ATTENTION_` value, and says whether it is safe to sleep: `false` means a frame
    /// has come meanwhile. `barrier` is called where the two fences of I4 are replaced by one process-wide one.
    #[inline]
    #[must_use]
    pub fn ask_for_bell(&mut self, which: u64, barrier: impl FnOnce()) -> bool {
        self.post_request(which);
        // I4, pairs with `EndMemory::attention`.
        fence(Ordering::SeqCst);
        barrier();
        !self.ready()
    }

    /// First half of [`Consumer::ask_for_bell`], for whoever asks on many rings and fences once: post on each, then
    /// `fence(SeqCst)` or the process-wide barrier, then look at [`Consumer::ready`] of each.
    #[inline]
    pub fn post_request(&mut self, which: u64) {
        self.asked += 1;
        self.own.page().attention.word.store(which | self.asked << 2, Ordering::Relaxed);
    }

    /// Whether a doorbell is asked for at present.
    #[must_use]
    pub fn bell_asked(&self) -> bool {
        self.own.page().attention.word.load(Ordering::Relaxed) & 3 != layout::ATTENTION_POLLING
    }
}

#[cfg(test)]
#[cfg(loom)]
#[path = "ring/loom_tests.rs"]
mod loom_tests;

#[cfg(test)]
#[cfg(not(loom))]
#[path = "ring/tests.rs"]
mod tests;
