//! Where one message of a handshake ends: twelve bytes, then JSON. Memory grows with the bytes that came, not with what
//! a length announces, and each step has its own limit. It must not know what the messages say.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::HandshakeError;

/// What every message begins with.
pub const MAGIC: [u8; 4] = *b"RWLK";
/// The version of the handshake. It rises when a message changes meaning.
pub const HANDSHAKE_VERSION: u16 = 1;
/// The longest JSON text of a message, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// The bytes before the JSON text.
const PREFIX_BYTES: usize = 12;
/// How many bytes are read at once.
const CHUNK_BYTES: usize = 4 << 10;
/// How long a stream is left alone that has nothing to give before the deadline: it has a timeout of its own, or does
/// not block at all, and then this keeps the wait from taking a processor.
const PAUSE: Duration = Duration::from_millis(1);

/// A message on its way in, with the deadline of the whole handshake.
pub(super) struct Incoming<'a, S> {
    pub(super) stream: &'a mut S,
    pub(super) deadline: Instant,
    /// What is waited for, for errors.
    pub(super) wanted: &'static str,
}

impl<S: Read> Incoming<'_, S> {
    /// Reads one message of at most `limit` bytes.
    pub(super) fn read(&mut self, limit: usize) -> Result<Vec<u8>, HandshakeError> {
        let mut prefix = [0; PREFIX_BYTES];
        self.fill(&mut prefix, false)?;
        let [m0, m1, m2, m3, v0, v1, r0, r1, l0, l1, l2, l3] = prefix;
        let (found, version) = ([m0, m1, m2, m3], u16::from_le_bytes([v0, v1]));
        if found != MAGIC {
            return Err(HandshakeError::Magic { found });
        }
        if version != HANDSHAKE_VERSION {
            return Err(HandshakeError::Version { found: version });
        }
        let reserved = u16::from_le_bytes([r0, r1]);
        if reserved != 0 {
            return Err(HandshakeError::Reserved { found: reserved });
        }
        let found = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if found > limit {
            return Err(HandshakeError::TooLong { limit, found });
        }
        let mut json = Vec::new();
        while json.len() < found {
            let start = json.len();
            let more = (found - start).min(CHUNK_BYTES);
            json.reserve_exact(more);
            json.resize(start + more, 0);
            self.fill(&mut json[start..], true)?;
        }
        Ok(json)
    }

    fn fill(&mut self, bytes: &mut [u8], begun: bool) -> Result<(), HandshakeError> {
        let wanted = self.wanted;
        let mut filled = 0;
        while filled < bytes.len() {
            let read = self.stream.read(&mut bytes[filled..]);
            match read {
                Ok(0) => return Err(ended(wanted, begun || filled > 0)),
                Ok(count) => filled += count,
                // TLS without its goodbye.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(ended(wanted, begun || filled > 0));
                }
                Err(error) => wait_or_give_up(error, self.deadline, wanted)?,
            }
            // However many bytes came: whoever sends one a second would have this side for ever.
            in_time(self.deadline, wanted)?;
        }
        Ok(())
    }
}

const fn ended(wanted: &'static str, begun: bool) -> HandshakeError {
    if begun { HandshakeError::Torn { wanted } } else { HandshakeError::Closed { wanted } }
}

fn in_time(deadline: Instant, wanted: &'static str) -> Result<(), HandshakeError> {
    if Instant::now() < deadline { Ok(()) } else { Err(HandshakeError::DeadlinePassed { wanted }) }
}

/// Says whether an error is one that passes while there is time.
fn wait_or_give_up(
    error: std::io::Error,
    deadline: Instant,
    wanted: &'static str,
) -> Result<(), HandshakeError> {
    match error.kind() {
        ErrorKind::Interrupted => in_time(deadline, wanted),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            in_time(deadline, wanted)?;
            std::thread::sleep(PAUSE);
            Ok(())
        }
        _ => Err(HandshakeError::Broken(error)),
    }
}

/// Sends one message.
pub(super) fn write(
    stream: &mut impl Write,
    json: &[u8],
    deadline: Instant,
    wanted: &'static str,
) -> Result<(), HandshakeError> {
    let too_long = || HandshakeError::TooLong { limit: FRAME_BYTES_MAX, found: json.len() };
    let length = u32::try_from(json.len()).map_err(|_| too_long())?;
    if json.len() > FRAME_BYTES_MAX {
        return Err(too_long());
    }
    // In one piece, so that no peer sees a prefix by itself.
    let frame = [&MAGIC[..], &HANDSHAKE_VERSION.to_le_bytes(), &[0; 2], &length.to_le_bytes(), json].concat();
    let mut rest = &frame[..];
    while !rest.is_empty() {
        in_time(deadline, wanted)?;
        match stream.write(rest) {
            Ok(0) => return Err(HandshakeError::Broken(ErrorKind::WriteZero.into())),
            Ok(count) => rest = &rest[count..],
            Err(error) => wait_or_give_up(error, deadline, wanted)?,
        }
    }
    loop {
        match stream.flush() {
            Ok(()) => return Ok(()),
            Err(error) => wait_or_give_up(error, deadline, wanted)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    /// Gives what it has, a few bytes at a time, and then what it is told to.
    struct Slow<'a> {
        bytes: &'a [u8],
        step: usize,
        end: Option<ErrorKind>,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(buffer.len()).min(self.bytes.len());
            if count == 0 {
                return self.end.map_or(Ok(0), |kind| Err(kind.into()));
            }
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<u8>, HandshakeError> {
        let mut stream = Slow { bytes, step, end: None };
        Incoming { stream: &mut stream, deadline: soon(), wanted: "a test" }.read(FRAME_BYTES_MAX)
    }

    fn frame(json: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write(&mut frame, json, soon(), "a test").unwrap();
        frame
    }

    #[test]
    fn a_message_survives_any_cut_and_half_a_message_is_torn() {
        let json = br#"{"hello":1}"#;
        let whole = frame(json);
        assert_eq!(&whole[..12], b"RWLK\x01\0\0\0\x0b\0\0\0");
        for step in 1..=whole.len() {
            assert_eq!(read(&whole, step).unwrap(), json);
        }
        assert!(matches!(read(&[], 1), Err(HandshakeError::Closed { wanted: "a test" })));
        for end in 1..whole.len() {
            let found = read(&whole[..end], 3);
            assert!(matches!(found, Err(HandshakeError::Torn { .. })), "{end}: {found:?}");
        }
        assert_eq!(read(&frame(b""), 1).unwrap(), b"");
    }

    #[test]
    fn each_field_of_the_prefix_is_checked() {
        let with = |place: usize, byte: u8| {
            let mut bytes = frame(b"{}");
            bytes[place] = byte;
            read(&bytes, 64)
        };
        assert!(matches!(with(0, b'G'), Err(HandshakeError::Magic { found: [b'G', b'W', b'L', b'K'] })));
        assert!(matches!(with(4, 2), Err(HandshakeError::Version { found: 2 })));
        assert!(matches!(with(7, 1), Err(HandshakeError::Reserved { found: 256 })));
        assert!(matches!(with(11, 0xff), Err(HandshakeError::TooLong { .. })));
        assert!(matches!(read(b"GET / HTTP/1.1\r\n", 5), Err(HandshakeError::Magic { .. })));
    }

    #[test]
    fn a_message_has_at_most_64_kib() {
        let longest = vec![b' '; FRAME_BYTES_MAX];
        assert_eq!(read(&frame(&longest), 1000).unwrap(), longest);
        let longer = vec![b' '; FRAME_BYTES_MAX + 1];
        let refused = write(&mut Vec::new(), &longer, soon(), "a test");
        assert!(matches!(refused, Err(HandshakeError::TooLong { limit: FRAME_BYTES_MAX, found: 65_537 })));
        let mut prefix = frame(b"");
        prefix[8..12].copy_from_slice(&65_537u32.to_le_bytes());
        assert!(matches!(read(&prefix, 12), Err(HandshakeError::TooLong { found: 65_537, .. })));
    }

    #[test]
    fn memory_grows_with_what_came_and_not_with_what_was_announced() {
        struct Greedy {
            prefix: Vec<u8>,
            largest: usize,
        }
        impl Read for Greedy {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.largest = self.largest.max(buffer.len());
                let count = self.prefix.len().min(buffer.len());
                buffer[..count].copy_from_slice(&self.prefix[..count]);
                self.prefix.drain(..count);
                Ok(count)
            }
        }
        let mut prefix = frame(b"");
        prefix[8..12].copy_from_slice(&65_536u32.to_le_bytes());
        let mut stream = Greedy { prefix, largest: 0 };
        let found =
            Incoming { stream: &mut stream, deadline: soon(), wanted: "a test" }.read(FRAME_BYTES_MAX);
        assert!(matches!(found, Err(HandshakeError::Torn { .. })));
        assert_eq!(stream.largest, CHUNK_BYTES);
    }

    #[test]
    fn the_deadline_ends_a_stream_that_has_nothing_and_one_that_drips() {
        let whole = frame(b"{}");
        for (bytes, end) in [(&whole[..3], ErrorKind::WouldBlock), (&whole, ErrorKind::TimedOut)] {
            let mut stream = Slow { bytes, step: 1, end: Some(end) };
            let deadline = if end == ErrorKind::TimedOut { Instant::now() } else { Instant::now() + PAUSE };
            let found = Incoming { stream: &mut stream, deadline, wanted: "a test" }.read(64);
            assert!(matches!(found, Err(HandshakeError::DeadlinePassed { .. })), "{found:?}");
        }
        let mut stream = Slow { bytes: &[], step: 1, end: Some(ErrorKind::ConnectionReset) };
        let found = Incoming { stream: &mut stream, deadline: soon(), wanted: "a test" }.read(64);
        assert!(matches!(found, Err(HandshakeError::Broken(_))));
        let late = write(&mut Vec::new(), b"{}", Instant::now(), "a test");
        assert!(matches!(late, Err(HandshakeError::DeadlinePassed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..64), tail in prop::collection::vec(any::<u8>(), 0..64), step in 1usize..9) {
            let found = read(&bytes, step);
            prop_assert!(found.is_err());
            let begun = [&MAGIC[..], &[1, 0, 0, 0], &tail].concat();
            if let Ok(json) = read(&begun, step) {
                prop_assert!(json.len() + 4 <= tail.len());
            }
        }
    }
}
