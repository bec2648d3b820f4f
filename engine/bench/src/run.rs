//! `ringway bench`: the settings, the order of things, the output. An engine is embedded at an abstract address, callees
//! are this executable started again, and the caller is this process. Rounds of the floors stand between the rounds of
//! the cases that promises are about. It must not know how a case is timed.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use ringway_engine::{Engine, Otlp};

use crate::callee::run_callee;
use crate::cases::{Bench, Series, catalog, durable, idle, keys, matrix, stream, visit, waiting};
use crate::floors::{FloorOptions, FloorSession, run_floor_child};
use crate::machine::{cpu_pair, memory_available_bytes};
use crate::report::{Case, CaseResult, Report, Wait, claims};
use crate::stats::Clock;

/// Rounds of every case and floor; the median counts.
const ROUNDS: usize = 5;
/// Seconds that each case is timed, over all rounds.
const SECONDS: f64 = 1.5;
/// The same with `--quick`.
const SECONDS_QUICK: f64 = 0.25;
/// Keys among which `state::get` looks for one.
const KEYS: u64 = 50_000;
/// Messages that wait while others are enqueued and delivered.
const WAITING: u64 = 20_000;
/// Memory beside the payload that a case with a large one must leave to others.
const MEMORY_SPARE_BYTES: u64 = 1 << 30;

/// The cases that promises are about; their rounds alternate with those of the floors.
const HEADLINE: &[&str] = &[
    "call/typed/handle/spin/64",
    "call/typed/name/spin/64",
    "call/typed/handle/spin/64/inflight64",
    "call/bytes/handle/spin/64",
    "call/bytes/handle/spin/16777216",
    "call/bytes/handle/spin/1073741824",
    "call/typed/handle/spin/64/traced",
    "call/typed/handle/park/64",
    "call/typed/handle/adaptive/64",
    "call/typed/handle/adaptive/64/work20us",
    "call/typed/handle/adaptive/64/pause10ms",
];

/// The other ways to call.
const FURTHER: &[&str] = &[
    "call/json/handle/spin/64",
    "call/json/name/spin/64",
    "call/bytes/name/spin/64",
    "call/json/handle/spin/64/inflight64",
    "call/bytes/handle/spin/64/inflight64",
    "call/bytes/handle/spin/4096",
    "call/bytes/handle/spin/65536",
    "call/bytes/handle/spin/1048576",
    "call/bytes/handle/spin/268435456",
    "call/bytes/handle/park/64",
    "call/bytes/handle/park/16777216",
    "call/json/handle/adaptive/64",
];

/// Settings of a run. What follows a hidden option belongs to another process of a run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct BenchArgs {
    /// Measure for less time: under 40 seconds in all
    #[arg(long)]
    pub quick: bool,
    /// Print the report as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write the report as a self-contained page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Measure only cases whose names contain this (may be given several times); the floors are always measured
    #[arg(long = "case", value_name = "FILTER")]
    pub cases: Vec<String>,
    /// Time each case for so long, over all of its rounds
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Look up state among so many keys, beside 1,000; 10000000 takes some GB of disk [default: 50000]
    #[arg(long, value_name = "COUNT")]
    pub keys: Option<u64>,
    /// Enqueue and deliver while so many messages wait, beside 100; 1000000 takes some GB of memory [default: 20000]
    #[arg(long, value_name = "COUNT")]
    pub waiting: Option<u64>,
    /// The other side of a floor
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true, value_name = "WORD")]
    pub floor_child: Vec<OsString>,
    /// The other side of a case
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true, value_name = "WORD")]
    pub callee: Vec<OsString>,
}

impl BenchArgs {
    fn run_time(&self) -> anyhow::Result<Duration> {
        let usual = if self.quick { SECONDS_QUICK } else { SECONDS };
        let seconds = self.seconds.unwrap_or(usual);
        ensure!((0.01..=3600.0).contains(&seconds), "--seconds takes 0.01 to 3600, not {seconds}");
        #[expect(clippy::cast_precision_loss, reason = "five")]
        let rounds = ROUNDS as f64;
        Ok(Duration::from_secs_f64(seconds / rounds))
    }

    /// The command that repeats the run.
    fn command(&self) -> String {
        let mut words = vec!["ringway bench".to_owned()];
        words.extend(self.quick.then(|| "--quick".to_owned()));
        words.extend(self.seconds.map(|seconds| format!("--seconds {seconds}")));
        words.extend(self.keys.map(|keys| format!("--keys {keys}")));
        words.extend(self.waiting.map(|waiting| format!("--waiting {waiting}")));
        words.extend(self.cases.iter().map(|filter| format!("--case {filter}")));
        words.join(" ")
    }
}

/// Runs `ringway bench`, or the part of another process of it. The program's words up to here must be `bench`: that is how
/// it is started again.
///
/// # Errors
/// When a process, the engine or a call fails. A promise that is not kept is no error.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    if !args.floor_child.is_empty() {
        return Ok(run_floor_child(&args.floor_child)?);
    }
    if !args.callee.is_empty() {
        return run_callee(&args.callee);
    }
    let report = measure(args)?;
    if let Some(file) = &args.html {
        let page = crate::html::render(&report);
        std::fs::write(file, page).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let text = if args.json { report.to_json()? } else { report.to_table() };
    let mut output = std::io::stdout();
    writeln!(output, "{}", text.trim_end())?;
    Ok(())
}

/// Measures floors and cases and holds them against what is promised.
///
/// # Errors
/// As [`run`].
pub fn measure(args: &BenchArgs) -> anyhow::Result<Report> {
    let address = format!("@ringway-bench-{}", std::process::id());
    let engine = Engine::builder().address(address).otlp(Otlp::Off).start()?;
    let clock = Clock::calibrate();
    let cpus = cpu_pair();
    let run_time = args.run_time()?;
    let bench = Bench {
        engine: &engine,
        clock: &clock,
        cpus,
        rounds: ROUNDS,
        run_time,
        quick: args.quick,
        filters: &args.cases,
        hidden: ["bench", "--callee"].map(OsString::from).to_vec(),
        progress,
    };
    let options = FloorOptions { cpus, runs: ROUNDS, run_time, ..FloorOptions::new() };
    let mut floors = FloorSession::start(&options, &clock)?;
    let mut headline = selected(&bench, HEADLINE)?;
    for round in 1..=ROUNDS {
        progress(&format!("floors and what is promised, round {round} of {ROUNDS}"));
        floors.round()?;
        visit_all(&bench, &mut headline)?;
    }
    let floors = floors.floors();
    let mut further = selected(&bench, FURTHER)?;
    for round in 1..=if further.is_empty() { 0 } else { ROUNDS } {
        progress(&format!("further calls, round {round} of {ROUNDS}"));
        visit_all(&bench, &mut further)?;
    }
    let calls = headline.iter().chain(&further);
    let mut cases: Vec<CaseResult> = calls.map(|series| series.result(&floors, None)).collect();
    cases.extend(stream(&bench, &floors)?);
    cases.extend(matrix(&bench, &floors)?);
    cases.extend(catalog(&bench, &floors)?);
    cases.extend(idle(&bench)?);
    cases.extend(durable(&bench)?);
    cases.extend(keys(&bench, args.keys.unwrap_or(KEYS))?);
    cases.extend(waiting(&bench, args.waiting.unwrap_or(WAITING))?);
    ensure!(!cases.is_empty() || args.cases.is_empty(), "no case has {:?} in its name", args.cases);
    let mut report = Report::new(floors, cpus, &clock, &args.command());
    report.cases = cases;
    report.claims = claims(&report);
    engine.shutdown(Duration::from_secs(1));
    Ok(report)
}

fn visit_all(bench: &Bench<'_>, series: &mut [Series]) -> anyhow::Result<()> {
    Wait::ALL.iter().try_for_each(|wait| visit(bench, *wait, series))
}

/// Takes the cases that are wanted and for which there is memory.
fn selected(bench: &Bench<'_>, names: &[&str]) -> anyhow::Result<Vec<Series>> {
    let available = memory_available_bytes();
    let mut chosen = Vec::new();
    for name in names.iter().filter(|name| bench.wants(name)) {
        let case: Case = name.parse()?;
        if case.bytes > 1 << 20 && available < case.bytes + MEMORY_SPARE_BYTES {
            progress(&format!("{name} is left out: {} MiB of memory are free", available >> 20));
            continue;
        }
        chosen.push(Series::new(case));
    }
    Ok(chosen)
}

/// Says on standard error what is being measured.
fn progress(what: &str) {
    // Nobody is left to hear that standard error is closed.
    drop(writeln!(std::io::stderr(), "measuring: {what}"));
}
