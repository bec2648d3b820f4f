//! What waits for the socket and in which order it goes: small frames first, then one piece of one transfer, round and
//! round. Used by [`crate::session`]. It must not know channels, nor how bytes are written.
//!
//! Bytes go in flights: what was put together at one moment, and stays where it is until the socket has taken it, so that a
//! system call may read it while more is being queued.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use ringway_ipc::channel::Payload;
use ringway_ipc::clock::now_ns;
use ringway_ipc::frame::{Header, Inline};

use crate::limits;
use crate::pace::Pace;
use crate::wire::{Class, HEAD_BYTES, Head};

/// Invocations with transfers that are remembered.
const RECENT: usize = 8;

/// Payloads that are sent; they go back to their owner when the last of them is dropped.
pub(crate) type Cargo = Vec<Payload>;

/// A frame whose payloads go in pieces.
#[derive(Debug)]
struct Transfer {
    number: u64,
    channel: u32,
    invocation: u64,
    cargo: Cargo,
    /// The payload that is being sent, and how much of it has been.
    at: usize,
    sent: u64,
    left: u64,
    /// Frames of the same invocation: they must not overtake it.
    behind: VecDeque<Queued>,
}

/// A frame to be sent.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) channel: u32,
    pub(crate) header: Header,
    pub(crate) inline: Inline,
    pub(crate) cargo: Option<Cargo>,
}

/// A piece of a transfer on its way to the socket.
#[derive(Debug)]
struct Piece {
    channel: u32,
    invocation: u64,
    head: [u8; HEAD_BYTES],
    parts: Vec<(Payload, Range<usize>)>,
}

/// Bytes that the socket is taking.
#[derive(Debug, Default)]
struct Flight {
    small: Vec<u8>,
    piece: Option<Piece>,
    bytes: usize,
    sent: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outgoing {
    small: Vec<u8>,
    /// Messages with their topics, the first sent as far as it says.
    messages: VecDeque<(u64, Vec<u8>)>,
    message_sent: usize,
    message_bytes: usize,
    transfers: VecDeque<Transfer>,
    next_transfer: u64,
    /// The last that is said, behind all messages: a code.
    goodbye: Option<u64>,
    /// When a small frame came or went last, while transfers were under way.
    small_ns: u64,
    /// The last invocations with transfers, either way, whose small frames disturb nobody.
    recent: VecDeque<(u32, u64)>,
    flight: Flight,
    pub(crate) pace: Pace,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            small: Vec::new(),
            messages: VecDeque::new(),
            message_sent: 0,
            message_bytes: 0,
            transfers: VecDeque::new(),
            next_transfer: 0,
            goodbye: None,
            small_ns: 0,
            recent: VecDeque::with_capacity(RECENT),
            flight: Flight::default(),
            pace: Pace::new(),
        }
    }

    /// Bytes of frames that wait, transfers left out.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.small.len() + self.flight.small.len()
    }

    /// Queues a head that is all there is.
    pub(crate) fn head(&mut self, head: &Head) {
        self.small.extend_from_slice(&head.to_bytes());
    }

    /// Queues the last head, which goes when all messages have gone. Transfers are given up.
    pub(crate) fn goodbye(&mut self, code: u64) {
        self.transfers.clear();
        self.goodbye = Some(code);
    }

    /// Queues a message for the owner of the other end. `false`: so much waits already that the other end cannot be reading.
    pub(crate) fn message(&mut self, topic: u64, bytes: Vec<u8>) -> bool {
        self.message_bytes += bytes.len();
        self.messages.push_back((topic, bytes));
        self.message_bytes <= limits::MESSAGES_WAITING_BYTES_MAX
    }

    /// Puts the next piece of a message behind what is small.
    fn load_message(&mut self) {
        let Some((topic, bytes)) = self.messages.front() else { return };
        let rest = &bytes[self.message_sent..];
        let piece = &rest[..rest.len().min(limits::MESSAGE_PIECE_BYTES)];
        let behind = rest.len() - piece.len();
        let head = Head::of_words(Class::Message, 0, [piece.len() as u64, *topic, behind as u64]);
        self.small.extend_from_slice(&head.to_bytes());
        self.small.extend_from_slice(piece);
        self.message_sent += piece.len();
        if behind == 0 {
            self.message_sent = 0;
            self.message_bytes -= self.messages.pop_front().map_or(0, |(_, bytes)| bytes.len());
        }
    }

    /// Whether no small frame has come or gone for a while.
    pub(crate) fn is_quiet(&self) -> bool {
        now_ns().saturating_sub(self.small_ns) > limits::QUIET_NS
    }

    /// A small frame comes or goes; `arriving`: while a transfer is.
    #[inline]
    pub(crate) fn disturb(&mut self, channel: u32, invocation: u64, arriving: bool) {
        // Without transfers there is nothing to keep small, and no clock is read.
        let transfers = arriving || !self.transfers.is_empty();
        if transfers && !self.recent.contains(&(channel, invocation)) {
            self.small_ns = now_ns();
        }
    }

    /// A transfer of an invocation begins, here or at the other end.
    pub(crate) fn remember(&mut self, channel: u32, invocation: u64) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((channel, invocation));
    }

    /// Queues a frame without payloads.
    #[inline]
    pub(crate) fn plain(&mut self, channel: u32, header: &Header, inline: &Inline) {
        if !self.transfers.is_empty()
            && let Some(transfer) = self.of_invocation(channel, header.invocation)
        {
            transfer.behind.push_back(Queued { channel, header: *header, inline: *inline, cargo: None });
            return;
        }
        self.frame(Class::Frame, channel, header, inline);
    }

    fn frame(&mut self, class: Class, channel: u32, header: &Header, inline: &Inline) {
        self.head(&Head::of_frame(class, channel, header));
        self.small.extend_from_slice(&inline.bytes()[..usize::from(header.inline_len)]);
    }

    fn of_invocation(&mut self, channel: u32, invocation: u64) -> Option<&mut Transfer> {
        self.transfers.iter_mut().find(|known| (known.channel, known.invocation) == (channel, invocation))
    }

    /// Queues a frame with payloads: small ones are copied and given back at once, others become a transfer.
    pub(crate) fn loaded(&mut self, queued: Queued) {
        if let Some(transfer) = self.of_invocation(queued.channel, queued.header.invocation) {
            transfer.behind.push_back(queued);
            return;
        }
        let Queued { channel, header, inline, cargo } = queued;
        let Some(cargo) = cargo else { return self.frame(Class::Frame, channel, &header, &inline) };
        let left = cargo.iter().map(Payload::len).sum();
        if left <= limits::COPIED_BYTES_MAX {
            self.frame(Class::Frame, channel, &header, &inline);
            for payload in &cargo {
                let start = self.small.len();
                self.small.resize(start + usize::try_from(payload.len()).unwrap_or(0), 0);
                payload.copy_to(&mut self.small[start..]);
            }
            return;
        }
        self.frame(Class::Large, channel, &header, &inline);
        let number = self.next_transfer;
        self.next_transfer += 1;
        let invocation = header.invocation;
        self.remember(channel, invocation);
        let behind = VecDeque::new();
        self.transfers.push_back(Transfer {
            number,
            channel,
            invocation,
            cargo,
            at: 0,
            sent: 0,
            left,
            behind,
        });
    }

    /// Sends no more of a transfer; what waited behind it goes on. The other end has said so, so it is not told.
    pub(crate) fn stop(&mut self, number: u64) {
        if let Some(at) = self.transfers.iter().position(|transfer| transfer.number == number) {
            self.end(at);
        }
    }

    /// Sends no more of an invocation's transfer, since it has been answered: its payloads go back to their owner, who writes
    /// something else there. Says whether none of them is being read; otherwise a piece has to land first.
    pub(crate) fn stop_invocation(&mut self, channel: u32, invocation: u64) -> bool {
        let is_of = |known: &Transfer| (known.channel, known.invocation) == (channel, invocation);
        if let Some(at) = self.transfers.iter().position(is_of) {
            self.head(&Head::of_words(Class::Abort, channel, [self.transfers[at].number]));
            self.end(at);
        }
        let piece = self.flight.piece.as_ref();
        piece.is_none_or(|piece| (piece.channel, piece.invocation) != (channel, invocation))
    }

    /// Whether a piece of a transfer is on its way to the socket.
    pub(crate) fn has_piece(&self) -> bool {
        self.flight.piece.is_some()
    }

    /// The same for pieces of one channel.
    pub(crate) fn has_piece_of(&self, channel: u32) -> bool {
        self.flight.piece.as_ref().is_some_and(|piece| piece.channel == channel)
    }

    /// Whether a transfer of a channel is not done.
    pub(crate) fn is_sending(&self, channel: u32) -> bool {
        self.transfers.iter().any(|transfer| transfer.channel == channel)
    }

    /// Sends no more of a channel's transfers and forgets what waits behind them.
    pub(crate) fn stop_channel(&mut self, channel: u32) {
        while let Some(at) = self.transfers.iter().position(|transfer| transfer.channel == channel) {
            let Some(transfer) = self.transfers.remove(at) else { return };
            self.head(&Head::of_words(Class::Abort, channel, [transfer.number]));
        }
    }

    fn end(&mut self, at: usize) {
        let behind = self.transfers.remove(at).map(|transfer| transfer.behind).unwrap_or_default();
        for queued in behind {
            // The first large one of them becomes a transfer, and what follows waits behind that.
            self.loaded_or_plain(queued);
        }
    }

    fn loaded_or_plain(&mut self, queued: Queued) {
        if queued.cargo.is_some() {
            self.loaded(queued);
        } else {
            self.plain(queued.channel, &queued.header, &queued.inline);
        }
    }

    /// Puts the next flight together if the last one has landed; says whether there is anything to write.
    pub(crate) fn load(&mut self) -> bool {
        if self.flight.sent < self.flight.bytes {
            return true;
        }
        self.flight.piece = None;
        self.flight.small.clear();
        self.load_message();
        if self.messages.is_empty()
            && let Some(code) = self.goodbye.take()
        {
            self.head(&Head::of_words(Class::Goodbye, 0, [code]));
        }
        std::mem::swap(&mut self.flight.small, &mut self.small);
        let quiet = !self.transfers.is_empty() && self.is_quiet();
        if let Some(transfer) = self.transfers.front_mut()
            && let bytes = transfer.next_bytes(quiet)
            && self.pace.admits(bytes, quiet)
        {
            self.flight.piece = Some(transfer.cut(bytes));
            self.pace.sent(bytes);
            if transfer.left == 0 {
                // What waits behind it goes with the next flight. The payloads are held by the piece until it has landed.
                self.end(0);
            } else {
                self.transfers.rotate_left(1);
            }
        }
        let piece = self.flight.piece.as_ref();
        let piece =
            piece.map_or(0, |piece| HEAD_BYTES + piece.parts.iter().map(|part| part.1.len()).sum::<usize>());
        self.flight.bytes = self.flight.small.len() + piece;
        self.flight.sent = 0;
        self.flight.bytes > 0
    }

    /// Whether something could be written now.
    pub(crate) fn has_some(&self) -> bool {
        self.flight.sent < self.flight.bytes
            || !self.small.is_empty()
            || !self.messages.is_empty()
            || self.goodbye.is_some()
            || self.transfers.front().is_some_and(|transfer| {
                let quiet = self.is_quiet();
                self.pace.admits(transfer.next_bytes(quiet), quiet)
            })
    }

    /// What is left of the flight, in order.
    pub(crate) fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        let mut skip = self.flight.sent;
        let mut push = |bytes: &'a [u8]| {
            let from = skip.min(bytes.len());
            skip -= from;
            if from < bytes.len() {
                out.push(IoSlice::new(&bytes[from..]));
            }
        };
        push(&self.flight.small);
        if let Some(piece) = &self.flight.piece {
            push(&piece.head);
            for (payload, range) in &piece.parts {
                push(&payload[range.clone()]);
            }
        }
    }

    /// Notes that the socket has taken so many bytes of the flight.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.flight.sent += bytes;
        if self.flight.sent >= self.flight.bytes {
            // Payloads go back as soon as they have been read.
            self.flight.piece = None;
        }
    }
}

impl Transfer {
    /// How many bytes its next piece has.
    fn next_bytes(&self, quiet: bool) -> u64 {
        let chunk = if quiet { limits::CHUNK_BYTES_MAX } else { limits::CHUNK_BYTES };
        self.left.min(chunk as u64)
    }

    /// Cuts the next piece off; `bytes` is at most what is left.
    fn cut(&mut self, bytes: u64) -> Piece {
        let head = Head::of_words(Class::Chunk, self.channel, [self.number, bytes]).to_bytes();
        let mut parts = Vec::with_capacity(1);
        let mut wanted = bytes;
        while wanted > 0 {
            let Some(payload) = self.cargo.get(self.at) else { break };
            let count = wanted.min(payload.len() - self.sent);
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            if count > 0 {
                parts.push((payload.clone(), place(self.sent)..place(self.sent + count)));
            }
            self.sent += count;
            wanted -= count;
            if self.sent == payload.len() {
                self.at += 1;
                self.sent = 0;
            }
        }
        self.left -= bytes;
        Piece { channel: self.channel, invocation: self.invocation, head, parts }
    }
}
