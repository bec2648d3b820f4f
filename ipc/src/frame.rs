//! The 64-byte frame header and the 32-byte payload descriptor, as plain values.
//!
//! Used by everyone who writes or reads a frame. Nothing here touches shared memory: a header is built or
//! checked in private memory and copied in or out as words by [`crate::ring`]. The meaning of `kind`, `flags`
//! and `encoding` belongs to `ringway-protocol`; here they are numbers.

use crate::layout::{HEADER_WORDS, INLINE_BYTES, INLINE_WORDS};

/// A frame header without its stamp. Offsets in bytes are those of the slot; all little-endian.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// 8: index and generation in the caller's table of pending calls.
    pub invocation: u64,
    /// 16: W3C trace id, all zero when the call is not traced.
    pub trace_id: [u8; 16],
    /// 32: the caller's span, parent of the callee's.
    pub span_id: u64,
    /// 40: absolute `CLOCK_MONOTONIC` nanoseconds; 0 means none.
    pub deadline_ns: u64,
    /// 48: function index of the callee; in a reply, the status.
    pub function: u32,
    /// 52: generation of the function index.
    pub function_generation: u16,
    /// 54: what the frame is.
    pub kind: u8,
    /// 55: W3C trace flags.
    pub trace_flags: u8,
    /// 56: bytes of the inline area in use, descriptors and metadata included; at most [`INLINE_BYTES`].
    pub inline_len: u16,
    /// 58: payload descriptors at the start of the inline area.
    pub attachments: u8,
    /// 59: encoding of the body.
    pub encoding: u8,
    /// 60: bytes of metadata behind the descriptors.
    pub meta_len: u16,
    /// 62: flags.
    pub flags: u16,
}

#[expect(clippy::cast_possible_truncation, reason = "each field is one slice of its word")]
impl Header {
    /// Packs the header into words 1 to 7 of a slot.
    #[inline]
    #[must_use]
    pub fn to_words(&self) -> [u64; HEADER_WORDS] {
        let trace = u128::from_le_bytes(self.trace_id);
        [
            self.invocation,
            trace as u64,
            (trace >> 64) as u64,
            self.span_id,
            self.deadline_ns,
            u64::from(self.function)
                | u64::from(self.function_generation) << 32
                | u64::from(self.kind) << 48
                | u64::from(self.trace_flags) << 56,
            u64::from(self.inline_len)
                | u64::from(self.attachments) << 16
                | u64::from(self.encoding) << 24
                | u64::from(self.meta_len) << 32
                | u64::from(self.flags) << 48,
        ]
    }

    /// Unpacks words 1 to 7 of a slot. Any words give a header; [`Header::check`] says whether it is a sound one.
    #[inline]
    #[must_use]
    pub fn from_words(words: &[u64; HEADER_WORDS]) -> Self {
        let [invocation, trace_low, trace_high, span_id, deadline_ns, call, sizes] = *words;
        Self {
            invocation,
            trace_id: (u128::from(trace_low) | u128::from(trace_high) << 64).to_le_bytes(),
            span_id,
            deadline_ns,
            function: call as u32,
            function_generation: (call >> 32) as u16,
            kind: (call >> 48) as u8,
            trace_flags: (call >> 56) as u8,
            inline_len: sizes as u16,
            attachments: (sizes >> 16) as u8,
            encoding: (sizes >> 24) as u8,
            meta_len: (sizes >> 32) as u16,
            flags: (sizes >> 48) as u16,
        }
    }

    /// Whether descriptors and metadata lie inside the inline area and that inside the slot.
    #[inline]
    #[must_use]
    pub fn check(&self) -> bool {
        let front = usize::from(self.attachments) * DESCRIPTOR_BYTES + usize::from(self.meta_len);
        usize::from(self.inline_len) <= INLINE_BYTES && front <= usize::from(self.inline_len)
    }
}

/// Bytes of a [`Descriptor`].
pub const DESCRIPTOR_BYTES: usize = 32;

/// The most descriptors that fit a slot.
pub const DESCRIPTORS_MAX: usize = INLINE_BYTES / DESCRIPTOR_BYTES;

/// Where a payload lies: bytes of a block that the sender lends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// 0: the sender's key of the segment on this channel, announced on the peer socket before first use.
    pub segment: u32,
    /// 4: what to give back when the receiver has done with it.
    pub lease: u32,
    /// 8: bytes from the start of the segment.
    pub offset: u64,
    /// 16: bytes.
    pub len: u64,
    /// 24: element type of a tensor, 0 for bytes.
    pub dtype: u8,
    /// 25: dimensions of a tensor; their sizes are in the metadata.
    pub ndim: u8,
    /// 26: alignment of the first byte as a power of two.
    pub align_log2: u8,
    /// 27: attachment, body, metadata or table of descriptors.
    pub role: u8,
    /// 28: 0.
    pub reserved: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "each field is one slice of its word")]
impl Descriptor {
    /// Packs the descriptor into four words of the inline area.
    #[inline]
    #[must_use]
    pub fn to_words(&self) -> [u64; 4] {
        [
            u64::from(self.segment) | u64::from(self.lease) << 32,
            self.offset,
            self.len,
            u64::from(self.dtype)
                | u64::from(self.ndim) << 8
                | u64::from(self.align_log2) << 16
                | u64::from(self.role) << 24
                | u64::from(self.reserved) << 32,
        ]
    }

    /// Unpacks four words. Every field must still be checked where it is used.
    #[inline]
    #[must_use]
    pub fn from_words(words: &[u64; 4]) -> Self {
        let [key, offset, len, shape] = *words;
        Self {
            segment: key as u32,
            lease: (key >> 32) as u32,
            offset,
            len,
            dtype: shape as u8,
            ndim: (shape >> 8) as u8,
            align_log2: (shape >> 16) as u8,
            role: (shape >> 24) as u8,
            reserved: (shape >> 32) as u32,
        }
    }
}

/// The inline area in private memory, 16-byte aligned so that an archived value may be read in place.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Inline {
    words: [u64; INLINE_WORDS],
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inline(192 B)")
    }
}

impl Default for Inline {
    fn default() -> Self {
        Self { words: [0; INLINE_WORDS] }
    }
}

impl Inline {
    /// The area as words.
    #[inline]
    #[must_use]
    pub fn words(&self) -> &[u64; INLINE_WORDS] {
        &self.words
    }

    /// The area as words, to fill.
    #[inline]
    pub fn words_mut(&mut self) -> &mut [u64; INLINE_WORDS] {
        &mut self.words
    }

    /// The area as bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8; INLINE_BYTES] {
        // SAFETY: 24 words are exactly 192 bytes, every bit pattern is a valid byte, and the borrow is shared.
        unsafe { &*std::ptr::from_ref(&self.words).cast::<[u8; INLINE_BYTES]>() }
    }

    /// The area as bytes, to fill.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8; INLINE_BYTES] {
        // SAFETY: as in `bytes`; any byte pattern is a valid word, and the borrow is exclusive.
        unsafe { &mut *std::ptr::from_mut(&mut self.words).cast::<[u8; INLINE_BYTES]>() }
    }

    /// Descriptor number `at`; the caller has checked `at` against [`DESCRIPTORS_MAX`].
    ///
    /// # Panics
    /// When `at` is [`DESCRIPTORS_MAX`] or more.
    #[inline]
    #[must_use]
    pub fn descriptor(&self, at: usize) -> Descriptor {
        let words: &[u64; 4] =
            self.words[at * 4..at * 4 + 4].try_into().expect("a range of four words has four words");
        Descriptor::from_words(words)
    }

    /// Writes descriptor number `at`.
    ///
    /// # Panics
    /// When `at` is [`DESCRIPTORS_MAX`] or more.
    #[inline]
    pub fn set_descriptor(&mut self, at: usize, descriptor: &Descriptor) {
        self.words[at * 4..at * 4 + 4].copy_from_slice(&descriptor.to_words());
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_words_survive_a_header(words: [u64; HEADER_WORDS]) {
            prop_assert_eq!(Header::from_words(&words).to_words(), words);
        }

        #[test]
        fn any_words_survive_a_descriptor(words: [u64; 4]) {
            prop_assert_eq!(Descriptor::from_words(&words).to_words(), words);
        }
    }

    #[test]
    fn header_bytes_are_the_documented_ones() {
        let header = Header {
            invocation: 0x0807_0605_0403_0201,
            trace_id: std::array::from_fn(|at| 0x10 + u8::try_from(at).unwrap()),
            span_id: 0x2726_2524_2322_2120,
            deadline_ns: 0x2f2e_2d2c_2b2a_2928,
            function: 0x3332_3130,
            function_generation: 0x3534,
            kind: 0x36,
            trace_flags: 0x37,
            inline_len: 0x3938,
            attachments: 0x3a,
            encoding: 0x3b,
            meta_len: 0x3d3c,
            flags: 0x3f3e,
        };
        let bytes: Vec<u8> = header.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
        let expected: Vec<u8> = (0x01..=0x08).chain(0x10..=0x3f).collect();
        assert_eq!(bytes[..8], expected[..8]);
        assert_eq!(bytes[8..], expected[8..]);
    }

    #[test]
    fn sizes_beyond_the_slot_are_unsound() {
        let sound = Header { inline_len: 100, attachments: 2, meta_len: 36, ..Header::default() };
        assert!(sound.check());
        for (inline_len, attachments, meta_len) in
            [(193, 0, 0), (63, 2, 0), (100, 2, 37), (65535, 255, 65535)]
        {
            let header = Header { inline_len, attachments, meta_len, ..Header::default() };
            assert!(!header.check(), "{inline_len} {attachments} {meta_len}");
        }
    }
}
