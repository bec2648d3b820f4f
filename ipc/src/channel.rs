//! A channel: two rings, the payloads lent over them, and the socket that carries what rings cannot.
//!
//! Used by the SDK, which gives frames their meaning. A channel is directed: the *caller* end publishes requests
//! and the *callee* end publishes replies, so a thread that waits for a reply sees nothing but replies. The two
//! ends talk over a peer socket that outlives the engine: segments to map, and the hang-up that tells of a death.
//!
//! What a peer says is checked here: facts of its segment, progress, stamps, sizes, segment keys, ranges, leases.
//! Anything no correct peer would say closes the channel with a reason ([`CloseReason`]).

mod message;
mod opening;
mod payload;

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::doorbell::Doorbell;
use crate::foreign;
use crate::frame::{Descriptor, Header, Inline};
use crate::layout;
use crate::lease::LeaseTable;
use crate::lock::{SpinGuard, SpinLock};
use crate::nap::{self, Slept};
use crate::ring::{Answered, Consumer, EndMemory, Producer, PushError, RingViolation, SleepFence};
use crate::segment::SegmentView;

pub use message::MessageError;
pub use opening::{ChannelConfig, OpenError, Opening};
pub use payload::{LeaseGuard, Payload};

use message::Message;
use payload::AnnouncedSegment;

/// Frame kind of returned leases; the only kind this crate acts on itself.
pub const KIND_RELEASE: u8 = 9;

/// Lease ids in one release frame.
const RELEASES_PER_FRAME: usize = layout::INLINE_BYTES / 4;

/// Which end of a channel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Publishes requests.
    Caller,
    /// Publishes replies.
    Callee,
}

/// Why a channel was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u32)]
pub enum CloseReason {
    /// The peer's process is gone.
    #[error("the peer is gone")]
    PeerGone = 1,
    /// The peer said goodbye.
    #[error("the peer closed the channel")]
    Goodbye = 2,
    /// This end closed it.
    #[error("closed here")]
    Local = 3,
    /// The peer's ring is not one a correct peer writes.
    #[error("the peer's ring is broken")]
    Ring = 4,
    /// The peer named a segment it never announced, or a range outside it.
    #[error("the peer pointed outside its memory")]
    Range = 5,
    /// The peer gave back a lease it did not hold.
    #[error("the peer gave back a lease it did not hold")]
    Lease = 6,
    /// The peer sent a message or a frame that means nothing.
    #[error("the peer sent nonsense")]
    Nonsense = 7,
    /// The peer goes on asking and does not read what it is sent.
    #[error("the peer does not read what it is sent")]
    Unread = 8,
}

impl CloseReason {
    fn from_code(code: u32) -> Option<Self> {
        let broken = [Self::Ring, Self::Range, Self::Lease, Self::Nonsense, Self::Unread];
        let all = [Self::PeerGone, Self::Goodbye, Self::Local].into_iter().chain(broken);
        all.into_iter().find(|reason| *reason as u32 == code)
    }

    /// Whether the peer broke the protocol.
    #[must_use]
    pub fn is_violation(self) -> bool {
        matches!(self, Self::Ring | Self::Range | Self::Lease | Self::Nonsense | Self::Unread)
    }
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer is a whole ring behind; try again when it has caught up.
    #[error("the ring is full")]
    Full,
    /// The channel is closed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// Why a payload could not be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LendError {
    /// The table of leases is full: the peer holds too much.
    #[error("the peer holds as many payloads as it may")]
    Leases,
    /// The segment cannot be passed: the peer socket is full or the backend has no descriptor.
    #[error("the segment could not be passed to the peer")]
    Segment,
    /// The channel is closed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

struct Tx {
    producer: Producer,
    /// Frames that found the ring full and whose sender must not wait: replies and releases. A correct caller bounds
    /// them by the calls that it may have open, the windows of their streams and the leases that it lent; the limit is
    /// for one that calls on and on and reads nothing.
    overflow: VecDeque<Box<(Header, Inline)>>,
}

/// One end of a channel.
pub struct Channel {
    id: u64,
    role: Role,
    peer_worker: u64,
    tx: SpinLock<Tx>,
    rx: SpinLock<Consumer>,
    own_memory: EndMemory,
    peer_memory: EndMemory,
    sleep_fence: SleepFence,
    barrier_before_sleep: bool,
    own_bell: Doorbell,
    peer_worker_bell: Doorbell,
    peer_channel_bell: Option<Doorbell>,
    answered: Answered,
    overflowing: AtomicBool,
    socket: OwnedFd,
    socket_reader: Mutex<()>,
    segment_bytes_max: u64,
    incoming: RwLock<HashMap<u32, Arc<SegmentView>>>,
    outgoing: Mutex<Outgoing>,
    leases: Mutex<LeaseTable<Payload>>,
    /// As many clones as there are guards of what the peer has lent.
    views: Arc<()>,
    closed: AtomicU32,
}

#[derive(Default)]
struct Outgoing {
    announced: HashMap<usize, (u32, AnnouncedSegment)>,
    next_key: u32,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("peer_worker", &self.peer_worker)
            .field("closed", &self.close_reason())
            .finish_non_exhaustive()
    }
}

/// Numbers for people: what a channel holds and has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelStats {
    /// Frames published by this end.
    pub sent: u64,
    /// Frames taken by this end.
    pub received: u64,
    /// Payloads lent to the peer and not yet returned.
    pub leases: u64,
    /// Their bytes.
    pub lent_bytes: u64,
    /// Segments of the peer mapped here.
    pub segments_in: u64,
    /// Their bytes.
    pub segments_in_bytes: u64,
    /// Segments announced to the peer.
    pub segments_out: u64,
    /// Bytes of this end's ring segment.
    pub ring_bytes: u64,
}

impl Channel {
    /// The id that the caller chose.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The worker at the other end.
    #[must_use]
    pub fn peer_worker(&self) -> u64 {
        self.peer_worker
    }

    /// The peer socket: readable when there is a message, hung up when the peer is gone.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Why the channel is closed, if it is.
    #[inline]
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        match self.closed.load(Ordering::Acquire) {
            0 => None,
            code => CloseReason::from_code(code),
        }
    }

    /// Closes this end; the first reason stands. Leases end at once, so every lent block returns to its arena; where the peer
    /// lives and may go on reading, their memory is not used again ([`Arena::leave_behind`](crate::arena::Arena::leave_behind)).
    /// Views of the peer's memory stay readable until they are dropped. A callee whose caller has left may go on to
    /// read what that had published, until [`Channel::end_reading`]. Returns whether this call closed it.
    pub fn close(&self, reason: CloseReason) -> bool {
        self.close_beside(reason, reason == CloseReason::Local)
    }

    /// The same; `reading`: the peer may go on reading what it was lent.
    fn close_beside(&self, reason: CloseReason, reading: bool) -> bool {
        let first =
            self.closed.compare_exchange(0, reason as u32, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            if reason != CloseReason::PeerGone {
                let views = Arc::strong_count(&self.views) > 1;
                let goodbye = Message::Goodbye { reason: reason as u32, reading: views };
                let _peer_may_be_gone = goodbye.send(&self.socket, &[]);
                // The peer may sleep, and its dispatcher must look at the socket's news in its own time.
                self.peer_worker_bell.notify();
            }
            // Hanging up is news for whoever watches this end's own socket too, so that a channel which some thread found
            // broken is cleared away although the peer keeps its end. What was sent before still arrives.
            crate::sys::socket::hang_up(&self.socket);
            let ended = self.leases.lock().drain();
            if reading {
                ended.into_iter().for_each(Payload::leave_behind);
            }
            let left = matches!(reason, CloseReason::PeerGone | CloseReason::Goodbye);
            if !(left && self.role == Role::Callee) {
                self.end_reading();
            }
            self.outgoing.lock().announced.clear();
            self.own_bell.notify();
        }
        first
    }

    pub(crate) const fn views(&self) -> &Arc<()> {
        &self.views
    }

    /// Lets the peer's segments go: nothing that the peer published is resolved any more.
    pub fn end_reading(&self) {
        self.incoming.write().clear();
    }

    /// Slots of the peer's ring: the most frames that it can have left behind.
    #[must_use]
    pub fn incoming_slots(&self) -> u32 {
        self.peer_memory.slot_count()
    }

    fn closed_or(&self, error: PushError) -> SendError {
        match error {
            PushError::Full => SendError::Full,
            PushError::Violation(_) => {
                self.close(CloseReason::Ring);
                SendError::Closed(CloseReason::Ring)
            }
        }
    }

    /// Publishes a frame and rings the peer where it asked for that. Returns the frame's position, which
    /// [`Channel::was_consumed`] takes. No system call unless the peer sleeps.
    ///
    /// # Errors
    /// [`SendError::Full`] when the peer is a whole ring behind, [`SendError::Closed`] when the channel is.
    #[inline]
    pub fn send(&self, header: &Header, inline: &Inline) -> Result<u64, SendError> {
        if let Some(reason) = self.close_reason() {
            return Err(reason.into());
        }
        let mut tx = self.tx.lock();
        if !tx.overflow.is_empty() {
            self.flush_locked(&mut tx);
            if !tx.overflow.is_empty() {
                return Err(SendError::Full);
            }
        }
        let sent = tx.producer.push(header, inline);
        drop(tx);
        let position = sent.map_err(|error| self.closed_or(error))?;
        self.ring_if_asked();
        Ok(position)
    }

    /// Publishes a frame whose sender must not wait; where the ring is full it is kept and goes out in order when
    /// there is room, by the next send or by [`Channel::flush`].
    ///
    /// # Errors
    /// The reason, when the channel is closed.
    #[inline]
    pub fn send_or_keep(&self, header: &Header, inline: &Inline) -> Result<(), CloseReason> {
        if let Some(reason) = self.close_reason() {
            return Err(reason);
        }
        let mut tx = self.tx.lock();
        if tx.overflow.is_empty() {
            match tx.producer.push(header, inline) {
                Ok(_) => {
                    drop(tx);
                    self.ring_if_asked();
                    return Ok(());
                }
                Err(PushError::Full) => {}
                Err(error @ PushError::Violation(_)) => {
                    drop(tx);
                    self.closed_or(error);
                    return Err(CloseReason::Ring);
                }
            }
        }
        if tx.overflow.len() >= crate::limits::FRAMES_KEPT_MAX {
            drop(tx);
            return Err(self.violation(CloseReason::Unread));
        }
        tx.overflow.push_back(Box::new((*header, *inline)));
        self.overflowing.store(true, Ordering::Release);
        drop(tx);
        Ok(())
    }

    /// Whether frames are kept back because the peer's ring is full. Whoever may sleep must look at this first
    /// and come back soon with [`Channel::flush`].
    #[inline]
    #[must_use]
    pub fn overflowing(&self) -> bool {
        self.overflowing.load(Ordering::Acquire)
    }

    /// Publishes what was kept back, as far as there is room.
    pub fn flush(&self) {
        if self.overflowing() && self.close_reason().is_none() {
            let mut tx = self.tx.lock();
            self.flush_locked(&mut tx);
            drop(tx);
            self.ring_if_asked();
        }
    }

    fn flush_locked(&self, tx: &mut Tx) {
        while let Some(frame) = tx.overflow.front() {
            match tx.producer.push(&frame.0, &frame.1) {
                Ok(_) => drop(tx.overflow.pop_front()),
                Err(PushError::Full) => return,
                Err(PushError::Violation(_)) => {
                    self.close(CloseReason::Ring);
                    tx.overflow.clear();
                }
            }
        }
        self.overflowing.store(false, Ordering::Release);
    }

    /// The second half of [`Channel::send`]: looks at what the peer asks for, and rings. Harmless at any time; for tests,
    /// in which a thread is interrupted between the two.
    #[inline]
    pub fn ring_if_asked(&self) {
        let attention = self.peer_memory.attention(self.sleep_fence);
        if attention.bell() != layout::ATTENTION_POLLING {
            self.ring_bell(attention);
        }
    }

    #[cold]
    fn ring_bell(&self, attention: crate::ring::Attention) {
        if !self.answered.is_new(attention) {
            return;
        }
        match &self.peer_channel_bell {
            Some(bell) if attention.bell() == layout::ATTENTION_CHANNEL_BELL => bell.notify(),
            _ => self.peer_worker_bell.notify(),
        }
    }

    /// Wakes the peer's dispatcher whatever it asked for.
    pub fn ring_worker_bell(&self) {
        self.peer_worker_bell.notify();
    }

    /// Takes the right to read this end's incoming ring, if nobody has it.
    #[inline]
    pub fn try_lead(&self) -> Option<Lead<'_>> {
        self.rx.try_lock().map(|consumer| Lead { channel: self, consumer })
    }

    /// Whether nobody reads this end's incoming ring at this moment.
    #[inline]
    #[must_use]
    pub fn leads_free(&self) -> bool {
        self.rx.is_free()
    }

    /// Whether this end asks its peer for the worker's bell at present; whoever leads may change that at any moment.
    #[must_use]
    pub fn asks_for_worker_bell(&self) -> bool {
        self.own_memory.request().bell() == layout::ATTENTION_WORKER_BELL
    }

    /// The bell that a blocked caller sleeps on.
    #[must_use]
    pub fn own_bell(&self) -> &Doorbell {
        &self.own_bell
    }

    /// Whether the peer has taken the frame at `position`. Exact, also after the peer's death, because progress is
    /// published before a frame is acted on.
    #[must_use]
    pub fn was_consumed(&self, position: u64) -> bool {
        self.peer_memory.consumed() > position
    }

    /// Lends a payload to the peer and returns its descriptor with segment, lease, offset and length filled in.
    /// The first payload of a segment costs a system call to announce it.
    ///
    /// # Errors
    /// [`LendError`] names the limit; the payload is dropped.
    pub fn lend(&self, payload: Payload) -> Result<Descriptor, LendError> {
        if let Some(reason) = self.close_reason() {
            return Err(reason.into());
        }
        let segment = self.announce(&payload)?;
        let (offset, len) = (payload.offset(), payload.len());
        let lease = self.leases.lock().lend(payload).map_err(|_| LendError::Leases)?;
        // `close` drains the table after setting the flag: whichever came second ends this lease.
        if let Some(reason) = self.close_reason() {
            drop(self.leases.lock().drain());
            return Err(reason.into());
        }
        Ok(Descriptor { segment, lease, offset, len, ..Descriptor::default() })
    }

    /// Takes a lease back that the peer was given, before or after it was used: for a call that could not be sent,
    /// or by the peer's word.
    ///
    /// # Errors
    /// [`CloseReason::Lease`] when there is no such lease.
    pub fn end_lease(&self, lease: u32) -> Result<(), CloseReason> {
        let ended = self.leases.lock().give_back(lease);
        ended.map(drop).map_err(|_| CloseReason::Lease)
    }

    fn announce(&self, payload: &Payload) -> Result<u32, LendError> {
        let identity = payload.segment_identity();
        let mut outgoing = self.outgoing.lock();
        if let Some((key, _)) = outgoing.announced.get(&identity) {
            return Ok(*key);
        }
        self.retract_dead(&mut outgoing);
        let key = outgoing.next_key;
        let fd = payload.segment_fd().ok_or(LendError::Segment)?;
        if let Err(error) = (Message::Segment { key }).send(&self.socket, &[fd]) {
            drop(outgoing);
            return Err(self.not_announced(&error));
        }
        outgoing.next_key = outgoing.next_key.wrapping_add(1);
        outgoing.announced.insert(identity, (key, payload.announced_segment()));
        Ok(key)
    }

    /// Why the peer could not be told: most often because it died a moment ago and nobody has noticed yet.
    #[cold]
    fn not_announced(&self, error: &std::io::Error) -> LendError {
        if matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected
        ) {
            self.close(CloseReason::PeerGone);
        }
        self.close_reason().map_or(LendError::Segment, LendError::Closed)
    }

    /// Announces a segment before anything in it is lent, so that the peer can map and populate it in good time.
    ///
    /// # Errors
    /// As [`Channel::lend`].
    pub fn announce_early(&self, payload: &Payload) -> Result<(), LendError> {
        self.announce(payload).map(drop)
    }

    fn retract_dead(&self, outgoing: &mut Outgoing) {
        outgoing.announced.retain(|_, (key, segment)| {
            let alive = segment.is_alive();
            if !alive {
                let _peer_may_be_gone = Message::SegmentGone { key: *key }.send(&self.socket, &[]);
            }
            alive
        });
    }

    /// Tells the peer to unmap segments that no longer exist here. Called after an arena has shrunk.
    pub fn retract_freed_segments(&self) {
        self.retract_dead(&mut self.outgoing.lock());
    }

    /// Turns a descriptor that the peer sent into bytes. `guard` returns the frame's leases when the last payload
    /// of it is dropped.
    ///
    /// # Errors
    /// [`CloseReason::Range`] for an unannounced segment or a range outside it; the channel is closed by then.
    pub fn resolve(
        self: &Arc<Self>,
        descriptor: &Descriptor,
        guard: &Arc<LeaseGuard>,
    ) -> Result<Payload, CloseReason> {
        let view = self.segment(descriptor.segment)?;
        let align = 1u32.checked_shl(u32::from(descriptor.align_log2)).unwrap_or(0);
        match foreign::slice(&view, descriptor.offset, descriptor.len, align.max(1)) {
            Ok(bytes) if align != 0 => Ok(Payload::foreign(bytes, Arc::clone(guard))),
            _ => Err(self.violation(CloseReason::Range)),
        }
    }

    fn segment(&self, key: u32) -> Result<Arc<SegmentView>, CloseReason> {
        if let Some(view) = self.incoming.read().get(&key) {
            return Ok(Arc::clone(view));
        }
        // The announcement was sent before the frame was published, so it is in the socket by now. Behind it may lie the
        // goodbye of a caller that has left since, whose frames still count.
        let read = self.read_socket();
        let view = self.incoming.read().get(&key).cloned();
        match (view, read) {
            (Some(view), _) => Ok(view),
            (None, Err(reason)) => Err(reason),
            (None, Ok(())) => Err(self.violation(CloseReason::Range)),
        }
    }

    /// Closes the channel because the peer broke the protocol.
    #[cold]
    pub fn violation(&self, reason: CloseReason) -> CloseReason {
        self.close(reason);
        self.close_reason().unwrap_or(reason)
    }

    /// Returns leases to the peer; called by the guard of a received frame.
    pub(crate) fn return_leases(&self, leases: &[u32]) {
        for ids in leases.chunks(RELEASES_PER_FRAME) {
            let mut inline = Inline::default();
            for (place, id) in inline.bytes_mut().chunks_exact_mut(4).zip(ids) {
                place.copy_from_slice(&id.to_le_bytes());
            }
            let bytes = u16::try_from(ids.len() * 4).unwrap_or(u16::MAX);
            let header = Header { kind: KIND_RELEASE, inline_len: bytes, ..Header::default() };
            let _closed_means_ended = self.send_or_keep(&header, &inline);
        }
    }

    /// Ends the leases that a release frame names.
    ///
    /// # Errors
    /// [`CloseReason::Lease`] when the peer returns what it does not hold; the channel is closed by then.
    pub fn take_release(&self, header: &Header, inline: &Inline) -> Result<(), CloseReason> {
        let ids = inline.bytes()[..usize::from(header.inline_len)].chunks_exact(4);
        for id in ids {
            let lease = u32::from_le_bytes(id.try_into().unwrap_or_default());
            self.end_lease(lease).map_err(|reason| self.violation(reason))?;
        }
        Ok(())
    }

    /// Reads every message that waits in the peer socket. Called when the socket is readable, and when a frame
    /// names a segment that is not mapped yet.
    ///
    /// # Errors
    /// The reason, when the peer hung up, said goodbye or sent nonsense; the channel is closed by then.
    pub fn read_socket(&self) -> Result<(), CloseReason> {
        let _one_reader = self.socket_reader.lock();
        loop {
            match Message::receive(&self.socket) {
                Ok(Some((message, fds))) => self.take_message(&message, fds)?,
                Ok(None) => return self.close_reason().map_or(Ok(()), Err),
                Err(MessageError::HungUp) => return Err(self.violation(CloseReason::PeerGone)),
                Err(_) => return Err(self.violation(CloseReason::Nonsense)),
            }
        }
    }

    fn take_message(&self, message: &Message, mut fds: Vec<OwnedFd>) -> Result<(), CloseReason> {
        match (message, fds.pop()) {
            (Message::Segment { key }, Some(fd)) if fds.is_empty() => {
                let view = SegmentView::map(fd, self.segment_bytes_max)
                    .map_err(|_| self.violation(CloseReason::Nonsense))?;
                let mut incoming = self.incoming.write();
                if incoming.len() >= crate::limits::SEGMENTS_PER_CHANNEL_MAX
                    || incoming.insert(*key, view).is_some()
                {
                    drop(incoming);
                    return Err(self.violation(CloseReason::Nonsense));
                }
                Ok(())
            }
            (Message::SegmentGone { key }, None) if self.incoming.write().remove(key).is_some() => Ok(()),
            (Message::Goodbye { reason, reading }, None) => {
                self.close_beside(CloseReason::Goodbye, *reading);
                if *reason != CloseReason::Local as u32 {
                    // It did not leave but found this end at fault; its blocks may be in use again.
                    self.end_reading();
                }
                Err(CloseReason::Goodbye)
            }
            _ => Err(self.violation(CloseReason::Nonsense)),
        }
    }

    /// What the channel holds and has moved.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let (leases, lent_bytes) = {
            let table = self.leases.lock();
            (table.len() as u64, table.bytes())
        };
        let incoming = self.incoming.read();
        ChannelStats {
            sent: self.tx.lock().producer.position(),
            received: self.own_memory.consumed(),
            leases,
            lent_bytes,
            segments_in: incoming.len() as u64,
            segments_in_bytes: incoming.values().map(|view| view.len() as u64).sum(),
            segments_out: self.outgoing.lock().announced.len() as u64,
            ring_bytes: layout::end_bytes(self.own_memory.slot_count()) as u64,
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.close(CloseReason::Local);
    }
}

/// The right to read a channel's incoming ring, until dropped. One thread of the process has it at a time.
#[derive(Debug)]
pub struct Lead<'a> {
    channel: &'a Channel,
    consumer: SpinGuard<'a, Consumer>,
}

impl Lead<'_> {
    /// Whether a frame waits.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> bool {
        self.consumer.ready()
    }

    /// Takes the next frame, its header checked for size; the rest is the caller's to check.
    ///
    /// # Errors
    /// [`CloseReason::Ring`] when the peer's ring is broken; the channel is closed by then.
    #[inline]
    pub fn poll(&mut self, inline: &mut Inline) -> Result<Option<Header>, CloseReason> {
        self.consumer.poll(inline).map_err(|_: RingViolation| self.channel.violation(CloseReason::Ring))
    }

    /// Says that this side polls.
    #[inline]
    pub fn stop_bell(&self) {
        self.consumer.stop_bell();
    }

    /// Asks for the doorbell and says whether it is safe to sleep.
    #[must_use]
    pub fn ask_for_bell(&mut self, which: u64) -> bool {
        let barrier = self.channel.barrier_before_sleep;
        self.consumer.ask_for_bell(which, || {
            if barrier {
                let _registered_at_start = crate::sys::barrier::everywhere();
            }
        })
    }

    /// Asks for this end's own bell and sleeps on it, for `timeout` at most, unless a frame waits or `over` holds.
    #[must_use]
    pub fn sleep(&mut self, timeout: Duration, over: impl Fn() -> bool) -> Slept {
        self.consumer.post_request(layout::ATTENTION_CHANNEL_BELL);
        // I4 of [`crate::ring`]; the barrier, where one is needed, comes with the sleep.
        fence(Ordering::SeqCst);
        let news = || self.consumer.ready() || over();
        nap::sleep(&self.channel.own_bell, self.channel.barrier_before_sleep, timeout, news)
    }

    /// Posts the request for a doorbell without fencing; see [`Consumer::post_request`].
    pub fn post_request(&mut self, which: u64) {
        self.consumer.post_request(which);
    }

    /// Whether a doorbell is asked for.
    #[must_use]
    pub fn bell_asked(&self) -> bool {
        self.consumer.bell_asked()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
