//! `cargo verify`: every check in order, a line for each as it starts and ends, and a table at the end. Used by people
//! and by continuous integration alike. It must not know how a check works, only how to start it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::checks::{CHECKS, Check, Effort, Fuzz, Kind};
use crate::process::{End, Job, Outcome};
use crate::say;
use crate::tools::{self, Runner, Selection};

/// Every benchmark of `benches/`, named within the whole workspace: for that package alone its dependencies would be built
/// once more, with other features.
const BENCHES: &str = "test --workspace --bench steps --bench calls";

/// Seconds for which each fuzz target runs here; `cargo fuzz NAME SECONDS` runs one for as long as wished.
const FUZZ_SECONDS: u64 = 4;

/// Tests that read the repository rather than run the product.
const REPOSITORY: &str = "layering:: layout:: licences:: tidy::";

/// How much to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Format, lints, layering, unit tests.
    Quick,
    /// Everything.
    All,
}

/// What a step does when its turn comes.
enum Work {
    Job(Job),
    /// A check that this machine may refuse.
    IfPermitted(&'static Check, Job),
    Prerequisites,
    Absent(&'static str),
}

struct Step {
    name: String,
    work: Work,
    /// Nothing after this step makes sense without it.
    gate: bool,
}

struct Row {
    name: String,
    verdict: Verdict,
    took: Duration,
    summaries: Vec<String>,
    /// The end of its output, for a step that failed.
    last: Vec<String>,
}

enum Verdict {
    Passed,
    Failed(String),
    Absent(&'static str),
    /// This machine does not permit it.
    Skipped(String),
    NotReached,
}

/// Runs the checks; true if all of them passed.
pub(crate) fn run(extent: Extent) -> bool {
    let started = Instant::now();
    let runner = Runner::find();
    let steps = steps(extent, &runner);
    let count = steps.len();
    let mut rows = Vec::with_capacity(count);
    let mut stopped = false;
    for (index, step) in steps.into_iter().enumerate() {
        if stopped {
            rows.push(Row::not_reached(step.name));
            continue;
        }
        let gate = step.gate;
        let row = step.run(index + 1, count);
        stopped = gate && matches!(row.verdict, Verdict::Failed(_));
        rows.push(row);
    }
    report(&rows, started.elapsed())
}

fn steps(extent: Extent, runner: &Runner) -> Vec<Step> {
    let mut steps = vec![
        Step::job("format", cargo("fmt --all --check")),
        Step::job("lints", cargo("clippy --workspace --all-targets -- -D warnings")),
        Step::job("layering", architecture(runner)),
    ];
    if extent == Extent::Quick {
        steps.push(Step::job("unit tests", tests(runner, "--workspace --lib --bins")));
        return steps;
    }
    steps.insert(0, Step { name: "prerequisites".to_owned(), work: Work::Prerequisites, gate: false });
    steps.push(Step::job("build", cargo("build --workspace --all-targets")).gate());
    steps.push(Step::job("documents", cargo("doc --no-deps --workspace").env("RUSTDOCFLAGS", "-D warnings")));
    steps.push(Step::job("tests", tests(runner, "--workspace")));
    steps.push(Step::job("documentation examples", cargo("test --workspace --doc")));
    steps.extend(slow_checks(runner));
    steps.push(Step::job("benchmarks (each once)", cargo(BENCHES)));
    steps.extend(fuzz());
    steps
}

fn cargo(words: &str) -> Job {
    Job::cargo().args(words.split_whitespace()).dir(tools::root())
}

/// The tests that read the repository rather than run the product.
fn architecture(runner: &Runner) -> Job {
    let selection = Selection {
        targets: words("--workspace --test it"),
        only: words(REPOSITORY),
        ..Selection::default()
    };
    runner.job(&selection).dir(tools::root())
}

/// Everything that has no row of its own.
fn tests(runner: &Runner, targets: &str) -> Job {
    let slow = CHECKS.iter().flat_map(Check::test_names);
    let selection = Selection {
        targets: words(targets),
        except: slow.map(|&name| name.to_owned()).chain(words(REPOSITORY)).collect(),
        ..Selection::default()
    };
    runner.job(&selection).dir(tools::root())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn slow_checks(runner: &Runner) -> Vec<Step> {
    let wanted = CHECKS.iter().filter(|check| check.in_verify);
    wanted
        .map(|check| {
            let job = || check.job(runner, Effort::Short, &[]);
            let work = match check.kind {
                _ if !check.exists() => Work::Absent(check.source),
                Kind::Permitted { .. } => Work::IfPermitted(check, job()),
                _ => Work::Job(job()),
            };
            Step { name: format!("{} (short)", check.verb), work, gate: false }
        })
        .collect()
}

fn fuzz() -> Vec<Step> {
    let fuzz = Fuzz::find();
    let Some(build) = fuzz.build(false).filter(|_| fuzz.exists()) else {
        let work = Work::Absent("tests/fuzz/Cargo.toml");
        return vec![Step { name: "fuzz (short)".to_owned(), work, gate: false }];
    };
    let mut steps = vec![Step::job("fuzz: build", build)];
    for target in fuzz.quick_targets() {
        if let Some(job) = fuzz.job(&target, FUZZ_SECONDS, Effort::Short) {
            steps.push(Step::job(&format!("fuzz: {target} (short)"), job));
        }
    }
    steps
}

impl Step {
    fn job(name: &str, job: Job) -> Self {
        Self { name: name.to_owned(), work: Work::Job(job), gate: false }
    }

    fn gate(self) -> Self {
        Self { gate: true, ..self }
    }

    fn run(self, number: usize, count: usize) -> Row {
        let started = Instant::now();
        let (verdict, summaries, last) = match self.work {
            Work::Absent(source) => (Verdict::Absent(source), Vec::new(), Vec::new()),
            Work::Prerequisites => {
                say!("\n[{number}/{count}] {}", self.name);
                (tools::prerequisites().into(), Vec::new(), Vec::new())
            }
            Work::IfPermitted(check, job) => match check.refused() {
                Some(reason) => {
                    say!("\n[{number}/{count}] {}", self.name);
                    (Verdict::Skipped(reason), Vec::new(), Vec::new())
                }
                None => run_job(&format!("[{number}/{count}] {}", self.name), &job),
            },
            Work::Job(job) => run_job(&format!("[{number}/{count}] {}", self.name), &job),
        };
        let took = started.elapsed();
        say!("[{number}/{count}] {}: {verdict} ({:.1} s)", self.name, took.as_secs_f64());
        Row { name: self.name, verdict, took, summaries, last }
    }
}

fn run_job(title: &str, job: &Job) -> (Verdict, Vec<String>, Vec<String>) {
    say!("\n{title}: {}", job.line());
    let Outcome { end, summaries, last } = job.run();
    (end.into(), summaries, last)
}

impl Row {
    const fn not_reached(name: String) -> Self {
        Self {
            name,
            verdict: Verdict::NotReached,
            took: Duration::ZERO,
            summaries: Vec::new(),
            last: Vec::new(),
        }
    }
}

impl From<End> for Verdict {
    fn from(end: End) -> Self {
        match end {
            End::Passed => Self::Passed,
            End::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "ok"),
            Self::Failed(reason) => write!(f, "FAILED: {reason}"),
            Self::Absent(source) => write!(f, "absent: there is no {source}"),
            Self::Skipped(reason) => write!(f, "SKIPPED, this machine does not permit it: {reason}"),
            Self::NotReached => write!(f, "not reached"),
        }
    }
}

/// Prints the end of what the failed steps said, once more, then the table, and says whether everything passed. An absent
/// check, and one that this machine does not permit, is named, and fails nothing.
fn report(rows: &[Row], took: Duration) -> bool {
    for row in rows.iter().filter(|row| matches!(row.verdict, Verdict::Failed(_))) {
        say!("\nverify: {} {}; its last lines:", row.name, row.verdict);
        row.last.iter().for_each(|line| say!("  {line}"));
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    say!("\nverify: summary");
    for row in rows {
        say!("  {:width$}  {:>7.1} s  {}", row.name, row.took.as_secs_f64(), row.verdict);
        for line in &row.summaries {
            say!("  {:width$}             {line}", "");
        }
    }
    let passed = rows
        .iter()
        .all(|row| matches!(row.verdict, Verdict::Passed | Verdict::Absent(_) | Verdict::Skipped(_)));
    let verdict = if passed { "all checks passed" } else { "NOT all checks passed" };
    say!("verify: {verdict} in {:.0} s", took.as_secs_f64());
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: Verdict) -> Row {
        Row { name: "a".to_owned(), verdict, took: Duration::ZERO, summaries: Vec::new(), last: Vec::new() }
    }

    #[test]
    fn one_failed_or_unreached_check_fails_the_whole() {
        let check = |verdict, expected| {
            assert_eq!(report(&[row(Verdict::Passed), row(verdict)], Duration::ZERO), expected);
        };
        check(Verdict::Passed, true);
        check(Verdict::Absent("b"), true);
        check(Verdict::Skipped("d".to_owned()), true);
        check(Verdict::Failed("c".to_owned()), false);
        check(Verdict::NotReached, false);
    }

    #[test]
    fn the_quick_run_has_four_steps() {
        let names: Vec<String> =
            steps(Extent::Quick, &Runner::Cargo).into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["format", "lints", "layering", "unit tests"]);
    }

    #[test]
    fn every_benchmark_is_tried() {
        let manifest = std::fs::read_to_string(tools::root().join("benches/Cargo.toml")).unwrap();
        let names = manifest.split("[[bench]]").skip(1).map(|part| part.split('"').nth(1).unwrap());
        for name in names {
            assert!(BENCHES.contains(&format!("--bench {name}")), "{name} is not in `{BENCHES}`");
        }
    }

    #[test]
    fn the_full_run_counts_instructions_and_tries_each_benchmark() {
        let quick = steps(Extent::Quick, &Runner::Cargo).len();
        let all: Vec<String> = steps(Extent::All, &Runner::Cargo).into_iter().map(|step| step.name).collect();
        assert!(all.len() > quick);
        for name in ["instructions (short)", "leaks (short)", "benchmarks (each once)"] {
            assert!(all.iter().any(|known| known == name), "{name} is not in {all:?}");
        }
    }

    #[test]
    fn tests_with_a_row_of_their_own_are_not_run_twice() {
        let line = tests(&Runner::Cargo, "--workspace").line();
        assert!(line.contains("--skip crash::") && line.contains("--skip layering::"), "{line}");
    }
}
