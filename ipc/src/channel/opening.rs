//! Setting a channel up: each end makes its segment, sends it over the peer socket, and maps the other's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use parking_lot::{Mutex, RwLock};

use crate::channel::message::{Message, MessageError};
use crate::channel::{Channel, Outgoing, Role, Tx};
use crate::doorbell::Doorbell;
use crate::layout::{self, FACT_BARRIER_BEFORE_SLEEP, Facts, LayoutError};
use crate::lease::LeaseTable;
use crate::lock::SpinLock;
use crate::ring::{Answered, Consumer, EndMemory, Producer, SleepFence};
use crate::segment::{Segment, SegmentError, SegmentView};

/// What an end brings to a channel.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// Id of the channel, chosen by the caller's worker.
    pub channel: u64,
    /// This worker's id.
    pub worker: u64,
    /// The peer's id, as the engine named it; its segment must say the same.
    pub peer_worker: u64,
    /// This worker's doorbell.
    pub worker_bell: Doorbell,
    /// Slots of the ring this end writes, a power of two.
    pub slot_count: u32,
    /// Largest segment of the peer that will be mapped, in bytes.
    pub segment_bytes_max: u64,
    /// This process is registered for process-wide barriers ([`crate::sys::barrier::register`]).
    pub barrier_registered: bool,
    /// This worker issues a process-wide barrier before it sleeps. Needs `barrier_registered`.
    pub barrier_before_sleep: bool,
}

/// Why a channel could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// This end's segment could not be made, or the peer's could not be mapped.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The peer's segment is not a channel end of this version.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The peer socket failed or said something else.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer's segment names another worker or channel than the engine did.
    #[error("the peer's segment belongs to worker {found_worker:016x}, channel {found_channel:016x}")]
    Identity {
        /// What the segment says.
        found_worker: u64,
        /// What the segment says.
        found_channel: u64,
    },
    /// The first message was not the peer's end, or lacked descriptors.
    #[error("the peer did not introduce itself")]
    Introduction,
}

/// A channel that waits for the other end's introduction.
#[derive(Debug)]
pub struct Opening {
    socket: OwnedFd,
    role: Role,
    config: ChannelConfig,
    own: EndMemory,
    own_bell: Doorbell,
}

impl Opening {
    /// Makes this end's segment and introduces it. About 0.2 ms with 256 slots, most of it first touches.
    ///
    /// # Errors
    /// [`OpenError`] when the segment cannot be made or the peer is gone.
    pub fn start(socket: OwnedFd, role: Role, config: ChannelConfig) -> Result<Self, OpenError> {
        let bytes = layout::end_bytes(config.slot_count).next_multiple_of(crate::sys::memory::page_bytes());
        let segment = Segment::create("ringway-channel", bytes, Default::default())?;
        let flags = if config.barrier_before_sleep { FACT_BARRIER_BEFORE_SLEEP } else { 0 };
        let facts =
            Facts { slot_count: config.slot_count, flags, owner: config.worker, channel: config.channel };
        let own = EndMemory::create(Arc::clone(&segment), facts)?;
        let own_bell = Doorbell::new().map_err(MessageError::Io)?;
        let segment_fd = segment.fd().ok_or(OpenError::Introduction)?;
        let mut fds = vec![segment_fd, config.worker_bell.as_fd()];
        if role == Role::Caller {
            fds.push(own_bell.as_fd());
        }
        Message::End.send(&socket, &fds).map_err(MessageError::Io)?;
        Ok(Self { socket, role, config, own, own_bell })
    }

    /// The peer socket, readable when the other end has introduced itself or hung up.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The worker at the other end.
    #[must_use]
    pub fn peer_worker(&self) -> u64 {
        self.config.peer_worker
    }

    /// Completes the channel if the other end has introduced itself; gives itself back if it has not.
    ///
    /// # Errors
    /// [`OpenError`] when the peer is gone or is not what it should be.
    pub fn finish(self) -> Result<Result<Channel, Self>, OpenError> {
        let Some((message, fds)) = Message::receive(&self.socket)? else { return Ok(Err(self)) };
        if message != Message::End {
            return Err(OpenError::Introduction);
        }
        let mut fds = fds.into_iter();
        let (Some(segment), Some(worker_bell)) = (fds.next(), fds.next()) else {
            return Err(OpenError::Introduction);
        };
        let worker_bell = Doorbell::from_peer(worker_bell).ok_or(OpenError::Introduction)?;
        let channel_bell =
            fds.next().map(|fd| Doorbell::from_peer(fd).ok_or(OpenError::Introduction)).transpose()?;
        if channel_bell.is_some() != (self.role == Role::Callee) || fds.next().is_some() {
            return Err(OpenError::Introduction);
        }
        let (peer, facts) = EndMemory::map(SegmentView::map(segment, self.config.segment_bytes_max)?)?;
        if (facts.owner, facts.channel) != (self.config.peer_worker, self.config.channel) {
            return Err(OpenError::Identity { found_worker: facts.owner, found_channel: facts.channel });
        }
        Ok(Ok(self.complete(peer, facts, worker_bell, channel_bell)))
    }

    fn complete(
        self,
        peer: EndMemory,
        facts: Facts,
        worker_bell: Doorbell,
        channel_bell: Option<Doorbell>,
    ) -> Channel {
        let consumer_only = facts.flags & FACT_BARRIER_BEFORE_SLEEP != 0 && self.config.barrier_registered;
        let sleep_fence = if consumer_only { SleepFence::ConsumerOnly } else { SleepFence::Both };
        let producer = Producer::new(self.own.clone(), peer.clone(), sleep_fence);
        let consumer = Consumer::new(self.own.clone(), peer.clone());
        Channel {
            id: self.config.channel,
            role: self.role,
            peer_worker: self.config.peer_worker,
            tx: SpinLock::leaning(Tx { producer, overflow: Default::default() }),
            rx: SpinLock::leaning(consumer),
            own_memory: self.own,
            peer_memory: peer,
            sleep_fence,
            barrier_before_sleep: self.config.barrier_before_sleep,
            own_bell: self.own_bell,
            peer_worker_bell: worker_bell,
            peer_channel_bell: channel_bell,
            answered: Answered::default(),
            overflowing: AtomicBool::new(false),
            socket: self.socket,
            socket_reader: Mutex::new(()),
            segment_bytes_max: self.config.segment_bytes_max,
            incoming: RwLock::default(),
            outgoing: Mutex::new(Outgoing::default()),
            leases: Mutex::new(LeaseTable::new()),
            views: Arc::new(()),
            closed: AtomicU32::new(0),
        }
    }
}
