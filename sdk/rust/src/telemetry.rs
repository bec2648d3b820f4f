//! Spans and logs on their way to the engine: one ring that this worker writes and the engine reads. Used wherever a call
//! is made or served, so it never blocks and never waits: a full ring drops the record and counts it, and the count goes
//! out when there is room again. It must not know which spans are worth recording.
//!
//! A ring belongs to one attach. While no engine is there, records are kept in private memory, up to a limit, and go out
//! with the next attach.
//!
//! # Fields and who may touch them
//! `sink` is behind a [`SpinLock`], taken by whoever records: tens of nanoseconds, no system call under it. `prepared` is
//! used by the control thread only, at an attach. Both are private memory; the ring's own rules are in [`ringway_ipc::ring`].

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::Inline;
use ringway_ipc::layout;
use ringway_ipc::lock::SpinLock;
use ringway_ipc::records::{PreparedRecords, Records, RecordsError};
use ringway_protocol::WorkerId;
use ringway_protocol::limits::TELEMETRY_BYTES;
use ringway_protocol::link::push_record;
use ringway_protocol::telemetry::{Dropped, LogRecord, SpanRecord, SpanStart};

/// How many bytes of records wait for a link, which takes them every few milliseconds.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How many records wait for an engine.
const KEPT_MAX: usize = 1024;

const _: () = assert!(TELEMETRY_BYTES == layout::INLINE_BYTES);

/// All telemetry of this process, the oldest first: a log belongs to the worker whose handler it came from, and to the
/// oldest where it came from none.
static OF_PROCESS: RwLock<Vec<Weak<Telemetry>>> = RwLock::new(Vec::new());

/// One record, encoded.
struct Record {
    bytes: Inline,
    len: u16,
}

impl Record {
    fn new(encode: impl FnOnce(&mut [u8; TELEMETRY_BYTES]) -> usize) -> Self {
        let mut bytes = Inline::default();
        let len = encode(bytes.bytes_mut());
        Self { bytes, len: u16::try_from(len).unwrap_or(0) }
    }
}

/// Records for an engine on another host, gathered until the control thread sends them.
struct Batch {
    bytes: Vec<u8>,
    bell: Doorbell,
    /// It was rung since the last were taken.
    rung: bool,
}

#[derive(Default)]
struct Sink {
    ring: Option<Records>,
    batch: Option<Batch>,
    kept: VecDeque<Record>,
    lost: Dropped,
    lost_told: Dropped,
}

impl Sink {
    /// Puts a record, after what was lost before it.
    #[inline]
    fn put(&mut self, record: Record) -> bool {
        if self.lost != self.lost_told {
            let lost = self.lost;
            if !self.put_one(Record::new(|out| lost.encode(out))) {
                return false;
            }
            self.lost_told = lost;
        }
        self.put_one(record)
    }

    #[inline]
    fn put_one(&mut self, record: Record) -> bool {
        let Some(ring) = &mut self.ring else { return self.put_aside(record) };
        match ring.push(&record.bytes, record.len) {
            Ok(room) => room,
            Err(_) => {
                // The engine broke its page. Nothing is logged here: a log would come back to this very lock.
                self.ring = None;
                self.keep(record)
            }
        }
    }

    #[cold]
    fn put_aside(&mut self, record: Record) -> bool {
        let Some(batch) = &mut self.batch else { return self.keep(record) };
        let room = batch.bytes.len() < BATCH_BYTES_MAX;
        if room {
            push_record(&mut batch.bytes, &record.bytes.bytes()[..usize::from(record.len)]);
        }
        room
    }

    #[cold]
    fn keep(&mut self, record: Record) -> bool {
        let room = self.kept.len() < KEPT_MAX;
        if room {
            self.kept.push_back(record);
        }
        room
    }

    /// Returns the doorbell if the engine asked for it and was not answered.
    #[inline]
    fn bell_asked(&mut self) -> Option<Doorbell> {
        let Some(ring) = self.ring.as_mut() else {
            let batch = self.batch.as_mut()?;
            return (!std::mem::replace(&mut batch.rung, true)).then(|| batch.bell.clone());
        };
        ring.bell_asked()
    }
}

/// Where a worker leaves its spans and logs.
pub(crate) struct Telemetry {
    worker: WorkerId,
    sink: SpinLock<Sink>,
    /// The ring that was offered with the last greeting.
    prepared: Mutex<Option<PreparedRecords>>,
    next_log: AtomicU32,
    /// What to add to a time of this host to have the engine's; 0 where they are the same.
    offset_ns: AtomicI64,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Makes a place without a ring: records are kept until the first attach.
    pub(crate) fn new(worker: WorkerId) -> Arc<Self> {
        let telemetry = Arc::new(Self {
            worker,
            sink: SpinLock::leaning(Sink::default()),
            prepared: Mutex::new(None),
            next_log: AtomicU32::new(0),
            offset_ns: AtomicI64::new(0),
        });
        let mut all = OF_PROCESS.write();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&telemetry));
        drop(all);
        telemetry
    }

    /// Returns the telemetry of a worker of this process, or of the oldest one where there is no such worker.
    pub(crate) fn of_worker(worker: WorkerId) -> Option<Arc<Self>> {
        let all = OF_PROCESS.read();
        let mut living = all.iter().filter_map(Weak::upgrade);
        let oldest = living.next()?;
        if oldest.worker == worker || worker.get() == 0 {
            return Some(oldest);
        }
        living.find(|telemetry| telemetry.worker == worker).or(Some(oldest))
    }

    /// Makes a ring for the next attach and returns the descriptor that rides with the greeting. About 0.3 ms. Without
    /// memory for it the worker goes without telemetry.
    pub(crate) fn prepare(&self) -> Option<OwnedFd> {
        match PreparedRecords::new(self.worker.get()) {
            Ok((memory, fd)) => {
                *self.prepared.lock() = Some(memory);
                Some(fd)
            }
            Err(error) => {
                tracing::warn!(%error, "spans and logs of this worker are not sent");
                *self.prepared.lock() = None;
                None
            }
        }
    }

    /// Takes the descriptors that came with the engine's answer, its page and its doorbell, and sends what was kept.
    ///
    /// # Errors
    /// The descriptors are not those; records are kept, up to their limit.
    pub(crate) fn attach(
        &self,
        fds: Vec<OwnedFd>,
        segment_bytes_max: u64,
        barrier_registered: bool,
    ) -> Result<(), RecordsError> {
        let Some(prepared) = self.prepared.lock().take() else { return Ok(()) };
        let ring = prepared.attach(fds, segment_bytes_max, barrier_registered)?;
        let bell = ring.bell().clone();
        let mut sink = self.sink.lock();
        let kept = std::mem::take(&mut sink.kept);
        let old = sink.ring.replace(ring);
        for record in kept {
            if !sink.put_one(record) {
                sink.lost.spans += 1;
            }
        }
        drop(sink);
        drop(old);
        bell.notify();
        Ok(())
    }

    /// The engine is on another host: records are gathered, and `bell` is rung when there are some.
    pub(crate) fn attach_link(&self, bell: Doorbell) {
        let mut sink = self.sink.lock();
        sink.batch = Some(Batch { bytes: Vec::new(), bell: bell.clone(), rung: true });
        for record in std::mem::take(&mut sink.kept) {
            sink.put_one(record);
        }
        drop(sink);
        bell.notify();
    }

    /// Takes what was gathered for a link, if there is anything; `offset_ns` is added to the times of what comes from now on.
    pub(crate) fn take_batch(&self, offset_ns: i64) -> Option<Vec<u8>> {
        self.offset_ns.store(offset_ns, Ordering::Relaxed);
        let mut sink = self.sink.lock();
        let batch = sink.batch.as_mut()?;
        batch.rung = false;
        let bytes = std::mem::take(&mut batch.bytes);
        drop(sink);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// A time of this host by the engine's clock.
    #[inline]
    fn engine_ns(&self, time_ns: u64) -> u64 {
        // 0 says that there is no time.
        if time_ns == 0 { 0 } else { time_ns.saturating_add_signed(self.offset_ns.load(Ordering::Relaxed)) }
    }

    /// The engine is gone. What it had not read is lost and counted as spans, of which most records are.
    pub(crate) fn detach(&self) {
        let mut sink = self.sink.lock();
        let old = sink.ring.take();
        sink.batch = None;
        drop(sink);
        if let Some(mut ring) = old {
            let unread = ring.backlog();
            self.sink.lock().lost.spans += unread;
        }
    }

    /// Records a finished span. About 50 ns.
    #[inline]
    pub(crate) fn span(&self, span: &SpanRecord) {
        let span = SpanRecord {
            start_ns: self.engine_ns(span.start_ns),
            end_ns: self.engine_ns(span.end_ns),
            woke_ns: self.engine_ns(span.woke_ns),
            ..*span
        };
        let record = Record::new(|out| span.encode(out));
        self.put_span(record);
    }

    /// Records a span that has run for some time.
    pub(crate) fn span_start(&self, start: &SpanStart) {
        let start = SpanStart { start_ns: self.engine_ns(start.start_ns), ..*start };
        let record = Record::new(|out| start.encode(out));
        self.put_span(record);
    }

    #[inline]
    fn put_span(&self, record: Record) {
        let mut sink = self.sink.lock();
        if !sink.put(record) {
            sink.lost.spans += 1;
        }
        let bell = sink.bell_asked();
        drop(sink);
        if let Some(bell) = bell {
            bell.notify();
        }
    }

    /// Records a log. Takes a slot for each 184 bytes and allocates.
    pub(crate) fn log(&self, log: &LogRecord) {
        let sequence = self.next_log.fetch_add(1, Ordering::Relaxed);
        let there = LogRecord { time_ns: self.engine_ns(log.time_ns), ..log.clone() };
        let log = if there.time_ns == log.time_ns { log } else { &there };
        let mut sink = self.sink.lock();
        let put = log.encode(sequence, |bytes, len| {
            sink.put(Record::new(|out| {
                out.copy_from_slice(bytes);
                len
            }))
        });
        if !put {
            sink.lost.logs += 1;
        }
        let bell = sink.bell_asked();
        drop(sink);
        if let Some(bell) = bell {
            bell.notify();
        }
    }

    /// Returns what was lost since the worker's start.
    pub(crate) fn lost(&self) -> Dropped {
        self.sink.lock().lost
    }
}

#[cfg(test)]
pub(crate) mod fake_reader;
#[cfg(test)]
mod tests;
