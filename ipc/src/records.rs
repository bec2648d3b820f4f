//! A ring of records that one worker writes and the engine reads: spans and logs on their way. Used by the SDK for its own
//! records, and by whoever passes on those of a worker elsewhere. It must not know what a record says.
//!
//! A ring belongs to one attach: its segment rides with the greeting, and the engine answers with the page of its own end and
//! its doorbell. The rules of the ring are in [`crate::ring`].

use std::io;
use std::os::fd::OwnedFd;

use crate::doorbell::Doorbell;
use crate::frame::{Header, Inline};
use crate::layout::{self, FACT_BARRIER_BEFORE_SLEEP, Facts, LayoutError};
use crate::ring::{EndMemory, Producer, PushError, RingViolation, SleepFence};
use crate::segment::{Segment, SegmentError, SegmentOptions, SegmentView};

/// Slots of the ring: a quarter of a megabyte.
pub const RECORDS_SLOTS: u32 = 1024;

/// Why records cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The engine did not send its page and its doorbell.
    #[error("the engine sent {found} descriptors for telemetry, 2 were wanted")]
    Descriptors {
        /// How many came.
        found: usize,
    },
    /// A segment could not be made or mapped.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A page is not one of this version.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A descriptor could not be copied.
    #[error("cannot hand over the telemetry segment")]
    System(#[from] io::Error),
}

/// A ring that was offered and not accepted yet.
#[derive(Debug)]
pub struct PreparedRecords {
    own: EndMemory,
}

impl PreparedRecords {
    /// Makes a ring for the next attach of a worker, and the descriptor that rides with the greeting. About 0.3 ms.
    ///
    /// # Errors
    /// Memory or descriptors ran out.
    pub fn new(worker: u64) -> Result<(Self, OwnedFd), RecordsError> {
        let bytes = layout::end_bytes(RECORDS_SLOTS);
        let segment = Segment::create("ringway-telemetry", bytes, SegmentOptions::default())?;
        let fd = segment.fd().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let fd = fd.try_clone_to_owned()?;
        let facts = Facts { slot_count: RECORDS_SLOTS, flags: 0, owner: worker, channel: 0 };
        Ok((Self { own: EndMemory::create(segment, facts)? }, fd))
    }

    /// Takes the descriptors that came with the engine's answer: its page and its doorbell.
    ///
    /// # Errors
    /// They are not those.
    pub fn attach(
        self,
        fds: Vec<OwnedFd>,
        segment_bytes_max: u64,
        barrier_registered: bool,
    ) -> Result<Records, RecordsError> {
        let found = fds.len();
        let mut fds = fds.into_iter();
        let (Some(page), Some(bell)) = (fds.next(), fds.next()) else {
            return Err(RecordsError::Descriptors { found });
        };
        let (peer, facts) = EndMemory::map(SegmentView::map(page, segment_bytes_max)?)?;
        let consumer_only = facts.flags & FACT_BARRIER_BEFORE_SLEEP != 0 && barrier_registered;
        let fence = if consumer_only { SleepFence::ConsumerOnly } else { SleepFence::Both };
        let producer = Producer::new(self.own, peer, fence);
        Ok(Records { producer, bell: Doorbell::from_fd(bell), rung: u64::MAX })
    }
}

/// A ring that the engine reads.
pub struct Records {
    producer: Producer,
    bell: Doorbell,
    /// The last request for the bell that was answered.
    rung: u64,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// Puts a record of so many bytes; `false` when the ring is full. About 50 ns.
    ///
    /// # Errors
    /// The engine broke its page: the ring is of no use any more.
    #[inline]
    pub fn push(&mut self, record: &Inline, len: u16) -> Result<bool, RingViolation> {
        let header = Header { inline_len: len, ..Header::default() };
        match self.producer.push(&header, record) {
            Ok(_) => Ok(true),
            Err(PushError::Full) => Ok(false),
            Err(PushError::Violation(violation)) => Err(violation),
        }
    }

    /// The doorbell, if the engine asked for it and was not answered: to be rung once no lock is held.
    #[inline]
    pub fn bell_asked(&mut self) -> Option<Doorbell> {
        let attention = self.producer.attention();
        if attention.bell() == layout::ATTENTION_POLLING || attention.0 == self.rung {
            return None;
        }
        self.rung = attention.0;
        Some(self.bell.clone())
    }

    /// The doorbell, asked for or not.
    #[must_use]
    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }

    /// Records that the engine has not read.
    #[must_use]
    pub fn backlog(&mut self) -> u64 {
        self.producer.backlog().unwrap_or(0)
    }
}
