//! What the sockets promise: message borders, descriptors with the bytes, a hang-up that shows, the peer's identity.

use super::*;
use crate::sys::{event, process};

fn text(bytes: &[u8]) -> [IoSlice<'_>; 1] {
    [IoSlice::new(bytes)]
}

fn read(socket: &OwnedFd, fds: &mut Vec<OwnedFd>) -> io::Result<(Vec<u8>, Received)> {
    let mut buffer = [0; 16];
    let received = receive(socket, &mut [IoSliceMut::new(&mut buffer)], fds)?;
    Ok((buffer[..received.bytes].to_vec(), received))
}

#[test]
fn packets_keep_their_borders_and_carry_descriptors() {
    let (ours, theirs) = seqpacket_pair().unwrap();
    let counter = event::eventfd().unwrap();
    assert_eq!(send(&ours, &text(b"one"), &[counter.as_fd(), counter.as_fd()]).unwrap(), 3);
    assert_eq!(send(&ours, &text(b"two"), &[]).unwrap(), 3);

    let mut fds = Vec::new();
    let (bytes, received) = read(&theirs, &mut fds).unwrap();
    assert_eq!(bytes, b"one");
    assert_eq!(received, Received { bytes: 3, truncated: false, fds_lost: false });
    assert_eq!(fds.len(), 2);
    assert_eq!(read(&theirs, &mut fds).unwrap().0, b"two");

    // The received descriptor is the same counter, and it does not survive an exec.
    event::eventfd_add(&fds[1]).unwrap();
    assert_eq!(event::eventfd_take(&counter).unwrap(), 1);
    assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn a_long_packet_is_reported_cut() {
    let (ours, theirs) = seqpacket_pair().unwrap();
    send(&ours, &text(&[7; 40]), &[]).unwrap();
    let (bytes, received) = read(&theirs, &mut Vec::new()).unwrap();
    assert_eq!((bytes.len(), received.truncated), (16, true));
}

#[test]
fn too_many_descriptors_are_refused_before_they_are_sent() {
    let (ours, _theirs) = seqpacket_pair().unwrap();
    let fds = [ours.as_fd(); MESSAGE_FDS_MAX + 1];
    assert_eq!(send(&ours, &text(b"x"), &fds).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    send(&ours, &text(b"x"), &fds[1..]).unwrap();
}

#[test]
fn an_empty_socket_would_block_and_a_hang_up_reads_as_zero() {
    for (ours, theirs) in [seqpacket_pair().unwrap(), stream_pair().unwrap()] {
        let error = read(&theirs, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert_eq!(read(&theirs, &mut Vec::new()).unwrap().1.bytes, 0);
        let error = send(&theirs, &text(b"x"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[test]
fn the_peer_is_named() {
    let (ours, _theirs) = stream_pair().unwrap();
    let credentials = peer_credentials(&ours).unwrap();
    assert_eq!(credentials.pid, std::process::id());
    assert_eq!(credentials.uid, process::user_id());
    // Older kernels cannot say; newer ones hand out a live process.
    if let Ok(pidfd) = peer_pidfd(&ours) {
        assert!(!process::has_exited(&pidfd).unwrap());
    }
}

#[test]
fn the_network_tells_its_round_trip() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    theirs.write_all(b"x").unwrap();
    ours.read_exact(&mut [0]).unwrap();
    ours.write_all(b"x").unwrap();
    theirs.read_exact(&mut [0]).unwrap();
    let nanos = shortest_round_trip_ns(&ours).unwrap();
    assert!((1..1_000_000_000).contains(&nanos), "{nanos}");
    let (unix, _theirs) = stream_pair().unwrap();
    assert_eq!(shortest_round_trip_ns(&unix), None);
}
