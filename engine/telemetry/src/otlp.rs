//! Export of spans and logs to an OpenTelemetry collector: OTLP over HTTP with protobuf bodies.
//!
//! The engine starts an [`Exporter`] where the standard variables ask for one, and pushes what its workers report.
//! Pushing never waits: a thread per signal gathers batches, sends them, and tries again where the collector says
//! so. This module must not know the store.

mod batch;
mod config;
mod encode;
mod text;
mod transport;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::batch::Batcher;
use self::encode::{LogsSignal, Stamped, TracesSignal};
use crate::record::{ClockAnchor, Log, Span};

pub use self::batch::SignalCounters;
pub use self::config::{BatchConfig, ConfigError, ExportConfig, ResourceConfig, SignalConfig};

/// What became of everything that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ExportCounters {
    /// Spans.
    pub spans: SignalCounters,
    /// Logs.
    pub logs: SignalCounters,
}

/// Sends spans and logs to a collector, each from its own thread. Dropping it without
/// [`shutdown`](Exporter::shutdown) flushes for two seconds at most.
#[derive(Debug)]
pub struct Exporter {
    traces: Option<Batcher<Stamped<Span>>>,
    logs: Option<Batcher<Stamped<Log>>>,
}

/// How long a dropped exporter still tries to deliver.
const DROP_FLUSH: Duration = Duration::from_secs(2);

impl Exporter {
    /// Starts what the configuration asks for; `None` where it asks for nothing.
    ///
    /// # Errors
    /// A certificate file cannot be used, or the system refuses a thread.
    pub fn start(config: &ExportConfig) -> io::Result<Option<Self>> {
        if config.traces.is_none() && config.logs.is_none() {
            return Ok(None);
        }
        let resource = Arc::new(config.resource.clone());
        let traces = config.traces.as_ref();
        let traces =
            traces.map(|to| Batcher::start(TracesSignal::new(Arc::clone(&resource)), to)).transpose()?;
        let logs = config.logs.as_ref();
        let logs = logs.map(|to| Batcher::start(LogsSignal::new(resource), to)).transpose()?;
        Ok(Some(Self { traces, logs }))
    }

    /// Says whether spans are exported; if not, pushing one does nothing.
    #[must_use]
    pub fn exports_spans(&self) -> bool {
        self.traces.is_some()
    }

    /// Says whether logs are exported; if not, pushing one does nothing.
    #[must_use]
    pub fn exports_logs(&self) -> bool {
        self.logs.is_some()
    }

    /// Queues a finished span; a live one is ignored. Never waits for the network.
    pub fn export_span(&self, span: Span, anchor: ClockAnchor) {
        if let Some(traces) = self.traces.as_ref().filter(|_| !span.is_live()) {
            traces.push(Stamped { item: span, anchor });
        }
    }

    /// Queues a log line. Never waits for the network.
    pub fn export_log(&self, log: Log, anchor: ClockAnchor) {
        if let Some(logs) = &self.logs {
            logs.push(Stamped { item: log, anchor });
        }
    }

    /// Sends what is queued now; blocks until all of it is settled or the time is up, and says which.
    pub fn flush(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let spans = self.traces.as_ref().is_none_or(|traces| traces.flush(timeout));
        let left = end.saturating_duration_since(Instant::now());
        let logs = self.logs.as_ref().is_none_or(|logs| logs.flush(left));
        spans && logs
    }

    /// Sends what is left for at most `timeout`, ends the threads, and returns what became of everything. What is
    /// pushed afterwards is dropped and counted. Blocks.
    pub fn shutdown(&self, timeout: Duration) -> ExportCounters {
        let end = Instant::now() + timeout;
        if let Some(traces) = &self.traces {
            traces.stop(end);
        }
        if let Some(logs) = &self.logs {
            logs.stop(end);
            logs.join();
        }
        if let Some(traces) = &self.traces {
            traces.join();
        }
        self.counters()
    }

    /// Returns what became of everything so far.
    #[must_use]
    pub fn counters(&self) -> ExportCounters {
        ExportCounters {
            spans: self.traces.as_ref().map(Batcher::counters).unwrap_or_default(),
            logs: self.logs.as_ref().map(Batcher::counters).unwrap_or_default(),
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.shutdown(DROP_FLUSH);
    }
}
