//! `ringway doctor`: tries what Ringway needs on this machine, and says what to do about what is missing. Every line is an
//! attempt or a reading, not a guess; exit code 1 when something fails.
//!
//! - `finding`: what a check found, and how it is shown;
//! - `memory`: seals, huge pages, limits;
//! - `processor`: cores, quota, clock, what sleeping costs;
//! - `kernel`: version, `io_uring`, how links move bytes;
//! - `engine`: who answers at the address, and sockets that nobody answers at;
//! - `nats`: whether the running engine reaches the server by which it sees others.

mod engine;
mod finding;
mod kernel;
mod memory;
mod nats;
mod processor;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use self::finding::Mark;
use crate::arguments::Place;
use crate::failure::Failure;
use crate::output::words::several;
use crate::output::{self, Terminal};

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(place: &Place, arguments: &DoctorArguments) -> Result<ExitCode, Failure> {
    let mut findings = vec![kernel::version(), memory::seals(), kernel::io_uring()];
    findings.extend(memory::limits());
    findings.push(memory::huge_pages());
    findings.extend(processor::cores());
    findings.push(processor::clock());
    findings.extend(processor::park());
    findings.push(processor::wait_mode());
    findings.push(kernel::links());
    findings.extend(kernel::congestion());
    findings.extend(engine::check(place));
    findings.extend(nats::check(place));
    let failed = findings.iter().filter(|finding| finding.mark == Mark::Fail).count();
    let warned = findings.iter().filter(|finding| finding.mark == Mark::Warn).count();
    if arguments.json {
        output::json(&json!({ "findings": findings, "failed": failed, "warned": warned }))?;
    } else {
        let terminal = Terminal::of_stdout();
        let lines: String = findings.iter().map(|finding| finding.render(terminal)).collect();
        output::text(&lines)?;
        output::note(&format!("{}, {}", several(failed, "failure"), several(warned, "warning")));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
