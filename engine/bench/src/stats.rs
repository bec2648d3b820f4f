//! Counting time: a calibrated clock, HDR recordings, closed and open loops, processor seconds. Used by the floors, by
//! the cases of `ringway bench` and by `benches/peers`, so that all figures are made the same way. It must not know what
//! it measures.
//!
//! Two loops, never to be confused. A *closed* loop sends when the last answer is in: right for "how long does one call
//! take", blind to a stall that delays the calls behind it. An *open* loop sends on a schedule and counts from the
//! *intended* send time, so a stall is charged to every call it delays (no coordinated omission).

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart, in nanoseconds: a minute. Anything longer counts as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits of a recorded latency.
const DIGITS: u8 = 3;
/// How long the clock is compared with the system's.
const CALIBRATION: Duration = Duration::from_millis(20);
/// Percentiles of a curve, from the fastest to the slowest call.
const CURVE: [f64; 15] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];

/// A clock cheap enough for hundred-nanosecond figures: the time-stamp counter where the kernel trusts it, else the
/// system's monotonic clock. What an empty measurement costs is subtracted from each one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    source: Source,
    /// What two readings in a row lie apart, in the source's ticks.
    empty_ticks: u64,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// Nanoseconds per tick, times 2³².
    Counter {
        ns_per_tick_q32: u64,
    },
    System {
        anchor: Instant,
    },
}

impl Clock {
    /// Chooses and calibrates a clock; takes about 20 ms.
    #[must_use]
    pub fn calibrate() -> Self {
        let source = calibrated_counter().unwrap_or_else(|| Source::System { anchor: Instant::now() });
        let mut clock = Self { source, empty_ticks: 0 };
        let mut gaps: Vec<u64> = (0..4096)
            .map(|_| {
                let start = clock.now();
                clock.now().saturating_sub(start)
            })
            .collect();
        gaps.sort_unstable();
        clock.empty_ticks = gaps[gaps.len() / 2];
        clock
    }

    /// Reads the clock, in ticks of its own.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u64 {
        match self.source {
            Source::Counter { .. } => ringway_ipc::floor::timestamp().unwrap_or(0),
            Source::System { anchor } => nanoseconds(anchor.elapsed()),
        }
    }

    /// Returns the nanoseconds between two readings, less what reading costs.
    #[must_use]
    #[inline]
    pub fn between(&self, start: u64, end: u64) -> u64 {
        self.ns(end.saturating_sub(start).saturating_sub(self.empty_ticks))
    }

    /// Returns the nanoseconds since a reading, less what reading costs.
    #[must_use]
    #[inline]
    pub fn since(&self, start: u64) -> u64 {
        self.between(start, self.now())
    }

    /// Returns what an empty measurement costs, which every sample has had subtracted.
    #[must_use]
    pub fn empty_ns(&self) -> u64 {
        self.ns(self.empty_ticks)
    }

    /// Names the source, for reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.source {
            Source::Counter { .. } => "time-stamp counter",
            Source::System { .. } => "monotonic clock",
        }
    }

    #[inline]
    fn ns(&self, ticks: u64) -> u64 {
        match self.source {
            Source::Counter { ns_per_tick_q32 } => {
                u64::try_from((u128::from(ticks) * u128::from(ns_per_tick_q32)) >> 32).unwrap_or(u64::MAX)
            }
            Source::System { .. } => ticks,
        }
    }
}

/// Compares the counter with the system's clock; `None` where there is no counter or it may stop or change its pace.
fn calibrated_counter() -> Option<Source> {
    if !crate::machine::counter_is_steady() {
        return None;
    }
    let (start, from) = (Instant::now(), ringway_ipc::floor::timestamp()?);
    while start.elapsed() < CALIBRATION {
        std::hint::spin_loop();
    }
    let (elapsed, to) = (start.elapsed(), ringway_ipc::floor::timestamp()?);
    let ticks = to.checked_sub(from).filter(|ticks| *ticks > 0)?;
    let ns_per_tick_q32 = u64::try_from((u128::from(nanoseconds(elapsed)) << 32) / u128::from(ticks)).ok()?;
    Some(Source::Counter { ns_per_tick_q32 })
}

/// Returns a duration in whole nanoseconds, at most `u64::MAX`.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The percentiles of one run, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Operations counted.
    pub count: u64,
    /// The fastest.
    pub min_ns: u64,
    /// Half were faster.
    pub p50_ns: u64,
    /// Nine in ten were faster.
    pub p90_ns: u64,
    /// 99 in 100 were faster.
    pub p99_ns: u64,
    /// 999 in 1,000 were faster.
    pub p999_ns: u64,
    /// 9,999 in 10,000 were faster.
    pub p9999_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

impl Summary {
    /// Takes the median of each percentile over several runs, and the sum of the counts.
    #[must_use]
    pub fn median_of(runs: &[Self]) -> Self {
        let field = |of: fn(&Self) -> u64| median(runs.iter().map(of).collect()).unwrap_or(0);
        Self {
            count: runs.iter().map(|run| run.count).sum(),
            min_ns: field(|run| run.min_ns),
            p50_ns: field(|run| run.p50_ns),
            p90_ns: field(|run| run.p90_ns),
            p99_ns: field(|run| run.p99_ns),
            p999_ns: field(|run| run.p999_ns),
            p9999_ns: field(|run| run.p9999_ns),
            max_ns: field(|run| run.max_ns),
        }
    }
}

/// Returns the middle value, the lower one of two.
#[must_use]
pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// One point of a percentile curve: percentile, nanoseconds.
pub type CurvePoint = (f64, u64);

/// Latencies of one run.
#[derive(Debug, Clone)]
pub struct Recorder {
    histogram: Histogram<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Starts an empty recording: 1 ns to a minute, three significant digits.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Self { histogram: histogram.expect("constant bounds are accepted") }
    }

    /// Counts one latency. Does not allocate.
    #[inline]
    pub fn record(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns);
    }

    /// Counts one latency for many operations: one that was timed stands for those around it that were not. Does not
    /// allocate.
    #[inline]
    pub fn record_many(&mut self, latency_ns: u64, operations: u64) {
        self.histogram.saturating_record_n(latency_ns, operations);
    }

    /// Adds another recording to this one.
    ///
    /// # Panics
    /// Never: all recordings have the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("recordings share their bounds");
    }

    /// Returns how many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Returns the percentiles; all zero when nothing was counted.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let at = |percentile| self.histogram.value_at_percentile(percentile);
        Summary {
            count: self.count(),
            min_ns: if self.histogram.is_empty() { 0 } else { self.histogram.min() },
            p50_ns: at(50.0),
            p90_ns: at(90.0),
            p99_ns: at(99.0),
            p999_ns: at(99.9),
            p9999_ns: at(99.99),
            max_ns: self.histogram.max(),
        }
    }

    /// Returns the curve from the fastest to the slowest, leaving out percentiles finer than the count supports.
    #[must_use]
    pub fn curve(&self) -> Vec<CurvePoint> {
        #[expect(clippy::cast_precision_loss, reason = "only compared with a coarse threshold")]
        let count = self.count() as f64;
        let supported = |percentile: f64| percentile >= 100.0 || (1.0 - percentile / 100.0) * count >= 1.0;
        if self.histogram.is_empty() {
            return Vec::new();
        }
        let points = CURVE.iter().copied().filter(|percentile| supported(*percentile));
        points.map(|percentile| (percentile, self.histogram.value_at_percentile(percentile))).collect()
    }
}

/// What one run yielded.
#[derive(Debug, Clone)]
pub struct Run {
    /// The latencies.
    pub latencies: Recorder,
    /// From the first operation to the end of the last.
    pub elapsed: Duration,
}

impl Run {
    /// Returns the operations per second that were done, not those that were asked for.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let count = self.latencies.count() as f64;
        count / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Several runs of one case: their median, their merged curve.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    summaries: Vec<Summary>,
    rates: Vec<f64>,
    merged: Recorder,
}

impl Runs {
    /// Adds a run.
    pub fn add(&mut self, run: &Run) {
        self.summaries.push(run.latencies.summary());
        self.rates.push(run.per_second());
        self.merged.merge(&run.latencies);
    }

    /// Returns how many runs there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.summaries.len()
    }

    /// Says whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.summaries.is_empty()
    }

    /// Returns the median of each percentile over the runs.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::median_of(&self.summaries)
    }

    /// Returns the median rate.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        median(self.rates.clone()).unwrap_or(0.0)
    }

    /// Returns the curve over the calls of all runs together.
    #[must_use]
    pub fn curve(&self) -> Vec<CurvePoint> {
        self.merged.curve()
    }
}

/// Runs `operation` back to back: some untimed calls first, then until `run_time` has passed.
///
/// # Errors
/// The first error of the operation.
pub fn closed_loop<E>(
    clock: &Clock,
    warm_up: u64,
    run_time: Duration,
    mut operation: impl FnMut() -> Result<(), E>,
) -> Result<Run, E> {
    for _ in 0..warm_up {
        operation()?;
    }
    paced_loop(clock, run_time, || (), operation)
}

/// Runs `operation` until `run_time` has passed, and `between` before each, untimed: work, or a pause.
///
/// # Errors
/// The first error of the operation.
#[inline]
pub fn paced_loop<E>(
    clock: &Clock,
    run_time: Duration,
    mut between: impl FnMut(),
    mut operation: impl FnMut() -> Result<(), E>,
) -> Result<Run, E> {
    let mut latencies = Recorder::new();
    let started = Instant::now();
    let first = clock.now();
    let budget_ns = nanoseconds(run_time);
    loop {
        between();
        let start = clock.now();
        operation()?;
        let end = clock.now();
        latencies.record(clock.between(start, end));
        if clock.between(first, end) >= budget_ns {
            return Ok(Run { latencies, elapsed: started.elapsed() });
        }
    }
}

/// When each operation of an open loop ought to start.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Operations per second.
    pub rate_per_s: f64,
    /// How many.
    pub count: u64,
}

impl Schedule {
    /// Returns when operation `index` ought to start, in nanoseconds from the beginning.
    #[must_use]
    pub fn intended_ns(&self, index: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a non-negative time far below 2^53 ns; float casts saturate"
        )]
        let intended = (index as f64 * 1e9 / self.rate_per_s) as u64;
        intended
    }
}

/// Runs `operation` on a schedule, one at a time; each latency counts from the intended start, so an operation that had
/// to wait for a slow one before it is charged for the wait.
///
/// # Errors
/// The first error of the operation.
pub fn open_loop<E>(
    clock: &Clock,
    schedule: Schedule,
    mut operation: impl FnMut(u64) -> Result<(), E>,
) -> Result<Run, E> {
    let mut latencies = Recorder::new();
    let started = Instant::now();
    let first = clock.now();
    for index in 0..schedule.count {
        let intended = schedule.intended_ns(index);
        while clock.since(first) < intended {
            std::hint::spin_loop();
        }
        operation(index)?;
        latencies.record(clock.since(first).saturating_sub(intended));
    }
    Ok(Run { latencies, elapsed: started.elapsed() })
}

/// Adds up the processor time of this process and of others, so that a latency bought with burnt cores shows its price.
#[derive(Debug)]
pub struct CpuMeter {
    others: Vec<u32>,
    at_start: Duration,
}

impl CpuMeter {
    /// Starts counting for this process and for the processes given.
    ///
    /// # Errors
    /// What the system says when a process cannot be looked at.
    pub fn start(others: &[u32]) -> io::Result<Self> {
        Ok(Self { others: others.to_vec(), at_start: total(others)? })
    }

    /// Returns the processor time used since the start. Threads of other processes that have ended are not counted.
    ///
    /// # Errors
    /// What the system says when a process cannot be looked at.
    pub fn used(&self) -> io::Result<Duration> {
        Ok(total(&self.others)?.saturating_sub(self.at_start))
    }
}

fn total(others: &[u32]) -> io::Result<Duration> {
    others.iter().try_fold(of_this_process(), |sum, pid| Ok(sum + of_process(*pid)?))
}

fn of_this_process() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Adds up `schedstat` over the threads: nanoseconds, where `stat` counts in hundredths of a second.
fn of_process(pid: u32) -> io::Result<Duration> {
    let mut sum_ns = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(line) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        sum_ns += line.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum_ns))
}

#[cfg(test)]
mod tests;
