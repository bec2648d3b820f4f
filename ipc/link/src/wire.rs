//! What lies on the socket: heads of 64 bytes, most of them the header of a slot with its stamp replaced. Used by
//! `incoming` and `outgoing`. It moves no bytes and knows no channels.
//!
//! | off | bytes | |
//! |---|---|---|
//! | 0 | 2 | magic `RL` |
//! | 2 | 1 | version |
//! | 3 | 1 | [`Class`] |
//! | 4 | 4 | channel, little-endian; 0 where none is meant |
//! | 8 | 56 | the seven words of a frame's header, or of what the class says |
//!
//! Behind a [`Class::Frame`] lie its inline area and its payloads in the order of their descriptors; behind a
//! [`Class::Large`] only the inline area, the payloads come in [`Class::Chunk`]s. Where the descriptors lie in a table, the
//! table is the first payload.

use ringway_ipc::frame::Header;
use ringway_ipc::layout::HEADER_WORDS;

use crate::fault::Fault;

/// Bytes of a head.
pub const HEAD_BYTES: usize = 64;

/// First bytes of every head.
pub const MAGIC: [u8; 2] = *b"RL";

/// The version of the format that follows.
pub const VERSION: u8 = 1;

/// What a head is the head of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// A frame with all of its payloads.
    Frame = 1,
    /// A frame whose payloads follow in chunks, as a transfer. Transfers are numbered from 0 in the order of these heads.
    Large = 2,
    /// Bytes of a transfer. Words: transfer, bytes.
    Chunk = 3,
    /// The sender gives a transfer up. Words: transfer.
    Abort = 4,
    /// The receiver wants no more of a transfer. Words: transfer.
    Refused = 5,
    /// The receiver of a channel's frames has room. Words: how many frames it has room for since the beginning.
    Credit = 6,
    /// Bytes of transfers that have arrived since the beginning. Words: bytes.
    Arrived = 7,
    /// A piece of a message for the owner of the other end. Words: bytes, topic, bytes of the message behind this piece.
    Message = 8,
    /// The channel is over. Words: reason.
    Close = 9,
    /// Asks for a [`Class::Pong`]. Words: the sender's clock, nanoseconds.
    Ping = 10,
    /// Answers. Words: the clock that the ping carried, the clock of whoever answers.
    Pong = 11,
    /// The last head of a link. Words: code of the reason.
    Goodbye = 12,
}

impl Class {
    const ALL: [Self; 12] = [
        Self::Frame,
        Self::Large,
        Self::Chunk,
        Self::Abort,
        Self::Refused,
        Self::Credit,
        Self::Arrived,
        Self::Message,
        Self::Close,
        Self::Ping,
        Self::Pong,
        Self::Goodbye,
    ];
}

/// A head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it is the head of.
    pub class: Class,
    /// The channel.
    pub channel: u32,
    /// A frame's header, or what the class says.
    pub words: [u64; HEADER_WORDS],
}

impl Head {
    /// The head of a frame.
    #[must_use]
    pub fn of_frame(class: Class, channel: u32, header: &Header) -> Self {
        Self { class, channel, words: header.to_words() }
    }

    /// A head without a frame, with its first words.
    #[must_use]
    pub fn of_words<const N: usize>(class: Class, channel: u32, first: [u64; N]) -> Self {
        let mut words = [0; HEADER_WORDS];
        words[..N].copy_from_slice(&first);
        Self { class, channel, words }
    }

    /// The bytes for the socket.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = VERSION;
        bytes[3] = self.class as u8;
        bytes[4..8].copy_from_slice(&self.channel.to_le_bytes());
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(self.words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads the bytes of a head.
    ///
    /// # Errors
    /// They are none of this version.
    pub fn read(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Fault> {
        if bytes[..2] != MAGIC {
            return Err(Fault::Magic { found: [bytes[0], bytes[1]] });
        }
        if bytes[2] != VERSION {
            return Err(Fault::Version { found: bytes[2] });
        }
        let class = Class::ALL.into_iter().find(|class| *class as u8 == bytes[3]);
        let class = class.ok_or(Fault::Class { found: bytes[3] })?;
        let channel = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let mut words = [0; HEADER_WORDS];
        for (word, place) in words.iter_mut().zip(bytes[8..].chunks_exact(8)) {
            *word = u64::from_le_bytes(place.try_into().unwrap_or_default());
        }
        Ok(Self { class, channel, words })
    }

    /// The header of a frame.
    ///
    /// # Errors
    /// Its sizes do not fit a slot.
    pub fn header(&self) -> Result<Header, Fault> {
        let header = Header::from_words(&self.words);
        if header.check() { Ok(header) } else { Err(Fault::Sizes) }
    }
}

/// The time of a deadline as it travels: how much is left of it; none for none.
#[must_use]
pub fn deadline_left_ns(deadline_ns: u64, now_ns: u64) -> u64 {
    // One that has passed is still a deadline.
    if deadline_ns == 0 { 0 } else { deadline_ns.saturating_sub(now_ns).max(1) }
}

/// The deadline here for what is left of it.
#[must_use]
pub fn deadline_here_ns(left_ns: u64, now_ns: u64) -> u64 {
    if left_ns == 0 { 0 } else { now_ns.saturating_add(left_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_head_survives(class in 1..=12u8, channel: u32, words: [u64; HEADER_WORDS]) {
            let class = Class::ALL.into_iter().find(|known| *known as u8 == class).unwrap();
            let head = Head { class, channel, words };
            prop_assert_eq!(Head::read(&head.to_bytes()), Ok(head));
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let header = Header { invocation: 0x0102_0304_0506_0708, kind: 1, ..Header::default() };
        let bytes = Head::of_frame(Class::Frame, 0x0a0b_0c0d, &header).to_bytes();
        assert_eq!(bytes[..16], [b'R', b'L', 1, 1, 0x0d, 0x0c, 0x0b, 0x0a, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[54], 1, "the kind lies where it lies in a slot");
    }

    #[test]
    fn what_is_no_head_is_refused_by_name() {
        let good = Head::of_words(Class::Ping, 0, [1]).to_bytes();
        for (at, expected) in [
            (0, Fault::Magic { found: [b'R' ^ 0xff, b'L'] }),
            (2, Fault::Version { found: 1 ^ 0xff }),
            (3, Fault::Class { found: 10 ^ 0xff }),
        ] {
            let mut bytes = good;
            bytes[at] ^= 0xff;
            assert_eq!(Head::read(&bytes), Err(expected));
        }
        let unsound = Header { inline_len: 193, ..Header::default() };
        assert_eq!(Head::of_frame(Class::Frame, 1, &unsound).header(), Err(Fault::Sizes));
    }

    #[test]
    fn deadlines_travel_as_what_is_left() {
        assert_eq!(deadline_left_ns(0, 50), 0);
        assert_eq!(deadline_left_ns(80, 50), 30);
        assert_eq!(deadline_left_ns(40, 50), 1, "one that has passed does not become none");
        assert_eq!(deadline_here_ns(0, 7), 0);
        assert_eq!(deadline_here_ns(30, 7), 37);
    }
}
