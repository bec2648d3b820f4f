//! The engine's end of one worker's telemetry ring. The worker's segment is untrusted: it is mapped after checks, and a ring
//! that breaks its rules is given up.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::Inline;
use ringway_ipc::layout::{self, FACT_BARRIER_BEFORE_SLEEP, Facts, LayoutError};
use ringway_ipc::ring::{Consumer, EndMemory, RingViolation};
use ringway_ipc::segment::{Segment, SegmentError, SegmentOptions, SegmentView};
use ringway_ipc::sys::barrier;
use ringway_protocol::ids::WorkerId;

use crate::limits;

/// Why a telemetry ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntakeError {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("cannot share the engine's end: {0}")]
    System(#[from] std::io::Error),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    consumer: Consumer,
    /// Records that fit into the ring.
    pub(super) slot_count: u32,
}

impl Intake {
    /// Maps a worker's telemetry segment, and makes the engine's end of it. Returns what the worker needs: the engine's
    /// segment and the doorbell.
    pub(crate) fn new(
        segment: OwnedFd,
        engine: WorkerId,
        bell: &Doorbell,
    ) -> Result<(Self, Vec<Arc<OwnedFd>>), IntakeError> {
        let view = SegmentView::map(segment, limits::TELEMETRY_SEGMENT_BYTES_MAX)?;
        let (peer, facts) = EndMemory::map(view)?;
        let bytes = layout::end_bytes(layout::SLOT_COUNT_MIN);
        let own = Segment::create("ringway-telemetry", bytes, SegmentOptions::default())?;
        let fd = own
            .fd()
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::Unsupported))?
            .try_clone_to_owned()?;
        let flags = if barrier::register() { FACT_BARRIER_BEFORE_SLEEP } else { 0 };
        let own_facts =
            Facts { slot_count: layout::SLOT_COUNT_MIN, flags, owner: engine.get(), channel: facts.channel };
        let consumer = Consumer::new(EndMemory::create(own, own_facts)?, peer);
        let bell = bell.as_fd().try_clone_to_owned()?;
        Ok((Self { consumer, slot_count: facts.slot_count }, vec![Arc::new(fd), Arc::new(bell)]))
    }

    /// Takes the next record; its length in the inline area.
    pub(super) fn poll(&mut self, inline: &mut Inline) -> Result<Option<usize>, RingViolation> {
        Ok(self.consumer.poll(inline)?.map(|header| usize::from(header.inline_len)))
    }

    pub(super) fn ready(&self) -> bool {
        self.consumer.ready()
    }

    /// Asks to be rung for the next record. The caller fences and looks again before it sleeps.
    pub(super) fn ask_for_bell(&mut self) {
        self.consumer.post_request(layout::ATTENTION_WORKER_BELL);
    }

    /// Says that nobody need ring.
    pub(super) fn stop_bell(&self) {
        self.consumer.stop_bell();
    }
}
