//! One end of a channel whose peer lies, and a victim that uses it as the worker library does: it takes frames, resolves
//! payloads, lends its own, sleeps and wakes. Whatever the peer writes between any two of its steps, the victim reads
//! nothing outside its peer's segments, never panics, and a violation closes that channel and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_ipc::channel::{
    Channel, ChannelConfig, CloseReason, KIND_RELEASE, LeaseGuard, OpenError, Opening, Payload, Role,
};
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::{DESCRIPTORS_MAX, Header, Inline};
use ringway_ipc::layout::{ATTENTION_CHANNEL_BELL, ATTENTION_WORKER_BELL};
use ringway_ipc::sys::socket::seqpacket_pair;

use super::attacker::{Attacker, FILL, Identity, Interest};
use super::choices::Choices;

/// What a run has done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) opened: u64,
    pub(crate) refused: u64,
    pub(crate) frames: u64,
    pub(crate) payloads: u64,
    pub(crate) closed: BTreeMap<String, u64>,
}

/// The end of a channel that is lied to.
pub(crate) struct Victim {
    channel: Arc<Channel>,
    arena: Arc<Arena>,
    held: Vec<Payload>,
    position: u64,
}

/// Sets up a channel between a victim and an attacker; `None` when the victim refused it.
pub(crate) fn open(
    role: Role,
    lie_once_in: u64,
    choices: &mut Choices<'_>,
) -> Result<(Victim, Attacker), OpenError> {
    let (here, there) = seqpacket_pair().expect("descriptors for a socket");
    let config = ChannelConfig {
        channel: 5,
        worker: 1,
        peer_worker: 2,
        worker_bell: Doorbell::new().expect("a descriptor for a bell"),
        slot_count: 8,
        segment_bytes_max: 1 << 30,
        barrier_registered: false,
        barrier_before_sleep: false,
    };
    let opening = Opening::start(here, role, config)?;
    let who = Identity { worker: 2, channel: 5, caller: role == Role::Callee };
    let interest = Interest { kinds: (1..=8).collect(), functions: vec![(1, 1), (2, 1)] };
    let attacker = Attacker::open(there, who, interest, lie_once_in, choices);
    match opening.finish()? {
        Ok(channel) => Ok((Victim::new(channel), attacker)),
        Err(_nothing_came) => Err(OpenError::Introduction),
    }
}

impl Victim {
    fn new(channel: Channel) -> Self {
        let arena = Arena::new(ArenaConfig::default());
        Self { channel: Arc::new(channel), arena, held: Vec::new(), position: 0 }
    }

    /// Does one thing that the worker library does with a channel.
    pub(crate) fn step(&mut self, choices: &mut Choices<'_>, tally: &mut Tally) -> Option<CloseReason> {
        tally.steps += 1;
        match choices.below(16) {
            0..6 => self.take(tally),
            6 => self.send(choices),
            7 => self.lend(choices),
            8 => {
                let _may_be_closed = self.channel.send_or_keep(&frame(choices), &Inline::default());
                self.channel.flush();
            }
            9 => drop(self.held.pop()),
            10 | 11 => {
                let _reason = self.channel.read_socket();
            }
            12 => self.sleep(choices),
            13 => {
                let _either = self.channel.was_consumed(self.position);
                let stats = self.channel.stats();
                assert!(stats.segments_in <= 4096);
            }
            14 => self.channel.retract_freed_segments(),
            _ => {
                let _unknown = self.channel.end_lease(choices.word().to_le_bytes()[0].into());
            }
        }
        self.channel.close_reason()
    }

    fn take(&mut self, tally: &mut Tally) {
        let mut inline = Inline::default();
        let polled = self.channel.try_lead().expect("one thread reads").poll(&mut inline);
        let Ok(Some(header)) = polled else { return };
        tally.frames += 1;
        assert!(header.check(), "{header:?} was let through");
        if header.kind == KIND_RELEASE {
            let _may_lie = self.channel.take_release(&header, &inline);
            return;
        }
        let count = usize::from(header.attachments);
        assert!(count <= DESCRIPTORS_MAX);
        let descriptors: Vec<_> = (0..count).map(|at| inline.descriptor(at)).collect();
        let leases = descriptors.iter().map(|descriptor| descriptor.lease).collect();
        let guard = LeaseGuard::new(&self.channel, leases);
        for descriptor in descriptors {
            let Ok(payload) = self.channel.resolve(&descriptor, &guard) else { return };
            tally.payloads += 1;
            assert_eq!(payload.len(), descriptor.len);
            look_at(&payload);
            if self.held.len() < 16 {
                self.held.push(payload);
            }
        }
    }

    fn send(&mut self, choices: &mut Choices<'_>) {
        if let Ok(position) = self.channel.send(&frame(choices), &Inline::default()) {
            self.position = position;
        }
    }

    fn lend(&mut self, choices: &mut Choices<'_>) {
        let payload = match self.held.last() {
            Some(held) if choices.once_in(4) => held.clone(),
            _ => {
                let Ok(loan) = self.arena.loan(300, 64) else { return };
                loan.freeze().into()
            }
        };
        let Ok(descriptor) = self.channel.lend(payload) else { return };
        let mut inline = Inline::default();
        inline.set_descriptor(0, &descriptor);
        let header = Header { kind: 1, inline_len: 32, attachments: 1, ..frame(choices) };
        if self.channel.send(&header, &inline).is_err() {
            // A false release may have ended it, or the channel closed.
            let _ended = self.channel.end_lease(descriptor.lease);
        }
    }

    fn sleep(&self, choices: &mut Choices<'_>) {
        let mut lead = self.channel.try_lead().expect("one thread reads");
        let bell = choices.pick(&[ATTENTION_CHANNEL_BELL, ATTENTION_WORKER_BELL]).unwrap_or_default();
        if lead.ask_for_bell(bell) {
            let _rung = self.channel.own_bell().wait(Duration::ZERO);
        }
        lead.stop_bell();
    }

    /// Ends the channel from this side.
    #[cfg_attr(not(fuzzing), expect(dead_code, reason = "a fuzzer's input ends before its channel does"))]
    pub(crate) fn close(&self, reason: CloseReason) -> CloseReason {
        self.channel.close(reason);
        reason
    }

    /// After the end nothing of the victim's own is lent, and what it holds of its peer is still readable.
    pub(crate) fn over(mut self, reason: CloseReason, tally: &mut Tally) {
        *tally.closed.entry(reason.to_string()).or_default() += 1;
        self.held.iter().filter(|payload| payload.is_foreign()).for_each(look_at);
        assert_eq!(self.channel.stats().leases, 0, "{reason}");
        self.held.clear();
        assert_eq!(self.arena.stats().live_blocks, 0, "{reason}");
        assert!(self.channel.send(&Header::default(), &Inline::default()).is_err());
    }
}

fn frame(choices: &mut Choices<'_>) -> Header {
    Header { invocation: choices.below(64), kind: 3, ..Header::default() }
}

/// Reads a payload at both ends. Every byte of every segment of the attacker is the same.
fn look_at(payload: &Payload) {
    assert!(payload.is_foreign());
    let mut copy = vec![0; usize::try_from(payload.len()).expect("it lies in memory")];
    payload.copy_to(&mut copy);
    assert!(copy.iter().all(|byte| *byte == FILL), "read outside the peer's segments");
}
