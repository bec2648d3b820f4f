//! A whole run of `ringway bench`, short, with real processes. Not a libtest binary: it starts itself again as the other
//! processes. No figure is judged here: a test machine is busy. What is checked is that every wanted case is measured
//! and checked answer by answer, that its figures are in order, and that nothing is left running.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that is its own harness"
)]

use std::process::ExitCode;

use clap::Parser;
use ringway_bench::report::{CaseResult, Report, Verdict};
use ringway_bench::{BenchArgs, measure, run};

/// The command as `ringway` has it.
#[derive(Debug, Parser)]
enum Command {
    /// The benchmark
    Bench(BenchArgs),
}

fn main() -> ExitCode {
    let asked = |flag: &str| std::env::args().skip(1).any(|argument| argument == flag);
    if std::env::args().nth(1).is_some_and(|first| first == "bench") {
        let Command::Bench(args) = Command::parse();
        return match run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    // What test runners ask of a binary: to list its tests, or only those that are ignored by default.
    if asked("--ignored") {
        return ExitCode::SUCCESS;
    }
    if asked("--list") {
        println!("a_short_run: test");
        return ExitCode::SUCCESS;
    }
    a_short_run();
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

fn a_short_run() {
    let wanted = [
        "call/typed/handle/spin/64",
        "call/json/handle/adaptive/64",
        "call/bytes/handle/park/16777216",
        "stream/bytes/handle/adaptive/64",
        "callers2/callees2",
        "idle/",
        "durable/state-get/keys1000",
        "durable/state-get/keys2500",
        "durable/message/waiting100",
        "durable/message/waiting500",
    ];
    let args = BenchArgs {
        quick: true,
        cases: wanted.map(str::to_owned).to_vec(),
        seconds: Some(0.05),
        keys: Some(2500),
        waiting: Some(500),
        ..BenchArgs::default()
    };
    let report = measure(&args).unwrap();
    for filter in wanted {
        let case = report.cases.iter().find(|case| case.name.contains(filter));
        in_order(case.unwrap_or_else(|| panic!("{filter} was not measured")));
    }
    assert!(report.cases.iter().all(|case| wanted.iter().any(|filter| case.name.contains(filter))));
    variants(&report);
    many_of_a_kind(&report);
    promises(&report);
    let again: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(again.cases.len(), report.cases.len());
    nothing_left_running();
    let nothing = BenchArgs { cases: vec!["no such case".to_owned()], ..args };
    assert!(measure(&nothing).is_err(), "a filter without a case must not pass for a run");
}

fn in_order(case: &CaseResult) {
    let of = case.latency;
    let figures = [of.min_ns, of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.max_ns];
    assert!(figures.is_sorted(), "{}: {of:?}", case.name);
    let idle = case.name.starts_with("idle/");
    assert_eq!(of.count == 0, idle, "{}: {} calls", case.name, of.count);
    assert!(idle || case.calls_per_s > 1.0, "{}: {} calls/s", case.name, case.calls_per_s);
}

/// Both numbers of keys and of messages say what one costs in memory, the larger one how it compares.
fn many_of_a_kind(report: &Report) {
    let note = |keys: &str| {
        let case = report.cases.iter().find(|case| case.name.ends_with(keys)).unwrap();
        case.note.clone().unwrap()
    };
    assert!(note("keys1000").contains("bytes resident for each key"), "{}", note("keys1000"));
    assert!(note("keys2500").contains("× the median with 1000 keys"), "{}", note("keys2500"));
    assert!(note("waiting100").contains("resident for each that waits"), "{}", note("waiting100"));
    assert!(note("waiting500").contains("with 100 waiting"), "{}", note("waiting500"));
}

/// What is special about a case shows in its figures.
fn variants(report: &Report) {
    let case = |name: &str| report.cases.iter().find(|case| case.name == name).unwrap();
    let large = case("call/bytes/handle/park/16777216");
    assert_eq!(large.bytes_copied, Some(0), "payloads are read where they were written");
    assert!(case("call/typed/handle/spin/64/traced").note.is_some(), "spans are counted");
    assert!(case("idle/engine+8workers").cpu_share.unwrap() < 8.0);
}

/// Everything promised is either measured or said not to be.
fn promises(report: &Report) {
    let measured = |line: char| {
        report.claims.iter().any(|claim| claim.line == line && claim.verdict != Verdict::NotMeasured)
    };
    assert!(measured('b') && measured('f'), "{:?}", report.claims);
    assert!(!measured('g'), "the catalog was left out");
}

fn nothing_left_running() {
    let own = std::fs::read_dir("/proc/self/task").unwrap();
    for thread in own {
        let children = std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default();
        assert_eq!(children.trim(), "", "children are left");
    }
}
