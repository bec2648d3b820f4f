//! What a channel promises, through a link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_ipc::channel::{CloseReason, SendError};
use ringway_ipc::clock::now_ns;
use ringway_ipc::frame::{Descriptor, Header, Inline};
use ringway_link::News;
use ringway_link::driver::{DriverConfig, Path};
use ringway_link::tunnel::Gate;
use ringway_link::wire::Class;
use ringway_protocol::header::{Flags, Kind as Frame};
use ringway_protocol::{CallError, ErrorCode};

use super::bed::{Heard, KINDS, PATIENCE, Pair, Peer, config};
use super::raw::{Raw, quiet};

const PATHS: [Path; 2] = [Path::Epoll, Path::Uring];

/// Longer than anybody stays awake without news.
const SLEEPS: Duration = Duration::from_millis(20);

fn call(invocation: u64) -> Header {
    Header { invocation, kind: Frame::Call.to_u8(), ..Header::default() }
}

fn reply(invocation: u64) -> Header {
    Header { invocation, kind: Frame::Reply.to_u8(), ..Header::default() }
}

fn echo(callee: &Peer) -> u64 {
    let (header, inline) = callee.take();
    let header = Header { kind: Frame::Reply.to_u8(), deadline_ns: 0, ..header };
    callee.send(&header, &inline);
    header.invocation
}

#[test]
fn frames_go_both_ways_as_they_were_written() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        let mut inline = Inline::default();
        inline.bytes_mut()[..100].copy_from_slice(&[7; 100]);
        let header = Header {
            trace_id: [3; 16],
            span_id: 99,
            function: 5,
            function_generation: 6,
            trace_flags: 1,
            inline_len: 100,
            encoding: 2,
            meta_len: 30,
            deadline_ns: now_ns() + 5_000_000_000,
            ..call(77)
        };
        caller.send(&header, &inline);
        let (found, area) = callee.take();
        assert_eq!(Header { deadline_ns: 0, ..found }, Header { deadline_ns: 0, ..header }, "{kind:?}");
        assert!(
            found.deadline_ns >= header.deadline_ns && found.deadline_ns < header.deadline_ns + 1_000_000_000
        );
        assert_eq!(area.bytes()[..100], inline.bytes()[..100]);
        for invocation in 0..1000 {
            caller.send(&call(invocation), &inline);
            assert_eq!(echo(&callee), invocation);
            assert_eq!(caller.take().0.invocation, invocation);
        }
    }
}

#[test]
fn payloads_of_all_sizes_arrive_and_go_back() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        for len in [0, 1, 1000, 16 << 10, (16 << 10) + 1, 128 << 10, 5_000_001] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let leases = caller.lend(call(5), vec![caller.block(&bytes), caller.block(b"second")]);
            let (header, inline) = callee.take();
            assert_eq!(inline.descriptor(0).dtype, 7);
            let (payloads, guard) = callee.payloads(&header, &inline);
            assert_eq!(payloads[0][..], bytes[..], "{kind:?} {len}");
            assert_eq!(payloads[1][..], *b"second");
            drop(payloads);
            // The reply returns the request's payloads, at both ends.
            guard.disarm();
            callee.lend(reply(5), vec![callee.block(&bytes)]);
            let (header, inline) = caller.take();
            leases.iter().for_each(|lease| caller.channel.end_lease(*lease).unwrap());
            let (payloads, _guard) = caller.payloads(&header, &inline);
            assert_eq!(payloads[0][..], bytes[..]);
            drop(payloads);
            caller.until_all_is_back();
            callee.until_all_is_back();
        }
        let held = || pair.near.driver.arena_bytes().1 + pair.far.driver.arena_bytes().1;
        let until = Instant::now() + PATIENCE;
        while held() > 0 {
            assert!(Instant::now() < until, "{kind:?}: {} bytes are still held", held());
        }
    }
}

/// Whoever reads a payload hears nothing of the end of its channel until it looks: what it reads must stay as it is.
#[test]
fn what_is_being_read_outlives_its_channel_and_stays_as_it_is() {
    const LEN: usize = 700_000;
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        caller.lend(call(5), vec![caller.block(&[1; LEN])]);
        let (header, inline) = callee.take();
        let (request, _callee_reads) = callee.payloads(&header, &inline);
        callee.lend(Header { flags: Flags::HOLD.bits(), ..reply(5) }, vec![callee.block(&[2; LEN])]);
        let (header, inline) = caller.take();
        let (answer, _caller_reads) = caller.payloads(&header, &inline);
        let is_whole =
            |bytes: &[u8], byte: u8| bytes.len() == LEN && bytes.iter().all(|found| *found == byte);
        assert!(is_whole(&request[0], 1) && is_whole(&answer[0], 2));
        pair.near.link.close_channel(1, CloseReason::PeerGone);
        pair.far.link.close_channel(1, CloseReason::PeerGone);
        let until = Instant::now() + PATIENCE;
        while caller.channel.read_socket().is_ok() || callee.channel.read_socket().is_ok() {
            assert!(Instant::now() < until, "{kind:?}: the channel is open");
        }
        let told = pair.far.heard.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(told, Heard::News(News::ChannelOver { number: 1, .. })), "{told:?}");
        // Other calls bring as much, and would be given the same memory.
        let (caller, callee) = pair.channel(2);
        for invocation in 0..4 {
            caller.lend(call(invocation), vec![caller.block(&[3; LEN])]);
            let (header, inline) = callee.take();
            let (_, guard) = callee.payloads(&header, &inline);
            guard.disarm();
            callee.lend(reply(invocation), vec![callee.block(&[4; LEN])]);
            let (header, inline) = caller.take();
            drop(caller.payloads(&header, &inline));
        }
        assert!(is_whole(&request[0], 1), "{kind:?}: the request was written over while it was read");
        assert!(is_whole(&answer[0], 2), "{kind:?}: the answer was written over while it was read");
    }
}

#[test]
fn a_reply_that_holds_leaves_the_payloads_to_releases() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        caller.lend(call(5), vec![caller.block(&[9; 300_000])]);
        let (header, inline) = callee.take();
        let (payloads, guard) = callee.payloads(&header, &inline);
        callee.send(&Header { flags: Flags::HOLD.bits(), ..reply(5) }, &Inline::default());
        let (header, _) = caller.take();
        assert_eq!(header.flags, 0, "what the far side holds is no matter of this one");
        assert!(payloads[0].iter().all(|byte| *byte == 9));
        assert!(pair.far.driver.arena_bytes().1 > 0);
        drop((payloads, guard));
        let until = Instant::now() + PATIENCE;
        while pair.far.driver.arena_bytes().1 > 0 {
            assert!(Instant::now() < until);
        }
    }
}

#[test]
fn descriptors_may_lie_in_a_table() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        for each in [10, 30_000] {
            let lent: Vec<Descriptor> =
                (0..20u8).map(|at| caller.channel.lend(caller.block(&vec![at; each])).unwrap()).collect();
            let table: Vec<u8> =
                lent.iter().flat_map(Descriptor::to_words).flat_map(u64::to_le_bytes).collect();
            let mut inline = Inline::default();
            inline.set_descriptor(
                0,
                &Descriptor { role: 3, ..caller.channel.lend(caller.block(&table)).unwrap() },
            );
            let flags = Flags::DESCRIPTORS_IN_BLOCK.bits();
            let send = Header { kind: Frame::Send.to_u8(), attachments: 1, inline_len: 32, flags, ..call(1) };
            caller.send(&send, &inline);
            let (header, inline) = callee.take();
            assert_eq!((header.attachments, header.flags), (1, flags));
            let (table, guard) = callee.payloads(&header, &inline);
            let found: Vec<Descriptor> = table[0]
                .chunks_exact(32)
                .map(|entry| {
                    let word = |at: usize| u64::from_le_bytes(entry[at * 8..at * 8 + 8].try_into().unwrap());
                    Descriptor::from_words(&[word(0), word(1), word(2), word(3)])
                })
                .collect();
            let (payloads, parts) = callee.resolve(&found);
            assert!(
                payloads
                    .iter()
                    .zip(0..)
                    .all(|(part, at)| part.iter().all(|byte| *byte == at) && part.len() == each as u64)
            );
            drop((table, guard, payloads, parts));
            caller.until_all_is_back();
        }
    }
}

#[test]
fn small_frames_pass_large_ones_but_not_of_their_own_invocation() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        caller.lend(call(1), vec![caller.block(&vec![1; 64 << 20])]);
        for at in 0..5 {
            let item = Header { kind: Frame::StreamData.to_u8(), function: at, ..call(1) };
            caller.send(&item, &Inline::default());
        }
        caller.send(&call(2), &Inline::default());
        let order: Vec<(u64, u8, u32)> = (0..7)
            .map(|_| callee.take().0)
            .map(|header| (header.invocation, header.kind, header.function))
            .collect();
        let item = Frame::StreamData.to_u8();
        let call = Frame::Call.to_u8();
        assert_eq!(order[..2], [(2, call, 0), (1, call, 0)], "{kind:?}");
        assert_eq!(order[2..], [0, 1, 2, 3, 4].map(|at| (1, item, at)), "{kind:?}");
    }
}

#[test]
fn a_callee_that_does_not_read_holds_up_its_caller_and_nobody_else() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        let (other_caller, other_callee) = pair.channel(2);
        let until = Instant::now() + PATIENCE;
        let mut sent = 0;
        let mut full_since = None;
        // Full for a while: the way is full, and not merely busy.
        while full_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(300)) {
            assert!(Instant::now() < until && sent < 10_000, "{kind:?}: {sent}");
            match caller.channel.send(&call(sent), &Inline::default()) {
                Ok(_) => (sent, full_since) = (sent + 1, None),
                Err(SendError::Full) => {
                    full_since = full_since.or_else(|| Some(Instant::now()));
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
        other_caller.send(&call(9), &Inline::default());
        assert_eq!(echo(&other_callee), 9, "{kind:?}");
        for invocation in 0..sent {
            assert_eq!(callee.take().0.invocation, invocation, "{kind:?}");
        }
        caller.send(&call(sent), &Inline::default());
        assert_eq!(echo(&callee), sent);
    }
}

/// A peer is interrupted after it has published a frame, before it looks whether to ring. The link takes the frame, asks for
/// its bell and sleeps; the late ring answers that request, and nobody has come. The next frame must ring again.
#[test]
fn a_late_ring_for_a_frame_that_was_taken_leaves_the_next_frame_its_own() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(7);
        for invocation in 0..3 {
            caller.send(&call(invocation), &Inline::default());
            assert_eq!(echo(&callee), invocation, "{kind:?}");
            assert_eq!(caller.take().0.invocation, invocation, "{kind:?}");
            // Whoever took them sleeps by now, wakes for nothing, and sleeps again.
            std::thread::sleep(SLEEPS);
            caller.channel.ring_if_asked();
            callee.channel.ring_if_asked();
            std::thread::sleep(SLEEPS);
        }
    }
}

#[test]
fn what_was_published_before_the_end_arrives() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        let send = Header { kind: Frame::Send.to_u8(), ..call(0) };
        caller.lend(send, vec![caller.block(&[3; 1_000_000])]);
        for invocation in 1..40 {
            caller.send(&Header { invocation, ..send }, &Inline::default());
        }
        caller.channel.close(CloseReason::Local);
        let mut seen: Vec<u64> = (0..40).map(|_| callee.take().0.invocation).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<_>>(), "{kind:?}");
        callee.until_closed();
        let over = pair.near.heard.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(over, Heard::News(News::ChannelOver { number: 1, .. })), "{over:?}");
    }
}

#[test]
fn the_end_of_a_link_is_the_end_of_its_channels() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        caller.send(&call(1), &Inline::default());
        callee.take();
        pair.far.link.close();
        callee.until_closed();
        caller.until_closed();
        let over = |heard: &std::sync::mpsc::Receiver<Heard>| loop {
            if let Heard::Over(why) = heard.recv_timeout(PATIENCE).unwrap() {
                return why;
            }
        };
        assert_eq!(over(&pair.far.heard), "closed here");
        assert_eq!(over(&pair.near.heard), "the other end closed the link", "{kind:?}");
    }
}

#[test]
fn a_driver_that_is_dropped_leaves_nobody_waiting() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.channel(1);
        caller.lend(call(1), vec![caller.block(&vec![1; 200 << 20])]);
        drop(pair);
        caller.until_closed();
        callee.until_closed();
        assert_eq!(caller.channel.stats().leases, 0);
    }
}

#[derive(Debug)]
struct Forbid;

impl Gate for Forbid {
    fn check(&self, header: &Header) -> Result<(), CallError> {
        if header.function == 13 { Err(CallError::new(ErrorCode::Forbidden, "not thirteen")) } else { Ok(()) }
    }
}

#[test]
fn what_a_gate_refuses_is_answered_and_goes_no_further() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (caller, callee) = pair.gated(1, Arc::new(Forbid));
        caller.lend(Header { function: 13, ..call(4) }, vec![caller.block(&[1; 100_000])]);
        let (header, inline) = caller.take();
        assert_eq!((header.invocation, header.kind), (4, Frame::Error.to_u8()));
        let error: CallError =
            serde_json::from_slice(&inline.bytes()[..usize::from(header.inline_len)]).unwrap();
        assert_eq!((error.code, &*error.message), (ErrorCode::Forbidden, "not thirteen"));
        caller.send(&call(5), &Inline::default());
        assert_eq!(echo(&callee), 5, "{kind:?}");
    }
}

#[test]
fn a_payload_without_room_is_refused_and_the_next_one_fits() {
    for kind in KINDS {
        let mut small = config(kind.path);
        small.arena.bytes_max = 8 << 20;
        let pair = Pair::with(kind, DriverConfig { ..small });
        let (caller, callee) = pair.channel(1);
        let leases = caller.lend(call(4), vec![caller.block(&vec![1; 32 << 20])]);
        let (header, _) = caller.take();
        assert_eq!((header.invocation, header.kind), (4, Frame::Error.to_u8()), "{kind:?}");
        assert_eq!(header.function, ErrorCode::OutOfMemory.status());
        leases.iter().for_each(|lease| caller.channel.end_lease(*lease).unwrap());
        caller.lend(call(5), vec![caller.block(&vec![1; 2 << 20])]);
        assert_eq!(callee.take().0.invocation, 5);
    }
}

/// Whoever is told of a worker asks how far away it is, and keeps to the answer.
#[test]
fn the_distance_is_known_before_anything_is_told() {
    for path in PATHS {
        let mut raw = Raw::unmeasured(quiet(path));
        raw.tell(Class::Message, 0, [5, 1, 0]);
        raw.say(b"hello");
        let early = raw.heard.recv_timeout(SLEEPS * 5);
        assert!(early.is_err() && raw.link.distance().round_trip_ns == 0, "{path:?}: {early:?}");
        raw.pong();
        match raw.heard.recv_timeout(PATIENCE).unwrap() {
            Heard::News(News::Message { topic: 1, bytes }) => assert_eq!(bytes, b"hello"),
            other => panic!("{other:?}"),
        }
        let found = raw.link.distance().round_trip_ns;
        assert!(found >= (SLEEPS * 3).as_nanos().try_into().unwrap(), "{path:?}: {found}");
        // Not for ever: who never answers is heard all the same.
        let mut raw = Raw::unmeasured(quiet(path));
        raw.tell(Class::Message, 0, [5, 1, 0]);
        raw.say(b"hello");
        assert!(raw.heard.recv_timeout(PATIENCE).is_ok());
    }
}

#[test]
fn messages_arrive_whole_and_in_order() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        for (topic, len) in [(1, 0), (2, 5_000_000), (1, 10), (9, 70_000)] {
            pair.near.link.message(topic, vec![u8::try_from(topic).unwrap(); len]);
        }
        for (topic, len) in [(1, 0), (2, 5_000_000), (1, 10), (9, 70_000)] {
            match pair.far.heard.recv_timeout(PATIENCE).unwrap() {
                Heard::News(News::Message { topic: found, bytes }) => {
                    assert_eq!((found, bytes.len()), (topic, len), "{kind:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        let until = Instant::now() + PATIENCE;
        while pair.near.link.distance().round_trip_ns == 0 {
            assert!(Instant::now() < until, "nobody answers pings");
            std::thread::sleep(Duration::from_millis(10));
        }
        let distance = pair.near.link.distance();
        assert!(distance.offset_ns.unsigned_abs() <= distance.round_trip_ns, "one clock: {distance:?}");
    }
}
