//! The second job: starts the reader, says how far it is, and gathers what each stage did.

use std::time::{Duration, Instant};

use ringway::{CallError, CallOptions, Failure, Message};

use super::{Demo, DemoError, PayloadLine, tell};
use crate::calls::{RingCalls, ask, parse};
use crate::pipeline::LedgerReport;
use crate::report::{PipelineReport, StageTime, bytes_text};
use crate::setup::Part;
use crate::workers::{Progress, READ_ALL, REPORT_LEDGER, Stats, stats_function};

const DURING: &str = "the pipeline";
/// How long the pipeline may take.
const TIME_MAX: Duration = Duration::from_secs(90);
/// Stages, each with the word that its parts' names begin with.
const STAGES: [&str; 4] = ["files", "cut", "digest", "ledger"];

impl Demo<'_> {
    pub(super) fn find_duplicates(&self) -> Result<PipelineReport, DemoError> {
        self.check(DURING)?;
        tell(&format!("pipeline: {} in {} files", bytes_text(self.list.bytes()), self.list.entries().len()));
        let began = Instant::now();
        self.read_all().map_err(|error| self.explain(DURING, error))?;
        let elapsed = began.elapsed();
        let calls = RingCalls::new(&self.worker);
        let ledger: LedgerReport =
            ask(&calls, REPORT_LEDGER, &()).map_err(|error| self.explain(DURING, error.into_error()))?;
        let stats = self.all_stats(DURING)?;
        let stages = STAGES.iter().map(|stage| stage_time(stage, &stats)).collect();
        Ok(PipelineReport::new(&self.list, ledger, stages, elapsed))
    }

    fn read_all(&self) -> Result<(), CallError> {
        let options = CallOptions::new().timeout(TIME_MAX);
        let call = self.worker.handle(READ_ALL).stream(&Message::empty(), &options)?;
        let mut told = Instant::now();
        while let Some(item) = call.recv()? {
            let progress: Progress = parse(item.body())?;
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                tell(&format!(
                    "pipeline: {} of {}",
                    bytes_text(progress.bytes),
                    bytes_text(progress.bytes_all)
                ));
            }
        }
        call.end()?;
        Ok(())
    }

    /// Asks every part that runs what it has done.
    fn all_stats(&self, during: &'static str) -> Result<Vec<(Part, u32, Stats)>, DemoError> {
        let calls = RingCalls::new(&self.worker);
        let mut all = Vec::new();
        for (part, pid) in self.processes.running() {
            if part == Part::Engine {
                // Payloads do not pass through it.
                continue;
            }
            match ask(&calls, &stats_function(part), &()).map_err(Failure::into_error) {
                Ok(stats) => all.push((part, pid, stats)),
                // A replica that died this moment has taken its counters with it.
                Err(_) if part.has_replicas() => {}
                Err(error) => return Err(self.explain(during, error)),
            }
        }
        Ok(all)
    }

    /// Gathers what every process lent and copied, this one included.
    pub(super) fn payload_lines(&self) -> Result<Vec<PayloadLine>, DemoError> {
        let line = |(part, pid, stats): (Part, u32, Stats)| PayloadLine {
            part: part.to_string(),
            pid,
            lent_bytes: stats.lent_bytes,
            copied_bytes: stats.copied_bytes,
        };
        let mut lines: Vec<PayloadLine> = self.all_stats("the summary")?.into_iter().map(line).collect();
        let own = ringway::payload_counters();
        lines.push(PayloadLine {
            part: "demo".to_owned(),
            pid: std::process::id(),
            lent_bytes: own.lent_bytes,
            copied_bytes: own.copied_bytes,
        });
        Ok(lines)
    }
}

fn stage_time(stage: &str, stats: &[(Part, u32, Stats)]) -> StageTime {
    let mut sum = StageTime { name: stage.to_owned(), calls: 0, bytes: 0, bytes_copied: 0, busy_ns: 0 };
    for (part, _, stats) in stats {
        if part.to_string().split('-').next() == Some(stage) {
            sum.calls += stats.calls;
            sum.bytes += stats.bytes;
            sum.bytes_copied += stats.copied_bytes;
            sum.busy_ns += stats.busy_ns;
        }
    }
    sum
}
