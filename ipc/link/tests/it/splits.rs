//! However the bytes of the socket fall into reads, the same frames and messages come out of them.

use std::io::Write;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringway_ipc::channel::Role;
use ringway_ipc::frame::{DESCRIPTOR_BYTES, Descriptor, Header, Inline};
use ringway_link::News;
use ringway_link::driver::Path;
use ringway_link::wire::Class;
use ringway_protocol::header::{Flags, Kind as Frame};

use crate::bed::{Heard, PATIENCE, Peer};
use crate::raw::{Raw, call, chunk, descriptors, frame, loaded, piece};

/// What came: the header, what is inline behind the descriptors, the payloads.
type Seen = Vec<(Header, Vec<u8>, Vec<Vec<u8>>)>;

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at + usize::from(seed)) % 251).unwrap()).collect()
}

/// Bytes with one of everything in them, and how many frames and messages they hold.
fn speech() -> (Vec<u8>, usize, usize) {
    let send = |invocation| Header { kind: Frame::Send.to_u8(), ..call(invocation) };
    let table = |lens: &[u64]| -> Vec<u8> {
        let entries = lens.iter().map(|len| Descriptor { len: *len, ..Descriptor::default() });
        entries.flat_map(|entry| entry.to_words()).flat_map(u64::to_le_bytes).collect()
    };
    let flags = Flags::DESCRIPTORS_IN_BLOCK.bits();
    let in_table = |class, invocation, lens: &[u64]| {
        let len = (lens.len() * DESCRIPTOR_BYTES) as u64;
        let header = Header { flags, attachments: 1, ..send(invocation) };
        frame(class, 7, header, &descriptors(&[len]))
    };
    let mut tail = descriptors(&[100, 0, 7]);
    tail.extend(b"and the body");
    let small = frame(Class::Frame, 7, Header { attachments: 3, ..send(3) }, &tail);
    let parts = [
        frame(Class::Frame, 7, send(1), b""),
        frame(Class::Frame, 7, send(2), &bytes(2, 192)),
        [small, bytes(3, 107)].concat(),
        piece(5, &bytes(5, 1000), 70_000),
        loaded(Class::Large, 7, send(4), &[200_000, 0, 3]),
        loaded(Class::Large, 7, send(5), &[40_000]),
        chunk(0, &bytes(4, 131_072)),
        frame(Class::Frame, 7, call(6), b"between"),
        piece(5, &bytes(6, 65_536), 4464),
        chunk(1, &bytes(5, 1)),
        chunk(0, &bytes(6, 68_929)),
        piece(5, &bytes(7, 4464), 0),
        chunk(1, &bytes(5, 39_999)),
        chunk(0, &bytes(9, 2)),
        piece(6, b"", 0),
        [in_table(Class::Frame, 8, &[10, 20, 0, 30]), table(&[10, 20, 0, 30]), bytes(8, 60)].concat(),
        in_table(Class::Large, 9, &[30_000, 5]),
        chunk(2, &table(&[30_000, 5])[..40]),
        chunk(2, &[&table(&[30_000, 5])[40..], &bytes(9, 30_005)[..]].concat()),
        // More than is read at a time, in parts that end nowhere in particular.
        piece(7, &bytes(1, 10), 0).repeat(3000),
        frame(Class::Frame, 7, send(10), b"the last"),
    ];
    (parts.concat(), 9, 3002)
}

fn see(peer: &Peer) -> (Header, Vec<u8>, Vec<Vec<u8>>) {
    let (header, inline) = peer.take();
    let front = usize::from(header.attachments) * DESCRIPTOR_BYTES;
    let body = inline.bytes()[front..usize::from(header.inline_len)].to_vec();
    let (mut payloads, guard) = peer.payloads(&header, &inline);
    let mut kept = Vec::new();
    if header.flags & Flags::DESCRIPTORS_IN_BLOCK.bits() != 0 {
        let found: Vec<Descriptor> = payloads[0]
            .chunks_exact(DESCRIPTOR_BYTES)
            .map(|entry| {
                let mut inline = Inline::default();
                inline.bytes_mut()[..DESCRIPTOR_BYTES].copy_from_slice(entry);
                inline.descriptor(0)
            })
            .collect();
        let (behind, guard) = peer.resolve(&found);
        payloads = behind;
        kept.push(guard);
    }
    kept.push(guard);
    let payloads = payloads.iter().map(|payload| payload.to_vec()).collect();
    (Header { deadline_ns: 0, ..header }, body, payloads)
}

/// Says the speech in pieces of these lengths, over and over.
fn hear_in_pieces(path: Path, lens: &[usize]) -> (Seen, Vec<(u64, Vec<u8>)>) {
    let mut raw = Raw::new(path);
    let callee = raw.channel(7, Role::Callee);
    let (said, frames, messages) = speech();
    let mut socket = raw.socket.try_clone().unwrap();
    let lens = lens.to_vec();
    let speaker = std::thread::spawn(move || {
        let mut rest = &said[..];
        for len in lens.into_iter().cycle() {
            let (now, then) = rest.split_at(len.min(rest.len()));
            socket.write_all(now).unwrap();
            rest = then;
            if rest.is_empty() {
                return;
            }
        }
    });
    let mut seen: Seen = (0..frames).map(|_| see(&callee)).collect();
    // Payloads of different transfers may overtake each other, in one order for one speech.
    seen.sort_by_key(|(header, ..)| header.invocation);
    let heard = (0..messages).map(|_| match raw.heard.recv_timeout(PATIENCE).unwrap() {
        Heard::News(News::Message { topic, bytes }) => (topic, bytes),
        other => panic!("{path:?}: {other:?}"),
    });
    let heard = heard.collect();
    speaker.join().unwrap();
    (seen, heard)
}

#[test]
fn any_split_of_the_bytes_gives_the_same_frames() {
    let (whole, messages) = hear_in_pieces(Path::Epoll, &[usize::MAX]);
    assert_eq!(whole.len(), 9);
    assert_eq!(whole[2].1, b"and the body");
    assert_eq!(whole[2].2, [bytes(3, 107)[..100].to_vec(), vec![], bytes(3, 107)[100..].to_vec()]);
    assert_eq!(whole[3].2[0], [bytes(4, 131_072), bytes(6, 68_928)].concat());
    assert_eq!(whole[6].2.iter().map(Vec::len).collect::<Vec<_>>(), [10, 20, 0, 30]);
    assert_eq!(whole[7].2, [bytes(9, 30_005)[..30_000].to_vec(), bytes(9, 30_005)[30_000..].to_vec()]);
    let told: Vec<_> = messages.iter().map(|(topic, bytes)| (*topic, bytes.len())).collect();
    assert_eq!((told.len(), &told[..3]), (3002, &[(5, 71_000), (6, 0), (7, 10)][..]));
    let expected = (whole, messages);
    for path in [Path::Epoll, Path::Uring] {
        for each in [1, 63, 64, 65, 4096, 65_536] {
            assert!(hear_in_pieces(path, &[each]) == expected, "{path:?}, {each} bytes at a time");
        }
    }
    let split = prop_oneof![4 => 1..300usize, 2 => 300..70_000usize, 1 => Just(64)];
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let path = prop_oneof![Just(Path::Epoll), Just(Path::Uring)];
    let outcome = runner.run(&(path, prop::collection::vec(split, 1..12)), |(path, lens)| {
        prop_assert!(hear_in_pieces(path, &lens) == expected, "{path:?} {lens:?}");
        Ok(())
    });
    outcome.unwrap();
}
