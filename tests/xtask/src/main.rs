//! The project's commands: `cargo demo`, `cargo verify`, and one verb for each slow check. This file reads the command
//! line and hands over. It compiles in seconds, so it uses the standard library alone; it must not know the product.

#![forbid(unsafe_code)]

mod process;
mod sdks;
mod tools;

mod conformance;

mod checks;
mod verify;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use checks::{CHECKS, Check, Effort, Fuzz};
use process::{End, Job};
use tools::Runner;
use verify::Extent;

/// Prints a line of our own, apart from what the commands print.
macro_rules! say {
    ($($words:tt)*) => { $crate::print(format_args!($($words)*)) };
}
pub(crate) use say;

/// Seconds for which `cargo fuzz NAME` runs unless told otherwise.
const FUZZ_SECONDS: u64 = 600;

/// A closed terminal ends our output, not the check.
fn print(words: fmt::Arguments<'_>) {
    drop(writeln!(io::stdout(), "{words}"));
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = args.split_first().map_or(("", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    match (verb, rest) {
        ("verify", []) => code(verify::run(Extent::All)),
        ("verify", [extent]) if extent == "quick" => code(verify::run(Extent::Quick)),
        ("demo", _) => demo(rest),
        ("agents", _) => agents(rest),
        ("fuzz", _) => fuzz(rest),
        ("perf-iii", _) => perf_iii(rest),
        ("autobahn", _) => judged(verb, conformance::autobahn(rest)),
        ("schemathesis", _) => judged(verb, conformance::schemathesis(rest)),
        ("deny", []) => deny(),
        ("" | "help" | "--help" | "-h", _) => help(),
        _ => match Check::find(verb) {
            Some(check) => slow(check, rest),
            None => unknown(&args),
        },
    }
}

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how a judgement of others went.
fn judged(verb: &str, judgement: Result<(), String>) -> ExitCode {
    match judgement {
        Ok(()) => {
            say!("{verb}: passed");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            say!("FAILED: {verb}: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> ExitCode {
    say!("cargo demo [--input FOLDER]   build the `ringway` program and run its two demonstration jobs");
    say!(
        "cargo agents [--stay]         agents in TypeScript, Python and Rust, and the trace of what they do"
    );
    say!("cargo verify [quick]          every check; or format, lints, layering and unit tests");
    for check in CHECKS {
        let rounds = if check.rounds.is_some() { " [ROUNDS]" } else { " [OPTION…]" };
        say!("cargo {:<23} {}", format!("{}{rounds}", check.verb), check.proves);
    }
    say!(
        "cargo perf-iii [OPTION…]      npm's iii-sdk over the engine beside bare WebSockets; --quick, --json, --threads=N"
    );
    say!(
        "cargo autobahn [CASE…]        Autobahn's fuzzing client at a WebSocket of the HTTP worker (installs it)"
    );
    say!(
        "cargo schemathesis [EXAMPLES] schemathesis at every route that /openapi.json describes (installs it)"
    );
    say!("cargo fuzz [NAME [SECONDS]]   run a fuzz target; without a name, list them");
    say!("cargo xtask deny              licences, advisories and sources of all dependencies (cargo-deny)");
    ExitCode::SUCCESS
}

fn unknown(args: &[String]) -> ExitCode {
    say!("there is no command `{}`; these are the commands:\n", args.join(" "));
    help();
    ExitCode::from(2)
}

/// Runs one slow check in full.
fn slow(check: &Check, rest: &[String]) -> ExitCode {
    if !check.exists() {
        say!("{}: there is no {}", check.verb, check.source);
        return ExitCode::FAILURE;
    }
    let there = match check.verb {
        "links" => tools::network(),
        "nats" => tools::nats_server(),
        "sdks" => sdks::ready(),
        _ => true,
    };
    if !there {
        return ExitCode::FAILURE;
    }
    if let Some(reason) = check.refused() {
        say!("{}: cannot run on this machine: {reason}", check.verb);
        return ExitCode::FAILURE;
    }
    let job = check.job(&Runner::find(), Effort::Full, rest);
    say!("{}: {}", check.verb, job.line());
    finish(&job)
}

/// Builds the `ringway` program as users get it and becomes it.
fn demo(rest: &[String]) -> ExitCode {
    match optimised(&["ringway"]) {
        Some(folder) => become_program(&Job::new(folder.join("ringway")).arg("demo").args(rest)),
        None => ExitCode::FAILURE,
    }
}

/// Installs what `examples/agentic-backend` needs, builds it, and becomes it.
fn agents(rest: &[String]) -> ExitCode {
    if !(tools::languages() && sdks::example_installed()) {
        return ExitCode::FAILURE;
    }
    let example = "ringway-example-agentic-backend";
    match optimised(&["ringway", example]) {
        Some(folder) => become_program(&Job::new(folder.join(example)).args(rest)),
        None => ExitCode::FAILURE,
    }
}

/// Measures npm's iii-sdk over the `ringway` program as users get it.
fn perf_iii(rest: &[String]) -> ExitCode {
    let Some(folder) = optimised(&["ringway"]).filter(|_| sdks::installed()) else {
        return ExitCode::FAILURE;
    };
    let bench = tools::root().join("benches/iii/bench.mjs");
    become_program(&Job::new("node").arg(bench).arg(folder.join("ringway")).args(rest))
}

/// Builds the `ringway` program, and others, as users get them; the folder in which they are.
fn optimised(programs: &[&str]) -> Option<PathBuf> {
    say!("building the ringway program, optimised (the first time takes some minutes; later, seconds)");
    let mut build = Job::cargo().args(["build", "--release"]);
    for &program in programs {
        let package = if program == "ringway" { "ringway-cli" } else { program };
        build = build.args(["--package", package, "--bin", program]);
    }
    let mut build = build.dir(tools::root()).command();
    if !build.status().is_ok_and(|status| status.success()) {
        say!(
            "the program does not build; it needs a C compiler (Debian: apt-get install gcc) besides the toolchain"
        );
        return None;
    }
    Some(tools::target().join("release"))
}

/// Replaces this process, so that signals and the exit status are the program's own.
#[cfg(unix)]
fn become_program(job: &Job) -> ExitCode {
    use std::os::unix::process::CommandExt;
    let error = job.command().exec();
    say!("could not start {}: {error}", job.line());
    ExitCode::FAILURE
}

#[cfg(not(unix))]
fn become_program(job: &Job) -> ExitCode {
    code(job.command().status().is_ok_and(|status| status.success()))
}

fn fuzz(rest: &[String]) -> ExitCode {
    let fuzz = Fuzz::find();
    let targets = fuzz.targets();
    let name = rest.first().filter(|name| targets.contains(name));
    let seconds = rest.get(1).map_or(Ok(FUZZ_SECONDS), |seconds| seconds.parse());
    let (Some(name), Ok(seconds)) = (name, seconds) else {
        say!("cargo fuzz NAME [SECONDS], where NAME is one of: {}", targets.join(" "));
        return ExitCode::from(2);
    };
    let Some(build) = fuzz.build(checks::FACES.contains(&name.as_str())) else {
        say!("rustc does not say for which machine it builds");
        return ExitCode::FAILURE;
    };
    if let End::Failed(reason) = build.run().end {
        say!("fuzz: the targets do not build: {reason}");
        return ExitCode::FAILURE;
    }
    match fuzz.job(name, seconds, Effort::Full) {
        Some(job) => finish(&job),
        None => {
            say!("fuzz: no folder for new inputs below {}", tools::target().display());
            ExitCode::FAILURE
        }
    }
}

fn deny() -> ExitCode {
    match tools::deny() {
        Some(job) => finish(&job.arg("check").dir(tools::root())),
        None => ExitCode::FAILURE,
    }
}

fn finish(job: &Job) -> ExitCode {
    let outcome = job.run();
    for line in outcome.summaries {
        say!("{line}");
    }
    match outcome.end {
        End::Passed => ExitCode::SUCCESS,
        End::Failed(reason) => {
            say!("FAILED: {reason}");
            ExitCode::FAILURE
        }
    }
}
