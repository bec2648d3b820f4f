//! The records of the telemetry ring: what a worker tells the engine about finished spans, spans that run
//! long, logs, and what it had to drop. Workers encode them into the 192 bytes behind a slot's header,
//! the engine decodes them and trusts nothing: any bytes either make a record or an error. It must not
//! know how records are stored or exported.
//!
//! All numbers are little-endian. The first byte of a record is its tag.

use serde::{Deserialize, Serialize};

use crate::error::STATUS_OK;
use crate::header::UnknownValueError;
use crate::ids::{SpanId, TraceId, WorkerId};
use crate::limits;

mod log;
mod wire;

pub use log::{FieldValue, Level, LogAssembler, LogChunk, LogRecord};
use wire::{Reader, Writer};

/// The buffer that one record is encoded into.
pub type RecordBytes = [u8; limits::TELEMETRY_BYTES];

const TAG_SPAN: u8 = 1;
const TAG_SPAN_START: u8 = 2;
const TAG_LOG: u8 = 3;
const TAG_DROPPED: u8 = 4;

/// Which side of a call a span describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum SpanKind {
    /// Work within one worker.
    #[default]
    Internal = 0,
    /// The caller's side of a call.
    Client = 1,
    /// The callee's side of a call.
    Server = 2,
    /// Sends without waiting for a reply.
    Producer = 3,
    /// Runs what was sent or queued.
    Consumer = 4,
}

impl TryFrom<u8> for SpanKind {
    type Error = UnknownValueError;

    fn try_from(value: u8) -> Result<Self, UnknownValueError> {
        match value {
            0 => Ok(Self::Internal),
            1 => Ok(Self::Client),
            2 => Ok(Self::Server),
            3 => Ok(Self::Producer),
            4 => Ok(Self::Consumer),
            _ => Err(UnknownValueError { field: "span kind", found: u32::from(value) }),
        }
    }
}

/// A function as the data plane names it; the catalog knows its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FunctionRef {
    /// The worker that serves it.
    pub worker: WorkerId,
    /// Its index there.
    pub index: u32,
}

impl FunctionRef {
    /// Stands for no function: the span has a name of its own.
    pub const NONE: Self = Self { worker: WorkerId::new(0), index: u32::MAX };
}

/// A short text that rides inside a record: at most 64 bytes, cut at a character's end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanName {
    len: u8,
    bytes: [u8; limits::SPAN_NAME_BYTES_MAX],
}

impl SpanName {
    /// No name.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; limits::SPAN_NAME_BYTES_MAX] };

    /// Takes a text, as much of it as fits.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(limits::SPAN_NAME_BYTES_MAX)];
        let mut name = Self::EMPTY;
        name.bytes[..text.len()].copy_from_slice(text.as_bytes());
        name.len = u8::try_from(text.len()).unwrap_or(0);
        name
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Says whether there is no name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for SpanName {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl std::fmt::Debug for SpanName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Serialize for SpanName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SpanName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// The span flag that says the payload was read where it was written.
pub const SPAN_FLAG_IN_PLACE: u8 = 1 << 0;
/// The span flag that says the call went through the engine.
pub const SPAN_FLAG_RELAYED: u8 = 1 << 1;
/// The span flag that says the span is one call of a stream.
pub const SPAN_FLAG_STREAM: u8 = 1 << 2;

/// A finished span. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanRecord {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span that asked for it; [`SpanId::NONE`] at a trace's root.
    pub parent_id: SpanId,
    /// When it began: for a client when the frame was published, for a server when the handler began.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Which side of a call it describes.
    pub kind: SpanKind,
    /// 0, or the status number of an error code.
    pub status: u32,
    /// The function called or served; [`FunctionRef::NONE`] where the span has a name of its own.
    pub function: FunctionRef,
    /// The worker at the other end; number 0 where there is none.
    pub peer: WorkerId,
    /// When the reader woke up for this frame; 0 where it was polling and needed no wake-up. A server says
    /// it of the request, a client of the reply.
    pub woke_ns: u64,
    /// Payload bytes of the request.
    pub bytes_in: u64,
    /// Payload bytes of the reply.
    pub bytes_out: u64,
    /// Bits of `SPAN_FLAG_…`.
    pub flags: u8,
    /// The span's own name, where it is no call of a function.
    pub name: SpanName,
}

impl SpanRecord {
    /// A span that is no call, with a name of its own.
    #[must_use]
    pub const fn named(trace_id: TraceId, span_id: SpanId, parent_id: SpanId, name: SpanName) -> Self {
        Self {
            trace_id,
            span_id,
            parent_id,
            start_ns: 0,
            end_ns: 0,
            kind: SpanKind::Internal,
            status: STATUS_OK,
            function: FunctionRef::NONE,
            peer: WorkerId::new(0),
            woke_ns: 0,
            bytes_in: 0,
            bytes_out: 0,
            flags: 0,
            name,
        }
    }
}

/// A span that has run for some time and is not finished. The same span's [`SpanRecord`] follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanStart {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span that asked for it.
    pub parent_id: SpanId,
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// Which side of a call it describes.
    pub kind: SpanKind,
    /// The function called or served.
    pub function: FunctionRef,
    /// The worker at the other end.
    pub peer: WorkerId,
    /// The span's own name.
    pub name: SpanName,
}

/// What a worker could not tell, since its ring was full. Totals since the worker's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// Spans lost.
    pub spans: u64,
    /// Logs lost.
    pub logs: u64,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record ends before its fields do.
    #[error("wanted {wanted} more bytes of a telemetry record, found {found}")]
    Short {
        /// The bytes wanted.
        wanted: usize,
        /// The bytes left.
        found: usize,
    },
    /// A number has no meaning.
    #[error(transparent)]
    Unknown(#[from] UnknownValueError),
    /// A text is not UTF-8.
    #[error("wanted UTF-8 text in a telemetry record")]
    Text,
    /// A length or a count is over its limit or does not fit the others.
    #[error("wanted a {field} within its limit, found {found}")]
    Limit {
        /// The field.
        field: &'static str,
        /// The number found.
        found: u64,
    },
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// A finished span.
    Span(SpanRecord),
    /// A span that runs long.
    SpanStart(SpanStart),
    /// A part of a log.
    Log(LogChunk<'a>),
    /// What was lost.
    Dropped(Dropped),
}

impl<'a> Record<'a> {
    /// Reads the inline area of a slot. Costs no allocation.
    ///
    /// # Errors
    /// The bytes are no record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        match bytes.first().copied() {
            Some(TAG_SPAN) => SpanRecord::decode(bytes).map(Self::Span),
            Some(TAG_SPAN_START) => SpanStart::decode(bytes).map(Self::SpanStart),
            Some(TAG_LOG) => LogChunk::decode(bytes).map(Self::Log),
            Some(TAG_DROPPED) => Dropped::decode(bytes).map(Self::Dropped),
            Some(tag) => Err(UnknownValueError { field: "telemetry tag", found: u32::from(tag) }.into()),
            None => Err(RecordError::Short { wanted: 1, found: 0 }),
        }
    }
}

fn expect_tag(reader: &mut Reader<'_>, wanted: u8) -> Result<(), RecordError> {
    match reader.u8()? {
        tag if tag == wanted => Ok(()),
        tag => Err(UnknownValueError { field: "telemetry tag", found: u32::from(tag) }.into()),
    }
}

fn write_name(writer: &mut Writer<'_>, name: &SpanName) {
    writer.bytes(name.bytes.get(..usize::from(name.len)).unwrap_or_default());
}

fn read_name(reader: &mut Reader<'_>, len: u8) -> Result<SpanName, RecordError> {
    if usize::from(len) > limits::SPAN_NAME_BYTES_MAX {
        return Err(RecordError::Limit { field: "span name length", found: u64::from(len) });
    }
    let text = std::str::from_utf8(reader.bytes(usize::from(len))?).map_err(|_| RecordError::Text)?;
    Ok(SpanName::new(text))
}

impl SpanRecord {
    /// Writes the record and returns how many bytes of the buffer it takes. No allocation, no branches but
    /// for the name.
    pub fn encode(&self, out: &mut RecordBytes) -> usize {
        let mut writer = Writer::new(out);
        writer.bytes(&[TAG_SPAN, self.kind as u8, self.flags, self.name.len]);
        writer.u32(self.status);
        writer.bytes(&self.trace_id.to_bytes());
        writer.bytes(&self.span_id.to_bytes());
        writer.bytes(&self.parent_id.to_bytes());
        writer.u64(self.start_ns);
        writer.u64(self.end_ns);
        writer.u64(self.function.worker.get());
        writer.u32(self.function.index);
        writer.u32(0);
        writer.u64(self.peer.get());
        writer.u64(self.woke_ns);
        writer.u64(self.bytes_in);
        writer.u64(self.bytes_out);
        write_name(&mut writer, &self.name);
        writer.len()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no finished span.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        expect_tag(&mut reader, TAG_SPAN)?;
        let (kind, flags, name_len) = (SpanKind::try_from(reader.u8()?)?, reader.u8()?, reader.u8()?);
        let status = reader.u32()?;
        let trace_id = TraceId::from_bytes(reader.array()?);
        let span_id = SpanId::from_bytes(reader.array()?);
        let parent_id = SpanId::from_bytes(reader.array()?);
        let (start_ns, end_ns) = (reader.u64()?, reader.u64()?);
        let function = read_function(&mut reader)?;
        let peer = WorkerId::new(reader.u64()?);
        let (woke_ns, bytes_in, bytes_out) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let name = read_name(&mut reader, name_len)?;
        Ok(Self {
            trace_id,
            span_id,
            parent_id,
            start_ns,
            end_ns,
            kind,
            status,
            function,
            peer,
            woke_ns,
            bytes_in,
            bytes_out,
            flags,
            name,
        })
    }
}

fn read_function(reader: &mut Reader<'_>) -> Result<FunctionRef, RecordError> {
    let function = FunctionRef { worker: WorkerId::new(reader.u64()?), index: reader.u32()? };
    reader.u32()?;
    Ok(function)
}

impl SpanStart {
    /// Writes the record and returns how many bytes of the buffer it takes.
    pub fn encode(&self, out: &mut RecordBytes) -> usize {
        let mut writer = Writer::new(out);
        writer.bytes(&[TAG_SPAN_START, self.kind as u8, 0, self.name.len]);
        writer.u32(0);
        writer.bytes(&self.trace_id.to_bytes());
        writer.bytes(&self.span_id.to_bytes());
        writer.bytes(&self.parent_id.to_bytes());
        writer.u64(self.start_ns);
        writer.u64(self.function.worker.get());
        writer.u32(self.function.index);
        writer.u32(0);
        writer.u64(self.peer.get());
        write_name(&mut writer, &self.name);
        writer.len()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no started span.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        expect_tag(&mut reader, TAG_SPAN_START)?;
        let (kind, _, name_len) = (SpanKind::try_from(reader.u8()?)?, reader.u8()?, reader.u8()?);
        reader.u32()?;
        let trace_id = TraceId::from_bytes(reader.array()?);
        let span_id = SpanId::from_bytes(reader.array()?);
        let parent_id = SpanId::from_bytes(reader.array()?);
        let start_ns = reader.u64()?;
        let function = read_function(&mut reader)?;
        let peer = WorkerId::new(reader.u64()?);
        let name = read_name(&mut reader, name_len)?;
        Ok(Self { trace_id, span_id, parent_id, start_ns, kind, function, peer, name })
    }
}

impl Dropped {
    /// Writes the record and returns how many bytes of the buffer it takes.
    pub fn encode(&self, out: &mut RecordBytes) -> usize {
        let mut writer = Writer::new(out);
        writer.bytes(&[TAG_DROPPED, 0, 0, 0, 0, 0, 0, 0]);
        writer.u64(self.spans);
        writer.u64(self.logs);
        writer.len()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no record of losses.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        expect_tag(&mut reader, TAG_DROPPED)?;
        reader.bytes(7)?;
        Ok(Self { spans: reader.u64()?, logs: reader.u64()? })
    }
}

#[cfg(test)]
mod tests;
