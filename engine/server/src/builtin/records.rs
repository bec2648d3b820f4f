//! The trigger types `log` and `trace`: they tell of log lines and traces that have come in, as the iii protocol has it. A
//! thread of their own looks at the store while something is bound, some times a second, so that a burst is told together;
//! with nothing bound it sleeps. Bindings are told one after the other, those that have to be asked first last, and each for
//! a time that is limited: what it could not be told until then is left out and counted. It must not know how records arrive.
//!
//! What the told functions log and record themselves is not told, or it would never end: their traces begin here, and their
//! ids are known. A line that a told function logs outside of its trace cannot be told from others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use ringway::{CallError, CallOptions, Encoding, ErrorCode, Message, TriggerProvider, Worker};
use ringway_protocol::control::{TriggerSpec, TriggerTypeSpec};
use ringway_protocol::trace::FLAG_SAMPLED;
use ringway_protocol::{SpanId, TraceContext, TraceId, naming};
use ringway_telemetry::store::{Outcome, TraceFilter, TraceSummary};
use ringway_telemetry::waterfall::otel::OtelLog;
use ringway_telemetry::{Log, TraceStore};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::random;
use crate::shared::Shared;
use crate::{counters, limits};

/// What a binding of either type may say; what is left out is wanted whatever it is.
#[derive(Debug, Default, Deserialize)]
struct Config {
    /// Of logs: the level, exactly; `all` is every one.
    level: Option<String>,
    /// Of traces: the name of the worker where it began.
    service_name: Option<String>,
    /// Of traces: `error`, or `ok` or `unset` for those without an error, in any case of letters.
    status: Option<String>,
    /// Is asked first with the same, and keeps it from being told by `false`.
    condition_function_id: Option<String>,
}

/// Whom to tell what.
#[derive(Debug)]
struct Binding {
    function: String,
    metadata: Option<Value>,
    config: Config,
    /// It was unbound, or the engine ends.
    is_over: AtomicBool,
}

impl Binding {
    fn of(spec: &TriggerSpec) -> Result<Self, CallError> {
        let config = match &spec.config {
            Value::Null => Config::default(),
            config => Config::deserialize(config).map_err(|error| refused(&error.to_string()))?,
        };
        let levels = ["all", "trace", "debug", "info", "warn", "error"];
        if let Some(level) = config.level.as_deref().filter(|level| !levels.contains(level)) {
            return Err(refused(&format!("wanted one of {} as `level`, found `{level}`", levels.join(", "))));
        }
        let is_status =
            |status: &&str| ["ok", "unset", "error"].iter().any(|one| status.eq_ignore_ascii_case(one));
        if let Some(status) = config.status.as_deref().filter(|status| !is_status(status)) {
            return Err(refused(&format!("wanted ok, unset or error as `status`, found `{status}`")));
        }
        let function = spec.function_id.as_str().to_owned();
        Ok(Self { function, metadata: spec.metadata.clone(), config, is_over: AtomicBool::new(false) })
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn wants_log(&self, log: &Log) -> bool {
        self.config.level.as_deref().is_none_or(|level| level == "all" || level == log.level.as_str())
    }

    fn wants_trace(&self, trace: &TraceSummary) -> bool {
        let Config { service_name, status, .. } = &self.config;
        let has_failed = trace.outcome() == Outcome::Error;
        service_name.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(&trace.worker.name))
            && status.as_deref().is_none_or(|status| status.eq_ignore_ascii_case("error") == has_failed)
    }
}

fn refused(why: &str) -> CallError {
    CallError::new(ErrorCode::InvalidRequest, format!("the trigger's config: {why}"))
}

type Bound = BTreeMap<String, Arc<Binding>>;

/// Those that are to be told: first those that need not be asked.
fn in_order(bound: &Bound) -> Vec<Arc<Binding>> {
    let mut all: Vec<_> = bound.values().cloned().collect();
    all.sort_by_key(|binding| binding.config.condition_function_id.is_some());
    all
}

/// What is bound, and how far the bound functions were told.
#[derive(Debug, Default)]
struct State {
    logs: Bound,
    traces: Bound,
    /// Log lines that had come in when they were last told.
    logs_seen: u64,
    /// Traces that were told, with the number of spans that each had.
    traces_told: HashMap<TraceId, usize>,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Board {
    state: Mutex<State>,
    /// Something was bound, or it is over.
    changed: Condvar,
}

/// Which of the two types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log,
    Trace,
}

struct Watcher {
    kind: Kind,
    shared: Arc<Shared>,
    board: Arc<Board>,
}

impl TriggerProvider for Watcher {
    fn bind(&self, spec: &TriggerSpec) -> Result<(), CallError> {
        let binding = Arc::new(Binding::of(spec)?);
        let mut state = self.board.state.lock();
        // From now on, not what was there before.
        let before = match self.kind {
            Kind::Log => {
                if state.logs.is_empty() {
                    state.logs_seen = self.shared.collector.lock().store().counters().logs_received;
                }
                state.logs.insert(spec.id.clone(), binding)
            }
            Kind::Trace => {
                if state.traces.is_empty() {
                    state.traces_told = counts(&finished(self.shared.collector.lock().store()));
                }
                state.traces.insert(spec.id.clone(), binding)
            }
        };
        drop(state);
        before.iter().for_each(|binding| binding.end());
        self.board.changed.notify_all();
        Ok(())
    }

    fn unbind(&self, id: &str) {
        let mut state = self.board.state.lock();
        let bound = match self.kind {
            Kind::Log => &mut state.logs,
            Kind::Trace => &mut state.traces,
        };
        bound.remove(id).iter().for_each(|binding| binding.end());
    }
}

/// The latest traces of which nothing runs any more, as far as is known.
fn finished(store: &TraceStore) -> Vec<TraceSummary> {
    let filter = TraceFilter { limit: limits::TELL_TRACES_MAX, ..TraceFilter::default() };
    let mut found = store.traces(&filter);
    found.retain(|trace| trace.live == 0);
    found
}

fn counts(traces: &[TraceSummary]) -> HashMap<TraceId, usize> {
    traces.iter().map(|trace| (trace.trace_id, trace.spans)).collect()
}

/// The thread.
#[derive(Debug)]
pub(super) struct Records {
    board: Arc<Board>,
    thread: JoinHandle<()>,
}

impl Records {
    pub(super) fn start(worker: &Worker, shared: &Arc<Shared>) -> Result<Self, CallError> {
        let board = Arc::<Board>::default();
        for (kind, id, description) in [
            (Kind::Log, naming::TRIGGER_LOG, "a log line came in"),
            (Kind::Trace, naming::TRIGGER_TRACE, "traces ended, or have further spans"),
        ] {
            let spec = TriggerTypeSpec {
                id: id.into(),
                description: description.into(),
                ..TriggerTypeSpec::default()
            };
            let watcher = Watcher { kind, shared: Arc::clone(shared), board: Arc::clone(&board) };
            worker.register_trigger_type(spec, watcher)?;
        }
        let teller = Teller {
            worker: worker.clone(),
            shared: Arc::clone(shared),
            board: Arc::clone(&board),
            own: Own::new(),
            looked_at: (0, 0),
        };
        let thread =
            std::thread::Builder::new().name("ringway-tell".to_owned()).spawn(move || teller.run()).map_err(
                |error| CallError::new(ErrorCode::OutOfMemory, format!("cannot start a thread: {error}")),
            )?;
        Ok(Self { board, thread })
    }

    pub(super) fn stop(self) {
        let mut state = self.board.state.lock();
        state.is_over = true;
        // What it is about to tell is told no more.
        state.logs.values().chain(state.traces.values()).for_each(|binding| binding.end());
        drop(state);
        self.board.changed.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the thread that tells of logs and traces panicked");
        }
    }
}

struct Teller {
    worker: Worker,
    shared: Arc<Shared>,
    board: Arc<Board>,
    own: Own,
    /// Spans that had come in, and those that ran, when traces were last looked at: neither changes unless a trace does.
    looked_at: (u64, usize),
}

impl Teller {
    fn run(mut self) {
        loop {
            let (logs, traces) = {
                let mut state = self.board.state.lock();
                while !state.is_over && state.logs.is_empty() && state.traces.is_empty() {
                    self.board.changed.wait(&mut state);
                }
                if state.is_over {
                    return;
                }
                (in_order(&state.logs), in_order(&state.traces))
            };
            if !logs.is_empty() {
                self.tell_logs(&logs);
            }
            if !traces.is_empty() {
                self.tell_traces(&traces);
            }
            let mut state = self.board.state.lock();
            if !state.is_over {
                let _woken_or_not = self.board.changed.wait_for(&mut state, limits::TELL_RECORDS_EVERY);
            }
        }
    }

    fn tell_logs(&self, bound: &[Arc<Binding>]) {
        let seen = self.board.state.lock().logs_seen;
        let collector = self.shared.collector.lock();
        let (store, anchor) = (collector.store(), collector.anchor());
        let counters = store.counters();
        let fresh = counters.logs_received.saturating_sub(seen);
        let held = usize::try_from(fresh).unwrap_or(usize::MAX).min(counters.logs);
        let is_wanted = |log: &&Log| {
            !log.trace_id.is_some_and(|id| self.own.has(id))
                && bound.iter().any(|binding| binding.wants_log(log))
        };
        let wanted: Vec<&Log> = store.log_lines().skip(counters.logs - held).filter(is_wanted).collect();
        let cut = wanted.len().saturating_sub(limits::TELL_LOGS_MAX);
        let logs: Vec<Log> = wanted[cut..].iter().copied().cloned().collect();
        drop(collector);
        self.board.state.lock().logs_seen = counters.logs_received;
        // Of those that came and went between two looks nobody knows whether they were wanted.
        let gone = fresh.saturating_sub(held as u64);
        counters::add(&self.shared.counters.records_untold, gone + cut as u64);
        let event = |log: &Log| Message::json(&OtelLog::new(log, anchor)).ok();
        let events: Vec<(&Log, Message)> = logs.iter().filter_map(|log| Some((log, event(log)?))).collect();
        for binding in bound {
            let wanted = events.iter().filter(|(log, _)| binding.wants_log(log));
            self.tell_all(binding, wanted.map(|(_, event)| event));
        }
    }

    fn tell_traces(&mut self, bound: &[Arc<Binding>]) {
        let collector = self.shared.collector.lock();
        let counters = collector.store().counters();
        let at = (counters.spans_received, counters.spans_live);
        if at == self.looked_at {
            return;
        }
        let found = finished(collector.store());
        drop(collector);
        self.looked_at = at;
        let told = std::mem::replace(&mut self.board.state.lock().traces_told, counts(&found));
        let is_news = |trace: &&TraceSummary| {
            told.get(&trace.trace_id) != Some(&trace.spans) && !self.own.has(trace.trace_id)
        };
        let news: Vec<&TraceSummary> = found.iter().filter(is_news).collect();
        for binding in bound {
            let wanted = news.iter().filter(|trace| binding.wants_trace(trace));
            let ids: Vec<TraceId> = wanted.map(|trace| trace.trace_id).collect();
            if !ids.is_empty() {
                self.tell_all(binding, Message::json(&json!({ "trace_ids": ids })).iter());
            }
        }
    }

    /// Tells a binding one thing after the other, within the time that it has.
    fn tell_all<'a>(&self, binding: &Binding, events: impl Iterator<Item = &'a Message>) {
        let until = Instant::now() + limits::TELL_TIME_MAX;
        let (mut untold, mut failure) = (0, None);
        for event in events {
            if binding.is_over() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            let told = if left.is_zero() {
                Err(CallError::new(ErrorCode::DeadlineExceeded, "what came before it took too long"))
            } else {
                self.tell(binding, event, &CallOptions::new().timeout(left))
            };
            if let Err(error) = told {
                untold += 1;
                failure.get_or_insert(error);
            }
        }
        if let Some(error) = failure {
            counters::add(&self.shared.counters.records_untold, untold);
            tracing::warn!(function = binding.function, untold, %error, "a trigger was not told of everything");
        }
    }

    fn tell(&self, binding: &Binding, event: &Message, options: &CallOptions) -> Result<(), CallError> {
        if let Some(condition) = &binding.config.condition_function_id {
            let options = options.clone().parent(self.own.begin());
            let answer = self.worker.handle(condition).call_with(event, &options)?;
            if answer.encoding() == Encoding::Json && answer.body() == b"false" {
                return Ok(());
            }
        }
        let mut options = options.clone().parent(self.own.begin());
        if let Some(metadata) = &binding.metadata {
            options = options.metadata(metadata.clone());
        }
        self.worker.handle(&binding.function).send(event, &options)
    }
}

/// Begins traces, and knows them again: the first half of their ids is the same.
#[derive(Debug)]
struct Own {
    half: [u8; 8],
}

impl Own {
    fn new() -> Self {
        Self { half: random().to_be_bytes() }
    }

    fn has(&self, id: TraceId) -> bool {
        id.to_bytes().starts_with(&self.half)
    }

    fn begin(&self) -> TraceContext {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.half);
        id[8..].copy_from_slice(&random().to_be_bytes());
        let span_id = SpanId::from_bytes(random().to_be_bytes());
        TraceContext { trace_id: TraceId::from_bytes(id), span_id, flags: FLAG_SAMPLED }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_traces_that_began_here_are_known_however_many() {
        let (own, other) = (Own::new(), Own::new());
        let begun: Vec<TraceContext> = (0..10_000).map(|_| own.begin()).collect();
        assert!(begun.iter().all(|trace| trace.is_valid() && trace.is_sampled() && own.has(trace.trace_id)));
        let ids: HashSet<TraceId> = begun.iter().map(|trace| trace.trace_id).collect();
        assert_eq!(ids.len(), begun.len());
        assert!(!own.has(other.begin().trace_id));
    }

    #[test]
    fn a_level_or_a_status_that_is_none_is_refused() {
        let spec = |config: Value| {
            let mut spec = TriggerSpec::new("a", "log", ringway_protocol::FunctionId::new("f::g").unwrap());
            spec.config = config;
            Binding::of(&spec).map(|binding| binding.config.level).map_err(|error| error.message)
        };
        assert_eq!(spec(Value::Null), Ok(None));
        assert_eq!(
            spec(json!({ "level": "warn", "condition_function_id": "a::b" })),
            Ok(Some("warn".to_owned()))
        );
        let found = spec(json!({ "level": "loud" })).unwrap_err();
        assert!(found.contains("`loud`") && found.contains("warn"), "{found}");
        let found = spec(json!({ "status": "odd" })).unwrap_err();
        assert!(found.contains("`odd`") && found.contains("unset"), "{found}");
        assert_eq!(spec(json!({ "status": "Unset" })), Ok(None));
    }
}
