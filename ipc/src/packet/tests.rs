//! Packets cut anywhere, hostile prefixes, slow readers; listeners that find a live, a stale or a wrong file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use super::*;
use crate::sys::event;

fn pair() -> (PacketStream, OwnedFd) {
    let (ours, theirs) = socket::stream_pair().unwrap();
    (PacketStream::new(ours), theirs)
}

fn counter(value: u64) -> Arc<OwnedFd> {
    let fd = event::eventfd().unwrap();
    for _ in 0..value {
        event::eventfd_add(&fd).unwrap();
    }
    Arc::new(fd)
}

fn values(fds: &[OwnedFd]) -> Vec<u64> {
    fds.iter().map(|fd| event::eventfd_take(fd).unwrap()).collect()
}

/// What packets look like on the wire.
fn raw(bytes: &[u8], fd_count: u32) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_le_bytes()[..], &fd_count.to_le_bytes(), bytes].concat()
}

fn send_raw(socket: &OwnedFd, bytes: &[u8], fds: &[Arc<OwnedFd>]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    assert_eq!(socket::send(socket, &[IoSlice::new(bytes)], &fds).unwrap(), bytes.len());
}

#[test]
fn packets_arrive_in_order_with_their_descriptors() {
    let (mut sender, theirs) = pair();
    let mut receiver = PacketStream::new(theirs);
    sender.queue(b"first", vec![]).unwrap();
    sender.queue(b"", vec![counter(1), counter(2)]).unwrap();
    sender.queue(b"third", vec![]).unwrap();
    sender.queue(b"fourth", vec![counter(3)]).unwrap();
    assert!(sender.wants_write());
    assert!(sender.flush().unwrap());
    assert!(!sender.wants_write() && sender.queued_bytes() == 0);
    for (bytes, fds) in [(&b"first"[..], &[][..]), (b"", &[1, 2]), (b"third", &[]), (b"fourth", &[3])] {
        let (found, found_fds) = receiver.receive().unwrap().unwrap();
        assert_eq!((&found[..], &values(&found_fds)[..]), (bytes, fds));
    }
    assert!(receiver.receive().unwrap().is_none());
    drop(sender);
    assert!(matches!(receiver.receive(), Err(PacketError::HungUp)));
}

#[test]
fn a_packet_may_come_byte_by_byte() {
    let (mut receiver, theirs) = pair();
    for round in 0..3u64 {
        let bytes = raw(b"slow", 1);
        for (at, byte) in bytes.iter().enumerate() {
            assert!(receiver.receive().unwrap().is_none(), "nothing whole after {at} bytes");
            let fds = if at == 0 { vec![counter(round + 1)] } else { vec![] };
            send_raw(&theirs, &[*byte], &fds);
        }
        let (found, fds) = receiver.receive().unwrap().unwrap();
        assert_eq!((&found[..], values(&fds)), (&b"slow"[..], vec![round + 1]));
    }
}

#[test]
fn a_large_packet_needs_several_flushes() {
    let (mut sender, theirs) = pair();
    let mut receiver = PacketStream::new(theirs);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| at.to_le_bytes()[0]).collect();
    sender.queue(&bytes, vec![counter(7)]).unwrap();
    sender.queue(b"after", vec![counter(8)]).unwrap();
    let mut flushes = 0;
    let mut found = Vec::new();
    while found.len() < 2 {
        flushes += usize::from(!sender.flush().unwrap());
        while let Some(packet) = receiver.receive().unwrap() {
            found.push(packet);
        }
    }
    assert!(flushes > 1);
    assert!(found[0].0 == bytes && values(&found[0].1) == [7]);
    assert!(found[1].0 == b"after" && values(&found[1].1) == [8]);
}

#[test]
fn hostile_prefixes_are_refused_before_memory_is_taken() {
    let check = |bytes: &[u8], fds: &[Arc<OwnedFd>], expected: &str| {
        let (mut receiver, theirs) = pair();
        send_raw(&theirs, bytes, fds);
        drop(theirs);
        let error = loop {
            match receiver.receive() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{expected}: still waiting"),
                Err(error) => break error,
            }
        };
        assert!(format!("{error:?}").starts_with(expected), "{error:?} instead of {expected}");
        assert!(receiver.incoming.capacity() < 1 << 20);
    };
    check(&[0xff; 8], &[], "TooLong");
    check(&[1, 0, 0, 4, 0, 0, 0, 0], &[], "TooLong");
    check(&[0, 0, 0, 0, 9, 0, 0, 0], &[], "TooManyFds");
    check(&raw(b"x", 2), &[counter(0)], "FdsMissing");
    check(&raw(b"x", 0), &[counter(0)], "FdsUnasked");
    check(&raw(b"longer", 1)[..9], &[counter(0), counter(0)], "FdsUnasked");
    check(&raw(b"x", 0)[..8], &[], "Torn");
    check(&[1, 2, 3], &[], "Torn");
    check(b"", &[], "HungUp");
}

#[test]
fn descriptors_do_not_pile_up() {
    let (mut receiver, theirs) = pair();
    send_raw(&theirs, &[5], &(0..8).map(counter).collect::<Vec<_>>());
    assert!(receiver.receive().unwrap().is_none());
    send_raw(&theirs, &[0], &[counter(0)]);
    assert!(matches!(receiver.receive(), Err(PacketError::FdsUnasked { found: 1 })));
}

#[test]
fn a_slow_reader_is_named() {
    let (mut sender, _theirs) = pair();
    sender.limit_queue(4 << 20);
    let bytes = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = sender.queue(&bytes, vec![]) {
            break error;
        }
        assert!(!sender.flush().unwrap());
    };
    assert!(matches!(error, PacketError::SlowReader { queued_max, .. } if queued_max == 4 << 20));
    let error = sender.queue(&vec![0; PACKET_BYTES_MAX + 1], vec![]).unwrap_err();
    assert!(matches!(error, PacketError::TooLong { .. }));
    let fds = (0..9).map(counter).collect();
    assert!(matches!(sender.queue(b"", fds), Err(PacketError::TooManyFds { found: 9 })));
}

#[test]
fn a_sender_hears_that_its_peer_is_gone() {
    let (mut sender, theirs) = pair();
    drop(theirs);
    sender.queue(b"x", vec![]).unwrap();
    assert_eq!(sender.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

fn meet(address: &str) -> (PacketListener, PacketStream, PacketStream) {
    let listener = PacketListener::bind(address).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let client = PacketStream::connect(address).unwrap();
    let server = listener.accept().unwrap().unwrap();
    assert_eq!(server.credentials().unwrap().pid, std::process::id());
    (listener, client, server)
}

#[test]
fn a_socket_file_is_private_and_goes_with_its_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/c.sock");
    let address = path.to_str().unwrap();
    let (listener, mut client, mut server) = meet(address);
    let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!((mode(path.parent().unwrap()), listener.path()), (0o700, Some(&*path)));
    client.queue(b"hello", vec![counter(4)]).unwrap();
    assert!(client.flush().unwrap());
    assert_eq!(server.receive().unwrap().unwrap().0, b"hello");
    let shared = folder.path().join("shared.sock");
    let open = PacketListener::bind_with(shared.to_str().unwrap(), Access::Everybody).unwrap();
    assert_eq!(mode(&shared) | 0o022, 0o666, "but for the umask");
    drop(open);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn an_abstract_name_leaves_no_file() {
    let address = format!("@ringway-packet-{}", std::process::id());
    let (listener, _client, _server) = meet(&address);
    assert_eq!(listener.path(), None);
    let error = PacketListener::bind(&address).unwrap_err();
    assert!(matches!(error, BindError::InUse { pid, .. } if pid == std::process::id()), "{error}");
    drop(listener);
    drop(PacketListener::bind(&address).unwrap());
}

#[test]
fn a_live_listener_is_never_replaced_and_a_stale_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let address = path.to_str().unwrap();
    let stale = UnixListener::bind(&path).unwrap();
    let error = PacketListener::bind(address).unwrap_err();
    assert!(matches!(error, BindError::InUse { pid, .. } if pid == std::process::id()), "{error}");
    drop(stale);
    assert!(path.exists(), "std leaves the file there, as a killed process does");
    let first = PacketListener::bind(address).unwrap();
    drop(PacketStream::connect(address).unwrap());
    fs::remove_file(&path).unwrap();
    let second = PacketListener::bind(address).unwrap();
    drop(first);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket(), "the later file stays");
    drop(second);
}

#[test]
fn of_many_that_find_a_stale_file_one_binds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    drop(UnixListener::bind(&path).unwrap());
    let address = path.to_str().unwrap();
    let bound: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8).map(|_| scope.spawn(|| PacketListener::bind(address).ok())).collect();
        tries.into_iter().filter_map(|attempt| attempt.join().unwrap()).collect()
    });
    assert_eq!(bound.len(), 1);
    assert!(PacketStream::connect(address).is_ok());
}

#[test]
fn other_files_and_open_directories_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "mine").unwrap();
    let bind = |path: &std::path::Path| PacketListener::bind(path.to_str().unwrap());
    assert!(matches!(bind(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(bind(&folder.path().join("s")), Err(BindError::OpenDirectory { .. })));
    assert!(bind(&folder.path().join("x".repeat(200))).is_err());
}
