//! The trigger types `log` and `trace`: they tell of log lines and traces that have come in, as the iii protocol has it. A
//! thread of their own looks at the store while something is bound, some times a second, so that a burst is told together
//! and a slow function holds up nobody; with nothing bound it sleeps. What the told functions log and record themselves is
//! not told, or it would never end: their traces begin here, and are known. It must not know how records arrive.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use ringway::{CallError, CallOptions, ErrorCode, Failure, Message, TriggerProvider, Worker};
use ringway_protocol::control::{TriggerSpec, TriggerTypeSpec};
use ringway_protocol::trace::FLAG_SAMPLED;
use ringway_protocol::{SpanId, TraceContext, TraceId, naming};
use ringway_telemetry::Log;
use ringway_telemetry::store::{Outcome, TraceFilter, TraceSummary};
use ringway_telemetry::waterfall::otel::OtelLog;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::random;
use crate::limits;
use crate::shared::Shared;

/// What a binding of either type may say; what is left out is wanted whatever it is.
#[derive(Debug, Clone, Default, Deserialize)]
struct Config {
    /// Of logs: the level, exactly; `all` is every one.
    level: Option<String>,
    /// Of traces: the name of the worker where it began.
    service_name: Option<String>,
    /// Of traces: `ok`, `error` or `unset`.
    status: Option<String>,
    /// Is asked first with the same, and keeps it from being told by `false`.
    condition_function_id: Option<String>,
}

/// Whom to tell what.
#[derive(Debug, Clone)]
struct Binding {
    function: String,
    metadata: Option<Value>,
    config: Config,
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
        Ok(Self { function: spec.function_id.as_str().to_owned(), metadata: spec.metadata.clone(), config })
    }

    fn wants_log(&self, log: &Log) -> bool {
        self.config.level.as_deref().is_none_or(|level| level == "all" || level == log.level.as_str())
    }

    fn wants_trace(&self, trace: &TraceSummary) -> bool {
        let is_same = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found))
        };
        let outcome = if trace.outcome() == Outcome::Error { "error" } else { "ok" };
        is_same(&self.config.service_name, &trace.worker.name) && is_same(&self.config.status, outcome)
    }
}

fn refused(why: &str) -> CallError {
    CallError::new(ErrorCode::InvalidRequest, format!("the trigger's config: {why}"))
}

/// What is bound, and how far the bound functions were told.
#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<String, Binding>,
    traces: BTreeMap<String, Binding>,
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
        let binding = Binding::of(spec)?;
        // From now on, not what was there before.
        let (seen, told) = (logs_received(&self.shared), finished(&self.shared));
        let mut state = self.board.state.lock();
        match self.kind {
            Kind::Log => {
                if state.logs.is_empty() {
                    state.logs_seen = seen;
                }
                state.logs.insert(spec.id.clone(), binding);
            }
            Kind::Trace => {
                if state.traces.is_empty() {
                    state.traces_told = told.into_iter().map(|trace| (trace.trace_id, trace.spans)).collect();
                }
                state.traces.insert(spec.id.clone(), binding);
            }
        }
        self.board.changed.notify_all();
        Ok(())
    }

    fn unbind(&self, id: &str) {
        let mut state = self.board.state.lock();
        match self.kind {
            Kind::Log => state.logs.remove(id),
            Kind::Trace => state.traces.remove(id),
        };
    }
}

fn logs_received(shared: &Shared) -> u64 {
    shared.collector.lock().store().counters().logs_received
}

/// The latest traces of which nothing runs any more, as far as is known.
fn finished(shared: &Shared) -> Vec<TraceSummary> {
    let filter = TraceFilter { limit: limits::TELL_TRACES_MAX, ..TraceFilter::default() };
    let mut found = shared.collector.lock().store().traces(&filter);
    found.retain(|trace| trace.live == 0);
    found
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
            own: Own::default(),
        };
        let thread = std::thread::Builder::new()
            .name("ringway-records".to_owned())
            .spawn(move || teller.run())
            .map_err(|error| {
                CallError::new(ErrorCode::OutOfMemory, format!("cannot start a thread: {error}"))
            })?;
        Ok(Self { board, thread })
    }

    pub(super) fn stop(self) {
        self.board.state.lock().is_over = true;
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
                let bound = |all: &BTreeMap<String, Binding>| all.values().cloned().collect::<Vec<_>>();
                (bound(&state.logs), bound(&state.traces))
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

    fn tell_logs(&mut self, bound: &[Binding]) {
        let seen = self.board.state.lock().logs_seen;
        let collector = self.shared.collector.lock();
        let (store, anchor) = (collector.store(), collector.anchor());
        let counters = store.counters();
        let fresh = usize::try_from(counters.logs_received.saturating_sub(seen)).unwrap_or(usize::MAX);
        let fresh = fresh.min(counters.logs).min(limits::TELL_LOGS_MAX);
        let logs: Vec<Log> = store.log_lines().skip(counters.logs - fresh).cloned().collect();
        drop(collector);
        self.board.state.lock().logs_seen = counters.logs_received;
        for log in
            logs.iter().filter(|log| !log.trace_id.is_some_and(|id| self.own.has(id))).collect::<Vec<_>>()
        {
            let Ok(event) = serde_json::to_value(OtelLog::new(log, anchor)) else { continue };
            for binding in bound.iter().filter(|binding| binding.wants_log(log)) {
                self.tell(binding, &event);
            }
        }
    }

    fn tell_traces(&mut self, bound: &[Binding]) {
        let found = finished(&self.shared);
        let counts: HashMap<TraceId, usize> =
            found.iter().map(|trace| (trace.trace_id, trace.spans)).collect();
        let told = std::mem::replace(&mut self.board.state.lock().traces_told, counts);
        let is_news = |trace: &&TraceSummary| {
            told.get(&trace.trace_id) != Some(&trace.spans) && !self.own.has(trace.trace_id)
        };
        let news: Vec<&TraceSummary> = found.iter().filter(is_news).collect();
        for binding in bound {
            let wanted = news.iter().filter(|trace| binding.wants_trace(trace));
            let ids: Vec<TraceId> = wanted.map(|trace| trace.trace_id).collect();
            if !ids.is_empty() {
                self.tell(binding, &json!({ "trace_ids": ids }));
            }
        }
    }

    fn tell(&mut self, binding: &Binding, event: &Value) {
        let options = || CallOptions::new().timeout(limits::TELL_TIME_MAX);
        if let Some(condition) = &binding.config.condition_function_id {
            let options = options().parent(self.own.begin());
            match self.worker.trigger_json_with(condition, event, &options) {
                Ok(Value::Bool(false)) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(function = condition, %error, "a condition failed; its trigger is not told");
                    return;
                }
            }
        }
        let mut options = options().parent(self.own.begin());
        if let Some(metadata) = &binding.metadata {
            options = options.metadata(metadata.clone());
        }
        let sent = Message::json(event).map_err(Failure::into_error);
        let sent = sent.and_then(|message| self.worker.handle(&binding.function).send(&message, &options));
        if let Err(error) = sent {
            tracing::debug!(function = binding.function, %error, "a trigger was not told");
        }
    }
}

/// The traces that began here, the latest of them.
#[derive(Debug, Default)]
struct Own {
    all: HashSet<TraceId>,
    order: VecDeque<TraceId>,
}

impl Own {
    fn has(&self, id: TraceId) -> bool {
        self.all.contains(&id)
    }

    /// Begins one.
    fn begin(&mut self) -> TraceContext {
        let halves = [random().to_be_bytes(), random().to_be_bytes()].concat();
        let trace_id = TraceId::from_bytes(halves.try_into().unwrap_or([1; 16]));
        self.all.insert(trace_id);
        self.order.push_back(trace_id);
        if self.order.len() > limits::TELL_TRACES_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
        TraceContext { trace_id, span_id: SpanId::from_bytes(random().to_be_bytes()), flags: FLAG_SAMPLED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traces_that_began_here_are_known_and_no_more_than_so_many() {
        let mut own = Own::default();
        let first = own.begin();
        assert!(first.is_valid() && first.is_sampled());
        assert!(own.has(first.trace_id));
        for _ in 0..limits::TELL_TRACES_KNOWN {
            own.begin();
        }
        assert!(!own.has(first.trace_id));
        assert_eq!((own.all.len(), own.order.len()), (limits::TELL_TRACES_KNOWN, limits::TELL_TRACES_KNOWN));
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
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
    }
}
