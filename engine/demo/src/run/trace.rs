//! The trace of one agent loop, from the engine's own store: as a picture, and as data.

use std::time::{Duration, Instant};

use ringway::protocol::naming;
use ringway_telemetry::ClockAnchor;
use ringway_telemetry::trace::Trace;
use ringway_telemetry::waterfall::{Style, read, render};
use serde_json::{Value, json};

use super::summary::TracePicture;
use super::{Demo, DemoError};
use crate::workers::RESEARCHER;

const DURING: &str = "fetching the trace";
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
            let found = self.newest()?;
            let spans = found.as_ref().map_or(0, |(trace, ..)| trace.spans);
            if let Some((trace, anchor, tree)) = found
                && trace.live_count() == 0
                && trace.spans == spans_before
            {
                return Ok(self.picture(&trace, anchor, tree));
            }
            spans_before = spans;
            if Instant::now() >= until {
                return Err(DemoError::NoTrace);
            }
            std::thread::sleep(QUIET_TIME);
        }
    }

    /// The newest trace of a loop, as the engine tells it, if it has one.
    fn newest(&self) -> Result<Option<(Trace, ClockAnchor, Value)>, DemoError> {
        let explain = |error| self.explain(DURING, error);
        let wanted = json!({ "function": RESEARCHER, "limit": 1 });
        let list = self.untraced.trigger_json(naming::TRACES_LIST, &wanted).map_err(explain)?;
        let Some(id) = list["traces"][0]["trace_id"].as_str() else { return Ok(None) };
        let tree =
            self.untraced.trigger_json(naming::TRACES_TREE, &json!({ "trace_id": id })).map_err(explain)?;
        let (trace, anchor) = read::trace(tree.clone())?;
        Ok(Some((trace, anchor, tree)))
    }

    fn picture(&self, trace: &Trace, anchor: ClockAnchor, tree: Value) -> TracePicture {
        let style = Style { width: self.options.width, colour: self.options.colour, ascii: false };
        TracePicture {
            text: render(trace, anchor, style),
            spans: trace.spans,
            workers: trace.worker_count(),
            logs: trace.rows.iter().map(|row| row.logs.len()).sum(),
            orphans: trace.rows.iter().filter(|row| row.orphan).count(),
            tree,
        }
    }
}
