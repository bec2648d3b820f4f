//! What a benchmark yields: machine, regime, floors and cases, as JSON and as a table. Used by `ringway bench`, by
//! `benches/peers` and by [`crate::html`]. The JSON is a promise: tools read it, so keys are added, never renamed.

mod case;
mod claim;
mod table;

use serde::{Deserialize, Serialize};

use crate::floors::{Floors, IN_FLIGHT};
use crate::machine::{CpuPair, Machine, Regime};
use crate::stats::{Clock, CurvePoint, Runs, Summary};

pub use case::{Address, Case, CaseNameError, Encoding, Variant, Wait};
pub use claim::{Claim, Verdict, claims};
pub use table::{count_text, rate_text, size_text, time_text};

/// The floor that a case is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloorName {
    /// The bare two-word ping-pong.
    CacheLine,
    /// The bare ring.
    StampRing,
    /// Two event counters.
    Eventfd,
    /// A Unix stream socket.
    UnixSocket,
}

impl FloorName {
    /// Returns the key used in the JSON.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::CacheLine => "cache_line",
            Self::StampRing => "stamp_ring",
            Self::Eventfd => "eventfd",
            Self::UnixSocket => "unix_socket",
        }
    }
}

/// How the calls of a case were sent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// The next call when the last answer is in.
    #[default]
    Closed,
    /// On a schedule; latencies count from the intended send time.
    Open {
        /// Calls per second that were asked for.
        rate_per_s: f64,
    },
    /// So many calls kept under way; the rate is the figure, a latency includes the queue.
    InFlight {
        /// Calls under way.
        calls: u64,
    },
}

/// One measured case.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CaseResult {
    /// What was measured; see [`Case`] for the names of calls.
    pub name: String,
    /// Median of each percentile over the runs.
    #[serde(flatten)]
    pub latency: Summary,
    /// Calls that ended, per second.
    pub calls_per_s: f64,
    /// Processor seconds of all processes involved, per million calls.
    pub cpu_s_per_mcall: f64,
    /// Payload bytes that were copied over all calls, by the counters; `None` where nobody counts.
    pub bytes_copied: Option<u64>,
    /// p50 over the p50 of `floor`; with calls in flight, the rate over the floor's rate.
    pub ratio_to_floor: f64,
    /// The floor of that ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<FloorName>,
    /// Payload of one call, in bytes.
    #[serde(default)]
    pub payload_bytes: u64,
    /// How the calls were sent.
    #[serde(default)]
    pub load: Load,
    /// How many runs.
    #[serde(default)]
    pub runs: usize,
    /// Percentile curve over all runs.
    #[serde(default)]
    pub curve: Vec<CurvePoint>,
    /// Processors that all processes involved kept busy meanwhile; where that is the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_share: Option<f64>,
    /// What a reader must know beside the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a case costs beside its time, as its runner counted it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Processor seconds of all processes involved.
    pub cpu_s: f64,
    /// Payload bytes copied, where somebody counts.
    pub bytes_copied: Option<u64>,
}

impl CaseResult {
    /// Sums up the runs of a call case and holds it against its floor.
    #[must_use]
    pub fn of_case(case: &Case, runs: &Runs, cost: Cost, floors: &Floors) -> Self {
        let load = match case.variant {
            Some(Variant::InFlight64) => Load::InFlight { calls: IN_FLIGHT as u64 },
            _ => Load::Closed,
        };
        let result = Self::new(&case.to_string(), case.bytes, load, runs, cost);
        result.against(case.floor(), floors)
    }

    /// Sums up the runs of anything else that moves a payload there and back.
    #[must_use]
    pub fn new(name: &str, payload_bytes: u64, load: Load, runs: &Runs, cost: Cost) -> Self {
        let latency = runs.summary();
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let million_calls = latency.count as f64 / 1e6;
        Self {
            name: name.to_owned(),
            latency,
            calls_per_s: rounded(runs.per_second(), 1),
            cpu_s_per_mcall: rounded(quotient(cost.cpu_s, million_calls), 6),
            bytes_copied: cost.bytes_copied,
            ratio_to_floor: 0.0,
            floor: None,
            payload_bytes,
            load,
            runs: runs.len(),
            curve: runs.curve(),
            cpu_share: None,
            note: None,
        }
    }

    /// Adds how many processors were kept busy, given the time that `cpu_s` was spent in.
    #[must_use]
    pub fn with_cpu_share(mut self, cpu_s: f64, wall_s: f64) -> Self {
        self.cpu_share = Some(rounded(quotient(cpu_s, wall_s), 5));
        self
    }

    /// Adds what a reader must know beside the figures.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Works out the ratio to a floor: of medians, or of rates where calls are in flight and the floor has a rate.
    #[must_use]
    pub fn against(mut self, floor: FloorName, floors: &Floors) -> Self {
        let floor_rate = floors.get(floor).round_trips_per_s;
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let of_medians = || quotient(self.latency.p50_ns as f64, floors.get(floor).summary.p50_ns as f64);
        let ratio = match (self.load, floor_rate) {
            (Load::InFlight { .. }, Some(rate)) => quotient(self.calls_per_s, rate),
            _ => of_medians(),
        };
        self.ratio_to_floor = rounded(ratio, 4);
        self.floor = Some(floor);
        self
    }
}

impl Floors {
    /// Returns one floor by its name.
    #[must_use]
    pub fn get(&self, name: FloorName) -> &crate::floors::Floor {
        match name {
            FloorName::CacheLine => &self.cache_line,
            FloorName::StampRing => &self.stamp_ring,
            FloorName::Eventfd => &self.eventfd,
            FloorName::UnixSocket => &self.unix_socket,
        }
    }
}

/// Divides, with 0 where there is nothing to divide by: JSON has no infinity.
fn quotient(dividend: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { dividend / divisor } else { 0.0 }
}

/// Rounds to some decimals, so that the JSON shows no digits that mean nothing.
fn rounded(value: f64, decimals: i32) -> f64 {
    let shift = 10_f64.powi(decimals);
    (value * shift).round() / shift
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// How far apart the two cores are.
    pub regime: Regime,
    /// What the machine itself costs.
    pub floors: Floors,
    /// What was measured.
    pub cases: Vec<CaseResult>,
    /// What is promised, and what this run found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// Where the two sides were pinned.
    pub cpus: CpuPair,
    /// What told the time, and what an empty measurement cost, already subtracted.
    pub clock: ClockFacts,
    /// Version of the benchmark.
    pub version: String,
    /// Commit it was built from, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Seconds since 1970 when the run ended.
    pub ended_unix_s: u64,
    /// The command that repeats it.
    pub command: String,
    /// Whether it was built without optimisation: such figures mean nothing.
    pub debug_build: bool,
}

/// What told the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockFacts {
    /// Its name.
    pub source: String,
    /// What an empty measurement cost, subtracted from every sample.
    pub empty_ns: u64,
}

impl Report {
    /// Starts a report from the floors; cases are pushed as they are measured.
    #[must_use]
    pub fn new(floors: Floors, cpus: CpuPair, clock: &Clock, command: &str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            machine: Machine::read(),
            regime: Regime::of(floors.cache_line.summary.p50_ns),
            floors,
            cases: Vec::new(),
            claims: Vec::new(),
            cpus,
            clock: ClockFacts { source: clock.name().to_owned(), empty_ns: clock.empty_ns() },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: None,
            ended_unix_s: now.map_or(0, |since| since.as_secs()),
            command: command.to_owned(),
            debug_build: cfg!(debug_assertions),
        }
    }

    /// Writes the report as JSON, for people to read too.
    ///
    /// # Errors
    /// Never in practice: every value has a JSON form; the serializer's own error otherwise.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// Lays the report out for a terminal: machine, floors, cases.
    #[must_use]
    pub fn to_table(&self) -> String {
        table::render(self)
    }
}

#[cfg(test)]
pub(crate) mod tests;
