//! `ringway demo`: the jobs of the demo, each stage a process. Their work is in `ringway-demo`; this is how it is asked
//! for, and how this executable becomes one of its workers.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ringway_demo::run::{DemoOptions, WorkerCommand, run as run_demo};
use ringway_demo::workers::run_worker;

use crate::failure::Failure;
use crate::output::{self, Terminal};

/// The hidden command that makes this executable a worker of the demo.
pub(crate) const WORKER: &str = "demo-worker";

/// How many are killed unless it is said.
const KILLS: u32 = 12;

/// Columns of the trace where nobody's terminal limits them.
const WIDTH_UNSEEN: usize = 120;

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Your own folder of documents and files [default: cargo's registry and the toolchain's libraries]
    #[arg(long, value_name = "FOLDER")]
    input: Option<PathBuf>,
    /// A question of your own
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// Kill the engine and workers in the middle of the durable loop, at random; it must come out right all the same
    #[arg(long)]
    chaos: bool,
    /// How many are killed
    #[arg(long, value_name = "COUNT", default_value_t = KILLS, requires = "chaos")]
    kills: u32,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: DemoArguments) -> Result<ExitCode, Failure> {
    let terminal = Terminal::of_stdout();
    let mut options = DemoOptions::new(WorkerCommand::current(WORKER)?);
    options.input = arguments.input;
    options.question = arguments.question;
    options.kills = if arguments.chaos { arguments.kills } else { 0 };
    options.width = if terminal.interactive { terminal.width } else { WIDTH_UNSEEN };
    options.colour = terminal.colour;
    let summary = run_demo(&options).map_err(|error| Failure::with_exit(&error, error.exit_code()))?;
    let text =
        if arguments.json { summary.json().map_err(Failure::error)? } else { summary.text(options.width) };
    output::text(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes a worker of a demo that another process runs.
pub(crate) fn work(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    run_worker(arguments).map_err(Failure::error)?;
    Ok(ExitCode::SUCCESS)
}
