//! The whole demo, as `ringway demo` runs it: `--input FOLDER`, `--question TEXT`, `--json`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use ringway_demo::run::{DemoOptions, WorkerCommand, run};
use ringway_demo::workers::run_worker;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const WORKER: &str = "demo-worker";

fn main() -> ExitCode {
    match demo() {
        Ok(code) => code,
        Err(error) => {
            // There is nowhere left to complain if this fails too.
            let _unheard = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<ExitCode> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == WORKER) {
        run_worker(&arguments.split_off(1))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = DemoOptions::new(WorkerCommand::current(WORKER)?);
    let mut json = false;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or("an argument wants a value");
        match argument.to_str() {
            Some("--input") => options.input = Some(value()?.into()),
            Some("--question") => options.question = value()?.into_string().ok(),
            Some("--json") => json = true,
            _ => return Err("wanted --input FOLDER, --question TEXT or --json".into()),
        }
    }
    let mut out = std::io::stdout().lock();
    match run(&options) {
        Ok(summary) if json => writeln!(out, "{}", summary.json()?)?,
        Ok(summary) => writeln!(out, "{}", summary.text(options.width))?,
        Err(error) => {
            writeln!(std::io::stderr(), "error: {error}")?;
            return Ok(ExitCode::from(error.exit_code()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
