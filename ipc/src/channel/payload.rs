//! A payload: bytes that lie in an arena of this process or of another one, and may be lent onwards without a copy.

use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::arena::Block;
use crate::channel::Channel;
use crate::foreign::ForeignBytes;
use crate::lease::LeaseBytes;
use crate::segment::{Segment, SegmentView};

/// Returns the leases of one received frame when the last payload of that frame is dropped. It does not keep the channel: a
/// closed one has no leases, and a payload of a peer that is gone should hold the memory it lies in and nothing else. Whoever
/// drops an open channel gives up what it reads.
#[derive(Debug)]
pub struct LeaseGuard {
    channel: Weak<Channel>,
    leases: Vec<u32>,
    armed: AtomicBool,
    /// Says to the channel that something is read.
    _view: Arc<()>,
}

impl LeaseGuard {
    /// A guard for the leases that a frame from `channel` carried.
    #[must_use]
    pub fn new(channel: &Arc<Channel>, leases: Vec<u32>) -> Arc<Self> {
        let _view = Arc::clone(channel.views());
        Arc::new(Self { channel: Arc::downgrade(channel), leases, armed: AtomicBool::new(true), _view })
    }

    /// Leaves the return to somebody else: to the reply, which implies it.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Relaxed)
            && let Some(channel) = self.channel.upgrade()
        {
            channel.return_leases(&self.leases);
        }
    }
}

/// Bytes to read, in this process's memory or in a peer's. Clones share them.
///
/// Within a zone a peer's bytes are read where they lie. The peer is trusted not to change them while they are
/// lent; the engine, which connects zones, copies.
#[derive(Debug, Clone)]
pub struct Payload {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Own(Block),
    // The bytes go before the guard, so that they are unmapped only after nobody reads them.
    Foreign { bytes: ForeignBytes, _guard: Arc<LeaseGuard> },
}

impl From<Block> for Payload {
    fn from(block: Block) -> Self {
        Self { place: Place::Own(block) }
    }
}

impl Payload {
    pub(crate) fn foreign(bytes: ForeignBytes, guard: Arc<LeaseGuard>) -> Self {
        Self { place: Place::Foreign { bytes, _guard: guard } }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.place {
            Place::Own(block) => block.len(),
            Place::Foreign { bytes, .. } => bytes.len() as u64,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes from the start of the segment.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match &self.place {
            Place::Own(block) => block.offset(),
            Place::Foreign { bytes, .. } => bytes.offset(),
        }
    }

    /// Whether the bytes lie in another process's memory.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self.place, Place::Foreign { .. })
    }

    /// Copies the bytes out in a way that is sound whatever the peer does to them meanwhile.
    ///
    /// # Panics
    /// When `to` is not exactly as long.
    pub fn copy_to(&self, to: &mut [u8]) {
        match &self.place {
            Place::Own(block) => to.copy_from_slice(block),
            Place::Foreign { bytes, .. } => bytes.copy_to(to),
        }
    }

    /// Gives it back as something that a peer may still read: nothing is written to its memory again.
    pub(crate) fn leave_behind(self) {
        match &self.place {
            Place::Own(block) => block.leave_behind(),
            // Its owner has it back when the channel that it came by ends, and hears that it is still read: the guard is
            // never dropped. A few words and a mapping for each.
            Place::Foreign { .. } => std::mem::forget(self),
        }
    }

    pub(crate) fn segment_identity(&self) -> usize {
        match &self.place {
            Place::Own(block) => Arc::as_ptr(block.segment()).addr(),
            Place::Foreign { bytes, .. } => Arc::as_ptr(bytes.view()).addr(),
        }
    }

    pub(crate) fn segment_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.place {
            Place::Own(block) => block.segment().fd(),
            Place::Foreign { bytes, .. } => bytes.view().fd(),
        }
    }

    pub(crate) fn announced_segment(&self) -> AnnouncedSegment {
        match &self.place {
            Place::Own(block) => AnnouncedSegment::Own(Arc::downgrade(block.segment())),
            Place::Foreign { bytes, .. } => AnnouncedSegment::Foreign(Arc::downgrade(bytes.view())),
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Own(block) => block,
            Place::Foreign { bytes, .. } => bytes,
        }
    }
}

impl LeaseBytes for Payload {
    fn bytes(&self) -> u64 {
        self.len()
    }
}

/// A segment that the peer was told of. The weak reference keeps its address from being used again.
#[derive(Debug)]
pub(crate) enum AnnouncedSegment {
    Own(Weak<Segment>),
    Foreign(Weak<SegmentView>),
}

impl AnnouncedSegment {
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Own(segment) => segment.strong_count() > 0,
            Self::Foreign(view) => view.strong_count() > 0,
        }
    }
}
