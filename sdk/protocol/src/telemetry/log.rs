//! Logs in the telemetry ring. A log is longer than a slot, so it travels as chunks of up to 184 bytes
//! that share a sequence number; several threads of a worker may interleave theirs. The engine puts them
//! together with a [`LogAssembler`], whose memory is bounded whatever a worker sends.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::wire::Reader;
use super::{RecordBytes, RecordError, TAG_LOG, expect_tag};
use crate::header::UnknownValueError;
use crate::ids::{SpanId, TraceId};
use crate::limits;

const CHUNK_HEADER_BYTES: usize = limits::TELEMETRY_BYTES - limits::LOG_CHUNK_BYTES;

/// How much a log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// Every step.
    Trace = 1,
    /// For whoever looks for a fault.
    Debug = 2,
    /// What a reader of the log wants to know.
    #[default]
    Info = 3,
    /// Something is not as it should be.
    Warn = 4,
    /// Something failed.
    Error = 5,
}

impl Level {
    /// Returns the name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl TryFrom<u8> for Level {
    type Error = UnknownValueError;

    fn try_from(value: u8) -> Result<Self, UnknownValueError> {
        match value {
            1 => Ok(Self::Trace),
            2 => Ok(Self::Debug),
            3 => Ok(Self::Info),
            4 => Ok(Self::Warn),
            5 => Ok(Self::Error),
            _ => Err(UnknownValueError { field: "log level", found: u32::from(value) }),
        }
    }
}

/// The value of a log's field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// True or false.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer above the signed ones.
    U64(u64),
    /// A number with a fraction.
    F64(f64),
    /// Text.
    Text(String),
}

/// One log event.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct LogRecord {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// How much it matters.
    pub level: Level,
    /// The trace it belongs to; [`TraceId::NONE`] where there is none.
    #[serde(default)]
    pub trace_id: TraceId,
    /// The span it belongs to; [`SpanId::NONE`] where there is none.
    #[serde(default)]
    pub span_id: SpanId,
    /// The part of the program that speaks, such as a module path.
    #[serde(default)]
    pub target: String,
    /// The message.
    #[serde(default)]
    pub message: String,
    /// Named values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(String, FieldValue)>,
}

/// Appends `u16 length, text`, cut at a character's end to what the limit leaves.
fn put_short_text(out: &mut Vec<u8>, text: &str) {
    let room = limits::LOG_BYTES_MAX.saturating_sub(out.len() + 2).min(usize::from(u16::MAX));
    let text = &text[..text.floor_char_boundary(room)];
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_short_text(reader: &mut Reader<'_>) -> Result<String, RecordError> {
    let len = usize::from(reader.u16()?);
    reader.text(len).map(str::to_owned)
}

impl FieldValue {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.extend_from_slice(&[0, u8::from(*value)]),
            Self::I64(value) => {
                out.push(1);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::U64(value) => {
                out.push(2);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::F64(value) => {
                out.push(3);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Text(value) => {
                out.push(4);
                put_short_text(out, value);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        match reader.u8()? {
            0 => reader.u8().map(|value| Self::Bool(value != 0)),
            1 => reader.array().map(|bytes| Self::I64(i64::from_le_bytes(bytes))),
            2 => reader.u64().map(Self::U64),
            3 => reader.array().map(|bytes| Self::F64(f64::from_le_bytes(bytes))),
            4 => take_short_text(reader).map(Self::Text),
            tag => Err(UnknownValueError { field: "field tag", found: u32::from(tag) }.into()),
        }
    }
}

impl LogRecord {
    /// Writes the whole log, at most 32 KiB: longer texts are cut, further fields left out.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.target.len() + self.message.len());
        out.extend_from_slice(&self.time_ns.to_le_bytes());
        out.extend_from_slice(&self.trace_id.to_bytes());
        out.extend_from_slice(&self.span_id.to_bytes());
        out.push(self.level as u8);
        put_short_text(&mut out, &self.target);
        put_short_text(&mut out, &self.message);
        let mut field = Vec::new();
        for (name, value) in self.fields.iter().take(limits::LOG_FIELDS_MAX) {
            field.clear();
            put_short_text(&mut field, name);
            value.put(&mut field);
            if out.len() + field.len() <= limits::LOG_BYTES_MAX {
                out.extend_from_slice(&field);
            }
        }
        out
    }

    /// Reads a whole log.
    ///
    /// # Errors
    /// The bytes are no log.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let time_ns = reader.u64()?;
        let trace_id = TraceId::from_bytes(reader.array()?);
        let span_id = SpanId::from_bytes(reader.array()?);
        let level = Level::try_from(reader.u8()?)?;
        let target = take_short_text(&mut reader)?;
        let message = take_short_text(&mut reader)?;
        let mut fields = Vec::new();
        while !reader.rest().is_empty() {
            if fields.len() == limits::LOG_FIELDS_MAX {
                return Err(RecordError::Limit {
                    field: "number of log fields",
                    found: limits::LOG_FIELDS_MAX as u64 + 1,
                });
            }
            fields.push((take_short_text(&mut reader)?, FieldValue::take(&mut reader)?));
        }
        Ok(Self { time_ns, level, trace_id, span_id, target, message, fields })
    }

    /// Encodes the log into records, each handed to `put` with its length in bytes, and stops when `put`
    /// says false (the ring is full: the log is then lost, as the receiver can tell). `sequence` tells the
    /// logs of one worker apart.
    ///
    /// Returns whether all were put.
    pub fn encode(&self, sequence: u32, mut put: impl FnMut(&RecordBytes, usize) -> bool) -> bool {
        let bytes = self.to_bytes();
        let count = u16::try_from(bytes.len().div_ceil(limits::LOG_CHUNK_BYTES)).unwrap_or(u16::MAX);
        bytes.chunks(limits::LOG_CHUNK_BYTES).zip(0..count).all(|(body, index)| {
            let mut out = [0; limits::TELEMETRY_BYTES];
            let len = LogChunk { sequence, index, count, body }.encode(&mut out);
            put(&out, len)
        })
    }
}

/// A part of a log. In bytes: the tag, 3 bytes of sequence, `u16` index, `u16` count, then the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogChunk<'a> {
    /// Tells the logs of one worker apart; 24 bits travel.
    pub sequence: u32,
    /// Which part this is, from 0.
    pub index: u16,
    /// How many parts there are.
    pub count: u16,
    /// The part's bytes.
    pub body: &'a [u8],
}

impl<'a> LogChunk<'a> {
    fn encode(&self, out: &mut RecordBytes) -> usize {
        let [a, b, c, _] = self.sequence.to_le_bytes();
        out[..4].copy_from_slice(&[TAG_LOG, a, b, c]);
        out[4..6].copy_from_slice(&self.index.to_le_bytes());
        out[6..8].copy_from_slice(&self.count.to_le_bytes());
        out[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + self.body.len()].copy_from_slice(self.body);
        CHUNK_HEADER_BYTES + self.body.len()
    }

    /// Reads a part of a log.
    ///
    /// # Errors
    /// The bytes are no part of a log, or its numbers contradict each other.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        expect_tag(&mut reader, TAG_LOG)?;
        let [a, b, c] = reader.array()?;
        let (index, count, body) = (reader.u16()?, reader.u16()?, reader.rest());
        if usize::from(count) > limits::LOG_BYTES_MAX.div_ceil(limits::LOG_CHUNK_BYTES) {
            return Err(RecordError::Limit { field: "number of log chunks", found: u64::from(count) });
        }
        if index >= count {
            return Err(RecordError::Limit { field: "log chunk index", found: u64::from(index) });
        }
        let last = index + 1 == count;
        if body.len() > limits::LOG_CHUNK_BYTES || (!last && body.len() != limits::LOG_CHUNK_BYTES) {
            return Err(RecordError::Limit { field: "log chunk length", found: body.len() as u64 });
        }
        Ok(Self { sequence: u32::from_le_bytes([a, b, c, 0]), index, count, body })
    }
}

/// A log of which some parts have come.
#[derive(Debug)]
struct Partial {
    sequence: u32,
    count: u16,
    next: u16,
    bytes: Vec<u8>,
}

/// Puts the logs of one worker together. Parts of one log come in order, since one thread writes them; parts
/// of several logs may interleave. At most 16 logs are open at a time: the oldest is given up for the next.
#[derive(Debug, Default)]
pub struct LogAssembler {
    open: VecDeque<Partial>,
    lost: u64,
}

impl LogAssembler {
    /// How many logs may be incomplete at a time.
    pub const OPEN_MAX: usize = 16;

    /// Makes an empty assembler.
    #[must_use]
    pub const fn new() -> Self {
        Self { open: VecDeque::new(), lost: 0 }
    }

    /// Takes a part; returns the log that it completes.
    ///
    /// # Errors
    /// The completed bytes are no log. Nothing else is lost with it.
    pub fn push(&mut self, chunk: &LogChunk<'_>) -> Result<Option<LogRecord>, RecordError> {
        if chunk.count == 1 {
            return LogRecord::from_bytes(chunk.body).map(Some);
        }
        let place = self.open.iter().position(|partial| partial.sequence == chunk.sequence);
        if chunk.index == 0 {
            if let Some(place) = place {
                self.give_up(place);
            } else if self.open.len() == Self::OPEN_MAX {
                self.give_up(0);
            }
            let bytes = chunk.body.to_vec();
            self.open.push_back(Partial { sequence: chunk.sequence, count: chunk.count, next: 1, bytes });
            return Ok(None);
        }
        let Some(place) = place else { return Ok(None) };
        let partial = &mut self.open[place];
        if partial.next != chunk.index || partial.count != chunk.count {
            self.give_up(place);
            return Ok(None);
        }
        partial.bytes.extend_from_slice(chunk.body);
        partial.next += 1;
        if partial.next < partial.count {
            return Ok(None);
        }
        let whole = self.open.remove(place);
        whole.map(|partial| LogRecord::from_bytes(&partial.bytes)).transpose()
    }

    fn give_up(&mut self, place: usize) {
        self.lost += u64::from(self.open.remove(place).is_some());
    }

    /// Returns how many logs were given up because a part was missing.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}
