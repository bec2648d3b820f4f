//! The trace of one agent loop, from the engine's own store: as a picture, and as data.

use std::time::{Duration, Instant};

use ringway_telemetry::store::TraceFilter;
use ringway_telemetry::trace::{Trace, assemble};
use ringway_telemetry::waterfall::json::TraceJson;
use ringway_telemetry::waterfall::{Style, render};
use serde_json::Value;

use super::summary::TracePicture;
use super::{Demo, DemoError};
use crate::workers::RESEARCHER;

/// How long the last spans may take to arrive.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a trace must stay as it is to count as whole.
const QUIET_TIME: Duration = Duration::from_millis(50);

impl Demo<'_> {
    /// Traces a loop over rings and fetches its trace, once all its spans are there.
    pub(super) fn last_loop(&self) -> Result<TracePicture, DemoError> {
        self.trace_a_loop()?;
        let until = Instant::now() + ARRIVAL_TIME_MAX;
        let mut spans_before = 0;
        loop {
            let found = self.newest();
            if let Some(trace) = &found
                && trace.live_count() == 0
                && trace.spans == spans_before
            {
                return Ok(self.picture(trace));
            }
            spans_before = found.map_or(0, |trace| trace.spans);
            if Instant::now() >= until {
                return Err(DemoError::NoTrace);
            }
            std::thread::sleep(QUIET_TIME);
        }
    }

    fn newest(&self) -> Option<Trace> {
        let collector = self.engine.collector();
        let collector = collector.lock();
        let filter =
            TraceFilter { function: Some(RESEARCHER.to_owned()), limit: 1, ..TraceFilter::default() };
        let newest = collector.store().traces(&filter).into_iter().next()?;
        collector.store().trace(newest.trace_id).map(assemble)
    }

    fn picture(&self, trace: &Trace) -> TracePicture {
        let anchor = self.engine.collector().lock().anchor();
        let style = Style { width: self.options.width, colour: self.options.colour, ascii: false };
        TracePicture {
            text: render(trace, anchor, style),
            spans: trace.spans,
            workers: trace.worker_count(),
            logs: trace.rows.iter().map(|row| row.logs.len()).sum(),
            orphans: trace.rows.iter().filter(|row| row.orphan).count(),
            tree: serde_json::to_value(TraceJson::new(trace, anchor)).unwrap_or(Value::Null),
        }
    }
}
