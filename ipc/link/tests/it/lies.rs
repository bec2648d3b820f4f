//! A peer that knows the protocol and lies in it: counts, ends, transfers and messages that no correct end would send. What
//! can be told from a mistake ends the link by name; what may cross on the way is borne; nothing is kept without bound.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway_ipc::channel::{Role, SendError};
use ringway_ipc::frame::{Header, Inline};
use ringway_link::News;
use ringway_link::driver::{Driver, DriverConfig, Path};
use ringway_link::tunnel::Gate;
use ringway_link::wire::{Class, Head};
use ringway_protocol::header::{Flags, Kind as Frame};
use ringway_protocol::{CallError, ErrorCode};

use crate::bed::{Heard, PATIENCE, config, ear, seal};
use crate::raw::{Raw, call, chunk, frame, loaded, piece, quiet};

const PATHS: [Path; 2] = [Path::Epoll, Path::Uring];

const NUMBER: u32 = 7;

fn reply(invocation: u64) -> Header {
    Header { invocation, kind: Frame::Reply.to_u8(), ..Header::default() }
}

#[test]
fn credits_that_cannot_be_end_the_link() {
    // More than there can be room for; fewer than were given before.
    for lies in [&[257][..], &[u64::MAX], &[10, 9], &[256, 0], &[1, 258]] {
        for path in PATHS {
            let mut raw = Raw::new(path);
            let _caller = raw.channel(NUMBER, Role::Caller);
            for credit in lies {
                raw.tell(Class::Credit, NUMBER, [*credit]);
            }
            let why = raw.over();
            assert!(why.contains("a count of what was taken is not possible"), "{path:?} {lies:?}: {why}");
        }
    }
}

#[test]
fn no_more_frames_go_than_there_are_credits() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let caller = raw.channel(NUMBER, Role::Caller);
        raw.tell(Class::Credit, NUMBER, [3]);
        (0..20).for_each(|invocation| caller.send(&call(invocation), &Inline::default()));
        for invocation in 0..3 {
            let (head, _) = raw.hear();
            assert_eq!((head.class, head.header().unwrap().invocation), (Class::Frame, invocation));
        }
        assert_eq!(raw.until_pong(), [], "{path:?}: the fourth waits");
        raw.tell(Class::Credit, NUMBER, [4]);
        let (head, _) = raw.hear();
        assert_eq!(head.header().unwrap().invocation, 3, "{path:?}");
        assert_eq!(raw.until_pong(), []);
    }
}

#[test]
fn frames_beyond_the_credit_end_the_link() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let _callee_that_does_not_read = raw.channel(NUMBER, Role::Callee);
        let frames: Vec<u8> =
            (0..257).flat_map(|at| frame(Class::Frame, NUMBER, call(at), b"hello")).collect();
        raw.say(&frames);
        let why = raw.over();
        assert!(why.contains("channel 7 was sent more frames than it has room for"), "{path:?}: {why}");
    }
}

#[test]
fn what_comes_for_a_channel_that_is_gone_is_dropped() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let caller = raw.channel(NUMBER, Role::Caller);
        raw.tell(Class::Close, NUMBER, [0]);
        caller.until_closed();
        assert_eq!(raw.until_pong(), []);
        for number in [NUMBER, 999] {
            raw.tell(Class::Close, number, [0]);
            raw.say(&frame(Class::Frame, number, reply(1), b"x"));
            raw.say(&loaded(Class::Frame, number, reply(1), &[5]));
            raw.say(b"12345");
            assert_eq!(raw.until_pong(), [], "{path:?} {number}");
            // Whoever still gives credit has not heard of the end.
            raw.tell(Class::Credit, number, [5]);
            let (head, _) = raw.hear();
            assert_eq!((head.class, head.channel), (Class::Close, number));
        }
        // A transfer for nobody is declined once, and its pieces are counted and dropped.
        raw.say(&loaded(Class::Large, NUMBER, reply(2), &[300_000]));
        let (head, _) = raw.hear();
        assert_eq!((head.class, head.words[0]), (Class::Refused, 0), "{path:?}");
        raw.say(&chunk(0, &[1; 131_072]));
        let (head, _) = raw.hear();
        assert_eq!((head.class, head.words[0]), (Class::Arrived, 131_072));
        // The end of a piece is told, however short it was: the other end may be waiting for it to send the next.
        raw.say(&chunk(0, &[1; 1000]));
        let (head, _) = raw.hear();
        assert_eq!((head.class, head.words[0]), (Class::Arrived, 132_072));
        assert_eq!(raw.until_pong(), []);
        assert_eq!(raw.driver.arena_bytes().1, 0);
    }
}

#[test]
fn transfers_that_never_began_can_be_given_up() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let callee = raw.channel(NUMBER, Role::Callee);
        for transfer in [0, 1, u64::MAX] {
            raw.tell(Class::Abort, NUMBER, [transfer]);
            raw.tell(Class::Refused, NUMBER, [transfer]);
        }
        assert_eq!(raw.until_pong(), [], "{path:?}");
        // What was given up in the middle of a piece, and between two.
        raw.say(&loaded(Class::Large, NUMBER, call(1), &[200_000, 200_000]));
        raw.say(&chunk(0, &[1; 100_000]));
        raw.tell(Class::Abort, NUMBER, [0]);
        raw.say(&chunk(0, &[2; 120_000]));
        raw.tell(Class::Abort, NUMBER, [0]);
        raw.say(&frame(Class::Frame, NUMBER, call(2), b"still here"));
        let (header, _) = callee.take();
        assert_eq!(header.invocation, 2, "{path:?}: what was given up is not delivered");
        raw.until_nothing_is_held();
        // The numbers go on.
        raw.say(&loaded(Class::Large, NUMBER, call(3), &[20_000]));
        raw.say(&chunk(1, &[3; 20_000]));
        let (header, inline) = callee.take();
        assert_eq!(header.invocation, 3);
        let (payloads, _guard) = callee.payloads(&header, &inline);
        assert!(payloads[0].len() == 20_000 && payloads[0].iter().all(|byte| *byte == 3));
    }
}

#[test]
fn half_of_anything_and_then_silence_ends_the_link() {
    let halves: [(&str, Vec<u8>); 5] = [
        ("half a head", frame(Class::Frame, NUMBER, call(1), b"")[..30].to_vec()),
        ("half an inline area", frame(Class::Frame, NUMBER, call(1), &[1; 100])[..100].to_vec()),
        ("half a payload", [loaded(Class::Frame, NUMBER, call(1), &[1000]), vec![1; 500]].concat()),
        (
            "half a piece",
            [loaded(Class::Large, NUMBER, call(1), &[100_000]), chunk(0, &[1; 50_000])[..20_000].to_vec()]
                .concat(),
        ),
        ("half a message", piece(1, &[1; 100], 500)[..100].to_vec()),
    ];
    for path in PATHS {
        for (what, bytes) in &halves {
            let mut raw = Raw::with(DriverConfig {
                path,
                ping_every: Duration::from_millis(20),
                silence_max: Duration::from_millis(150),
                ..DriverConfig::default()
            });
            let callee = raw.channel(NUMBER, Role::Callee);
            raw.say(bytes);
            let why = raw.over();
            assert!(why.contains("nothing was heard"), "{path:?} {what}: {why}");
            callee.until_closed();
            raw.until_nothing_is_held();
        }
    }
}

#[test]
fn frames_may_lie_between_the_pieces_of_a_message_but_no_other_message() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let callee = raw.channel(NUMBER, Role::Callee);
        raw.say(&piece(1, b"one ", 3));
        raw.say(&frame(Class::Frame, NUMBER, call(1), b""));
        raw.say(&piece(1, b"two", 0));
        assert_eq!(callee.take().0.invocation, 1);
        match raw.heard.recv_timeout(PATIENCE).unwrap() {
            Heard::News(News::Message { topic: 1, bytes }) => assert_eq!(bytes, b"one two", "{path:?}"),
            other => panic!("{other:?}"),
        }
        // Nobody is told a message that nobody sent.
        for second in [piece(2, b"two", 0), piece(1, b"two", 0), piece(1, b"two", 1000)] {
            let mut raw = Raw::new(path);
            raw.say(&piece(1, b"one ", 30));
            raw.say(&second);
            raw.hang_up();
            match raw.heard.recv_timeout(PATIENCE).unwrap() {
                Heard::Over(why) => assert!(why.contains("a message"), "{path:?}: {why}"),
                other => panic!("{path:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_message_that_would_be_giant_ends_the_link_at_once() {
    for (first, behind) in [(1, u64::MAX), (1, 64 << 20), (65_537, 0), (0, (64 << 20) + 1)] {
        for path in PATHS {
            let mut raw = Raw::new(path);
            raw.tell(Class::Message, 0, [first, 1, behind]);
            let why = raw.over();
            assert!(why.contains("the longest has 67108864"), "{path:?} {first} {behind}: {why}");
        }
    }
}

#[test]
fn whoever_asks_and_never_reads_is_put_out() {
    for path in PATHS {
        for what in [Class::Ping, Class::Credit, Class::Large] {
            let mut raw = Raw::new(path);
            let question = match what {
                // Each is answered: by the time, by the news that there is no such channel, by a refusal.
                Class::Large => loaded(Class::Large, 55, call(1), &[20_000]),
                class => Head::of_words(class, 55, [1]).to_bytes().to_vec(),
            };
            let many = question.repeat(1000);
            let mut asked = 0;
            while asked < 32 << 20 && raw.socket.write_all(&many).is_ok() {
                asked += many.len();
            }
            let over = raw.over();
            assert!(over.contains("does not read"), "{path:?} {what:?}: {over}");
        }
    }
}

#[derive(Debug)]
struct Never;

impl Gate for Never {
    fn check(&self, _: &Header) -> Result<(), CallError> {
        Err(CallError::new(ErrorCode::Forbidden, "never"))
    }
}

#[test]
fn whoever_does_not_take_answers_may_not_ask_for_ever() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let _callee = raw.gated(NUMBER, Role::Callee, Arc::new(Never));
        let (mut sent, mut credit) = (0, 256);
        while sent < credit {
            let calls: Vec<u8> =
                (sent..credit).flat_map(|at| frame(Class::Frame, NUMBER, call(at), b"")).collect();
            raw.say(&calls);
            sent = credit;
            for (head, _) in raw.until_pong() {
                assert_eq!(head.class, Class::Credit, "{path:?}: no answer has room");
                credit = head.words[0];
            }
            assert!(sent < 4096, "{path:?}: {sent} answers wait in memory for room");
        }
        // With room, the answers come, and then there is room for calls again.
        let (mut answers, mut room) = (0, 0);
        while answers < sent {
            room = (answers + 256).min(sent);
            raw.tell(Class::Credit, NUMBER, [room]);
            while answers < room {
                match raw.hear().0 {
                    head if head.class == Class::Credit => credit = head.words[0],
                    head => {
                        assert_eq!(head.header().unwrap().kind, Frame::Error.to_u8());
                        answers += 1;
                    }
                }
            }
        }
        for (head, _) in raw.until_pong() {
            assert_eq!(head.class, Class::Credit);
            credit = head.words[0];
        }
        assert!(credit > sent && room == sent, "{path:?}: {sent} calls, room for {credit}");
    }
}

#[test]
fn a_caller_feels_that_the_other_end_does_not_read() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let caller = raw.channel(NUMBER, Role::Caller);
        // Room for all frames, and nobody reads them.
        let mut inline = Inline::default();
        inline.bytes_mut().fill(7);
        let header = Header { inline_len: 192, ..call(1) };
        let mut sent = 0u64;
        let mut refused = 0;
        let mut told = 0;
        while refused < 200 {
            if sent + 128 > told {
                told = sent + 200;
                // Credit lies within what may be.
                raw.tell(Class::Credit, NUMBER, [told.min(sent.saturating_sub(64) + 256)]);
                told = told.min(sent.saturating_sub(64) + 256);
            }
            match caller.channel.send(&header, &inline) {
                Ok(_) => (sent, refused) = (sent + 1, 0),
                Err(SendError::Full) => {
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{path:?}: {error}; {}", raw.over()),
            }
            // 256 KiB wait in the driver and as much in the socket, a ring's worth before that.
            assert!(sent < 20_000, "{path:?}: {sent} frames were taken from a caller, and nobody reads them");
        }
    }
}

#[test]
fn an_answer_cannot_leave_payloads_with_the_caller() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let caller = raw.channel(NUMBER, Role::Caller);
        // Only a peer with the memory mapped can hold on to it, and no remote one has.
        let header = Header { flags: Flags::HOLD.bits(), ..reply(5) };
        raw.say(&frame(Class::Frame, NUMBER, header, b"plain"));
        assert_eq!(caller.take().0.flags, 0, "{path:?}");
        raw.say(&[loaded(Class::Frame, NUMBER, header, &[3]), b"abc".to_vec()].concat());
        assert_eq!(caller.take().0.flags, 0, "{path:?}");
    }
}

/// An answer gives the payloads of its call back, and the caller writes something else where they lay: none of that may go to
/// whoever answered before it had all of them.
#[test]
fn whoever_answers_early_hears_nothing_of_what_comes_next() {
    for path in PATHS {
        for ending in ["answer", "answer with a payload", "close"] {
            let mut raw = Raw::new(path);
            let caller = raw.channel(NUMBER, Role::Caller);
            raw.tell(Class::Credit, NUMBER, [10]);
            let leases = caller.lend(call(1), vec![caller.block(&vec![1; 48 << 20])]);
            // A piece of it waits in the socket, or is on its way there.
            assert_eq!(raw.hear().0.class, Class::Large);
            raw.say(&match ending {
                "answer" => frame(Class::Frame, NUMBER, reply(1), b""),
                "close" => Head::of_words(Class::Close, NUMBER, [0]).to_bytes().to_vec(),
                _ => [loaded(Class::Frame, NUMBER, reply(1), &[3]), b"abc".to_vec()].concat(),
            });
            let is_told = |time: Duration| {
                if ending != "close" {
                    return caller.take_within(time).is_some();
                }
                let until = std::time::Instant::now() + time;
                while caller.channel.read_socket().is_ok() {
                    if std::time::Instant::now() > until {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                true
            };
            // Whoever is told before the piece has gone is told too early; that shows below.
            let early = is_told(Duration::from_millis(100));
            let mut says = raw.socket.try_clone().unwrap();
            let reader = std::thread::spawn({
                let mut raw = raw;
                move || {
                    let (mut arrived, mut strange) = (0, 0);
                    loop {
                        let (head, bytes) = raw.hear();
                        match head.class {
                            Class::Chunk => {
                                arrived += bytes.len() as u64;
                                strange += bytes.iter().filter(|byte| **byte != 1).count();
                                // So that more may come.
                                raw.tell(Class::Arrived, 0, [arrived]);
                            }
                            Class::Pong => return (raw, arrived, strange),
                            _ => {}
                        }
                    }
                }
            });
            let reuse = || {
                for lease in &leases {
                    // A channel that is closed has ended them.
                    let _ended = caller.channel.end_lease(*lease);
                }
                caller.channel.close(ringway_ipc::channel::CloseReason::Local);
                let mut again = caller.arena.loan(48 << 20, 64).unwrap();
                again.fill(0xee);
                again
            };
            assert!(early || is_told(PATIENCE), "{path:?} {ending}");
            let again = reuse();
            says.write_all(&Head::of_words(Class::Ping, 0, [2]).to_bytes()).unwrap();
            let (raw, arrived, strange) = reader.join().unwrap();
            assert_eq!(strange, 0, "{path:?} {ending}: bytes of another call, of {arrived} that came");
            assert!(arrived < 48 << 20, "{path:?} {ending}: what nobody wants any more is not sent");
            drop((again, raw));
        }
    }
}

/// What an owner said right before it closed the link is heard: most of all why.
#[test]
fn what_was_said_before_the_end_is_heard() {
    for path in PATHS {
        for len in [10, 300_000] {
            let mut raw = Raw::new(path);
            raw.link.message(5, vec![1; len]);
            raw.link.close();
            let mut heard = 0;
            loop {
                let (head, bytes) = raw.hear();
                match head.class {
                    Class::Message => heard += bytes.len(),
                    Class::Goodbye => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(heard, len, "{path:?}");
            assert_eq!(raw.over(), "closed here");
        }
    }
}

/// The same at the other end: what has come is told before the end is.
#[test]
fn what_came_before_the_end_is_told_before_it() {
    for path in PATHS {
        for round in 0..50 {
            let mut raw = Raw::new(path);
            let goodbye = Head::of_words(Class::Goodbye, 0, [0]).to_bytes();
            raw.say(&[&piece(5, b"why it ends", 0)[..], &goodbye].concat());
            let first = raw.heard.recv_timeout(PATIENCE).unwrap();
            let told = matches!(&first, Heard::News(News::Message { topic: 5, .. }));
            assert!(told, "{path:?}, round {round}: {first:?}");
            assert_eq!(raw.over(), "the other end closed the link");
        }
    }
}

#[test]
fn two_calls_with_one_number_end_the_link() {
    for path in PATHS {
        let mut raw = Raw::new(path);
        let callee = raw.channel(NUMBER, Role::Callee);
        raw.say(&[loaded(Class::Frame, NUMBER, call(5), &[3]), b"abc".to_vec()].concat());
        raw.say(&[loaded(Class::Frame, NUMBER, call(5), &[3]), b"def".to_vec()].concat());
        // Or the payloads of the first would stay lent when both have been answered.
        let why = raw.over();
        assert!(why.contains("means nothing"), "{path:?}: {why}");
        callee.until_closed();
        // Answered, a number is free again.
        let mut raw = Raw::new(path);
        let callee = raw.channel(NUMBER, Role::Callee);
        raw.tell(Class::Credit, NUMBER, [10]);
        for _ in 0..2 {
            raw.say(&[loaded(Class::Frame, NUMBER, call(5), &[3]), b"abc".to_vec()].concat());
            let (header, inline) = callee.take();
            let (payloads, guard) = callee.payloads(&header, &inline);
            assert_eq!(payloads[0][..], *b"abc");
            guard.disarm();
            drop((payloads, guard));
            callee.send(&reply(5), &Inline::default());
            assert_eq!(raw.hear().0.header().unwrap().kind, Frame::Reply.to_u8());
        }
        raw.until_nothing_is_held();
    }
}

#[test]
fn a_piece_that_is_too_long_for_its_transfer_ends_the_link() {
    for path in PATHS {
        for (announced, came) in [(20_000, 20_001), (20_000, 131_072), (0, 1)] {
            let mut raw = Raw::new(path);
            let _callee = raw.channel(NUMBER, Role::Callee);
            raw.say(&loaded(Class::Large, NUMBER, call(1), &[announced]));
            raw.say(&chunk(0, &vec![1; came]));
            let why = raw.over();
            assert!(why.contains("which does not take it"), "{path:?} {announced} {came}: {why}");
        }
    }
}

/// A wire between two sockets, which breaks one bit once it is told to.
fn wire(break_it: &Arc<AtomicBool>) -> (UnixStream, UnixStream) {
    let ((near, near_far), (far, far_far)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let back = (far_far.try_clone().unwrap(), near_far.try_clone().unwrap());
    let break_it = Arc::clone(break_it);
    let pass = move |mut from: UnixStream, mut to: UnixStream, breaks: Option<Arc<AtomicBool>>| {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = std::io::Read::read(&mut from, &mut bytes) {
            if breaks.as_ref().is_some_and(|breaks| breaks.swap(false, Ordering::Relaxed)) {
                // Behind the head of the record, which the tests of lengths are for.
                bytes[count - 1] ^= 0x10;
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _gone = to.shutdown(std::net::Shutdown::Both);
    };
    std::thread::spawn(move || pass(near_far, far_far, Some(break_it)));
    std::thread::spawn(move || pass(back.0, back.1, None));
    (near, far)
}

#[test]
fn one_bit_of_what_was_encrypted_ends_the_link() {
    for path in PATHS {
        let break_it = Arc::new(AtomicBool::new(false));
        let (near, far) = wire(&break_it);
        let (near_tls, far_tls) = seal(&near, &far);
        let side = |stream: UnixStream, tls| {
            let driver = Driver::start(config(path)).unwrap();
            let (owner, heard) = ear();
            let link = driver.add(stream.into(), tls, owner);
            (driver, link, heard)
        };
        let (_near_driver, near, near_heard) = side(near, near_tls);
        let (_far_driver, _far, heard) = side(far, far_tls);
        near.message(1, b"good".to_vec());
        let told = heard.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(told, Heard::News(News::Message { topic: 1, .. })), "{told:?}");
        break_it.store(true, Ordering::Relaxed);
        near.message(1, vec![1; 1000]);
        match heard.recv_timeout(PATIENCE).unwrap() {
            Heard::Over(why) => assert!(why.contains("the encrypted bytes are broken"), "{path:?}: {why}"),
            other => panic!("{path:?}: {other:?}"),
        }
        match near_heard.recv_timeout(PATIENCE).unwrap() {
            Heard::Over(_) => {}
            other => panic!("{path:?}: {other:?}"),
        }
    }
}

#[test]
fn transfers_are_bounded_by_memory_and_by_number() {
    for path in PATHS {
        let mut small = quiet(path);
        small.arena.bytes_max = 4 << 20;
        let mut raw = Raw::with(small);
        let callee = raw.channel(NUMBER, Role::Callee);
        raw.tell(Class::Credit, NUMBER, [256]);
        // Begun and never sent: what finds no room is declined, and its caller told.
        let mut declined = 0;
        for invocation in 0..100 {
            raw.say(&loaded(Class::Large, NUMBER, call(invocation), &[1 << 20]));
        }
        for (head, _) in raw.until_pong() {
            declined += u32::from(head.class == Class::Refused);
        }
        assert!(declined >= 96, "{path:?}: {declined}");
        let (held, _) = raw.driver.arena_bytes();
        assert!(held <= 4 << 20, "{path:?}: {held}");
        drop(raw.socket);
        let Heard::Over(why) = raw.heard.recv_timeout(PATIENCE).unwrap() else { panic!("{path:?}") };
        assert_eq!(why, "the connection was cut");
        callee.until_closed();
    }
}
