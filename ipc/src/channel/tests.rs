//! Two ends in one process: frames, payloads, forwarding, hang-ups, and peers that lie.

use super::*;
use crate::arena::{Arena, ArenaConfig};
use crate::sys::socket::seqpacket_pair;

fn config(worker: u64, peer_worker: u64) -> ChannelConfig {
    ChannelConfig {
        channel: 5,
        worker,
        peer_worker,
        worker_bell: Doorbell::new().unwrap(),
        slot_count: 8,
        segment_bytes_max: 1 << 34,
        barrier_registered: false,
        barrier_before_sleep: false,
    }
}

fn pair_of(caller: u64, callee: u64) -> (Arc<Channel>, Arc<Channel>) {
    let (here, there) = seqpacket_pair().unwrap();
    let first = Opening::start(here, Role::Caller, config(caller, callee)).unwrap();
    let first = first.finish().unwrap().expect_err("nobody is there yet");
    let second = Opening::start(there, Role::Callee, config(callee, caller)).unwrap();
    let first = first.finish().unwrap().expect("the callee introduced itself");
    let second = second.finish().unwrap().expect("the caller introduced itself");
    (Arc::new(first), Arc::new(second))
}

fn pair() -> (Arc<Channel>, Arc<Channel>) {
    pair_of(1, 2)
}

fn take(channel: &Channel) -> Option<(Header, Inline)> {
    let mut inline = Inline::default();
    let header = channel.try_lead().unwrap().poll(&mut inline).unwrap()?;
    Some((header, inline))
}

fn lend(from: &Arc<Channel>, payload: Payload) -> Descriptor {
    let descriptor = from.lend(payload).unwrap();
    let mut inline = Inline::default();
    inline.set_descriptor(0, &descriptor);
    let header = Header { kind: 1, inline_len: 32, attachments: 1, ..Header::default() };
    from.send(&header, &inline).unwrap();
    descriptor
}

fn receive(at: &Arc<Channel>) -> Payload {
    let (_, inline) = take(at).unwrap();
    let descriptor = inline.descriptor(0);
    let guard = LeaseGuard::new(at, vec![descriptor.lease]);
    at.resolve(&descriptor, &guard).unwrap()
}

fn take_releases(at: &Channel) -> usize {
    let mut count = 0;
    while let Some((header, inline)) = take(at) {
        assert_eq!(header.kind, KIND_RELEASE);
        at.take_release(&header, &inline).unwrap();
        count += 1;
    }
    count
}

fn block(arena: &Arc<Arena>, bytes: &[u8]) -> Payload {
    let mut loan = arena.loan(bytes.len(), 64).unwrap();
    loan.copy_from_slice(bytes);
    loan.freeze().into()
}

#[test]
fn frames_go_both_ways() {
    let (caller, callee) = pair();
    let header = Header { invocation: 9, kind: 1, ..Header::default() };
    let position = caller.send(&header, &Inline::default()).unwrap();
    assert!(!caller.was_consumed(position));
    assert_eq!(take(&callee).unwrap().0, header);
    assert!(caller.was_consumed(position));
    callee.send(&header, &Inline::default()).unwrap();
    assert_eq!(take(&caller).unwrap().0, header);
}

#[test]
fn what_finds_the_ring_full_is_kept_in_order() {
    let (caller, callee) = pair();
    for invocation in 0..20 {
        caller
            .send_or_keep(&Header { invocation, kind: 1, ..Header::default() }, &Inline::default())
            .unwrap();
    }
    assert!(caller.overflowing());
    assert_eq!(caller.send(&Header::default(), &Inline::default()), Err(SendError::Full));
    let mut seen = Vec::new();
    while seen.len() < 20 {
        while let Some((header, _)) = take(&callee) {
            seen.push(header.invocation);
        }
        caller.flush();
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    assert!(!caller.overflowing());
}

#[test]
fn payloads_are_read_in_place_and_return() {
    let (caller, callee) = pair();
    let arena = Arena::new(ArenaConfig::default());
    lend(&caller, block(&arena, &[7; 100_000]));
    let payload = receive(&callee);
    assert!(payload.is_foreign());
    assert!(payload.iter().all(|byte| *byte == 7));
    let second = payload.clone();
    drop(payload);
    assert_eq!(caller.stats().leases, 1, "a clone holds it");
    drop(second);
    assert_eq!(take_releases(&caller), 1);
    assert_eq!((caller.stats().leases, arena.stats().live_blocks), (0, 0));
}

#[test]
fn forwarding_copies_nothing_and_returns_through_the_forwarder() {
    let (first, middle_in) = pair_of(1, 2);
    let (middle_out, last) = pair_of(2, 3);
    let arena = Arena::new(ArenaConfig::default());
    lend(&first, block(&arena, b"straight through"));
    lend(&middle_out, receive(&middle_in));
    let payload = receive(&last);
    assert_eq!(&*payload, b"straight through");
    drop(payload);
    assert_eq!(take_releases(&middle_out), 1);
    assert_eq!(take_releases(&first), 1);
    assert_eq!(arena.stats().live_blocks, 0);
}

#[test]
fn a_dead_peer_ends_its_leases() {
    let (caller, callee) = pair();
    let arena = Arena::new(ArenaConfig::default());
    lend(&caller, block(&arena, &[1; 300]));
    let payload = receive(&callee);
    let end = Arc::downgrade(&callee);
    drop(callee);
    // What is still read keeps the memory it lies in, and nothing else of the channel.
    assert_eq!((end.strong_count(), payload.len()), (0, 300));
    assert_eq!(caller.read_socket(), Err(CloseReason::Goodbye));
    assert_eq!(arena.stats().live_blocks, 0);
    assert!(payload.iter().all(|byte| *byte == 1));
    drop(payload);
    assert_eq!(
        caller.send(&Header::default(), &Inline::default()),
        Err(SendError::Closed(CloseReason::Goodbye))
    );
}

#[test]
fn what_a_caller_lent_right_before_it_left_is_read() {
    let (caller, callee) = pair();
    let arena = Arena::new(ArenaConfig::default());
    lend(&caller, block(&arena, b"last words"));
    // The announcement of the segment and the goodbye wait in the socket together.
    caller.close(CloseReason::Local);
    let payload = receive(&callee);
    assert_eq!(callee.close_reason(), Some(CloseReason::Goodbye));
    assert_eq!(&*payload, b"last words");
}

#[test]
fn lies_close_the_channel() {
    let lies: [fn(&mut Descriptor); 4] = [
        |descriptor| descriptor.segment += 1,
        |descriptor| descriptor.offset = u64::MAX,
        |descriptor| descriptor.len = 1 << 40,
        |descriptor| descriptor.align_log2 = 200,
    ];
    for lie in lies {
        let (caller, callee) = pair();
        let arena = Arena::new(ArenaConfig::default());
        let mut descriptor = lend(&caller, block(&arena, &[1; 300]));
        lie(&mut descriptor);
        let guard = LeaseGuard::new(&callee, vec![]);
        assert_eq!(callee.resolve(&descriptor, &guard).unwrap_err(), CloseReason::Range);
        assert_eq!(callee.close_reason(), Some(CloseReason::Range));
    }
    let (caller, callee) = pair();
    callee.return_leases(&[77]);
    let (header, inline) = take(&caller).unwrap();
    assert_eq!(caller.take_release(&header, &inline), Err(CloseReason::Lease));
}

#[test]
fn another_workers_segment_is_refused() {
    let (here, there) = seqpacket_pair().unwrap();
    let first = Opening::start(here, Role::Caller, config(1, 2)).unwrap();
    let _second = Opening::start(there, Role::Callee, config(3, 1)).unwrap();
    assert!(matches!(first.finish(), Err(OpenError::Identity { found_worker: 3, .. })));
}

#[test]
fn one_ring_answers_one_request() {
    let (caller, callee) = pair();
    let mut lead = callee.try_lead().unwrap();
    assert!(lead.ask_for_bell(layout::ATTENTION_WORKER_BELL));
    drop(lead);
    for _ in 0..4 {
        caller.send(&Header::default(), &Inline::default()).unwrap();
    }
    let asked = || caller.peer_memory.attention(caller.sleep_fence);
    let first = asked();
    assert!(!caller.answered.is_new(first), "the first frame rang");
    while take(&callee).is_some() {}
    let mut lead = callee.try_lead().unwrap();
    assert!(lead.ask_for_bell(layout::ATTENTION_WORKER_BELL));
    drop(lead);
    assert_ne!(asked(), first, "every request is a new one");
    caller.send(&Header::default(), &Inline::default()).unwrap();
    assert!(!caller.answered.is_new(asked()), "a new request is answered anew");
}

#[test]
fn a_peer_that_reads_nothing_is_closed_at_a_limit() {
    let (caller, callee) = pair();
    let reply = Header { kind: 3, ..Header::default() };
    let kept = (0..).take_while(|_| callee.send_or_keep(&reply, &Inline::default()).is_ok()).count();
    assert_eq!(kept, crate::limits::FRAMES_KEPT_MAX + 8, "and what the ring holds");
    assert_eq!(callee.close_reason(), Some(CloseReason::Unread));
    drop(caller);
}

#[test]
fn closing_is_news_at_both_ends() {
    let (caller, callee) = pair();
    caller.violation(CloseReason::Nonsense);
    for end in [&caller, &callee] {
        assert!(crate::sys::event::is_readable(end.socket()).unwrap());
    }
    assert_eq!(caller.read_socket(), Err(CloseReason::Nonsense), "the first reason stands");
    assert_eq!(callee.read_socket(), Err(CloseReason::Goodbye), "what was sent before the end arrives");
}

#[test]
fn a_peer_cannot_make_a_socket_or_a_bell_block() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let blocking = |fd: BorrowedFd<'_>| fcntl_setfl(fd, fcntl_getfl(fd).unwrap() - OFlags::NONBLOCK).unwrap();
    let (caller, callee) = pair();
    blocking(caller.socket());
    assert_eq!(caller.read_socket(), Ok(()));
    blocking(callee.own_bell().as_fd());
    assert!(!callee.own_bell().clear());
    blocking(caller.peer_worker_bell.as_fd());
    rustix::io::write(&caller.peer_worker_bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    caller.ring_worker_bell();
}

#[test]
fn a_bell_must_be_an_event_counter() {
    let (here, there) = seqpacket_pair().unwrap();
    let first = Opening::start(here, Role::Callee, config(1, 2)).unwrap();
    let bytes = layout::end_bytes(8).next_multiple_of(4096);
    let segment = crate::segment::Segment::create("bell", bytes, Default::default()).unwrap();
    let facts = layout::Facts { slot_count: 8, flags: 0, owner: 2, channel: 5 };
    let _end = EndMemory::create(Arc::clone(&segment), facts).unwrap();
    let (no_bell, bell) = (rustix::pipe::pipe().unwrap(), Doorbell::new().unwrap());
    Message::End.send(&there, &[segment.fd().unwrap(), no_bell.1.as_fd(), bell.as_fd()]).unwrap();
    assert!(matches!(first.finish(), Err(OpenError::Introduction)));
}

#[test]
fn a_segment_that_was_never_announced_cannot_go() {
    let (caller, callee) = pair();
    Message::SegmentGone { key: 3 }.send(&caller.socket, &[]).unwrap();
    assert_eq!(callee.read_socket(), Err(CloseReason::Nonsense));
}
