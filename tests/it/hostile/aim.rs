//! What a lying worker says to another worker: frames that mean something to the library above the channel, mostly those
//! of a correct caller or callee, with their bodies, numbers, credits and sizes spoilt now and then. Used by the lying
//! worker. How frames get into the ring, and lies about the ring itself, are the attacker's.

use std::collections::VecDeque;

use ringway::protocol::control::CatalogFunction;
use ringway::protocol::header::{Encoding, Flags, Kind};
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::layout::INLINE_BYTES;
use ringway_tests::victim::{Order, Total};

use super::attacker::Attacker;
use super::choices::Choices;

/// Calls of its own that it remembers, and the victim's that it has not answered.
const REMEMBERED: usize = 48;

/// One side of a conversation.
#[derive(Debug)]
pub(crate) struct Aim {
    functions: Vec<CatalogFunction>,
    /// Numbers of its own calls, the last first.
    open: VecDeque<u64>,
    /// Calls of the victim that wait for an answer.
    asked: VecDeque<Header>,
    next: u64,
    /// Whether it reads what it is sent.
    deaf: bool,
}

impl Aim {
    /// A side that calls these functions.
    pub(crate) fn new(functions: Vec<CatalogFunction>, deaf: bool) -> Self {
        Self { functions, open: VecDeque::new(), asked: VecDeque::new(), next: 0, deaf }
    }

    /// Does one thing as the victim's caller. Returns whether the victim can notice it.
    pub(crate) fn call(&mut self, attacker: &mut Attacker, choices: &mut Choices<'_>) -> bool {
        self.listen(attacker);
        if choices.once_in(10) {
            return self.other(attacker, choices);
        }
        if !attacker.has_room() {
            return false;
        }
        let (header, inline) = self.request(attacker, choices);
        attacker.deliver(&header, &inline)
    }

    /// Does one thing as the victim's callee. Returns whether the victim can notice it.
    pub(crate) fn serve(&mut self, attacker: &mut Attacker, choices: &mut Choices<'_>) -> bool {
        self.listen(attacker);
        self.asked.extend(attacker.take_fresh().into_iter().filter(|seen| seen.kind == Kind::Call.to_u8()));
        self.asked.truncate(REMEMBERED);
        match choices.below(10) {
            0..7 if attacker.has_room() => {
                let Some(asked) = self.asked.front().copied() else { return false };
                let (header, inline) = self.answer(&asked, attacker, choices);
                let last = header.kind == Kind::Reply.to_u8() || header.kind == Kind::Error.to_u8();
                if last {
                    self.asked.pop_front();
                }
                attacker.deliver(&header, &inline)
            }
            // A call that is never answered.
            7 if choices.once_in(8) => self.asked.pop_front().is_some(),
            8 => self.other(attacker, choices),
            _ => false,
        }
    }

    fn listen(&self, attacker: &mut Attacker) {
        if !self.deaf {
            attacker.listen();
        }
    }

    /// What either side may do beside calls and answers.
    fn other(&mut self, attacker: &mut Attacker, choices: &mut Choices<'_>) -> bool {
        match choices.below(4) {
            0 => attacker.announce(choices),
            1 | 2 if attacker.has_room() => attacker.release(choices, false),
            _ => {
                let Some(seen) = attacker.seen_before(choices).filter(|_| choices.once_in(16)) else {
                    return false;
                };
                // About a call that is over, twice, or in the wrong direction: everything a peer may remember.
                let (header, inline) = self.answer(&seen, attacker, choices);
                return attacker.deliver(&header, &inline);
            }
        }
        true
    }

    fn request(&mut self, attacker: &mut Attacker, choices: &mut Choices<'_>) -> (Header, Inline) {
        let open: Vec<u64> = self.open.iter().copied().collect();
        match choices.below(16) {
            0..3 => self.stream_frame(choices.pick(&open).unwrap_or_default(), attacker, choices),
            3 | 4 => {
                let unknown = choices.once_in(8).then(|| choices.awkward());
                let invocation = unknown.or_else(|| choices.pick(&open)).unwrap_or_default();
                (Header { invocation, kind: Kind::Cancel.to_u8(), ..Header::default() }, Inline::default())
            }
            5 if choices.once_in(32) => {
                let kind = choices.pick(&[0, Kind::Reply.to_u8(), Kind::Error.to_u8(), 10, 11, 255]);
                let invocation = choices.pick(&open).unwrap_or_default();
                (Header { invocation, kind: kind.unwrap_or(0), ..Header::default() }, Inline::default())
            }
            _ => self.new_call(attacker, choices),
        }
    }

    fn new_call(&mut self, attacker: &mut Attacker, choices: &mut Choices<'_>) -> (Header, Inline) {
        let again = choices.once_in(64).then(|| self.open.front().copied()).flatten();
        self.next += 1;
        let invocation = again.unwrap_or(self.next);
        let at = usize::try_from(choices.below(self.functions.len() as u64)).unwrap_or_default();
        let function = &self.functions[at];
        let (index, generation) = match choices.below(32) {
            0 => (function.index, function.generation.wrapping_add(1)),
            1 => (low_u32(choices.awkward()), function.generation),
            _ => (function.index, function.generation),
        };
        let deadline_ns = if choices.once_in(8) { choices.awkward() } else { 0 };
        // A send that never ends is never given up either: that one is only called.
        let sends = choices.once_in(6) && !function.id.as_str().ends_with("::never");
        let header = Header {
            invocation,
            kind: if sends { Kind::Send.to_u8() } else { Kind::Call.to_u8() },
            function: index,
            function_generation: generation,
            deadline_ns,
            trace_id: (u128::from(choices.awkward()) << 64 | u128::from(choices.word())).to_le_bytes(),
            span_id: choices.awkward(),
            trace_flags: choices.below(4).to_le_bytes()[0],
            ..Header::default()
        };
        if header.kind == Kind::Call.to_u8() {
            self.open.push_front(invocation);
            self.open.truncate(REMEMBERED);
        }
        let typed = function.type_key.is_some();
        let body = body(typed, &archive(&Order::small(choices.below(1000))), choices);
        fill(header, body, attacker, choices)
    }

    fn stream_frame(
        &self,
        invocation: u64,
        attacker: &mut Attacker,
        choices: &mut Choices<'_>,
    ) -> (Header, Inline) {
        let kind = match choices.below(16) {
            0..9 => Kind::StreamData,
            9 | 10 => Kind::StreamEnd,
            _ => Kind::Credit,
        };
        // Mostly what a reader of half a window gives back.
        let credits = if choices.once_in(16) { low_u32(choices.awkward()) } else { 1 };
        let function = if kind == Kind::Credit { credits } else { 0 };
        let header = Header { invocation, kind: kind.to_u8(), function, ..Header::default() };
        if kind == Kind::StreamData {
            let body = (Encoding::Bytes.to_u8(), choices.word().to_le_bytes().to_vec());
            return fill(header, body, attacker, choices);
        }
        (header, Inline::default())
    }

    fn answer(&self, asked: &Header, attacker: &mut Attacker, choices: &mut Choices<'_>) -> (Header, Inline) {
        match choices.below(8) {
            0 | 1 => self.stream_frame(asked.invocation, attacker, choices),
            2 => {
                let status = low_u32(choices.below(40));
                let header = Header {
                    invocation: asked.invocation,
                    kind: Kind::Error.to_u8(),
                    function: status,
                    ..Header::default()
                };
                let text = r#"{"code":"handler_error","message":"so it says"}"#;
                let body = (Encoding::Json.to_u8(), spoilt(text.as_bytes().to_vec(), choices));
                fill(header, body, attacker, choices)
            }
            _ => {
                let flags = if choices.once_in(4) { Flags::HOLD.bits() } else { 0 };
                let header = Header {
                    invocation: asked.invocation,
                    kind: Kind::Reply.to_u8(),
                    flags,
                    ..Header::default()
                };
                let total = Total { number: 1, sum: 2, name: "a longer name than it had".to_owned() };
                let typed = asked.encoding == Encoding::Rkyv.to_u8();
                fill(header, body(typed, &archive(&total), choices), attacker, choices)
            }
        }
    }
}

fn low_u32(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default()
}

fn archive(
    value: &impl for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rkyv::rancor::Error,
        >,
    >,
) -> Vec<u8> {
    rkyv::to_bytes::<rkyv::rancor::Error>(value).expect("it can be archived").to_vec()
}

/// An encoding and bytes for it, right or not.
fn body(typed: bool, archive: &[u8], choices: &mut Choices<'_>) -> (u8, Vec<u8>) {
    let (encoding, bytes) = match choices.below(8) {
        0..4 if typed => (Encoding::Rkyv, archive.to_vec()),
        0..2 => (Encoding::Json, br#"{"number":7,"name":"order","amounts":[1,2,3]}"#.to_vec()),
        2 => (Encoding::Json, vec![b'['; 150]),
        3 => (Encoding::Msgpack, archive.to_vec()),
        4 => (Encoding::Bytes, Vec::new()),
        _ => (Encoding::Bytes, choices.word().to_le_bytes().to_vec()),
    };
    let encoding = if choices.once_in(16) { choices.word().to_le_bytes()[0] } else { encoding.to_u8() };
    (encoding, spoilt(bytes, choices))
}

/// Changes some bytes of every other body, or its length.
fn spoilt(mut bytes: Vec<u8>, choices: &mut Choices<'_>) -> Vec<u8> {
    if bytes.is_empty() || choices.once_in(2) {
        return bytes;
    }
    for _ in 0..=choices.below(3) {
        let at = usize::try_from(choices.below(bytes.len() as u64)).unwrap_or_default();
        bytes[at] = match choices.below(3) {
            0 => choices.word().to_le_bytes()[0],
            1 => choices.awkward().to_le_bytes()[0],
            _ => bytes[at] ^ 1 << choices.below(8),
        };
    }
    if choices.once_in(8) {
        bytes.truncate(usize::try_from(choices.below(bytes.len() as u64)).unwrap_or_default());
    }
    bytes
}

/// Puts a body into a frame, behind descriptors and before metadata where there are some.
fn fill(
    mut header: Header,
    (encoding, mut bytes): (u8, Vec<u8>),
    attacker: &mut Attacker,
    choices: &mut Choices<'_>,
) -> (Header, Inline) {
    let mut inline = Inline::default();
    let count = if choices.once_in(6) { 1 + choices.below(3) } else { 0 };
    for at in 0..usize::try_from(count).unwrap_or_default() {
        let mut descriptor = attacker.descriptor(choices);
        // One body at most, and metadata that is short, unless it lies.
        if !choices.once_in(32) {
            descriptor.role = u8::from(at == 0 && choices.once_in(2));
        }
        if descriptor.role == 1 {
            header.flags |= Flags::BODY_IN_BLOCK.bits();
        }
        inline.set_descriptor(at, &descriptor);
    }
    let front = usize::try_from(count).unwrap_or_default() * 32;
    if choices.once_in(12) {
        let meta = usize::try_from(choices.below(24)).unwrap_or_default();
        bytes.truncate(INLINE_BYTES - front - meta);
        header.meta_len = u16::try_from(meta).unwrap_or_default();
        bytes.extend((0..meta).map(|_| choices.awkward().to_le_bytes()[0]));
    }
    bytes.truncate(INLINE_BYTES - front);
    inline.bytes_mut()[front..front + bytes.len()].copy_from_slice(&bytes);
    header.encoding = encoding;
    header.attachments = count.to_le_bytes()[0];
    header.inline_len = u16::try_from(front + bytes.len()).unwrap_or_default();
    (header, inline)
}
