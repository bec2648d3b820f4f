//! Takes in what workers report, byte by byte untrusted, and hands it to the store and the exporter.
//!
//! The engine owns one, tells it who attaches, registers and dies, and feeds it the records of each worker's
//! telemetry ring. A worker speaks for itself alone: who recorded something is known by the ring it came through.
//! This file must not know rings or the catalog.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_protocol::WorkerId;
use ringway_protocol::telemetry::{Dropped, LogAssembler, LogRecord, Record, RecordError};
use serde::Serialize;
use thiserror::Error;

use crate::directory::Directory;
use crate::ingest::{Batch, IngestedCounts, Programs};
use crate::otlp::Exporter;
use crate::record::{ClockAnchor, Log, Span, WorkerIdentity};
use crate::store::{Inserted, StoreLimits, TraceStore};

/// Why a record was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The worker was never introduced, or is long gone.
    #[error("telemetry of an unknown worker {0}")]
    UnknownWorker(WorkerId),
    /// The bytes are no record; they are counted.
    #[error(transparent)]
    Malformed(#[from] RecordError),
}

/// What did not make it from the workers to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct IntakeCounters {
    /// Spans that workers had to drop, their rings being full.
    pub spans_dropped: u64,
    /// Logs that workers had to drop, their rings being full.
    pub logs_dropped: u64,
    /// Logs of which a part was missing.
    pub logs_torn: u64,
    /// Records that were none, and frames of OpenTelemetry that could not be read.
    pub malformed: u64,
    /// Spans, logs and points of such frames that were not taken.
    pub rejected: u64,
}

#[derive(Debug)]
struct Source {
    identity: Arc<WorkerIdentity>,
    assembler: LogAssembler,
    dropped: Dropped,
}

/// The engine's end of all telemetry rings.
#[derive(Debug)]
pub struct Collector {
    directory: Directory,
    store: TraceStore,
    exporter: Option<Exporter>,
    anchor: ClockAnchor,
    sources: HashMap<WorkerId, Source>,
    programs: Programs,
    /// Of the sources that are gone, and all malformed records.
    settled: IntakeCounters,
}

impl Collector {
    /// Makes a collector with an empty store.
    #[must_use]
    pub fn new(limits: StoreLimits, anchor: ClockAnchor, exporter: Option<Exporter>) -> Self {
        Self {
            directory: Directory::new(),
            store: TraceStore::new(limits),
            exporter,
            anchor,
            sources: HashMap::new(),
            programs: Programs::default(),
            settled: IntakeCounters::default(),
        }
    }

    /// Sets what turns monotonic into unix time from now on: the wall clock may be set, and a machine may sleep.
    pub fn set_anchor(&mut self, anchor: ClockAnchor) {
        self.anchor = anchor;
    }

    /// Returns what turns monotonic into unix time.
    #[must_use]
    pub fn anchor(&self) -> ClockAnchor {
        self.anchor
    }

    /// Forgets all traces. Counters stay, and so does what was exported.
    pub fn clear_traces(&mut self) {
        self.store.clear_spans();
    }

    /// Forgets all logs. Counters stay, and so does what was exported.
    pub fn clear_logs(&mut self) {
        self.store.clear_logs();
    }

    /// Learns of a worker that attached, or attached again.
    pub fn worker_attached(&mut self, identity: WorkerIdentity) {
        let id = identity.id;
        let identity = self.directory.add_worker(identity);
        match self.sources.get_mut(&id) {
            Some(source) => source.identity = identity,
            None => {
                let source = Source { identity, assembler: LogAssembler::new(), dropped: Dropped::default() };
                self.sources.insert(id, source);
            }
        }
    }

    /// Learns what a worker's function is called.
    pub fn function_registered(&mut self, worker: WorkerId, index: u32, name: &str) {
        self.directory.add_function(worker, index, name);
    }

    /// Ends what a worker had running, after its ring has been drained for the last time.
    pub fn worker_gone(&mut self, worker: WorkerId, now_ns: u64) {
        self.directory.worker_gone(worker);
        if let Some(source) = self.sources.remove(&worker) {
            self.settled.add(&source);
        }
        for span in self.store.worker_gone(worker, now_ns) {
            self.export(span);
        }
    }

    /// Takes in one record of a worker's ring.
    ///
    /// # Errors
    /// [`IngestError`] where the worker is unknown or the bytes are no record. Either way the next record may come.
    pub fn ingest(&mut self, worker: WorkerId, bytes: &[u8]) -> Result<(), IngestError> {
        let source = self.sources.get_mut(&worker).ok_or(IngestError::UnknownWorker(worker))?;
        let identity = &source.identity;
        let whole = match Record::decode(bytes) {
            Ok(Record::Span(record)) => {
                let span = self.directory.span(identity, &record);
                self.insert(span);
                return Ok(());
            }
            Ok(Record::SpanStart(record)) => {
                let span = self.directory.live_span(identity, &record);
                self.insert(span);
                return Ok(());
            }
            Ok(Record::Dropped(dropped)) => {
                source.dropped = dropped;
                return Ok(());
            }
            Ok(Record::Log(chunk)) => source.assembler.push(&chunk),
            Err(error) => Err(error),
        };
        match whole {
            Ok(Some(record)) => self.ingest_log(worker, record),
            Ok(None) => Ok(()),
            Err(error) => {
                self.settled.malformed += 1;
                Err(error.into())
            }
        }
    }

    /// Takes in a log that came whole, by way of the control socket.
    ///
    /// # Errors
    /// [`IngestError::UnknownWorker`].
    pub fn ingest_log(&mut self, worker: WorkerId, record: LogRecord) -> Result<(), IngestError> {
        let source = self.sources.get(&worker).ok_or(IngestError::UnknownWorker(worker))?;
        let log = self.directory.log(&source.identity, record);
        self.insert_log(log);
        Ok(())
    }

    /// Takes in a frame of OpenTelemetry that a worker sent. It may speak of other programs than the worker, and names them;
    /// it cannot speak as another worker. Costs about an insertion for each span, log and point.
    ///
    /// # Errors
    /// [`IngestError::UnknownWorker`].
    pub fn ingest_batch(
        &mut self,
        worker: WorkerId,
        batch: Batch,
        now_ns: u64,
    ) -> Result<IngestedCounts, IngestError> {
        let source = self.sources.get(&worker).ok_or(IngestError::UnknownWorker(worker))?;
        let sender = Arc::clone(&source.identity);
        let placed = batch.place(&mut self.programs, &sender, self.anchor);
        let mut counts = IngestedCounts { rejected: placed.rejected, ..IngestedCounts::default() };
        for span in placed.spans {
            if span.trace_id.is_none() || span.span_id.is_none() {
                counts.rejected += 1;
            } else {
                counts.spans += 1;
                self.insert(span);
            }
        }
        for log in placed.logs {
            counts.logs += 1;
            self.insert_log(log);
        }
        for mut point in placed.points {
            counts.points += 1;
            // A clock that is ahead would make all others seem old.
            point.time_ns = point.time_ns.min(now_ns);
            self.store.insert_point(point);
        }
        self.settled.rejected += counts.rejected;
        Ok(counts)
    }

    /// Counts a frame that could not be read.
    pub fn count_malformed(&mut self) {
        self.settled.malformed += 1;
    }

    fn insert_log(&mut self, log: Log) {
        if let Some(exporter) = self.exporter.as_ref().filter(|exporter| exporter.exports_logs()) {
            exporter.export_log(log.clone(), self.anchor);
        }
        self.store.insert_log(log);
    }

    fn insert(&mut self, span: Span) {
        let exported = self.exporter.as_ref().is_some_and(Exporter::exports_spans);
        let copy = (exported && !span.is_live()).then(|| span.clone());
        match self.store.insert_span(span) {
            Inserted::New | Inserted::Ended | Inserted::Dropped => {
                if let Some(copy) = copy {
                    self.export(copy);
                }
            }
            Inserted::Duplicate | Inserted::Invalid => {}
        }
    }

    fn export(&self, span: Span) {
        if let Some(exporter) = &self.exporter {
            exporter.export_span(span, self.anchor);
        }
    }

    /// Returns the store, to ask it.
    #[must_use]
    pub fn store(&self) -> &TraceStore {
        &self.store
    }

    /// Returns the names.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns the exporter, if there is one.
    #[must_use]
    pub fn exporter(&self) -> Option<&Exporter> {
        self.exporter.as_ref()
    }

    /// Takes the exporter out, so that it can be shut down without holding the collector's lock.
    pub fn take_exporter(&mut self) -> Option<Exporter> {
        self.exporter.take()
    }

    /// Returns what did not make it here.
    #[must_use]
    pub fn counters(&self) -> IntakeCounters {
        let mut counters = self.settled;
        for source in self.sources.values() {
            counters.add(source);
        }
        counters
    }
}

impl IntakeCounters {
    fn add(&mut self, source: &Source) {
        self.spans_dropped = self.spans_dropped.saturating_add(source.dropped.spans);
        self.logs_dropped = self.logs_dropped.saturating_add(source.dropped.logs);
        self.logs_torn += source.assembler.lost();
    }
}

#[cfg(test)]
mod tests;
