//! One link: the channels that it carries, what came and what is to go, as plain data without a socket. Used by
//! [`crate::line`], which adds encryption, and through that by the drivers. It must not know who is at the other end, nor
//! when to wait.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ringway_ipc::arena::Arena;
use ringway_ipc::channel::{CloseReason, Opening, Role};
use ringway_ipc::clock::now_ns;
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::layout::ATTENTION_WORKER_BELL;
use ringway_protocol::header::Kind;
use ringway_protocol::{CallError, ErrorCode};

use crate::clock::{Clock, Distance};
use crate::fault::{Ended, Fault};
use crate::incoming::{Intake, Taker};
use crate::limits;
use crate::outgoing::{Outgoing, Queued};
use crate::pace;
use crate::parcel::{Arrived, Parcel};
use crate::tunnel::{Gate, NotSentHereError, Outward, Stage, Tunnel, error_frame};
use crate::wire::{Class, Head};

/// Frames of one channel that are taken before the next one has its turn.
const TURN: usize = 32;

/// Something that the owner of a link hears of.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum News {
    /// A message came.
    Message {
        /// What it is about, as the owners agree.
        topic: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A channel is over.
    ChannelOver {
        /// Its number.
        number: u32,
        /// Why: of this end, or as the other end says.
        reason: CloseReason,
    },
}

/// What a link carries has been counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames that went.
    pub frames_out: u64,
    /// Frames that came.
    pub frames_in: u64,
    /// Bytes of the socket, encrypted or not, that went.
    pub bytes_out: u64,
    /// Bytes of the socket that came.
    pub bytes_in: u64,
    /// Channels at this moment.
    pub channels: u64,
    /// Frames whose payloads found no room here.
    pub refused: u64,
}

/// What is held for the other end, for those who check.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) transfers: usize,
    pub(crate) message_bytes: usize,
    pub(crate) counts_hold: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    intake: Intake,
    carried: Carried,
}

/// An answer that has to wait.
#[derive(Debug)]
enum Late {
    Plain(u32, Header, Inline),
    Loaded(Arrived),
}

#[derive(Debug)]
struct Carried {
    arena: Arc<Arena>,
    tunnels: HashMap<u32, Tunnel>,
    /// Those whose rings are polled.
    hot: Vec<u32>,
    outgoing: Outgoing,
    /// Transfers that are arriving.
    transfers: HashMap<u64, Parcel>,
    next_transfer: u64,
    /// Transfers that were given up since something came: the system may still be writing to their blocks.
    given_up: Vec<Parcel>,
    /// Answers to calls of which a piece is on its way to the socket: they give its payloads back.
    late: Vec<Late>,
    /// Bytes of pieces that arrived, and of those the other end knows.
    bulk: u64,
    bulk_told: u64,
    /// Bytes of pieces that were moved, either way, since the processor was given up last.
    moved: u64,
    clock: Clock,
    /// The shortest round trip of the network itself, where the system measures it: a ping's has the wake-ups of both ends in
    /// it, of which there are none while a transfer goes on.
    network_ns: Option<u64>,
    /// The clock has learnt something since that was asked.
    ponged: bool,
    news: Vec<News>,
    heard_ns: u64,
    stats: LinkStats,
}

impl Session {
    pub(crate) fn new(arena: Arc<Arena>) -> Self {
        let carried = Carried {
            arena,
            tunnels: HashMap::new(),
            hot: Vec::new(),
            outgoing: Outgoing::new(),
            transfers: HashMap::new(),
            next_transfer: 0,
            given_up: Vec::new(),
            late: Vec::new(),
            bulk: 0,
            bulk_told: 0,
            moved: 0,
            clock: Clock::default(),
            network_ns: None,
            ponged: false,
            news: Vec::new(),
            heard_ns: now_ns(),
            stats: LinkStats::default(),
        };
        Self { intake: Intake::new(), carried }
    }

    pub(crate) fn spaces(&mut self) -> [IoSliceMut<'_>; 2] {
        self.intake.spaces(&mut self.carried)
    }

    pub(crate) fn received(&mut self, bytes: usize) -> Result<(), Ended> {
        self.carried.heard_ns = now_ns();
        self.carried.given_up.clear();
        self.intake.received(bytes, &mut self.carried)?;
        // Nothing that is read is answered by as much, unless the answers are not.
        let unread = self.carried.outgoing.waiting_bytes() > limits::ANSWERS_WAITING_BYTES_MAX;
        if unread { Err(Fault::Unread.into()) } else { Ok(()) }
    }

    pub(crate) fn load(&mut self) -> bool {
        self.carried.outgoing.load()
    }

    pub(crate) fn has_some(&self) -> bool {
        self.carried.outgoing.has_some()
    }

    pub(crate) fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        self.carried.outgoing.slices(out);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        if self.carried.outgoing.has_piece() {
            self.carried.moved += bytes as u64;
        }
        self.carried.outgoing.sent(bytes);
        if !self.carried.late.is_empty() && !self.carried.outgoing.has_piece() {
            self.carried.deliver_late();
        }
    }

    /// Whether so much of a transfer was moved that those whose small frames go beside it should have the processor.
    pub(crate) fn should_give_way(&self) -> bool {
        self.carried.moved >= limits::GIVE_WAY_BYTES && !self.carried.outgoing.is_quiet()
    }

    /// The processor was given up.
    pub(crate) fn gave_way(&mut self) {
        self.carried.moved = 0;
    }

    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.carried.news)
    }

    /// Whether the distance was measured since this was asked last.
    pub(crate) fn was_measured(&mut self) -> bool {
        std::mem::take(&mut self.carried.ponged)
    }

    /// What the system says of the network's round trip.
    pub(crate) fn set_network_ns(&mut self, network_ns: Option<u64>) {
        self.carried.network_ns = network_ns;
    }

    /// Whether the distance was ever measured.
    pub(crate) fn knows_distance(&self) -> bool {
        self.carried.clock.is_set()
    }

    pub(crate) fn distance(&self) -> Distance {
        self.carried.clock.distance()
    }

    pub(crate) fn heard_ns(&self) -> u64 {
        self.carried.heard_ns
    }

    pub(crate) fn stats(&self) -> LinkStats {
        LinkStats { channels: self.carried.tunnels.len() as u64, ..self.carried.stats }
    }

    /// Queues a message for the owner of the other end.
    pub(crate) fn message(&mut self, topic: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        if self.carried.outgoing.message(topic, bytes) { Ok(()) } else { Err(Fault::Unread) }
    }

    pub(crate) fn ping(&mut self) {
        self.carried.outgoing.head(&Head::of_words(Class::Ping, 0, [now_ns()]));
    }

    pub(crate) fn goodbye(&mut self, code: u64) {
        self.carried.outgoing.goodbye(code);
    }

    /// Carries a channel from now on. `first`: this end told the other of it, which has yet to answer. `false`: there are
    /// as many as may be, or one with this number.
    pub(crate) fn add(
        &mut self,
        number: u32,
        opening: Opening,
        role: Role,
        gate: Arc<dyn Gate>,
        first: bool,
    ) -> bool {
        let tunnels = &mut self.carried.tunnels;
        if tunnels.len() >= limits::CHANNELS_MAX || tunnels.contains_key(&number) {
            return false;
        }
        tunnels.insert(number, Tunnel::new(number, opening, role, gate, first));
        true
    }

    /// The socket of a channel's local peer.
    pub(crate) fn socket_of(&self, number: u32) -> Option<BorrowedFd<'_>> {
        match &self.carried.tunnels.get(&number)?.stage {
            Stage::Opening(opening) => opening.as_ref().map(Opening::socket),
            Stage::Open(channel) => Some(channel.socket()),
        }
    }

    /// Something happened to the socket of a channel's local peer.
    pub(crate) fn local_news(&mut self, number: u32) {
        self.carried.local_news(number);
    }

    /// Closes a channel from this end.
    pub(crate) fn close(&mut self, number: u32, reason: CloseReason) {
        self.carried.close(number, reason);
    }

    /// Gives channels up whose local peers have not introduced themselves since a time.
    pub(crate) fn expire(&mut self, before_ns: u64) {
        let late = |tunnel: &&Tunnel| tunnel.channel().is_none() && tunnel.since_ns < before_ns;
        let late: Vec<u32> = self.carried.tunnels.values().filter(late).map(|tunnel| tunnel.number).collect();
        late.into_iter().for_each(|number| self.carried.close(number, CloseReason::PeerGone));
    }

    /// Tells local peers of memory that was given back.
    pub(crate) fn retract_freed(&self) {
        self.carried.tunnels.values().filter_map(Tunnel::channel).for_each(|channel| {
            channel.retract_freed_segments();
        });
    }

    /// Looks at every ring whose peer may have rung.
    pub(crate) fn look_everywhere(&mut self) {
        self.carried.look_everywhere();
    }

    /// Takes what is in the rings that are polled; says whether there was anything.
    pub(crate) fn pump(&mut self) -> bool {
        self.carried.pump()
    }

    /// Asks the local peers to ring, without a fence.
    pub(crate) fn ask(&mut self) {
        self.carried.ask();
    }

    /// After a fence: whether a peer has published something meanwhile. If not, rings are left to be rung for.
    pub(crate) fn may_sleep(&mut self) -> bool {
        self.carried.may_sleep()
    }

    /// Whether a local peer has not taken all that is for it, so that this end must come back soon.
    pub(crate) fn overflowing(&self) -> bool {
        self.carried.tunnels.values().filter_map(Tunnel::channel).any(|channel| channel.overflowing())
    }

    /// What is held for the other end.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn tally(&self) -> Tally {
        let mut tunnels = self.carried.tunnels.values();
        Tally {
            transfers: self.carried.transfers.len(),
            message_bytes: self.intake.message_bytes(),
            counts_hold: tunnels.all(Tunnel::counts_hold),
        }
    }

    /// The link is over: every channel ends.
    pub(crate) fn end(&mut self) {
        for (_, tunnel) in self.carried.tunnels.drain() {
            if let Stage::Open(channel) = tunnel.stage {
                channel.flush();
                channel.close(CloseReason::Local);
            }
        }
        let transfers = self.carried.transfers.drain().map(|(_, parcel)| parcel);
        self.carried.given_up.extend(transfers);
    }
}

impl Carried {
    fn open(&mut self, number: u32) {
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return };
        let Stage::Opening(opening) = &mut tunnel.stage else { return };
        let Some(taken) = opening.take() else { return };
        match taken.finish() {
            Ok(Err(unfinished)) => *opening = Some(unfinished),
            Ok(Ok(channel)) => {
                tunnel.stage = Stage::Open(Arc::new(channel));
                self.heat(number);
                self.credit(number);
                // What came right behind the introduction raises no news of its own.
                self.local_news(number);
            }
            Err(error) => {
                tracing::debug!(number, %error, "a channel over a link was not opened");
                self.close(number, CloseReason::PeerGone);
            }
        }
    }

    fn local_news(&mut self, number: u32) {
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return };
        let Some(channel) = tunnel.channel().cloned() else { return self.open(number) };
        if let Err(reason) = channel.read_socket() {
            if reason.is_violation() {
                return self.close(number, reason);
            }
            if tunnel.ending.is_none() {
                // What it published before it left still counts.
                tunnel.ending = Some((reason, channel.incoming_slots()));
            }
            self.heat(number);
        }
    }

    fn heat(&mut self, number: u32) {
        if let Some(tunnel) = self.tunnels.get_mut(&number)
            && !tunnel.hot
        {
            tunnel.hot = true;
            self.hot.push(number);
            tunnel.watch_ring();
        }
    }

    /// Tells the other end that there is room, if it is time. Where there is none, the ring has to be looked at again.
    fn credit(&mut self, number: u32) {
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return };
        if let Some(count) = tunnel.credit() {
            self.outgoing.head(&Head::of_words(Class::Credit, number, [count]));
        } else if tunnel.channel().is_some_and(|channel| channel.overflowing()) {
            self.heat(number);
        }
    }

    fn close(&mut self, number: u32, reason: CloseReason) {
        self.outgoing.stop_channel(number);
        if self.remove(number, reason) {
            self.outgoing.head(&Head::of_words(Class::Close, number, [reason as u64]));
        }
    }

    fn remove(&mut self, number: u32, reason: CloseReason) -> bool {
        let Some(tunnel) = self.tunnels.remove(&number) else { return false };
        self.hot.retain(|hot| *hot != number);
        let of_channel = self.transfers.extract_if(|_, parcel| parcel.channel == number);
        self.given_up.extend(of_channel.map(|(_, parcel)| parcel));
        if let Stage::Open(channel) = tunnel.stage {
            channel.close(CloseReason::Local);
            channel.end_reading();
        }
        self.news.push(News::ChannelOver { number, reason });
        true
    }

    fn look_everywhere(&mut self) {
        // Whoever rang has answered a request, and not for a frame that is still to be taken: it may have been interrupted
        // behind one that was, and would not ring for the next. Nobody can say who it was, so all are asked anew
        // (`ringway_ipc::ring::Attention`).
        for tunnel in self.tunnels.values().filter(|tunnel| !tunnel.hot) {
            if let Some(mut lead) = tunnel.channel().and_then(|channel| channel.try_lead()) {
                lead.post_request(ATTENTION_WORKER_BELL);
            }
        }
        // Pairs with the fence of whoever publishes, as in front of a sleep.
        fence(Ordering::SeqCst);
        let is_ready = |tunnel: &Tunnel| {
            let lead = tunnel.channel().and_then(|channel| channel.try_lead());
            lead.is_some_and(|lead| lead.ready())
        };
        let resting = self.tunnels.values().filter(|tunnel| !tunnel.hot);
        let found: Vec<u32> = resting.filter(|tunnel| is_ready(tunnel)).map(|tunnel| tunnel.number).collect();
        found.into_iter().for_each(|number| self.heat(number));
    }

    fn pump(&mut self) -> bool {
        let mut worked = false;
        let mut at = 0;
        while let Some(number) = self.hot.get(at).copied() {
            if self.outgoing.waiting_bytes() > limits::WAITING_BYTES_MAX {
                break;
            }
            worked |= self.pump_one(number);
            // It may have ended.
            at += usize::from(self.hot.get(at) == Some(&number));
        }
        worked
    }

    fn pump_one(&mut self, number: u32) -> bool {
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return false };
        let Some(channel) = tunnel.channel().cloned() else { return false };
        let full = channel.overflowing();
        channel.flush();
        // A caller that hears of the end writes to the memory of a piece that is on its way to the socket.
        if tunnel.over && !channel.overflowing() && !self.outgoing.has_piece_of(number) {
            self.remove(number, CloseReason::Goodbye);
            return true;
        }
        let arriving = !self.transfers.is_empty();
        let mut taken = 0;
        let mut broken = None;
        while tunnel.has_credit()
            && let Some((header, inline)) = tunnel.owed.pop_front()
        {
            tunnel.sent += 1;
            taken += 1;
            self.outgoing.disturb(number, header.invocation, arriving);
            self.outgoing.plain(number, &header, &inline);
        }
        if let Some(mut lead) = channel.try_lead() {
            let mut inline = Inline::default();
            let now = now_ns();
            while taken < TURN && tunnel.has_credit() {
                let mut header = match lead.poll(&mut inline) {
                    Ok(Some(header)) => header,
                    Ok(None) => break,
                    Err(reason) => {
                        broken = Some(reason);
                        break;
                    }
                };
                taken += 1;
                match tunnel.outward(&mut header, &mut inline, now) {
                    Outward::Plain => {
                        self.outgoing.disturb(number, header.invocation, arriving);
                        self.outgoing.plain(number, &header, &inline);
                    }
                    Outward::Loaded(cargo) => {
                        self.outgoing.loaded(Queued { channel: number, header, inline, cargo: Some(cargo) });
                    }
                    Outward::Nothing => continue,
                }
                tunnel.sent += 1;
                self.stats.frames_out += 1;
            }
            if let Some((_, left)) = &mut tunnel.ending {
                *left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
            }
        }
        let closed = broken.or_else(|| channel.close_reason().filter(|reason| reason.is_violation()));
        if let Some(reason) = closed {
            self.close(number, reason);
            return true;
        }
        let drained = taken == 0 && tunnel.has_credit();
        if let Some((reason, left)) = tunnel.ending
            && (drained || left == 0)
        {
            // Behind all that it published; payloads of a peer that is gone stay readable for as long as they are held.
            if !self.outgoing.is_sending(number) {
                self.close(number, reason);
                return true;
            }
        }
        self.credit(number);
        taken > 0 || (full && !channel.overflowing())
    }

    fn ask(&mut self) {
        for number in &self.hot {
            let Some(tunnel) = self.tunnels.get(number) else { continue };
            if let Some(mut lead) = tunnel.channel().and_then(|channel| channel.try_lead()) {
                lead.post_request(ATTENTION_WORKER_BELL);
            }
        }
    }

    fn may_sleep(&mut self) -> bool {
        let congested = self.outgoing.waiting_bytes() > limits::WAITING_BYTES_MAX;
        let ready = |tunnel: &Tunnel| {
            let lead = tunnel.channel().and_then(|channel| channel.try_lead());
            // What cannot be sent now goes when there is room, of which the socket tells.
            let some = !tunnel.owed.is_empty() || lead.is_some_and(|lead| lead.ready());
            some && tunnel.has_credit() && !congested
        };
        let waiting = self.hot.iter().filter_map(|number| self.tunnels.get(number)).any(ready);
        if waiting {
            for number in &self.hot {
                let channel = self.tunnels.get(number).and_then(Tunnel::channel);
                if let Some(lead) = channel.and_then(|channel| channel.try_lead()) {
                    lead.stop_bell();
                }
            }
            return false;
        }
        // Those without room stay hot: nobody rings for what is there already.
        let tunnels = &mut self.tunnels;
        self.hot.retain(|number| {
            let Some(tunnel) = tunnels.get_mut(number) else { return false };
            let channel = tunnel.channel();
            let busy = channel.is_some_and(|channel| {
                channel.overflowing() || channel.try_lead().is_some_and(|lead| lead.ready())
            });
            tunnel.hot = busy || tunnel.over || tunnel.ending.is_some() || !tunnel.owed.is_empty();
            tunnel.hot
        });
        true
    }

    /// Tells a caller that its call, or the answer to it, could not be carried.
    fn refuse(&mut self, channel: u32, header: &Header, error: &CallError) -> Result<(), Fault> {
        self.stats.refused += 1;
        let Some(tunnel) = self.tunnels.get(&channel) else { return Ok(()) };
        let kind = Kind::try_from(header.kind);
        match (kind, tunnel.role()) {
            (Ok(Kind::Call), Role::Caller) => self.answer(channel, header.invocation, error),
            (Ok(Kind::Send), Role::Caller) => {
                tracing::warn!(channel, %error, "a send was dropped");
            }
            (Ok(Kind::Reply | Kind::Error), Role::Callee) => {
                let (header, inline) = error_frame(header.invocation, error);
                let _closed_means_ended = tunnel.inward(header, &inline, now_ns());
            }
            // A stream that lacks an item is no stream: with the channel, its calls end and say so.
            _ => self.close(channel, CloseReason::Unread),
        }
        Ok(())
    }

    /// Answers a call of the other end in place of its callee.
    fn answer(&mut self, channel: u32, invocation: u64, error: &CallError) {
        let (header, inline) = error_frame(invocation, error);
        if let Some(tunnel) = self.tunnels.get_mut(&channel) {
            // It has to wait for room like any other frame; while many do, the other end gets no room for calls.
            tunnel.owed.push_back((header, inline));
            self.heat(channel);
        }
    }

    /// Whether an answer may not be delivered yet. It gives the payloads of its call back to a caller who writes something else
    /// there; so what is left of them is not sent, and a piece that is on its way to the socket has to land first.
    fn must_wait(&mut self, channel: u32, header: &Header) -> bool {
        let gives_back = matches!(Kind::try_from(header.kind), Ok(Kind::Reply | Kind::Error));
        gives_back && !self.outgoing.stop_invocation(channel, header.invocation)
    }

    fn wait(&mut self, late: Late) -> Result<(), Fault> {
        self.late.push(late);
        // One call has one answer, and the socket takes a piece soon if it is read.
        if self.late.len() > limits::LATE_MAX { Err(Fault::Unread) } else { Ok(()) }
    }

    fn deliver_late(&mut self) {
        for late in std::mem::take(&mut self.late) {
            match late {
                Late::Plain(channel, header, inline) => self.deliver(channel, header, &inline),
                Late::Loaded(arrived) => {
                    if let Err(fault) = self.deliver_loaded(arrived) {
                        tracing::debug!(%fault, "an answer could not be delivered");
                    }
                }
            }
        }
    }

    /// Puts a frame into the ring of a local peer.
    fn deliver(&mut self, channel: u32, header: Header, inline: &Inline) {
        let Some(tunnel) = self.tunnels.get_mut(&channel) else { return };
        // It may be answered at once, so its ring is looked at until nothing comes.
        tunnel.watch_ring();
        if let Err(reason) = tunnel.inward(header, inline, now_ns()) {
            tracing::trace!(channel, %reason, "a frame came for a channel that is closed");
            self.local_news(channel);
        }
        self.heat(channel);
    }

    /// The same for a frame with payloads, whether they could be kept or not.
    fn deliver_loaded(&mut self, arrived: Arrived) -> Result<(), Fault> {
        let (channel, header) = (arrived.channel, arrived.header);
        if let Some(text) = &arrived.refused {
            self.refuse(channel, &header, &no_room(text))?;
        } else if arrived.kept
            && let Some(tunnel) = self.tunnels.get_mut(&channel)
        {
            if tunnel.has_lent_for(&header) {
                // Two calls with one number: nobody could say whose payloads a reply gives back.
                return Err(Fault::Nonsense);
            }
            tunnel.watch_ring();
            if let Err(error) = tunnel.inward_loaded(arrived, &self.arena, now_ns()) {
                self.refuse(channel, &header, &error)?;
            }
            self.heat(channel);
        }
        self.credit(channel);
        Ok(())
    }

    fn take_credit(&mut self, channel: u32, count: u64) -> Result<(), Fault> {
        let Some(tunnel) = self.tunnels.get_mut(&channel) else {
            // It was closed here while the other end opened it.
            self.outgoing.head(&Head::of_words(Class::Close, channel, [CloseReason::Goodbye as u64]));
            return Ok(());
        };
        if count < tunnel.may_send || count > tunnel.sent.saturating_add(limits::FRAMES_AHEAD) {
            return Err(Fault::Count);
        }
        tunnel.may_send = count;
        self.heat(channel);
        self.credit(channel);
        Ok(())
    }
}

fn no_room(text: &str) -> CallError {
    let text = format!("no room for the payload of a call over a link: {text}");
    CallError::new(ErrorCode::OutOfMemory, text)
}

impl Taker for Carried {
    fn plain(&mut self, channel: u32, header: Header, inline: &Inline) -> Result<(), Fault> {
        self.stats.frames_in += 1;
        self.outgoing.disturb(channel, header.invocation, !self.transfers.is_empty());
        let Some(tunnel) = self.tunnels.get_mut(&channel) else { return Ok(()) };
        if !tunnel.count() {
            return Err(Fault::Frames { channel });
        }
        match tunnel.check_inward(&header) {
            Err(NotSentHereError) => return Err(Fault::Nonsense),
            Ok(Some(error)) => {
                if header.kind == Kind::Call.to_u8() {
                    self.answer(channel, header.invocation, &error);
                }
            }
            Ok(None) if self.must_wait(channel, &header) => {
                self.wait(Late::Plain(channel, header, *inline))?;
            }
            Ok(None) => self.deliver(channel, header, inline),
        }
        self.credit(channel);
        Ok(())
    }

    fn begin(
        &mut self,
        channel: u32,
        header: Header,
        inline: Inline,
        large: bool,
    ) -> Result<Option<Parcel>, Fault> {
        let mut arena = Some(Arc::clone(&self.arena));
        match self.tunnels.get_mut(&channel) {
            None => arena = None,
            Some(tunnel) => {
                if !tunnel.count() {
                    return Err(Fault::Frames { channel });
                }
                match tunnel.check_inward(&header) {
                    Err(NotSentHereError) => return Err(Fault::Nonsense),
                    Ok(Some(error)) => {
                        arena = None;
                        if header.kind == Kind::Call.to_u8() {
                            self.answer(channel, header.invocation, &error);
                        }
                    }
                    Ok(None) => {}
                }
            }
        }
        self.stats.frames_in += 1;
        let keep = arena.is_some();
        let parcel = Parcel::new(channel, header, inline, arena)?;
        if !large {
            return Ok(Some(parcel));
        }
        let number = self.next_transfer;
        self.next_transfer += 1;
        if !keep {
            self.outgoing.head(&Head::of_words(Class::Refused, channel, [number]));
        } else if let Some(text) = parcel.refusal() {
            let text = text.to_owned();
            self.outgoing.head(&Head::of_words(Class::Refused, channel, [number]));
            self.refuse(channel, &header, &no_room(&text))?;
        } else {
            if parcel.is_whole() {
                // Nothing would follow that could end it.
                return Err(Fault::Chunk { transfer: number, bytes: 0 });
            }
            if self.transfers.len() >= limits::TRANSFERS_MAX {
                return Err(Fault::Transfers);
            }
            self.outgoing.remember(channel, header.invocation);
            self.transfers.insert(number, parcel);
        }
        Ok(None)
    }

    fn whole(&mut self, parcel: Parcel) -> Result<(), Fault> {
        let arrived = parcel.into_arrived();
        let (channel, header) = (arrived.channel, arrived.header);
        if self.must_wait(channel, &header) {
            return self.wait(Late::Loaded(arrived));
        }
        self.deliver_loaded(arrived)
    }

    fn chunk(&mut self, transfer: u64, bytes: u64) -> Result<bool, Fault> {
        if transfer >= self.next_transfer {
            return Err(Fault::Chunk { transfer, bytes });
        }
        Ok(self.transfers.contains_key(&transfer))
    }

    fn transfer(&mut self, transfer: u64) -> Option<&mut Parcel> {
        self.transfers.get_mut(&transfer)
    }

    fn arrived(&mut self, transfer: u64, bytes: u64, left: usize) -> Result<bool, Fault> {
        self.bulk += bytes;
        self.moved += bytes;
        let whole = self.transfers.get(&transfer).is_some_and(Parcel::is_whole);
        // The other end waits for no more than the end of a piece, however few of them it lets be under way.
        if left == 0 || self.bulk - self.bulk_told >= limits::ARRIVED_BYTES {
            self.bulk_told = self.bulk;
            self.outgoing.head(&Head::of_words(Class::Arrived, 0, [self.bulk]));
        }
        if whole && let Some(parcel) = self.transfers.remove(&transfer) {
            self.whole(parcel)?;
            return Ok(true);
        }
        // A table may have named more than there is room for.
        if self.transfers.get(&transfer).is_some_and(|parcel| parcel.refusal().is_some())
            && let Some(parcel) = self.transfers.remove(&transfer)
        {
            self.outgoing.head(&Head::of_words(Class::Refused, parcel.channel, [transfer]));
            let text = parcel.refusal().unwrap_or_default().to_owned();
            self.refuse(parcel.channel, &parcel.header, &no_room(&text))?;
        }
        Ok(false)
    }

    fn word(&mut self, head: &Head) -> Result<(), Ended> {
        let [first, second, ..] = head.words;
        match head.class {
            Class::Credit => self.take_credit(head.channel, first)?,
            Class::Arrived => {
                let round_trip_ns = pace::awake_ns(self.clock.distance().round_trip_ns, self.network_ns);
                if !self.outgoing.pace.arrived(first, now_ns(), round_trip_ns) {
                    return Err(Fault::Count.into());
                }
            }
            Class::Abort => drop(self.transfers.remove(&first)),
            Class::Refused => self.outgoing.stop(first),
            Class::Close => {
                self.outgoing.stop_channel(head.channel);
                if let Some(tunnel) = self.tunnels.get_mut(&head.channel) {
                    tunnel.over = true;
                    self.heat(head.channel);
                    self.pump_one(head.channel);
                }
            }
            Class::Ping => self.outgoing.head(&Head::of_words(Class::Pong, 0, [first, now_ns()])),
            Class::Pong => {
                self.clock.add(first, second, now_ns());
                self.ponged = true;
            }
            Class::Goodbye if first == 0 => return Err(Ended::Goodbye),
            Class::Goodbye => return Err(Ended::Accused { code: first }),
            Class::Frame | Class::Large | Class::Chunk | Class::Message => return Err(Fault::Nonsense.into()),
        }
        Ok(())
    }

    fn message(&mut self, topic: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        self.news.push(News::Message { topic, bytes });
        Ok(())
    }
}
