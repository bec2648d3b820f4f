//! Somebody at the other end who says what no correct end says: the link ends with a reason that names it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use ringway_ipc::frame::Header;
use ringway_link::driver::{Driver, Path};
use ringway_link::wire::{Class, Head};

use crate::bed::{Heard, PATIENCE, config, ear};

fn says(path: Path, bytes: &[u8]) -> String {
    let (near, mut far) = UnixStream::pair().unwrap();
    let driver = Driver::start(config(path)).unwrap();
    let (owner, heard) = ear();
    driver.add(OwnedFd::from(near), None, owner);
    // It may close before all is written.
    let _cut_short = far.write_all(bytes);
    let _cut_short = far.shutdown(std::net::Shutdown::Write);
    match heard.recv_timeout(PATIENCE).unwrap() {
        Heard::Over(why) => why,
        other => panic!("{other:?}"),
    }
}

fn words<const N: usize>(class: Class, words: [u64; N]) -> Vec<u8> {
    Head::of_words(class, 7, words).to_bytes().to_vec()
}

#[test]
fn nonsense_ends_the_link_with_its_name() {
    let unsound = Header { inline_len: 500, ..Header::default() };
    let table = Header { attachments: 1, inline_len: 32, flags: 1 << 5, ..Header::default() };
    let mut huge =
        Head::of_frame(Class::Large, 7, &Header { attachments: 1, inline_len: 32, ..Header::default() })
            .to_bytes()
            .to_vec();
    huge.extend([0; 16]);
    huge.extend(u64::MAX.to_le_bytes());
    huge.extend([0; 8]);
    let mut behind = huge.clone();
    behind[3] = Class::Frame as u8;
    behind[64 + 16..64 + 24].copy_from_slice(&100_000u64.to_le_bytes());
    let mut no_table = Head::of_frame(Class::Frame, 7, &table).to_bytes().to_vec();
    no_table.extend([0; 32]);
    let cases: [(Vec<u8>, &str); 11] = [
        (
            b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nUser-Agent: somebody\r\n\r\n".to_vec(),
            "begins with `RL`",
        ),
        (vec![0; 64], "begins with `RL`"),
        (Head::of_frame(Class::Frame, 7, &unsound).to_bytes().to_vec(), "do not fit its slot"),
        (huge, "a payload of"),
        (behind, "bytes of payload behind one frame"),
        (no_table, "table of descriptors"),
        (words(Class::Chunk, [0, 100]), "which does not take it"),
        (words(Class::Arrived, [1]), "a count"),
        (words(Class::Message, [u64::MAX, 0, 0]), "a message of"),
        (words(Class::Goodbye, [3]), "found this one at fault (code 3)"),
        (words(Class::Ping, [1])[..40].to_vec(), "the connection was cut"),
    ];
    for path in [Path::Epoll, Path::Uring] {
        for (bytes, expected) in &cases {
            let why = says(path, bytes);
            assert!(why.contains(expected), "{path:?}: wanted {expected}, found {why}");
        }
    }
}

#[test]
fn random_bytes_end_the_link_and_harm_nothing() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for path in [Path::Epoll, Path::Uring] {
        for _ in 0..50 {
            let mut bytes = Vec::new();
            for _ in 0..20 {
                // Mostly sound in form, so that it gets further than the first check.
                let mut head = words(Class::Ping, [random(), random() % 4096, random() % 70_000]);
                head[3] = u8::try_from(random() % 13).unwrap();
                bytes.extend(head);
                bytes.extend((0..random() % 300).map(|_| u8::try_from(random() % 256).unwrap()));
            }
            says(path, &bytes);
        }
    }
}
