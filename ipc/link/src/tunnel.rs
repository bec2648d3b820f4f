//! One end of a channel of this host, whose other end is somewhere else: frames are taken from its ring for the socket, and
//! what the socket brings is put into the other ring. Used by `session`. It must not know sockets.
//!
//! A local caller talks to a tunnel that plays the callee, and the callee far away is called by a tunnel that plays the
//! caller. Payloads do not travel as blocks: whoever receives them lends blocks of its own, so leases end where they were
//! made. A tunnel that plays the callee never holds a request's payloads beyond its reply, and a tunnel that plays the caller
//! takes them back when its callee has answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ringway_ipc::arena::Arena;
use ringway_ipc::channel::{
    Channel, CloseReason, KIND_RELEASE, LeaseGuard, LendError, Opening, Payload, Role,
};
use ringway_ipc::frame::{DESCRIPTORS_MAX, Descriptor, Header, Inline};
use ringway_protocol::header::{Encoding, Flags, Kind, Role as Part};
use ringway_protocol::{CallError, ErrorCode, Started};

use crate::limits::FRAMES_AHEAD;
use crate::outgoing::Cargo;
use crate::parcel::{ALIGN_LOG2_MAX, Arrived, read_table, write_table};
use crate::wire;

/// Says whether a call may go through a tunnel.
pub trait Gate: Send + Sync + std::fmt::Debug {
    /// Looks at the header of a call or a send, before anything of it goes on.
    ///
    /// # Errors
    /// What the caller is told instead.
    fn check(&self, header: &Header) -> Result<(), CallError>;
}

/// Lets everything through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Gate for Open {
    fn check(&self, _header: &Header) -> Result<(), CallError> {
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// The local peer has not introduced itself. Empty only while it is looked at.
    Opening(Option<Opening>),
    Open(Arc<Channel>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) number: u32,
    pub(crate) stage: Stage,
    role: Role,
    gate: Arc<dyn Gate>,
    /// This end told the other of the channel: it lets frames come only once the other end is known to be there.
    first: bool,
    /// Frames that the other end has room for, and those that were sent to it, since the beginning.
    pub(crate) may_send: u64,
    pub(crate) sent: u64,
    /// Frames that came, and those that the other end was told there is room for.
    received: u64,
    granted: u64,
    /// Payloads that were lent with a call, until its reply.
    lent: HashMap<u64, Vec<u32>>,
    /// Frames of the local peer, which has left, that may still be read.
    pub(crate) ending: Option<(CloseReason, u32)>,
    /// The other end is gone: this one goes as soon as all that came before is in the ring.
    pub(crate) over: bool,
    /// Answers given in place of the callee, for which the other end has no room yet.
    pub(crate) owed: VecDeque<(Header, Inline)>,
    /// When it was made.
    pub(crate) since_ns: u64,
    /// It is being polled; otherwise its local peer rings.
    pub(crate) hot: bool,
}

/// What to do with a frame of the local peer.
pub(crate) enum Outward {
    /// Send it.
    Plain,
    /// Send it with its payloads.
    Loaded(Cargo),
    /// It was for this end alone, or was answered.
    Nothing,
}

impl Tunnel {
    pub(crate) fn new(number: u32, opening: Opening, role: Role, gate: Arc<dyn Gate>, first: bool) -> Self {
        Self {
            number,
            stage: Stage::Opening(Some(opening)),
            role,
            gate,
            first,
            may_send: 0,
            sent: 0,
            received: 0,
            granted: 0,
            lent: HashMap::new(),
            ending: None,
            over: false,
            owed: VecDeque::new(),
            since_ns: ringway_ipc::clock::now_ns(),
            hot: false,
        }
    }

    pub(crate) fn channel(&self) -> Option<&Arc<Channel>> {
        match &self.stage {
            Stage::Open(channel) => Some(channel),
            Stage::Opening(_) => None,
        }
    }

    /// Says to the local peer that its ring is looked at, so that it need not ring.
    pub(crate) fn watch_ring(&self) {
        if let Some(lead) = self.channel().and_then(|channel| channel.try_lead()) {
            lead.stop_bell();
        }
    }

    /// Whether a frame of the local peer could be sent now.
    pub(crate) fn has_credit(&self) -> bool {
        self.sent < self.may_send
    }

    /// The count of frames to announce to the other end, if it is time.
    pub(crate) fn credit(&mut self) -> Option<u64> {
        let channel = self.channel()?;
        let opposite_is_there = !self.first || self.may_send > 0;
        let due = self.granted == 0 || self.granted - self.received <= FRAMES_AHEAD / 2;
        // Answers that the other end has no room for are kept here, so it may not ask for more of them.
        let unanswered = self.owed.len() as u64 >= FRAMES_AHEAD;
        if !opposite_is_there || !due || unanswered || channel.overflowing() {
            return None;
        }
        self.granted = self.received + FRAMES_AHEAD;
        Some(self.granted)
    }

    /// Counts a frame that came. `false`: there was no room for it.
    pub(crate) fn count(&mut self) -> bool {
        self.received += 1;
        self.received <= self.granted
    }

    /// Looks at a frame of the local peer, and changes its header into the one that travels.
    pub(crate) fn outward(&mut self, header: &mut Header, inline: &mut Inline, now_ns: u64) -> Outward {
        let Some(channel) = self.channel().cloned() else { return Outward::Nothing };
        if header.kind == KIND_RELEASE {
            let _closed_if_false = channel.take_release(header, inline);
            return Outward::Nothing;
        }
        let kind = Kind::try_from(header.kind).ok().filter(|kind| belongs(*kind, opposite(self.role)));
        let Some(kind) = kind else {
            channel.violation(CloseReason::Nonsense);
            return Outward::Nothing;
        };
        // A reply without the flag returns the request's payloads; what the flag says concerns this host alone.
        if matches!(kind, Kind::Reply | Kind::Error) {
            if let Some(leases) = self.lent.remove(&header.invocation)
                && header.flags & Flags::HOLD.bits() == 0
            {
                end_leases(&channel, &leases);
            }
            header.flags &= !Flags::HOLD.bits();
        }
        let cargo = if header.attachments == 0 {
            None
        } else {
            match load(&channel, header, inline, kind) {
                Ok(cargo) => Some(cargo),
                // The channel is closed by then.
                Err(_) => return Outward::Nothing,
            }
        };
        if matches!(kind, Kind::Call | Kind::Send)
            && let Err(error) = self.gate.check(header)
        {
            if kind == Kind::Call {
                let (header, inline) = error_frame(header.invocation, &error);
                let _closed_means_ended = channel.send_or_keep(&header, &inline);
            }
            return Outward::Nothing;
        }
        header.deadline_ns = wire::deadline_left_ns(header.deadline_ns, now_ns);
        match cargo {
            None => Outward::Plain,
            Some(cargo) => Outward::Loaded(cargo),
        }
    }

    /// Looks at the header of a frame that came. Returns the error to answer it with, if it may not pass.
    ///
    /// # Errors
    /// It is not what this end is sent.
    pub(crate) fn check_inward(&self, header: &Header) -> Result<Option<CallError>, NotSentHereError> {
        let kind = Kind::try_from(header.kind).ok().filter(|kind| belongs(*kind, self.role));
        match kind.ok_or(NotSentHereError)? {
            Kind::Call | Kind::Send => Ok(self.gate.check(header).err()),
            _ => Ok(None),
        }
    }

    /// Whether payloads are lent for the call that a header is of.
    pub(crate) fn has_lent_for(&self, header: &Header) -> bool {
        header.kind == Kind::Call.to_u8() && self.lent.contains_key(&header.invocation)
    }

    /// Puts a frame without payloads into the ring of the local peer.
    pub(crate) fn inward(&self, mut header: Header, inline: &Inline, now_ns: u64) -> Result<(), CloseReason> {
        let Some(channel) = self.channel() else { return Ok(()) };
        arrive(&mut header, now_ns);
        channel.send_or_keep(&header, inline)
    }

    /// Lends the payloads of a frame to the local peer and puts it into its ring.
    ///
    /// # Errors
    /// The payloads could not be lent; the frame was not sent.
    pub(crate) fn inward_loaded(
        &mut self,
        arrived: Arrived,
        arena: &Arc<Arena>,
        now_ns: u64,
    ) -> Result<(), CallError> {
        let Some(channel) = self.channel().cloned() else { return Ok(()) };
        let Arrived { mut header, mut inline, payloads, in_table, .. } = arrived;
        let mut lent = Lent { channel: &channel, leases: Vec::with_capacity(payloads.len()), keep: false };
        let mut descriptors = Vec::with_capacity(payloads.len());
        for (wanted, payload) in payloads {
            let placed = lent.lend(payload)?;
            descriptors.push(Descriptor {
                dtype: wanted.dtype,
                ndim: wanted.ndim,
                align_log2: wanted.align_log2.min(ALIGN_LOG2_MAX),
                role: wanted.role,
                ..placed
            });
        }
        if in_table {
            let table = write_table(descriptors.iter());
            let table = lent.table(arena, &table)?;
            inline.set_descriptor(0, &Descriptor { role: Part::Table.to_u8(), ..table });
        } else {
            for (at, descriptor) in descriptors.iter().take(DESCRIPTORS_MAX).enumerate() {
                inline.set_descriptor(at, descriptor);
            }
        }
        lent.keep = true;
        arrive(&mut header, now_ns);
        if header.kind == Kind::Call.to_u8() {
            self.lent.insert(header.invocation, std::mem::take(&mut lent.leases));
        }
        drop(lent);
        let _closed_means_ended = channel.send_or_keep(&header, &inline);
        Ok(())
    }

    /// Whether no more frames went or came than there was room for, and no more answers wait than may.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn counts_hold(&self) -> bool {
        let owed = self.owed.len() as u64;
        self.sent <= self.may_send && self.received <= self.granted && owed <= 2 * FRAMES_AHEAD
    }

    /// Which end of the channel this is.
    pub(crate) fn role(&self) -> Role {
        self.role
    }
}

/// A frame that this end is never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotSentHereError;

/// Payloads that are lent together, or not at all.
struct Lent<'a> {
    channel: &'a Arc<Channel>,
    leases: Vec<u32>,
    keep: bool,
}

impl Lent<'_> {
    fn lend(&mut self, payload: Payload) -> Result<Descriptor, CallError> {
        let lent = self.channel.lend(payload).map_err(|error| match error {
            // Nobody is there any more; what was not lent was not begun.
            LendError::Closed(_) => {
                let mut gone = CallError::new(ErrorCode::WorkerGone, error.to_string());
                gone.started = Some(Started::No);
                gone
            }
            _ => CallError::new(ErrorCode::OutOfMemory, error.to_string()),
        })?;
        self.leases.push(lent.lease);
        Ok(lent)
    }

    fn table(&mut self, arena: &Arc<Arena>, bytes: &[u8]) -> Result<Descriptor, CallError> {
        let loan = arena.loan(bytes.len(), 64);
        let mut loan = loan.map_err(|error| CallError::new(ErrorCode::OutOfMemory, error.to_string()))?;
        loan.copy_from_slice(bytes);
        self.lend(loan.freeze().into())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.keep {
            end_leases(self.channel, &self.leases);
        }
    }
}

fn end_leases(channel: &Channel, leases: &[u32]) {
    for lease in leases {
        // A channel that was closed meanwhile has ended them.
        let _ended = channel.end_lease(*lease);
    }
}

const fn opposite(role: Role) -> Role {
    match role {
        Role::Caller => Role::Callee,
        Role::Callee => Role::Caller,
    }
}

/// Changes the header that travelled into the one for this host.
fn arrive(header: &mut Header, now_ns: u64) {
    header.deadline_ns = wire::deadline_here_ns(header.deadline_ns, now_ns);
    if matches!(Kind::try_from(header.kind), Ok(Kind::Reply | Kind::Error)) {
        // Nobody far away holds a payload of this host, whatever is said there.
        header.flags &= !Flags::HOLD.bits();
    }
}

/// Whether frames of a kind are written by an end that plays `writer`.
const fn belongs(kind: Kind, writer: Role) -> bool {
    match kind {
        Kind::Call | Kind::Send | Kind::Cancel => matches!(writer, Role::Caller),
        Kind::Reply | Kind::Error => matches!(writer, Role::Callee),
        Kind::StreamData | Kind::StreamEnd | Kind::Credit => true,
        Kind::Release | Kind::Hello => false,
    }
}

/// Resolves a frame's payloads in the order in which they travel.
fn load(channel: &Arc<Channel>, header: &Header, inline: &Inline, kind: Kind) -> Result<Cargo, CloseReason> {
    let count = usize::from(header.attachments).min(DESCRIPTORS_MAX);
    let mut descriptors: Vec<Descriptor> = (0..count).map(|at| inline.descriptor(at)).collect();
    let mut leases: Vec<u32> = descriptors.iter().map(|descriptor| descriptor.lease).collect();
    let mut payloads = Vec::with_capacity(count);
    let table = header.flags & Flags::DESCRIPTORS_IN_BLOCK.bits() != 0;
    if table {
        // Read under a guard that returns nothing: its lease joins the others.
        let aside = LeaseGuard::new(channel, Vec::new());
        let [place] = descriptors[..] else { return Err(channel.violation(CloseReason::Nonsense)) };
        let bytes = channel.resolve(&place, &aside)?;
        let longest = (ringway_protocol::limits::ATTACHMENTS_MAX + 2) * ringway_ipc::frame::DESCRIPTOR_BYTES;
        let len = usize::try_from(bytes.len()).ok().filter(|len| *len <= longest && len.is_multiple_of(32));
        let Some(len) = len else { return Err(channel.violation(CloseReason::Nonsense)) };
        let mut copy = vec![0; len];
        bytes.copy_to(&mut copy);
        descriptors = read_table(&copy);
        leases.extend(descriptors.iter().map(|descriptor| descriptor.lease));
        payloads.push(place);
    }
    let guard = LeaseGuard::new(channel, leases);
    let places: VecDeque<Descriptor> = payloads.into_iter().chain(descriptors).collect();
    let payloads: Cargo =
        places.iter().map(|place| channel.resolve(place, &guard)).collect::<Result<_, _>>()?;
    // The reply to a call returns its payloads.
    if kind == Kind::Call {
        guard.disarm();
    }
    Ok(payloads)
}

/// An error as a frame, its text cut to what a slot holds.
pub(crate) fn error_frame(invocation: u64, error: &CallError) -> (Header, Inline) {
    let mut inline = Inline::default();
    let mut body = serde_json::to_vec(error).unwrap_or_default();
    if body.len() > inline.bytes().len() {
        body = serde_json::to_vec(&CallError::new(error.code, "")).unwrap_or_default();
    }
    let len = body.len().min(inline.bytes().len());
    inline.bytes_mut()[..len].copy_from_slice(&body[..len]);
    let header = Header {
        invocation,
        kind: Kind::Error.to_u8(),
        function: error.code.status(),
        encoding: Encoding::Json.to_u8(),
        inline_len: u16::try_from(len).unwrap_or(u16::MAX),
        ..Header::default()
    };
    (header, inline)
}
