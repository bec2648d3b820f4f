//! Where one message of the control socket ends and the next begins: `u32 json_len, u32 fd_count`, both
//! little-endian, then the JSON text. Used by both ends of that socket. It sees bytes only: file
//! descriptors ride with the system call that carries a frame's first byte, and the caller keeps them in
//! the order of arrival and takes [`Frame::fd_count`] of them for each frame.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

/// Why a frame could not be written or read. After a read error the stream has no meaning any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The JSON text is too long.
    #[error("wanted at most {} bytes of JSON, found {found}", limits::CONTROL_JSON_BYTES_MAX)]
    TooLong {
        /// Its length in bytes.
        found: u64,
    },
    /// Too many file descriptors.
    #[error("wanted at most {} file descriptors, found {found}", limits::CONTROL_FDS_MAX)]
    TooManyFds {
        /// Their number.
        found: u32,
    },
    /// The JSON text is not the message it should be.
    #[error("cannot read or write a control message")]
    Json(#[from] serde_json::Error),
}

/// Appends one message to a buffer.
///
/// # Errors
/// The message is over a limit or cannot be written as JSON; the buffer is then as it was.
pub fn encode<T: Serialize>(message: &T, fd_count: u32, out: &mut Vec<u8>) -> Result<(), FramingError> {
    if fd_count > limits::CONTROL_FDS_MAX {
        return Err(FramingError::TooManyFds { found: fd_count });
    }
    let start = out.len();
    out.extend_from_slice(&[0; limits::CONTROL_PREFIX_BYTES]);
    let written = serde_json::to_writer(&mut *out, message).map_err(FramingError::from).and_then(|()| {
        let found = out.len() - start - limits::CONTROL_PREFIX_BYTES;
        let len = u32::try_from(found).ok().filter(|len| *len <= limits::CONTROL_JSON_BYTES_MAX);
        len.ok_or_else(|| FramingError::TooLong { found: u64::try_from(found).unwrap_or(u64::MAX) })
    });
    match written {
        Ok(len) => {
            out[start..start + 4].copy_from_slice(&len.to_le_bytes());
            out[start + 4..start + 8].copy_from_slice(&fd_count.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// One whole frame, still in the decoder's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The JSON text.
    pub json: &'a [u8],
    /// How many file descriptors ride with it.
    pub fd_count: u32,
}

impl Frame<'_> {
    /// Reads the JSON text.
    ///
    /// # Errors
    /// The text is not such a message.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, FramingError> {
        Ok(serde_json::from_slice(self.json)?)
    }
}

/// Cuts a stream of bytes into frames. Memory grows only with bytes that have come, not with what a prefix
/// announces.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// The bytes at the buffer's start that belong to frames handed out already.
    taken: usize,
}

impl Decoder {
    /// Makes an empty decoder.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), taken: 0 }
    }

    /// Appends bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, or none while more bytes are wanted.
    ///
    /// # Errors
    /// A prefix announces more than the limits allow. Every further call says so again.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FramingError> {
        let rest = &self.buffer[self.taken..];
        let Some((prefix, rest)) = rest.split_first_chunk::<{ limits::CONTROL_PREFIX_BYTES }>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *prefix;
        let (len, fd_count) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if len > limits::CONTROL_JSON_BYTES_MAX {
            return Err(FramingError::TooLong { found: u64::from(len) });
        }
        if fd_count > limits::CONTROL_FDS_MAX {
            return Err(FramingError::TooManyFds { found: fd_count });
        }
        let len = len as usize;
        let Some(json) = rest.get(..len) else { return Ok(None) };
        self.taken += limits::CONTROL_PREFIX_BYTES + len;
        Ok(Some(Frame { json, fd_count }))
    }

    /// Returns how many bytes wait for the rest of their frame.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.buffer.len() - self.taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn decode_all(bytes: &[u8], cut: usize) -> Result<Vec<(Value, u32)>, FramingError> {
        let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
        for part in bytes.chunks(cut) {
            decoder.push(part);
            while let Some(frame) = decoder.next_frame()? {
                frames.push((frame.parse()?, frame.fd_count));
            }
        }
        assert_eq!(decoder.waiting_bytes(), 0);
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_cut() {
        let messages = [(json!({"type": "heartbeat"}), 0), (json!("é"), 3), (json!(null), 8)];
        let mut bytes = Vec::new();
        for (message, fds) in &messages {
            encode(message, *fds, &mut bytes).unwrap();
        }
        for cut in 1..=bytes.len() {
            assert_eq!(decode_all(&bytes, cut).unwrap(), messages, "cut at {cut}");
        }
    }

    #[test]
    fn limits_hold_before_memory_is_taken() {
        let mut decoder = Decoder::new();
        decoder.push(&(limits::CONTROL_JSON_BYTES_MAX + 1).to_le_bytes());
        decoder.push(&[0; 4]);
        assert!(matches!(decoder.next_frame(), Err(FramingError::TooLong { .. })));
        assert!(decoder.next_frame().is_err(), "the error stays");
        let mut decoder = Decoder::new();
        decoder.push(&[0, 0, 0, 0, 9, 0, 0, 0]);
        assert!(matches!(decoder.next_frame(), Err(FramingError::TooManyFds { found: 9 })));
        let mut out = vec![7];
        assert!(encode(&0, 9, &mut out).is_err());
        assert_eq!(out, [7]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), small in prop::collection::vec(0u8..9, 0..64), cut in 1usize..16) {
            for bytes in [&bytes, &small] {
                let mut decoder = Decoder::new();
                let mut seen = 0;
                'stream: for part in bytes.chunks(cut) {
                    decoder.push(part);
                    loop {
                        match decoder.next_frame() {
                            Ok(Some(frame)) => seen += frame.json.len() + limits::CONTROL_PREFIX_BYTES,
                            Ok(None) => break,
                            Err(_) => break 'stream,
                        }
                    }
                }
                prop_assert!(seen + decoder.waiting_bytes() <= bytes.len());
            }
        }
    }
}
