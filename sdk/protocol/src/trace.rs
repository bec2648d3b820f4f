//! W3C trace context: the 25 bytes that ride in every frame header, and their text form `traceparent` for
//! HTTP and metadata (W3C Trace Context, level 2). It must not know how spans are recorded.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{SpanId, TraceId, put_hex, serde_as_text};

/// The bit of the trace flags that says the caller records this trace.
pub const FLAG_SAMPLED: u8 = 0x01;
/// The bit of the trace flags that says the last 7 bytes of the trace id are random.
pub const FLAG_RANDOM: u8 = 0x02;
/// The bits that have a meaning; others are not passed on.
pub const FLAGS_KNOWN: u8 = FLAG_SAMPLED | FLAG_RANDOM;

/// The length of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// Bytes of a context where it is stored, see [`TraceContext::to_bytes`].
pub const TRACE_CONTEXT_BYTES: usize = 25;

/// Where a piece of work belongs: its trace, the span that asked for it, and the trace flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span: the parent of the callee's.
    pub span_id: SpanId,
    /// W3C trace flags.
    pub flags: u8,
}

/// Why a text is no `traceparent`. W3C asks receivers to start a new trace then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTraceparentError {
    /// The text is too short or too long for its version.
    #[error("wanted a traceparent of 55 characters, found {found}")]
    Length {
        /// The length found, in bytes.
        found: usize,
    },
    /// A dash stands elsewhere, or something else in its place.
    #[error("wanted a dash at character {offset} of a traceparent")]
    Dash {
        /// Where it should stand.
        offset: usize,
    },
    /// Version `ff` is forbidden; others must be two hex digits.
    #[error("wanted a traceparent version from 00 to fe")]
    Version,
    /// A field has something else than lower-case hex digits.
    #[error("wanted lower-case hex digits in the {field} of a traceparent")]
    Digits {
        /// The field's name.
        field: &'static str,
    },
    /// A field is all zeros.
    #[error("wanted a {field} that is not all zeros")]
    Zero {
        /// The field's name.
        field: &'static str,
    },
}

impl TraceContext {
    /// Says whether both ids are there.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.trace_id.is_none() && !self.span_id.is_none()
    }

    /// Says whether the caller records this trace.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & FLAG_SAMPLED != 0
    }

    /// Returns the context that a span of this trace hands on.
    #[must_use]
    pub const fn child(&self, span_id: SpanId) -> Self {
        Self { trace_id: self.trace_id, span_id, flags: self.flags }
    }

    /// Reads a `traceparent`. A version above 00 may have more behind its flags, after another dash; the
    /// rest of it is then read as version 00.
    ///
    /// # Errors
    /// The text does not follow the specification.
    pub fn parse_traceparent(text: &str) -> Result<Self, ParseTraceparentError> {
        let bytes = text.as_bytes();
        if bytes.len() < TRACEPARENT_BYTES {
            return Err(ParseTraceparentError::Length { found: bytes.len() });
        }
        for offset in [2, 35, 52] {
            if bytes[offset] != b'-' {
                return Err(ParseTraceparentError::Dash { offset });
            }
        }
        let [version] = lower_hex(&bytes[..2]).ok_or(ParseTraceparentError::Version)?;
        match (version, bytes.get(TRACEPARENT_BYTES)) {
            (0xff, _) => return Err(ParseTraceparentError::Version),
            (0, Some(_)) => return Err(ParseTraceparentError::Length { found: bytes.len() }),
            (_, Some(&next)) if next != b'-' => {
                return Err(ParseTraceparentError::Dash { offset: TRACEPARENT_BYTES });
            }
            _ => {}
        }
        let field = |field: &'static str| ParseTraceparentError::Digits { field };
        let trace_id = TraceId::from_bytes(lower_hex(&bytes[3..35]).ok_or_else(|| field("trace id"))?);
        let span_id = SpanId::from_bytes(lower_hex(&bytes[36..52]).ok_or_else(|| field("parent id"))?);
        let [flags] = lower_hex(&bytes[53..55]).ok_or_else(|| field("trace flags"))?;
        if trace_id.is_none() {
            return Err(ParseTraceparentError::Zero { field: "trace id" });
        }
        if span_id.is_none() {
            return Err(ParseTraceparentError::Zero { field: "parent id" });
        }
        Ok(Self { trace_id, span_id, flags: flags & FLAGS_KNOWN })
    }

    /// As it is stored: trace id (16), span id (8), flags.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TRACE_CONTEXT_BYTES] {
        let mut bytes = [0; TRACE_CONTEXT_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.to_bytes());
        bytes[16..24].copy_from_slice(&self.span_id.to_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// Reads what [`TraceContext::to_bytes`] wrote. Any bytes are a context; all zeros are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; TRACE_CONTEXT_BYTES]) -> Self {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        span_id.copy_from_slice(&bytes[16..24]);
        Self {
            trace_id: TraceId::from_bytes(trace_id),
            span_id: SpanId::from_bytes(span_id),
            flags: bytes[24],
        }
    }

    /// The text of a `traceparent` header. No allocation.
    #[must_use]
    pub fn to_traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&self.trace_id.to_bytes(), &mut text[3..35]);
        put_hex(&self.span_id.to_bytes(), &mut text[36..52]);
        put_hex(&[self.flags & FLAGS_KNOWN], &mut text[53..55]);
        text
    }
}

/// Reads lower-case hex digits, as the specification asks, into exactly `N` bytes.
fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != N * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_traceparent()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for TraceContext {
    type Err = ParseTraceparentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_traceparent(text)
    }
}

serde_as_text!(TraceContext, "a W3C traceparent");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn check(text: &str, good: bool) {
        assert_eq!(TraceContext::parse_traceparent(text).is_ok(), good, "{text}");
    }

    #[test]
    fn the_specifications_examples_are_read() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert!(context.is_sampled() && context.is_valid());
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.child(SpanId::from_bytes([1; 8])).trace_id, context.trace_id);
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        check("", false);
        check(&GOOD.to_uppercase(), false);
        check(&GOOD.replace("00-4b", "ff-4b"), false);
        check(&GOOD.replace("00-4b", "0g-4b"), false);
        check(&GOOD.replace('-', "_"), false);
        check(&GOOD[..54], false);
        check(&format!("{GOOD}-extra"), false);
        check(&format!("{GOOD} "), false);
        check("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", false);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = GOOD.replace("00-4b", "cc-4b");
        check(&later, true);
        check(&format!("{later}-what-comes-later"), true);
        check(&format!("{later}.what-comes-later"), false);
        let context: TraceContext = GOOD.replace("b7-01", "b7-ff").parse().unwrap();
        assert_eq!(context.flags, FLAGS_KNOWN, "unknown flags are not passed on");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_writing_reads_back(text in "\\PC{0,70}", trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), flags in 0u8..4) {
            let _ = TraceContext::parse_traceparent(&text).is_ok();
            let context = TraceContext { trace_id: TraceId::from_bytes(trace), span_id: SpanId::from_bytes(span), flags };
            prop_assert_eq!(context.to_string().parse::<TraceContext>().ok(), context.is_valid().then_some(context));
        }
    }
}
