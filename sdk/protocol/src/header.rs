//! The values of the fields of a frame header and of an attachment descriptor: what the bytes mean that
//! the rings carry. SDKs write and check them; where they lie in memory is the data plane's business.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number in a frame that has no meaning here. The peer that sent it broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a known {field}, found {found}")]
pub struct UnknownValueError {
    /// The field.
    pub field: &'static str,
    /// The number found.
    pub found: u32,
}

macro_rules! byte_enum {
    ($(#[$doc:meta])* $name:ident, $field:literal; $($(#[$vdoc:meta])* $variant:ident = $value:literal, $text:literal;)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant = $value,)+
        }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns the number on the wire.
            #[must_use]
            pub const fn to_u8(self) -> u8 {
                self as u8
            }
        }

        impl TryFrom<u8> for $name {
            type Error = UnknownValueError;

            #[inline]
            fn try_from(value: u8) -> Result<Self, UnknownValueError> {
                match value {
                    $($value => Ok(Self::$variant),)+
                    _ => Err(UnknownValueError { field: $field, found: u32::from(value) }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

byte_enum! {
    /// What a frame is. Zero is no kind, so that a slot never written is not taken for a frame.
    Kind, "frame kind";
    /// Asks a function to run and waits for the reply.
    Call = 1, "call";
    /// Asks a function to run; no reply comes.
    Send = 2, "send";
    /// The function's result. The header's `function` field holds status 0.
    Reply = 3, "reply";
    /// The function's failure. The header's `function` field holds the status of its error code.
    Error = 4, "error";
    /// The caller gave the invocation up.
    Cancel = 5, "cancel";
    /// One item of a stream that belongs to an invocation.
    StreamData = 6, "stream_data";
    /// The stream's sender is done.
    StreamEnd = 7, "stream_end";
    /// The stream's receiver has room for more.
    Credit = 8, "credit";
    /// Leases that the receiver of blocks returns.
    Release = 9, "release";
    /// The first frame of a ring.
    Hello = 10, "hello";
}

byte_enum! {
    /// How a body's bytes are to be read.
    Encoding, "encoding";
    /// There is no body.
    None = 0, "none";
    /// An archive of rkyv, little-endian, 32-bit offsets, aligned as its root asks.
    Rkyv = 1, "rkyv";
    /// JSON text (RFC 8259), UTF-8.
    Json = 2, "json";
    /// `MessagePack`.
    Msgpack = 3, "msgpack";
    /// Bytes that only the two ends understand.
    Bytes = 4, "bytes";
    /// A tensor: one attachment with element type and shape, no body.
    Tensor = 5, "tensor";
    /// An Arrow IPC stream.
    Arrow = 6, "arrow";
}

byte_enum! {
    /// What an attachment is for.
    Role, "attachment role";
    /// A buffer of the user's.
    Attachment = 0, "attachment";
    /// The body, which did not fit inline.
    Body = 1, "body";
    /// The meta area, which did not fit inline.
    Meta = 2, "meta";
    /// The table of descriptors, which did not fit inline.
    Table = 3, "table";
}

byte_enum! {
    /// The element type of a tensor.
    DType, "element type";
    /// No tensor: plain bytes.
    Opaque = 0, "opaque";
    /// Unsigned 8-bit integers.
    U8 = 1, "u8";
    /// Signed 8-bit integers.
    I8 = 2, "i8";
    /// Unsigned 16-bit integers.
    U16 = 3, "u16";
    /// Signed 16-bit integers.
    I16 = 4, "i16";
    /// Unsigned 32-bit integers.
    U32 = 5, "u32";
    /// Signed 32-bit integers.
    I32 = 6, "i32";
    /// Unsigned 64-bit integers.
    U64 = 7, "u64";
    /// Signed 64-bit integers.
    I64 = 8, "i64";
    /// IEEE 754 binary16.
    F16 = 9, "f16";
    /// The upper half of a binary32.
    Bf16 = 10, "bf16";
    /// IEEE 754 binary32.
    F32 = 11, "f32";
    /// IEEE 754 binary64.
    F64 = 12, "f64";
    /// Bytes of value 0 or 1.
    Bool = 13, "bool";
    /// Pairs of binary32.
    Complex64 = 14, "complex64";
    /// Pairs of binary64.
    Complex128 = 15, "complex128";
}

impl DType {
    /// Returns the bytes of one element.
    #[must_use]
    pub const fn item_bytes(self) -> u64 {
        match self {
            Self::Opaque | Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Complex64 => 8,
            Self::Complex128 => 16,
        }
    }

    /// Returns the bytes of a dense tensor of this type and shape; none where that overflows.
    #[must_use]
    pub fn tensor_bytes(self, shape: &[u64]) -> Option<u64> {
        shape.iter().try_fold(self.item_bytes(), |bytes, &dim| bytes.checked_mul(dim))
    }
}

impl Encoding {
    /// Finds an encoding by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|encoding| encoding.as_str() == name)
    }
}

/// The flag bits of a frame header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The receiver may keep views of the payload after its reply; leases come back by release frames.
    /// Without it the reply returns every lease of the request.
    pub const HOLD: Self = Self(1 << 0);
    /// The call may be repeated without harm.
    pub const IDEMPOTENT: Self = Self(1 << 1);
    /// The caller wants no reply, not even an error.
    pub const NO_REPLY: Self = Self(1 << 2);
    /// The body lies in a block: the descriptor of role `body` says where.
    pub const BODY_IN_BLOCK: Self = Self(1 << 3);
    /// The meta area lies in a block: the descriptor of role `meta` says where.
    pub const META_IN_BLOCK: Self = Self(1 << 4);
    /// The descriptors lie in a block: the only inline descriptor, of role `table`, says where.
    pub const DESCRIPTORS_IN_BLOCK: Self = Self(1 << 5);
    /// Stream items belong to this call: more frames follow, and its caller takes some.
    pub const MORE: Self = Self(1 << 6);

    const KNOWN: u16 = (1 << 7) - 1;

    /// Reads the bits of a header.
    ///
    /// # Errors
    /// A bit has no meaning here.
    #[inline]
    pub const fn from_bits(bits: u16) -> Result<Self, UnknownValueError> {
        if bits & !Self::KNOWN == 0 {
            Ok(Self(bits))
        } else {
            Err(UnknownValueError { field: "flags", found: bits as u32 })
        }
    }

    /// Returns the bits for a header.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Says whether all of these flags are set.
    #[must_use]
    #[inline]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Returns both sets of flags together.
    #[must_use]
    #[inline]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, flags: Self) -> Self {
        self.with(flags)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::HOLD, "hold"),
            (Self::IDEMPOTENT, "idempotent"),
            (Self::NO_REPLY, "no_reply"),
            (Self::BODY_IN_BLOCK, "body_in_block"),
            (Self::META_IN_BLOCK, "meta_in_block"),
            (Self::DESCRIPTORS_IN_BLOCK, "descriptors_in_block"),
            (Self::MORE, "more"),
        ];
        let set = names.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name);
        f.debug_set().entries(set).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_one_value_or_none() {
        for byte in 0..=u8::MAX {
            assert_eq!(Kind::try_from(byte).map(Kind::to_u8).ok(), (1..=10).contains(&byte).then_some(byte));
            assert_eq!(Encoding::try_from(byte).map(Encoding::to_u8).ok(), (byte <= 6).then_some(byte));
            assert_eq!(Role::try_from(byte).map(Role::to_u8).ok(), (byte <= 3).then_some(byte));
            assert_eq!(DType::try_from(byte).map(DType::to_u8).ok(), (byte <= 15).then_some(byte));
        }
    }

    #[test]
    fn numbers_of_the_wire_do_not_move() {
        let numbers = |names: &[&str]| names.join(" ");
        assert_eq!(
            numbers(&Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>()),
            "call send reply error cancel stream_data stream_end credit release hello"
        );
        assert_eq!(
            numbers(&Encoding::ALL.iter().map(|encoding| encoding.as_str()).collect::<Vec<_>>()),
            "none rkyv json msgpack bytes tensor arrow"
        );
        assert_eq!(Encoding::from_name("arrow"), Some(Encoding::Arrow));
        assert_eq!(serde_json::to_value(Kind::StreamData).unwrap(), "stream_data");
    }

    #[test]
    fn unknown_flags_are_refused() {
        let flags = Flags::HOLD | Flags::MORE;
        assert_eq!(Flags::from_bits(flags.bits()), Ok(flags));
        assert!(flags.contains(Flags::HOLD) && !flags.contains(Flags::IDEMPOTENT));
        assert!(Flags::from_bits(1 << 7).is_err());
        assert_eq!(format!("{flags:?}"), r#"{"hold", "more"}"#);
    }

    #[test]
    fn tensor_sizes_do_not_overflow() {
        assert_eq!(DType::F32.tensor_bytes(&[2, 3]), Some(24));
        assert_eq!(DType::Bool.tensor_bytes(&[]), Some(1));
        assert_eq!(DType::U8.tensor_bytes(&[u64::MAX, 2]), None);
    }
}
