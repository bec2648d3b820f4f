//! A peer that lies. It holds one end of a channel and knows the layout, not the library: it writes its own segment word
//! by word and its socket message by message, mostly as a correct peer would, so that the lies between find the victim in
//! every state. Used by the tests beside it and by fuzz targets. It must not know what its victim is.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::{Descriptor, Header, Inline};
use ringway_ipc::layout::{self, Facts, INLINE_BYTES};
use ringway_ipc::ring::{Consumer, EndMemory};
use ringway_ipc::segment::{Segment, SegmentView};
use ringway_ipc::sys::{event, socket};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::choices::Choices;

/// Every byte of every segment that the attacker announces, so that a victim that reads beside one is seen.
pub(crate) const FILL: u8 = 0xa5;

/// Slots of the attacker's ring: few, so that it wraps all the time.
const SLOTS: u32 = 8;

/// Who the attacker says it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) worker: u64,
    pub(crate) channel: u64,
    /// Whether it holds the caller's end.
    pub(crate) caller: bool,
}

/// What its frames are about, beside what it has read from the victim.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interest {
    /// Frame kinds that a correct peer at this end sends.
    pub(crate) kinds: Vec<u8>,
    /// Functions of the victim with their generations.
    pub(crate) functions: Vec<(u32, u16)>,
}

/// One end of a channel in bad hands.
pub(crate) struct Attacker {
    socket: OwnedFd,
    own: EndMemory,
    next: u64,
    interest: Interest,
    /// One step in so many is a lie; 0 for none.
    pub(crate) lie_once_in: u64,
    /// Whether it acts while its victim does. Then it fills bells but does not make them block: a counter that is filled
    /// between a victim's question and its ring is the one delay that a peer can still cause (`sys::event::eventfd_add`).
    pub(crate) concurrent: bool,
    victim: Option<Victim>,
    segments: Vec<(u32, u64)>,
    next_key: u32,
    seen: VecDeque<Header>,
    fresh: Vec<Header>,
    leases: Vec<u32>,
    hung_up: bool,
}

/// What the victim has handed over.
struct Victim {
    memory: EndMemory,
    frames: Consumer,
    bells: Vec<Doorbell>,
}

impl Attacker {
    /// Takes an end of a peer socket and introduces itself, truthfully or, where `choices` say so, not.
    pub(crate) fn open(
        socket: OwnedFd,
        who: Identity,
        interest: Interest,
        lie_once_in: u64,
        choices: &mut Choices<'_>,
    ) -> Self {
        let bytes = layout::end_bytes(SLOTS).next_multiple_of(4096);
        let segment =
            Segment::create("ringway-hostile", bytes, Default::default()).expect("memory for a ring");
        let facts = Facts { slot_count: SLOTS, flags: 0, owner: who.worker, channel: who.channel };
        let own = EndMemory::create(Arc::clone(&segment), facts).expect("the facts are sound");
        let bell = Doorbell::new().expect("a descriptor for a bell");
        let attacker = Self {
            socket,
            own,
            next: 0,
            interest,
            lie_once_in,
            concurrent: false,
            victim: None,
            segments: Vec::new(),
            next_key: 0,
            seen: VecDeque::new(),
            fresh: Vec::new(),
            leases: Vec::new(),
            hung_up: false,
        };
        let fd = segment.fd().expect("a memfd has a descriptor");
        if attacker.lies(choices) {
            attacker.introduce_falsely(choices, fd, &bell);
        } else {
            let fds = [fd, bell.as_fd(), bell.as_fd()];
            attacker.say(1, 0, &fds[..if who.caller { 3 } else { 2 }]);
        }
        attacker
    }

    fn introduce_falsely(&self, choices: &mut Choices<'_>, segment: BorrowedFd<'_>, bell: &Doorbell) {
        let page = self.own.own_page().expect("made here");
        let (short, unsealed, nothing) =
            (memfd(4096, true), memfd(12_288, false), event::eventfd().expect("a descriptor"));
        let mut fds = vec![segment, bell.as_fd(), bell.as_fd()];
        match choices.below(8) {
            0..3 => {
                let word = choices.pick(&[0usize, 1, 2, 3, 4]).unwrap_or_default();
                page.facts[word].store(choices.awkward(), Ordering::Relaxed);
            }
            3 => fds[0] = short.as_fd(),
            4 => fds[0] = unsealed.as_fd(),
            5 => fds[0] = nothing.as_fd(),
            6 => fds[1] = short.as_fd(),
            _ => {}
        }
        fds.truncate(usize::try_from(choices.below(4)).unwrap_or_default());
        if choices.once_in(4) { self.babble(choices) } else { self.say(1, 0, &fds) }
    }

    pub(crate) fn lies(&self, choices: &mut Choices<'_>) -> bool {
        self.lie_once_in != 0 && choices.once_in(self.lie_once_in)
    }

    /// Sends a message of the peer socket. A full socket or a victim that hung up is the victim's right.
    fn say(&self, kind: u32, value: u32, fds: &[BorrowedFd<'_>]) {
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(4).zip([kind, layout::LAYOUT_VERSION, value]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let _refused = socket::send(&self.socket, &[IoSlice::new(&bytes)], fds);
    }

    /// Says that it closes the channel, as a correct peer does before it hangs up.
    pub(crate) fn leave(&mut self) {
        // What is left unread would reset the socket, and the goodbye be lost.
        self.listen();
        self.say(4, 2, &[]);
        socket::hang_up(&self.socket);
    }

    /// Sends what is no message.
    fn babble(&self, choices: &mut Choices<'_>) {
        let mut bytes = [0u8; 64];
        for place in bytes.chunks_exact_mut(4) {
            place.copy_from_slice(&choices.awkward().to_le_bytes()[..4]);
        }
        if choices.once_in(2) {
            bytes[4..8].copy_from_slice(&layout::LAYOUT_VERSION.to_le_bytes());
        }
        let len = choices.pick(&[0usize, 1, 31, 32, 32, 32, 33, 64]).unwrap_or_default();
        let fd = memfd(4096, choices.once_in(2));
        let fds = vec![fd.as_fd(); choices.pick(&[0usize, 0, 1, 2, 8]).unwrap_or_default()];
        let _refused = socket::send(&self.socket, &[IoSlice::new(&bytes[..len])], &fds);
    }

    /// Reads what the victim has said and published, as a correct peer would.
    pub(crate) fn listen(&mut self) {
        let (mut bytes, mut fds) = ([0; 64], Vec::new());
        while let Ok(received) = socket::receive(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut fds) {
            if received.bytes == 0 || bytes[0] == 4 {
                self.hung_up = true;
                break;
            }
            if bytes[0] == 1 && self.victim.is_none() {
                self.meet(std::mem::take(&mut fds));
            }
            fds.clear();
        }
        let Some(victim) = &mut self.victim else { return };
        let mut inline = Inline::default();
        while let Ok(Some(header)) = victim.frames.poll(&mut inline) {
            let descriptors = usize::from(header.attachments).min(6);
            self.leases.extend((0..descriptors).map(|at| inline.descriptor(at).lease));
            self.leases.truncate(64);
            self.seen.push_front(header);
            self.seen.truncate(32);
            self.fresh.push(header);
            self.fresh.truncate(256);
        }
    }

    fn meet(&mut self, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let view = fds.next().and_then(|fd| SegmentView::map(fd, 1 << 30).ok());
        let Some((memory, _)) = view.and_then(|view| EndMemory::map(view).ok()) else { return };
        let bells = fds.map(Doorbell::from_fd).collect();
        self.victim = Some(Victim { frames: Consumer::new(self.own.clone(), memory.clone()), memory, bells });
    }

    /// Does one thing, mostly an honest one.
    pub(crate) fn act(&mut self, choices: &mut Choices<'_>) {
        if self.lies(choices) {
            return self.lie(choices);
        }
        match choices.below(10) {
            0..6 if self.has_room() => {
                let (header, inline) = self.frame(choices);
                self.publish(&header, &inline);
            }
            6 => self.announce(choices),
            7 if self.has_room() => self.release(choices, false),
            _ => self.listen(),
        }
    }

    /// Whether the victim has closed the channel.
    pub(crate) fn hung_up(&self) -> bool {
        self.hung_up
    }

    /// Frames of the victim that nobody has asked for yet, the oldest first.
    pub(crate) fn take_fresh(&mut self) -> Vec<Header> {
        std::mem::take(&mut self.fresh)
    }

    /// One of the last frames of the victim.
    pub(crate) fn seen_before(&self, choices: &mut Choices<'_>) -> Option<Header> {
        let seen: Vec<Header> = self.seen.iter().copied().collect();
        choices.pick(&seen)
    }

    /// Wakes the victim, as a correct peer does where it is asked to.
    pub(crate) fn ring(&self) {
        if let Some(bell) = self.victim.as_ref().and_then(|victim| victim.bells.first()) {
            bell.notify();
        }
    }

    /// Publishes a frame if there is room for it, and says whether there was.
    pub(crate) fn deliver(&mut self, header: &Header, inline: &Inline) -> bool {
        let room = self.has_room();
        if room {
            self.publish(header, inline);
        }
        room
    }

    pub(crate) fn has_room(&self) -> bool {
        let taken = self.victim.as_ref().map_or(0, |victim| victim.memory.consumed());
        self.next.wrapping_sub(taken) < u64::from(SLOTS)
    }

    /// Publishes a frame, whether or not there is room for it.
    fn publish(&mut self, header: &Header, inline: &Inline) {
        let slot = self.own.own_slot(self.next).expect("made here");
        for (place, word) in slot.header.iter().zip(header.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
        for (place, word) in slot.inline.iter().zip(inline.words()) {
            place.store(*word, Ordering::Relaxed);
        }
        slot.stamp.store(self.next + 1, Ordering::Release);
        self.next += 1;
    }

    /// A frame that a correct peer might send, as far as one can tell without keeping count.
    fn frame(&mut self, choices: &mut Choices<'_>) -> (Header, Inline) {
        let seen: Vec<Header> = self.seen.iter().copied().collect();
        let (function, function_generation) = choices.pick(&self.interest.functions).unwrap_or((0, 1));
        let mut header = Header {
            invocation: choices.pick(&seen).map_or_else(|| choices.below(64), |seen| seen.invocation),
            kind: choices.pick(&self.interest.kinds).unwrap_or(1),
            function,
            function_generation,
            encoding: choices.below(7).to_le_bytes()[0],
            trace_flags: choices.below(2).to_le_bytes()[0],
            ..Header::default()
        };
        let mut inline = Inline::default();
        let mut front = 0;
        if !self.segments.is_empty() && choices.once_in(3) {
            let count = 1 + choices.below(5);
            for at in 0..usize::try_from(count).unwrap_or_default() {
                let descriptor = self.descriptor(choices);
                if descriptor.role == 1 {
                    header.flags |= 8;
                }
                inline.set_descriptor(at, &descriptor);
            }
            header.attachments = count.to_le_bytes()[0];
            front = usize::from(header.attachments) * 32;
        }
        let room = (INLINE_BYTES - front) as u64;
        let body = usize::try_from(choices.below(room + 1)).unwrap_or_default();
        for byte in &mut inline.bytes_mut()[front..front + body] {
            *byte = b"{\"a\":1}\x04"[usize::from(choices.below(8).to_le_bytes()[0])];
        }
        header.inline_len = u16::try_from(front + body).unwrap_or_default();
        header.meta_len = u16::try_from(choices.below(body as u64 / 4 + 1)).unwrap_or_default();
        (header, inline)
    }

    pub(crate) fn descriptor(&mut self, choices: &mut Choices<'_>) -> Descriptor {
        let (segment, bytes) = choices.pick(&self.segments).unwrap_or((0, 4096));
        let offset = choices.below(bytes) & !63;
        let role = choices.pick(&[0u8, 0, 0, 1, 2]).unwrap_or_default();
        Descriptor {
            segment,
            lease: choices.awkward().to_le_bytes()[0].into(),
            offset,
            len: choices.below(bytes - offset + 1),
            align_log2: 6,
            role,
            ..Descriptor::default()
        }
    }

    pub(crate) fn announce(&mut self, choices: &mut Choices<'_>) {
        if self.segments.len() < 4 {
            let bytes = 4096 * (1 + choices.below(3));
            let fd = memfd(bytes, true);
            self.say(2, self.next_key, &[fd.as_fd()]);
            self.segments.push((self.next_key, bytes));
            self.next_key += 1;
        } else {
            let (key, _) = self.segments.remove(0);
            self.say(3, key, &[]);
        }
    }

    pub(crate) fn release(&mut self, choices: &mut Choices<'_>, falsely: bool) {
        let lease = if falsely {
            Some(choices.word().to_le_bytes())
        } else {
            self.leases.pop().map(|id| u64::from(id).to_le_bytes())
        };
        let Some(lease) = lease else { return };
        let mut inline = Inline::default();
        inline.bytes_mut()[..4].copy_from_slice(&lease[..4]);
        self.publish(&Header { kind: 9, inline_len: 4, ..Header::default() }, &inline);
    }

    /// Does what no correct peer does.
    pub(crate) fn lie(&mut self, choices: &mut Choices<'_>) {
        let page = self.own.own_page().expect("made here");
        match choices.below(16) {
            0 => page.consumed.word.store(choices.awkward(), Ordering::Release),
            1 => {
                let step = choices.below(5).wrapping_sub(2);
                page.consumed.word.fetch_add(step, Ordering::Release);
            }
            2 => page.attention.word.store(choices.awkward(), Ordering::Relaxed),
            3 => page.facts[usize::from(choices.below(16).to_le_bytes()[0])]
                .store(choices.awkward(), Ordering::Relaxed),
            4 => {
                let slot = self.own.own_slot(choices.below(SLOTS.into())).expect("made here");
                slot.stamp.store(choices.awkward(), Ordering::Release);
            }
            5 => {
                let slot = self.own.own_slot(self.next.wrapping_sub(choices.below(2))).expect("made here");
                slot.stamp
                    .store(self.next.wrapping_add(choices.below(16)).wrapping_sub(8), Ordering::Release);
            }
            6 => {
                let slot = self.own.own_slot(choices.below(SLOTS.into())).expect("made here");
                let at = usize::from(choices.below(7).to_le_bytes()[0]);
                slot.header[at].store(choices.awkward(), Ordering::Relaxed);
            }
            7 => {
                let slot = self.own.own_slot(choices.below(SLOTS.into())).expect("made here");
                let at = usize::from(choices.below(24).to_le_bytes()[0]);
                slot.inline[at].store(choices.awkward(), Ordering::Relaxed);
            }
            8 | 9 => self.spoilt_frame(choices),
            10 => self.spoilt_descriptor(choices),
            11 => self.release(choices, true),
            12 => self.babble(choices),
            13 => self.wrong_segment(choices),
            14 => self.steal_bells(choices),
            _ => match choices.below(8) {
                0 => self.say(4, choices.awkward().to_le_bytes()[0].into(), &[]),
                1 => self.say(3, choices.below(16).to_le_bytes()[0].into(), &[]),
                2 => self.say(1, 0, &[]),
                // Everything said before once more: replies that were given, leases that were returned.
                _ => {
                    self.next = self.next.wrapping_add(choices.below(3));
                    let (header, inline) = self.frame(choices);
                    self.publish(&header, &inline);
                    self.publish(&header, &inline);
                }
            },
        }
    }

    fn spoilt_frame(&mut self, choices: &mut Choices<'_>) {
        let (header, inline) = self.frame(choices);
        let mut words = header.to_words();
        for _ in 0..=choices.below(3) {
            let word = usize::from(choices.below(7).to_le_bytes()[0]);
            // Mostly the last two words, where kinds, sizes and flags are.
            let word = if choices.once_in(4) { word } else { 5 + word % 2 };
            words[word] ^= 1 << choices.below(64);
        }
        self.publish(&Header::from_words(&words), &inline);
    }

    fn spoilt_descriptor(&mut self, choices: &mut Choices<'_>) {
        let mut words = self.descriptor(choices).to_words();
        let word = usize::from(choices.below(4).to_le_bytes()[0]);
        words[word] =
            if choices.once_in(2) { choices.awkward() } else { words[word] ^ 1 << choices.below(64) };
        let mut inline = Inline::default();
        inline.set_descriptor(0, &Descriptor::from_words(&words));
        let (mut header, _) = self.frame(choices);
        (header.attachments, header.inline_len, header.meta_len) = (1, 32, 0);
        self.publish(&header, &inline);
    }

    fn wrong_segment(&mut self, choices: &mut Choices<'_>) {
        let fd = match choices.below(5) {
            0 => memfd(4096, false),
            1 => memfd(100, true),
            2 => memfd(0, true),
            3 => event::eventfd().expect("a descriptor"),
            _ => memfd(4096, true),
        };
        let key = if choices.once_in(2) { self.next_key.wrapping_sub(1) } else { self.next_key };
        self.say(2, key, &[fd.as_fd()]);
    }

    /// The victim's bells are shared: whoever has one may empty it, fill it, or make it block.
    fn steal_bells(&self, choices: &mut Choices<'_>) {
        let Some(victim) = &self.victim else { return };
        for bell in &victim.bells {
            match choices.below(3) {
                0 => {
                    let _stolen = bell.clear();
                }
                1 => {
                    // Not to block itself on what it has made block before.
                    let _refused = rustix::fs::fcntl_setfl(bell, OFlags::NONBLOCK);
                    let _full = rustix::io::write(bell, &(u64::MAX - 1).to_ne_bytes());
                }
                _ if self.concurrent => {}
                _ => {
                    let _refused = rustix::fs::fcntl_setfl(bell, OFlags::empty());
                }
            }
        }
        let _refused = rustix::fs::fcntl_setfl(&self.socket, OFlags::NONBLOCK);
    }
}

/// A memfd full of [`FILL`], sealed as a segment must be or not at all.
fn memfd(bytes: u64, sealed: bool) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("ringway-hostile", flags).expect("a descriptor");
    let mut file = std::fs::File::from(fd);
    file.write_all(&vec![FILL; usize::try_from(bytes).unwrap_or_default()]).expect("memory for some pages");
    if sealed {
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).expect("it allows sealing");
    }
    file.into()
}
