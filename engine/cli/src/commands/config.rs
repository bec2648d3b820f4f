//! `ringway config`: what is wrong with a `ringway.yaml`, and what may stand in it. Needs no engine.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use ringway_config::settings::FILE_NAME;
use ringway_config::{Problem, Settings, Variables};
use ringway_workers::{check_files, sections};
use serde_json::{Value, json};

use super::up;
use crate::arguments::Place;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read a file as `ringway up` would, and say everything that is wrong with it
    Check {
        /// The file
        #[arg(default_value = FILE_NAME)]
        file: PathBuf,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the JSON Schema of the file, for editors
    Schema {
        /// Write JSON, as it does anyway
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(place: &Place, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check { file, json } => check(place, file, *json),
        ConfigCommand::Schema { .. } => {
            output::json(&Settings::schema(&sections()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(place: &Place, file: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let (problems, warnings) = match Settings::read(file, &sections(), &Variables::process()) {
        Ok(settings) => (machine(place, file, &settings), settings.warnings),
        Err(problems) => (problems.0, Vec::new()),
    };
    let good = problems.is_empty();
    if as_json {
        let told = |problems: &[Problem]| problems.iter().map(as_value).collect::<Vec<_>>();
        output::json(&json!({ "ok": good, "problems": told(&problems), "warnings": told(&warnings) }))?;
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for warning in &warnings {
        output::note(&format!("warning: {warning}"));
    }
    if let Some((last, rest)) = problems.split_last() {
        for problem in rest {
            output::note(&format!("error: {problem}"));
        }
        return Err(Failure::error(last));
    }
    output::text(&format!("{} is good\n", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// What the file wants and this machine, or the engine, does not give.
fn machine(place: &Place, file: &Path, settings: &Settings) -> Vec<Problem> {
    let problem = |error: &dyn Display| Problem {
        file: file.display().to_string(),
        at: None,
        message: error.to_string(),
        hint: None,
    };
    let files = check_files(settings).map_err(|error| problem(&error)).err();
    up::check(place, settings).map_err(|error| problem(&error)).err().into_iter().chain(files).collect()
}

fn as_value(problem: &Problem) -> Value {
    json!({
        "file": problem.file,
        "line": problem.at.map(|at| at.line),
        "column": problem.at.map(|at| at.column),
        "message": problem.message,
        "hint": problem.hint,
    })
}
