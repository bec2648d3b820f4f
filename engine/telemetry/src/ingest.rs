//! Spans, logs and figures that come in OpenTelemetry's formats, OTLP as JSON or as protobuf: read from untrusted bytes into
//! what this crate keeps, within limits. Used for programs that have an OpenTelemetry SDK of their own, such as those on
//! iii's SDKs. It must not know how the bytes came or who may send them.
//!
//! What is wrong with one span or log costs that one; what is wrong with the frame costs the frame. Longer texts are cut and
//! further attributes left out; spans, events, logs and points that are not taken are counted.
//!
//! - `model`: what both formats say, and how it becomes spans and logs;
//! - `json`, `proto`: the two formats.

mod json;

mod model;

mod proto;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ringway_protocol::WorkerId;
use serde::{Deserialize, Serialize};

use crate::record::{ClockAnchor, Log, Span, WorkerIdentity};
use crate::store::Point;

/// Bytes of one frame, as many as OpenTelemetry's collector takes. What is read takes much more memory than its bytes: an
/// empty span has two of them, and some hundred once it is read.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Spans and their events, logs or points of one frame.
pub const ITEMS_MAX: usize = 16_384;
/// Attributes of a span, an event or a log.
pub const ATTRIBUTES_MAX: usize = 64;
/// Bytes of all names and values of these.
pub const ATTRIBUTE_BYTES_MAX: usize = 32 << 10;
/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 8 << 10;
/// Bytes of a name: of a span, an attribute, a service.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a log's message.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Events of a span.
pub const EVENTS_MAX: usize = 64;
/// Programs that are told apart at a time.
const PROGRAMS_MAX: usize = 4096;

const _: () = assert!(VALUE_BYTES_MAX <= ATTRIBUTE_BYTES_MAX);

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Logs.
    Logs,
    /// Figures.
    Metrics,
}

/// How a frame is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OTLP as JSON.
    Json,
    /// OTLP as protobuf.
    Protobuf,
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It has too many bytes.
    #[error("a frame of telemetry has {found} bytes, {FRAME_BYTES_MAX} are allowed: send it in parts")]
    TooLarge {
        /// How many it has.
        found: usize,
    },
    /// It is no JSON of this signal.
    #[error("no OTLP in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is no protobuf of this signal.
    #[error("no OTLP in protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// What was taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IngestedCounts {
    /// Spans.
    pub spans: u64,
    /// Logs, and events of spans.
    pub logs: u64,
    /// Points of figures.
    pub points: u64,
    /// Spans, their events, logs and points that were not taken: they had no ids, could not be read, or there were too many.
    pub rejected: u64,
}

/// A frame that was read.
#[derive(Debug, Default)]
pub struct Batch {
    programs: Vec<model::Program>,
    rejected: u64,
}

impl Batch {
    /// Reads a frame. Takes time and memory in proportion to its bytes, of memory up to some hundred times as much.
    ///
    /// # Errors
    /// [`FrameError`]: it is too large, or not what it should be.
    pub fn read(signal: Signal, format: Format, frame: &[u8]) -> Result<Self, FrameError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { found: frame.len() });
        }
        let mut reading = model::Reading::default();
        match format {
            Format::Json => json::read(signal, frame, &mut reading)?,
            Format::Protobuf => proto::read(signal, frame, &mut reading)?,
        }
        Ok(Self { programs: reading.programs, rejected: reading.rejected })
    }

    /// Makes of it what is kept. Whoever sent it is known; which program each part is of, the parts say themselves.
    pub(crate) fn place(
        self,
        programs: &mut Programs,
        sender: &Arc<WorkerIdentity>,
        anchor: ClockAnchor,
    ) -> Placed {
        let mut placed = Placed { rejected: self.rejected, ..Placed::default() };
        for program in self.programs {
            let identity = programs.find(sender, &program);
            for span in program.spans {
                span.place(&identity, anchor, &mut placed);
            }
            placed.logs.extend(program.logs.into_iter().map(|log| log.place(&identity, anchor)));
            placed.points.extend(program.points.into_iter().map(|point| point.place(&identity, anchor)));
        }
        placed
    }
}

/// What a frame becomes.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) spans: Vec<Span>,
    pub(crate) logs: Vec<Log>,
    pub(crate) points: Vec<Point>,
    pub(crate) rejected: u64,
}

/// The programs that frames spoke of, so that all of one share one identity.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    known: HashMap<WorkerId, Arc<WorkerIdentity>>,
}

impl Programs {
    /// Who a program is: the sender itself if it is called so or says nothing, else one beside it. Its id is made of the
    /// sender's and of what it says, so that no worker can pass for another.
    fn find(&mut self, sender: &Arc<WorkerIdentity>, program: &model::Program) -> Arc<WorkerIdentity> {
        let (name, namespace) = (&program.service_name, &program.service_namespace);
        if name.is_empty() || *name == sender.name {
            return Arc::clone(sender);
        }
        let mut hasher = DefaultHasher::new();
        (sender.id, name, namespace, &program.instance).hash(&mut hasher);
        let id = WorkerId::new(hasher.finish());
        if self.known.len() >= PROGRAMS_MAX && !self.known.contains_key(&id) {
            self.known.clear();
        }
        let make = || {
            let (name, namespace) = (name.clone(), namespace.clone());
            let pid = program.pid.unwrap_or(sender.pid);
            Arc::new(WorkerIdentity { id, name, namespace, pid, is_engine: false })
        };
        Arc::clone(self.known.entry(id).or_insert_with(make))
    }
}

#[cfg(test)]
mod tests;
