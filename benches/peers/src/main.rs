//! The same work over Ringway and over other transports: a 64-byte request and a 64-byte response between two pinned
//! processes, many of them at once where a rival is built for it, and a 16 MiB request where that makes sense. Clocks, statistics, floors and reports are those of `ringway bench`. Each rival
//! is a module with the same two halves, `measure` (the caller) and `serve` (the callee, this executable again); what is
//! special about its configuration stands in `README.md`.

mod against;
mod harness;

#[cfg(feature = "aeron")]
mod aeron;
mod iceoryx;
mod nats;
mod ringway;
mod tonic_uds;
mod unix_socket;
mod zeromq;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use ringway_bench::floors::{FloorOptions, measure, run_floor_child};
use ringway_bench::report::{CaseResult, Report};
use ringway_bench::stats::Clock;

use harness::Bench;

/// One transport.
struct Rival {
    /// Its name in case names and on the command line.
    name: &'static str,
    /// Measures every case, as the caller.
    measure: fn(&Bench<'_>) -> anyhow::Result<Vec<CaseResult>>,
    /// Answers, as the callee, given what `measure` passed to [`Bench::start`].
    serve: fn(&[String]) -> anyhow::Result<()>,
}

/// All transports, from the slowest kind to the fastest.
const RIVALS: &[Rival] = &[
    Rival { name: "nats", measure: nats::measure, serve: nats::serve },
    Rival { name: "tonic", measure: tonic_uds::measure, serve: tonic_uds::serve },
    Rival { name: "zeromq", measure: zeromq::measure, serve: zeromq::serve },
    Rival { name: "unix_socket", measure: unix_socket::measure, serve: unix_socket::serve },
    Rival { name: "iceoryx2", measure: iceoryx::measure, serve: iceoryx::serve },
    #[cfg(feature = "aeron")]
    Rival { name: "aeron", measure: aeron::measure, serve: aeron::serve },
    Rival { name: "ringway", measure: ringway::measure, serve: ringway::serve },
];

/// Measures other transports the way `ringway bench` measures Ringway.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measure only these, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Write the report as JSON to this file ("-": standard output, instead of the table).
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report as a page to this file.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Runs of each case; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Length of one run, in milliseconds.
    #[arg(long, default_value_t = 500)]
    run_ms: u64,
    /// Leave processes unpinned: kinder to rivals that have threads of their own.
    #[arg(long)]
    no_pin: bool,
}

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = match words.first().and_then(|first| first.to_str()) {
        Some("floor-child") => run_floor_child(&words[1..]).map_err(Into::into),
        Some("peer-child") => serve(&words[1..]),
        _ => run(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the callee's half of a rival.
fn serve(words: &[OsString]) -> anyhow::Result<()> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let [name, cpu, spin, rest @ ..] = words.as_slice() else {
        bail!("wanted a rival, a processor, a way to poll")
    };
    harness::become_callee(cpu, spin)?;
    let rival = RIVALS.iter().find(|rival| rival.name == name).context("no such rival")?;
    (rival.serve)(rest)
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(unknown) = arguments.only.iter().find(|only| RIVALS.iter().all(|rival| rival.name != *only)) {
        let names: Vec<&str> = RIVALS.iter().map(|rival| rival.name).collect();
        bail!("no rival {unknown:?}; there are {}", names.join(", "));
    }
    let run_time = Duration::from_millis(arguments.run_ms);
    let options = FloorOptions {
        runs: arguments.runs,
        run_time,
        child_args: vec!["floor-child".into()],
        ..FloorOptions::new()
    };
    let clock = Clock::calibrate();
    let floors = measure(&options, &clock).context("the floors could not be measured")?;
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("cargo run --release -- {}", command.join(" "));
    let mut report = Report::new(floors, options.cpus, &clock, command.trim_end_matches(" -- "));
    let folder = tempfile::tempdir()?;
    let mut failed = Vec::new();
    for rival in RIVALS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == rival.name) {
            continue;
        }
        eprintln!("measuring {} …", rival.name);
        let bench = Bench {
            rival: rival.name,
            clock: &clock,
            floors: &report.floors,
            options: &options,
            folder: folder.path(),
            pinned: !arguments.no_pin,
        };
        // A thread of its own, so that its pinning ends with it and several clients' thread-locals go.
        let measured = std::thread::scope(|scope| scope.spawn(|| (rival.measure)(&bench)).join());
        match measured {
            Ok(Ok(cases)) => report.cases.extend(cases),
            Ok(Err(error)) => failed.push(format!("{}: {error:#}", rival.name)),
            Err(_) => failed.push(format!("{}: panicked", rival.name)),
        }
    }
    report.claims = against::claims(&report);
    write(arguments, &report)?;
    if failed.is_empty() { Ok(()) } else { bail!("not measured: {}", failed.join("; ")) }
}

fn write(arguments: &Arguments, report: &Report) -> anyhow::Result<()> {
    if let Some(file) = &arguments.html {
        std::fs::write(file, ringway_bench::html::render(report)).context("the page could not be written")?;
    }
    match &arguments.json {
        Some(file) if file.as_os_str() == "-" => println!("{}", report.to_json()?),
        Some(file) => {
            std::fs::write(file, report.to_json()?).context("the JSON could not be written")?;
            print_tables(report);
        }
        None => print_tables(report),
    }
    Ok(())
}

fn print_tables(report: &Report) {
    println!("{}", report.to_table());
    print!("{}", against::table(report));
}
