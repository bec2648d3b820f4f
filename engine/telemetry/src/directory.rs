//! Who the workers are and what their function indices mean, remembered beyond their death.
//!
//! The engine tells it what the catalog learns; telemetry records, which name functions by worker and index, are
//! turned into [`Span`]s and [`Log`]s here. Late records of a worker that is gone still find their names: the last
//! [`GONE_MAX`](Directory::GONE_MAX) are kept. It must not know the catalog itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ringway_protocol::error::STATUS_OK;
use ringway_protocol::telemetry::{FunctionRef, LogRecord, SpanName, SpanRecord, SpanStart};
use ringway_protocol::{SpanId, TraceId, WorkerId};

use crate::record::{Log, Span, WorkerIdentity};

#[derive(Debug)]
struct Entry {
    identity: Arc<WorkerIdentity>,
    functions: HashMap<u32, Arc<str>>,
    gone: bool,
}

/// Names of workers and functions.
#[derive(Debug, Default)]
pub struct Directory {
    workers: HashMap<WorkerId, Entry>,
    /// Workers in the order in which they went; one that came back is skipped when its turn comes.
    gone: VecDeque<WorkerId>,
}

impl Directory {
    /// How many workers are remembered after they went.
    pub const GONE_MAX: usize = 1024;

    /// Makes an empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns who a worker is; what was known of its functions stays.
    pub fn add_worker(&mut self, identity: WorkerIdentity) -> Arc<WorkerIdentity> {
        let id = identity.id;
        let identity = Arc::new(identity);
        match self.workers.get_mut(&id) {
            Some(entry) => {
                entry.identity = Arc::clone(&identity);
                entry.gone = false;
            }
            None => {
                let entry = Entry { identity: Arc::clone(&identity), functions: HashMap::new(), gone: false };
                self.workers.insert(id, entry);
            }
        }
        identity
    }

    /// Learns what a worker's function is called, from now on. An unknown worker is ignored.
    pub fn add_function(&mut self, worker: WorkerId, index: u32, name: &str) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.functions.insert(index, name.into());
        }
    }

    /// Marks a worker as gone. Its names stay until many others have gone too.
    pub fn worker_gone(&mut self, worker: WorkerId) {
        let Some(entry) = self.workers.get_mut(&worker).filter(|entry| !entry.gone) else { return };
        entry.gone = true;
        self.gone.retain(|&earlier| earlier != worker);
        self.gone.push_back(worker);
        if self.gone.len() > Self::GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
            && self.workers.get(&oldest).is_some_and(|entry| entry.gone)
        {
            self.workers.remove(&oldest);
        }
    }

    /// Finds who a worker is or was.
    #[must_use]
    pub fn worker(&self, worker: WorkerId) -> Option<&Arc<WorkerIdentity>> {
        self.workers.get(&worker).map(|entry| &entry.identity)
    }

    /// Turns a finished span's record into a span.
    #[must_use]
    pub fn span(&self, recorder: &Arc<WorkerIdentity>, record: &SpanRecord) -> Span {
        Span {
            trace_id: record.trace_id,
            span_id: record.span_id,
            parent_id: some_id(record.parent_id),
            kind: record.kind,
            status: record.status,
            start_ns: record.start_ns,
            end_ns: Some(record.end_ns),
            woke_ns: (record.woke_ns != 0).then_some(record.woke_ns),
            lost: false,
            flags: record.flags,
            worker: Arc::clone(recorder),
            name: self.name(record.function, &record.name),
            peer: some_worker(record.peer),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            details: None,
        }
    }

    /// Turns a long-running span's record into a live span.
    #[must_use]
    pub fn live_span(&self, recorder: &Arc<WorkerIdentity>, record: &SpanStart) -> Span {
        Span {
            trace_id: record.trace_id,
            span_id: record.span_id,
            parent_id: some_id(record.parent_id),
            kind: record.kind,
            status: STATUS_OK,
            start_ns: record.start_ns,
            end_ns: None,
            woke_ns: None,
            lost: false,
            flags: 0,
            worker: Arc::clone(recorder),
            name: self.name(record.function, &record.name),
            peer: some_worker(record.peer),
            bytes_in: 0,
            bytes_out: 0,
            details: None,
        }
    }

    /// Turns a log's record into a log line.
    #[must_use]
    pub fn log(&self, recorder: &Arc<WorkerIdentity>, record: LogRecord) -> Log {
        Log {
            time_ns: record.time_ns,
            level: record.level,
            worker: Arc::clone(recorder),
            trace_id: (record.trace_id != TraceId::NONE).then_some(record.trace_id),
            span_id: some_id(record.span_id),
            target: record.target,
            message: record.message,
            fields: record.fields,
        }
    }

    fn name(&self, function: FunctionRef, own_name: &SpanName) -> Arc<str> {
        if !own_name.is_empty() {
            return own_name.as_str().into();
        }
        let entry = self.workers.get(&function.worker);
        match entry.and_then(|entry| entry.functions.get(&function.index)) {
            Some(name) => Arc::clone(name),
            None if function == FunctionRef::NONE => "unnamed".into(),
            None => format!("function {} of worker {}", function.index, function.worker).into(),
        }
    }
}

fn some_id(id: SpanId) -> Option<SpanId> {
    (!id.is_none()).then_some(id)
}

fn some_worker(worker: WorkerId) -> Option<WorkerId> {
    (worker.get() != 0).then_some(worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u64) -> WorkerIdentity {
        let name = format!("w{id}");
        WorkerIdentity { id: WorkerId::new(id), name, namespace: String::new(), pid: 1, is_engine: false }
    }

    #[test]
    fn names_come_from_the_record_then_the_directory() {
        let mut directory = Directory::new();
        directory.add_worker(identity(1));
        directory.add_function(WorkerId::new(1), 7, "a::b");
        directory.add_function(WorkerId::new(2), 7, "nobody::b");
        let check = |worker: u64, index: u32, own: &str, expected: &str| {
            let function = FunctionRef { worker: WorkerId::new(worker), index };
            assert_eq!(&*directory.name(function, &SpanName::new(own)), expected);
        };
        check(1, 7, "", "a::b");
        check(1, 7, "step", "step");
        check(1, 8, "", "function 8 of worker 0000000000000001");
        check(2, 7, "", "function 7 of worker 0000000000000002");
        check(0, u32::MAX, "", "unnamed");
    }

    #[test]
    fn gone_workers_are_remembered_within_a_limit() {
        let mut directory = Directory::new();
        let gone_max = u64::try_from(Directory::GONE_MAX).unwrap();
        for id in 0..gone_max + 10 {
            directory.add_worker(identity(id));
            directory.worker_gone(WorkerId::new(id));
            directory.worker_gone(WorkerId::new(id));
        }
        assert_eq!(directory.workers.len(), Directory::GONE_MAX);
        assert!(directory.worker(WorkerId::new(9)).is_none());
        assert!(directory.worker(WorkerId::new(10)).is_some());
        directory.add_worker(identity(10));
        for id in 10_000..10_001 + gone_max {
            directory.add_worker(identity(id));
            directory.worker_gone(WorkerId::new(id));
        }
        assert!(directory.worker(WorkerId::new(10)).is_some(), "it came back and must stay");
    }
}
