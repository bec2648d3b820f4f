//! The names of things: workers, functions, invocations, traces and spans. Used everywhere. Ids are
//! plain values: nothing here makes random ones or looks one up.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// Reads lower- or upper-case hex digits into exactly `N` bytes.
fn bytes_from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Writes bytes as lower-case hex digits over `digits`, two for each, as far as both go.
pub fn put_hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// At most 16 bytes.
fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut digits = [0; 32];
    let digits = &mut digits[..bytes.len() * 2];
    put_hex(bytes, digits);
    f.write_str(std::str::from_utf8(digits).map_err(|_| fmt::Error)?)
}

/// Text that is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted {wanted} hex digits, found `{found}`")]
pub struct ParseHexIdError {
    wanted: usize,
    found: String,
}

macro_rules! serde_as_text {
    ($type:ident, $wanted:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($wanted)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// One run of one worker: a random number that the worker draws when it starts, so that it is still
/// known after the engine has restarted. Shown as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(u64);

impl WorkerId {
    /// Makes an id of a number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0.to_be_bytes(), f)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerId({self})")
    }
}

impl FromStr for WorkerId {
    type Err = ParseHexIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = bytes_from_hex::<8>(text);
        let bytes = bytes.ok_or_else(|| ParseHexIdError { wanted: 16, found: text.to_owned() })?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

serde_as_text!(WorkerId, "a worker id of 16 hex digits");

macro_rules! trace_part {
    ($(#[$doc:meta])* $type:ident, $bytes:literal, $digits:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $type([u8; $bytes]);

        impl $type {
            /// The id of all zeros, which W3C calls invalid: it stands for none.
            pub const NONE: Self = Self([0; $bytes]);

            /// Makes an id of its bytes in the order of their hex digits.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Returns the bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $bytes] {
                self.0
            }

            /// Says whether the id stands for none.
            #[must_use]
            pub fn is_none(self) -> bool {
                self == Self::NONE
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }

        impl FromStr for $type {
            type Err = ParseHexIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bytes = bytes_from_hex(text);
                bytes.map(Self).ok_or_else(|| ParseHexIdError { wanted: $digits, found: text.to_owned() })
            }
        }

        serde_as_text!($type, $wanted);
    };
}

trace_part! {
    /// A W3C trace id.
    TraceId, 16, 32, "a trace id of 32 hex digits"
}
trace_part! {
    /// A W3C span id (there called parent id).
    SpanId, 8, 16, "a span id of 16 hex digits"
}

/// One call in flight: an index in the caller's table of pending calls, and a generation that tells a late
/// reply from one to the call that now has the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvocationId(u64);

impl InvocationId {
    /// Makes an id of an index and its generation.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }

    /// Makes an id of the number in a frame header.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number for a frame header.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// Returns the index in the caller's table.
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Returns the generation.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// The id of a function, by convention `namespace::name`: 1 to 256 bytes without white space and control
/// characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(Arc<str>);

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdError {
    /// The text is empty.
    #[error("wanted an id such as `orders::validate`, found an empty text")]
    Empty,
    /// The text is too long.
    #[error("wanted an id of at most {} bytes, found {found} bytes", limits::ID_BYTES_MAX)]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
    /// The text has a character that ids may not have.
    #[error("wanted an id without white space and control characters, found {character:?} at byte {offset}")]
    Character {
        /// The character.
        character: char,
        /// Where it stands.
        offset: usize,
    },
}

/// Checks a function, trigger or trigger type id: 1 to 256 bytes, no white space, no control characters.
///
/// # Errors
/// What is wrong with the first thing that is.
pub fn check_id(text: &str) -> Result<(), InvalidIdError> {
    if text.is_empty() {
        return Err(InvalidIdError::Empty);
    }
    if text.len() > limits::ID_BYTES_MAX {
        return Err(InvalidIdError::TooLong { found: text.len() });
    }
    let bad = text.char_indices().find(|(_, character)| character.is_whitespace() || character.is_control());
    bad.map_or(Ok(()), |(offset, character)| Err(InvalidIdError::Character { character, offset }))
}

impl FunctionId {
    /// Makes an id of a text.
    ///
    /// # Errors
    /// The text is empty, longer than 256 bytes, or has white space or control characters.
    pub fn new(text: &str) -> Result<Self, InvalidIdError> {
        check_id(text).map(|()| Self(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionId {
    type Err = InvalidIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<&str> for FunctionId {
    type Error = InvalidIdError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl AsRef<str> for FunctionId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for FunctionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for FunctionId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionId({})", self.0)
    }
}

serde_as_text!(FunctionId, "a function id such as `orders::validate`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_id_is_sixteen_hex_digits() {
        let id = WorkerId::new(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00000000000000ab\"");
        for bad in
            ["", "ab", "00000000000000agx", "+0000000000000ab", "00000000000000ab0", "000000000000000é"]
        {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn function_ids_are_checked() {
        let check = |text: &str, good: bool| {
            assert_eq!(FunctionId::new(text).is_ok(), good, "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<FunctionId>(&json).is_ok(), good, "{text:?}");
        };
        check("orders::validate", true);
        check("publish", true);
        check("größe::prüfen", true);
        check("", false);
        check("a b", false);
        check("a\u{a0}b", false);
        check("a\nb", false);
        check(&"x".repeat(256), true);
        check(&"x".repeat(257), false);
    }

    #[test]
    fn an_invocation_is_index_and_generation() {
        let id = InvocationId::new(3, u32::MAX);
        assert_eq!((id.index(), id.generation()), (3, u32::MAX));
        assert_eq!(InvocationId::from_u64(id.to_u64()), id);
    }
}
