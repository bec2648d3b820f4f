//! `ringway cron`: what is due when, through the functions `cron::…`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{ask, ask_patiently, cell, show};
use super::list;
use crate::arguments::Place;
use crate::failure::Failure;
use crate::output::Terminal;
use crate::output::table::Table;

const WORKER: &str = "cron";

#[derive(Debug, Subcommand)]
pub(crate) enum CronCommand {
    /// List the jobs, and when each is due
    List {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the next times of an expression
    Preview {
        /// Such as `0 30 9 * * MON-FRI`
        expression: String,
        /// The time zone, such as Europe/Berlin
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        /// How many times
        #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        count: u32,
        /// After when, such as 2026-03-01T00:00:00Z; now unless given
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a job now, and write its answer when it comes
    Run {
        #[command(flatten)]
        job: OneJob,
        /// Only start it; how it ends shows in `ringway cron list`
        #[arg(long)]
        no_wait: bool,
    },
    /// Leave out whatever of a job becomes due
    Pause(OneJob),
    /// Run a job when it is due again
    Resume(OneJob),
}

#[derive(Debug, Args)]
pub(crate) struct OneJob {
    /// The job: the id of its trigger
    id: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(place: &Place, command: &CronCommand) -> Result<ExitCode, Failure> {
    let one = |function: &str, job: &OneJob, words: fn(&Value) -> String| {
        let answer = ask(place, WORKER, function, &json!({ "id": job.id }))?;
        show(&answer, job.json, words)
    };
    match command {
        CronCommand::List { json } => {
            let answer = ask(place, WORKER, "cron::list", &json!({}))?;
            show(&answer, *json, jobs)?;
        }
        CronCommand::Preview { expression, timezone, count, from, json } => {
            let request =
                json!({ "expression": expression, "timezone": timezone, "count": count, "from": from });
            let answer = ask(place, WORKER, "cron::preview", &request)?;
            show(&answer, *json, times)?;
        }
        CronCommand::Run { job, no_wait: true } => {
            let answer = ask(place, WORKER, "cron::run_now", &json!({ "id": job.id, "wait": false }))?;
            show(&answer, job.json, |answer| format!("{} was started\n", cell(answer.get("id"))))?;
        }
        CronCommand::Run { job, no_wait: false } => {
            let answer = ask_patiently(place, WORKER, "cron::run_now", &json!({ "id": job.id }))?;
            show(&answer, job.json, |answer| match answer.get("called") {
                Some(Value::Bool(false)) => "not called: its condition does not hold\n".to_owned(),
                _ => format!("{}\n", answer.get("result").unwrap_or(&Value::Null)),
            })?;
        }
        CronCommand::Pause(job) => one("cron::pause", job, paused)?,
        CronCommand::Resume(job) => one("cron::resume", job, paused)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn paused(answer: &Value) -> String {
    let state =
        if answer.get("paused") == Some(&Value::Bool(true)) { "is paused" } else { "runs when it is due" };
    format!("{} {state}\n", cell(answer.get("id")))
}

fn jobs(answer: &Value) -> String {
    let mut table = Table::new(&["JOB", "EXPRESSION", "ZONE", "FUNCTION", "NEXT", "LAST", "STATE"]);
    for job in list(answer, "jobs") {
        let mut cells = ["id", "expression", "timezone", "function_id", "next", "last"]
            .map(|key| cell(job.get(key)))
            .to_vec();
        cells.push(match job.get("paused") {
            Some(Value::Bool(true)) => "paused".to_owned(),
            _ => cell(
                job.get("problem").filter(|problem| !problem.is_null()).or_else(|| job.get("last_error")),
            ),
        });
        table.row(cells);
    }
    table.render(Terminal::of_stdout())
}

/// Local times where they are told, with their offsets and zones.
fn times(answer: &Value) -> String {
    let local = list(answer, "local");
    let times = if local.is_empty() { list(answer, "times") } else { local };
    times.iter().map(|time| format!("{}\n", cell(Some(time)))).collect()
}
