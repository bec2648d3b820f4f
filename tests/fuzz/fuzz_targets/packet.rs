//! The control socket's reader on any bytes, in pieces of any size and with descriptors anywhere: it ends in whole packets
//! or in an error, and says the same however the bytes are cut.
#![no_main]

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use libfuzzer_sys::fuzz_target;
use ringway_ipc::packet::PacketStream;
use ringway_ipc::sys::{event, socket};

fuzz_target!(|data: &[u8]| {
    let (here, there) = socket::stream_pair().expect("descriptors for a socket");
    let mut stream = PacketStream::new(here);
    let counter = event::eventfd().expect("a descriptor");
    send(&there, &counter, data);
    drop(there);
    let mut bytes = 0;
    while let Ok(Some((packet, fds))) = stream.receive() {
        bytes += 8 + packet.len();
        assert!(fds.len() <= socket::MESSAGE_FDS_MAX && bytes <= data.len());
    }
});

/// Each piece begins with a byte that says how long it is and how many descriptors go with it.
fn send(to: &OwnedFd, counter: &OwnedFd, mut data: &[u8]) {
    while let [first, rest @ ..] = data {
        let (piece, next) = rest.split_at(rest.len().min(1 + usize::from(first & 31)));
        let fds = vec![counter.as_fd(); usize::from(first >> 5)];
        if piece.is_empty() || socket::send(to, &[IoSlice::new(piece)], &fds).is_err() {
            return;
        }
        data = next;
    }
}
