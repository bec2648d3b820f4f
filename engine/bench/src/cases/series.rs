//! A call case over its rounds, and a visit: one round of several cases with one callee. Used by [`crate::run()`], which
//! puts rounds of floors between the visits. It must not know how a call is made.

use std::time::Duration;

use ringway::{Sampler, Worker};

use super::{Bench, calls};
use crate::callee::{Process, Role};
use crate::floors::Floors;
use crate::report::{Case, CaseResult, Cost, Variant, Wait};
use crate::stats::Runs;

/// Spans of a traced call: the caller's and the callee's.
const SPANS_PER_CALL: u64 = 2;
/// How long the engine may take to take in the last spans of a round.
const DRAIN_TIME: Duration = Duration::from_millis(30);

/// One case and what its rounds have yielded so far.
#[derive(Debug)]
pub(crate) struct Series {
    /// The case.
    pub(crate) case: Case,
    runs: Runs,
    cost: Cost,
    wall: Duration,
    calls: u64,
    /// Telemetry records that the engine took in meanwhile.
    records: u64,
}

impl Series {
    /// Starts a case without rounds.
    pub(crate) fn new(case: Case) -> Self {
        let cost = Cost { cpu_s: 0.0, bytes_copied: Some(0) };
        Self { case, runs: Runs::default(), cost, wall: Duration::ZERO, calls: 0, records: 0 }
    }

    fn is_traced(&self) -> bool {
        self.case.variant == Some(Variant::Traced)
    }

    /// How long one round takes: sleeping callers need more time for as many calls.
    fn run_time(&self, bench: &Bench<'_>) -> Duration {
        match self.case.variant {
            Some(Variant::Pause10ms) => bench.run_time.max(Duration::from_millis(500)),
            _ => bench.run_time,
        }
    }

    /// Adds one round.
    pub(super) fn add_round(
        &mut self,
        bench: &Bench<'_>,
        worker: &Worker,
        callee: &Process,
    ) -> anyhow::Result<()> {
        let records = bench.engine.counters().telemetry_records;
        let round = calls::round(worker, callee, bench.clock, &self.case, self.run_time(bench))?;
        if self.is_traced() {
            std::thread::sleep(DRAIN_TIME);
            self.records += bench.engine.counters().telemetry_records - records;
        }
        self.runs.add(&round.run);
        self.cost.cpu_s += round.cost.cpu_s;
        self.cost.bytes_copied = self.cost.bytes_copied.zip(round.cost.bytes_copied).map(|(a, b)| a + b);
        self.wall += round.wall;
        self.calls += round.calls;
        Ok(())
    }

    /// Sums up the rounds and holds them against the floors; `name` replaces the case's own where it is not the point.
    pub(crate) fn result(&self, floors: &Floors, name: Option<&str>) -> CaseResult {
        let mut result = CaseResult::of_case(&self.case, &self.runs, self.cost, floors);
        if let Some(name) = name {
            name.clone_into(&mut result.name);
        }
        if self.case.wait != Wait::Spin {
            result = result.with_cpu_share(self.cost.cpu_s, self.wall.as_secs_f64());
        }
        if self.is_traced() {
            #[expect(clippy::cast_precision_loss, reason = "a share in whole percent")]
            let share = self.records as f64 / (SPANS_PER_CALL * self.calls).max(1) as f64;
            let text = format!("{:.0} % of the spans were taken in, the others dropped", share * 100.0);
            result = result.with_note(text);
        }
        result
    }
}

/// Runs one round of all cases that wait in one way, with one callee, and ends it: a callee that polls would disturb
/// whatever is measured next.
pub(crate) fn visit(bench: &Bench<'_>, wait: Wait, series: &mut [Series]) -> anyhow::Result<()> {
    if series.iter().all(|one| one.case.wait != wait) {
        return Ok(());
    }
    let callee = bench.start(Role::Serve { wait, cpu: Some(bench.cpus.callee) })?;
    for (traced, sampler) in [(false, Sampler::never()), (true, Sampler::always())] {
        let chosen = series.iter_mut().filter(|one| one.case.wait == wait && one.is_traced() == traced);
        let mut chosen: Vec<&mut Series> = chosen.collect();
        if chosen.is_empty() {
            continue;
        }
        bench.with_caller(wait, sampler, Some(bench.cpus.caller), |worker| {
            chosen.iter_mut().try_for_each(|one| one.add_round(bench, worker, &callee))
        })?;
    }
    Ok(())
}
