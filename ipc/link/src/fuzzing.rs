//! A session without a socket whose other end, local peers and owner do what some bytes say: for the fuzz target
//! `link_frames`, and for a test beside it with bytes drawn at random. It must not know drivers.
//!
//! Whatever comes, nothing panics, counts stay within what was granted, and when all is over nobody holds a block.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_ipc::channel::{Channel, ChannelConfig, CloseReason, KIND_RELEASE, LeaseGuard, Opening, Role};
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::{DESCRIPTOR_BYTES, DESCRIPTORS_MAX, Descriptor, Header, Inline};
use ringway_ipc::sys::socket::seqpacket_pair;
use ringway_protocol::header::{Flags, Kind};
use ringway_protocol::{CallError, ErrorCode};

use crate::fault::Ended;
use crate::limits;
use crate::session::{Session, Tally};
use crate::tunnel::{Gate, Open};
use crate::wire::{Class, HEAD_BYTES, Head};

/// Bytes of payloads that may be held at a time.
const ARENA_BYTES_MAX: u64 = 8 << 20;
/// Bytes of the socket in one run, so that none takes long.
const SAID_BYTES_MAX: usize = 4 << 20;

/// Numbers that tell one case from the next, for counts and lengths.
const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    3,
    5,
    31,
    32,
    64,
    192,
    255,
    256,
    257,
    1000,
    4096,
    16 << 10,
    (16 << 10) + 1,
    64 << 10,
    (64 << 10) + 1,
    128 << 10,
    (128 << 10) + 1,
    1 << 20,
    64 << 20,
    1 << 40,
    u64::MAX,
];

/// The channels of the stand, and one that is none.
const CHANNELS: [u32; 4] = [2, 3, 5, 9];

/// Bytes that say what to do next; zeroes when they have run out.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    fn number(&mut self) -> u64 {
        NUMBERS[self.below(NUMBERS.len())]
    }

    fn channel(&mut self) -> u32 {
        CHANNELS[self.below(CHANNELS.len())]
    }
}

/// Refuses functions with an odd number.
#[derive(Debug)]
struct Even;

impl Gate for Even {
    fn check(&self, header: &Header) -> Result<(), CallError> {
        if header.function.is_multiple_of(2) {
            Ok(())
        } else {
            Err(CallError::new(ErrorCode::Forbidden, "odd"))
        }
    }
}

/// A local peer, which keeps to the rules.
struct Local {
    channel: Arc<Channel>,
    role: Role,
    arena: Arc<Arena>,
    /// Calls that it has taken, with what holds their payloads.
    calls: Vec<(u64, Arc<LeaseGuard>)>,
    /// What it lent with calls that are not answered.
    lent: Vec<(u64, Vec<u32>)>,
    next: u64,
}

struct Stand {
    session: Session,
    arena: Arc<Arena>,
    locals: Vec<Local>,
    split: usize,
    said: usize,
}

fn end(number: u32, worker: u64, peer_worker: u64, bell: &Doorbell) -> ChannelConfig {
    ChannelConfig {
        channel: u64::from(number),
        worker,
        peer_worker,
        worker_bell: bell.clone(),
        slot_count: 8,
        segment_bytes_max: 1 << 30,
        barrier_registered: false,
        barrier_before_sleep: false,
    }
}

/// Opens both ends of a channel in one thread: the first is the session's.
fn open(
    session: &mut Session,
    number: u32,
    role: Role,
    gate: Arc<dyn Gate>,
    bell: &Doorbell,
) -> Option<Channel> {
    let (ours, theirs): (OwnedFd, OwnedFd) = seqpacket_pair().ok()?;
    let opposite = if role == Role::Caller { Role::Callee } else { Role::Caller };
    let tunnel = Opening::start(ours, role, end(number, 2, 1, bell)).ok()?;
    assert!(session.add(number, tunnel, role, gate, false), "the numbers differ");
    let local = Opening::start(theirs, opposite, end(number, 1, 2, bell)).ok()?;
    session.local_news(number);
    let opened = local.finish().ok()?.ok();
    session.local_news(number);
    opened
}

impl Stand {
    /// None where the system has no more descriptors.
    fn new() -> Option<Self> {
        let arena = Arena::new(ArenaConfig { bytes_max: ARENA_BYTES_MAX, ..ArenaConfig::default() });
        let mut session = Session::new(Arc::clone(&arena));
        let bell = Doorbell::new().ok()?;
        let mut locals = Vec::new();
        for (number, role, gate) in [
            (CHANNELS[0], Role::Callee, Arc::new(Open) as Arc<dyn Gate>),
            (CHANNELS[1], Role::Caller, Arc::new(Open)),
            (CHANNELS[2], Role::Caller, Arc::new(Even)),
        ] {
            let channel = Arc::new(open(&mut session, number, role, gate, &bell)?);
            let role = channel.role();
            let arena = Arena::new(ArenaConfig { bytes_max: 4 << 20, ..ArenaConfig::default() });
            locals.push(Local { channel, role, arena, calls: Vec::new(), lent: Vec::new(), next: 0 });
        }
        Some(Self { session, arena, locals, split: usize::MAX, said: 0 })
    }

    /// Has bytes come from the socket, as many at a time as was said.
    fn come(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        self.said += bytes.len();
        while !bytes.is_empty() {
            let mut spaces = self.session.spaces();
            let room: usize = spaces.iter().map(|space| space.len()).sum();
            assert!(room > 0, "there is always a place for what comes");
            let (now, then) = bytes.split_at(bytes.len().min(room).min(self.split));
            let (first, second) = now.split_at(now.len().min(spaces[0].len()));
            spaces[0][..first.len()].copy_from_slice(first);
            spaces[1][..second.len()].copy_from_slice(second);
            self.session.received(now.len())?;
            bytes = then;
        }
        Ok(())
    }

    /// Says something that is sound in form, more often than not.
    fn say(&mut self, choices: &mut Choices<'_>) -> Result<(), Ended> {
        let class = [
            Class::Frame,
            Class::Frame,
            Class::Large,
            Class::Large,
            Class::Chunk,
            Class::Chunk,
            Class::Chunk,
            Class::Abort,
            Class::Refused,
            Class::Credit,
            Class::Credit,
            Class::Arrived,
            Class::Message,
            Class::Close,
            Class::Ping,
            Class::Pong,
        ];
        let class = class[choices.below(class.len())];
        let channel = choices.channel();
        let mut bytes = Vec::new();
        let mut behind = 0;
        if matches!(class, Class::Frame | Class::Large) {
            let shape = choices.byte();
            let attachments = shape % 4;
            let table = shape & 4 != 0;
            let (body, sound) = (usize::from(shape >> 4), shape & 8 == 0);
            let mut inline = Inline::default();
            for at in 0..usize::from(attachments).min(DESCRIPTORS_MAX) {
                let len = if table { choices.number().min(64) * 32 } else { choices.number() };
                behind += usize::try_from(len).unwrap_or(usize::MAX).min(SAID_BYTES_MAX);
                let align_log2 = choices.byte();
                let descriptor =
                    Descriptor { len, align_log2, role: choices.byte(), ..Descriptor::default() };
                inline.set_descriptor(at, &descriptor);
            }
            let inline_len = usize::from(attachments) * DESCRIPTOR_BYTES + body;
            let kind = [Kind::Call, Kind::Reply, Kind::Send, Kind::StreamData, Kind::Cancel, Kind::Error];
            let header = Header {
                invocation: u64::from(choices.byte() % 8),
                kind: kind[choices.below(kind.len())].to_u8(),
                function: u32::from(choices.byte() % 4),
                attachments,
                inline_len: if sound {
                    u16::try_from(inline_len).unwrap_or(0)
                } else {
                    choices.byte().into()
                },
                flags: if table {
                    Flags::DESCRIPTORS_IN_BLOCK.bits()
                } else {
                    u16::from(choices.byte() % 128)
                },
                ..Header::default()
            };
            bytes.extend(Head::of_frame(class, channel, &header).to_bytes());
            bytes.extend_from_slice(&inline.bytes()[..inline_len.min(192)]);
            if table {
                let entries = behind / DESCRIPTOR_BYTES;
                for _ in 0..entries {
                    let entry = Descriptor { len: choices.number(), ..Descriptor::default() };
                    bytes.extend(entry.to_words().into_iter().flat_map(u64::to_le_bytes));
                    behind += usize::try_from(entry.len).unwrap_or(usize::MAX).min(SAID_BYTES_MAX);
                }
                behind -= entries * DESCRIPTOR_BYTES;
            }
            if class == Class::Large {
                behind = 0;
            }
        } else {
            let words = match class {
                Class::Chunk => [u64::from(choices.byte() % 8), choices.number(), 0],
                Class::Message => [choices.number(), u64::from(choices.byte()), choices.number()],
                _ => [choices.number(), choices.number(), choices.number()],
            };
            behind = match class {
                Class::Chunk => usize::try_from(words[1]).unwrap_or(usize::MAX),
                Class::Message => usize::try_from(words[0]).unwrap_or(usize::MAX),
                _ => 0,
            };
            bytes.extend(Head::of_words(class, channel, words).to_bytes());
        }
        // What is announced to be behind comes, for the most part.
        let behind = behind.min(SAID_BYTES_MAX.saturating_sub(self.said));
        let cut = if choices.byte() < 32 { choices.below(behind + 1) } else { 0 };
        bytes.resize(bytes.len() + behind - cut, choices.byte());
        debug_assert!(bytes.len() >= HEAD_BYTES);
        // So often that it cannot have been granted, if it was not taken meanwhile.
        if bytes.len() < 4 * HEAD_BYTES && choices.byte() >= 240 {
            bytes = bytes.repeat(300);
        }
        self.come(&bytes)
    }

    /// The owner of the session does something.
    fn own(&mut self, choices: &mut Choices<'_>) -> Result<(), Ended> {
        let number = choices.channel();
        match choices.below(6) {
            0 => self.session.close(number, CloseReason::Local),
            1 => self.session.ping(),
            2 => {
                let bytes = vec![1; usize::try_from(choices.number().min(200_000)).unwrap_or(0)];
                self.session.message(u64::from(choices.byte()), bytes)?;
            }
            3 => self.session.local_news(number),
            4 => self.session.look_everywhere(),
            _ => {
                self.session.ask();
                self.session.may_sleep();
            }
        }
        Ok(())
    }

    /// The socket takes some bytes.
    fn go(&mut self, choices: &mut Choices<'_>) {
        while self.session.pump() {}
        let most = usize::try_from(choices.number()).unwrap_or(usize::MAX);
        let mut left = most.min(1 << 20);
        while left > 0 && self.session.load() {
            let mut slices: Vec<IoSlice<'_>> = Vec::new();
            self.session.slices(&mut slices);
            let some: usize = slices.iter().map(|slice| slice.len()).sum();
            // Read, as a system call would.
            let sum: u64 = slices.iter().flat_map(|slice| slice.iter()).map(|byte| u64::from(*byte)).sum();
            assert!(some > 0 && sum < u64::MAX, "what is loaded can be written");
            let taken = some.min(left);
            self.session.sent(taken);
            left -= taken;
        }
    }

    fn check(&self) {
        let stats = self.arena.stats();
        assert!(stats.held_bytes <= ARENA_BYTES_MAX, "{stats:?}");
        let tally: Tally = self.session.tally();
        assert!(tally.transfers <= limits::TRANSFERS_MAX);
        assert!(tally.message_bytes as u64 <= limits::MESSAGE_BYTES_MAX);
        assert!(tally.counts_hold, "a channel has more frames than were granted");
    }
}

impl Local {
    fn act(&mut self, choices: &mut Choices<'_>) {
        match choices.below(4) {
            0 | 1 => self.take(),
            2 if self.role == Role::Caller => self.call(choices),
            2 => self.answer(choices),
            _ if choices.byte() == 0 => {
                self.channel.close(CloseReason::Local);
            }
            _ => self.stream(choices),
        }
    }

    fn take(&mut self) {
        let mut inline = Inline::default();
        loop {
            let found = self.channel.try_lead().map(|mut lead| lead.poll(&mut inline));
            let Some(Ok(Some(header))) = found else { return };
            if header.kind == KIND_RELEASE {
                let _closed_if_refused = self.channel.take_release(&header, &inline);
                continue;
            }
            assert!(header.check(), "what a tunnel publishes is sound");
            let count = usize::from(header.attachments).min(DESCRIPTORS_MAX);
            let places: Vec<Descriptor> = (0..count).map(|at| inline.descriptor(at)).collect();
            let leases = places.iter().map(|place| place.lease).collect();
            let guard = LeaseGuard::new(&self.channel, leases);
            for place in &places {
                // A closed channel gives nothing.
                if let Ok(payload) = self.channel.resolve(place, &guard) {
                    assert_eq!(payload.len(), place.len, "a tunnel lends what it says");
                }
            }
            if header.kind == Kind::Call.to_u8() {
                self.calls.push((header.invocation, guard));
            } else if let Some(at) = self.lent.iter().position(|(call, _)| *call == header.invocation)
                && matches!(Kind::try_from(header.kind), Ok(Kind::Reply | Kind::Error))
            {
                let (_, leases) = self.lent.remove(at);
                self.take_back(leases);
            }
        }
    }

    fn lend(&self, header: Header, len: u64) -> Option<(Header, Inline, Vec<u32>)> {
        let mut inline = Inline::default();
        if len == 0 {
            return Some((header, inline, Vec::new()));
        }
        let loan = self.arena.loan(usize::try_from(len.min(300_000)).unwrap_or(0), 64).ok()?;
        let descriptor = self.channel.lend(loan.freeze().into()).ok()?;
        inline.set_descriptor(0, &descriptor);
        let inline_len = u16::try_from(DESCRIPTOR_BYTES).unwrap_or(0);
        Some((Header { attachments: 1, inline_len, ..header }, inline, vec![descriptor.lease]))
    }

    fn take_back(&self, leases: Vec<u32>) {
        for lease in leases {
            let _closed_if_refused = self.channel.end_lease(lease);
        }
    }

    fn call(&mut self, choices: &mut Choices<'_>) {
        self.next += 1;
        // Few numbers, so that answers of the other end have some to hit.
        let invocation = self.next % 8;
        if self.lent.iter().any(|(known, _)| *known == invocation) {
            return;
        }
        let header = Header { invocation, kind: Kind::Call.to_u8(), ..Header::default() };
        if let Some((header, inline, leases)) = self.lend(header, choices.number()) {
            if self.channel.send(&header, &inline).is_ok() {
                self.lent.push((invocation, leases));
            } else {
                self.take_back(leases);
            }
        }
    }

    fn answer(&mut self, choices: &mut Choices<'_>) {
        if self.calls.is_empty() {
            return;
        }
        let (invocation, guard) = self.calls.swap_remove(0);
        let hold = choices.byte().is_multiple_of(4);
        let flags = if hold { Flags::HOLD.bits() } else { 0 };
        let header = Header { invocation, kind: Kind::Reply.to_u8(), flags, ..Header::default() };
        let Some((header, inline, leases)) = self.lend(header, choices.number()) else { return };
        if self.channel.send(&header, &inline).is_ok() {
            if !hold {
                guard.disarm();
            }
        } else {
            self.take_back(leases);
        }
    }

    fn stream(&mut self, choices: &mut Choices<'_>) {
        let kind = [Kind::StreamData, Kind::StreamEnd, Kind::Credit][choices.below(3)];
        let invocation = u64::from(choices.byte() % 8);
        let header = Header { invocation, kind: kind.to_u8(), function: 1, ..Header::default() };
        if let Some((header, inline, leases)) = self.lend(header, choices.number())
            && self.channel.send(&header, &inline).is_err()
        {
            self.take_back(leases);
        }
    }
}

/// Does what the bytes say until they or the link are over.
///
/// # Panics
/// Something holds that must not, or does not that must.
pub fn digest(data: &[u8]) {
    let mut choices = Choices(data);
    let Some(mut stand) = Stand::new() else { return };
    let mut over = false;
    while !over && !choices.0.is_empty() && stand.said < SAID_BYTES_MAX {
        let step = match choices.below(16) {
            0..6 => stand.say(&mut choices),
            6 | 7 => {
                let count = choices.below(96);
                stand.come(choices.take(count))
            }
            8 => {
                stand.split = usize::try_from(choices.number()).unwrap_or(usize::MAX).max(1);
                Ok(())
            }
            9 => stand.own(&mut choices),
            10 | 11 => {
                stand.go(&mut choices);
                Ok(())
            }
            _ => {
                let at = choices.below(stand.locals.len());
                stand.locals[at].act(&mut choices);
                Ok(())
            }
        };
        over = step.is_err();
        if !over {
            stand.check();
        }
    }
    let Stand { mut session, arena, locals, .. } = stand;
    session.end();
    drop(session);
    for local in locals {
        let Local { channel, arena, calls, .. } = local;
        drop(calls);
        channel.close(CloseReason::Local);
        channel.end_reading();
        drop(channel);
        assert_eq!(arena.stats().live_blocks, 0, "a local peer has its blocks back");
    }
    assert_eq!(arena.stats().live_blocks, 0, "a link that is over holds no block");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_leave_nothing_behind(data in prop::collection::vec(any::<u8>(), 0..600)) {
            digest(&data);
        }
    }

    /// What the fuzzer has found worth keeping goes deeper than bytes drawn at random.
    #[test]
    fn the_corpus_leaves_nothing_behind() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/link_frames");
        let files = std::fs::read_dir(folder).unwrap();
        let inputs = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        assert!(inputs.inspect(|input| digest(input)).count() > 20);
    }

    #[test]
    fn heads_by_themselves_leave_nothing_behind() {
        // Raw heads: each step of `6` takes a head's bytes as they are.
        for class in 1..=13u8 {
            for words in NUMBERS {
                let mut head = Head::of_words(Class::Ping, 3, [words, words, words]).to_bytes();
                head[3] = class;
                let step = [&[6, 64][..], &head].concat();
                digest(&step.repeat(3));
            }
        }
    }
}
