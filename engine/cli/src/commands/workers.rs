//! `ringway workers`: who is attached, from the engine's listing; one worker in full when it is named.

use std::process::ExitCode;

use clap::Args;
use ringway_protocol::naming;
use serde_json::{Value, json};

use super::{list, number, word};
use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::words::{age, printable, unix_ms};
use crate::output::{self, Paint, Terminal};
use crate::suggest::closest;

#[derive(Debug, Args)]
pub(crate) struct WorkersArguments {
    /// A worker's name or id
    worker: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(place: &Place, arguments: &WorkersArguments) -> Result<ExitCode, Failure> {
    let connection = Connection::open(place, Tracing::Never)?;
    if let Some(name) = &arguments.worker {
        return details(&connection, name, arguments.json);
    }
    let mut answer = connection.ask(naming::WORKERS_LIST, &json!({}))?;
    let own = connection.worker.id().to_string();
    if let Some(workers) = answer.get_mut("workers").and_then(Value::as_array_mut) {
        workers.retain(|worker| word(worker, "id") != own);
    }
    if arguments.json {
        output::json(&answer)?;
    } else {
        let pids = pids(&connection);
        output::text(&table(list(&answer, "workers"), &pids, unix_ms()).render(Terminal::of_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the process of each worker that the catalog knows.
fn pids(connection: &Connection) -> Vec<(String, u32)> {
    let workers = connection.worker.catalog().workers;
    workers.iter().map(|worker| (worker.id.to_string(), worker.pid)).collect()
}

fn table(workers: &[Value], pids: &[(String, u32)], now_ms: u64) -> Table {
    let mut table = Table::new(&[
        "WORKER",
        "ID",
        ">PID",
        "RUNTIME",
        "ZONE",
        "STATUS",
        ">FUNCTIONS",
        ">RUNNING",
        "WAIT",
        ">UP",
    ]);
    for worker in workers {
        let id = word(worker, "id");
        let pid = pids.iter().find(|(known, _)| known == id).map(|(_, pid)| pid.to_string());
        table.row([
            word(worker, "name").to_owned(),
            id.to_owned(),
            pid.unwrap_or_default(),
            word(worker, "runtime").to_owned(),
            word(worker, "zone").to_owned(),
            word(worker, "status").to_owned(),
            number(worker, "function_count").to_string(),
            number(worker, "active_invocations").to_string(),
            word(worker, "wait_mode").to_owned(),
            age(now_ms.saturating_sub(number(worker, "connected_at_ms"))),
        ]);
    }
    table
}

fn details(connection: &Connection, name: &str, as_json: bool) -> Result<ExitCode, Failure> {
    let workers = connection.worker.catalog().workers;
    if !workers.iter().any(|worker| worker.name == name || worker.id.to_string() == name) {
        let failure = Failure::not_found(format_args!("no worker is named `{}`", printable(name)));
        let names = workers.iter().map(|worker| worker.name.as_str());
        return Err(failure.did_you_mean(closest(name, names)).hint("`ringway workers` lists them"));
    }
    let info = connection.ask(naming::WORKERS_INFO, &json!({ "name": name }))?;
    if as_json {
        output::json(&info)?;
    } else {
        output::text(&describe(&info, Terminal::of_stdout(), unix_ms()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(info: &Value, terminal: Terminal, now_ms: u64) -> String {
    let worker = info.get("worker").unwrap_or(&Value::Null);
    let mut text = terminal.paint(Paint::Bold, &printable(word(worker, "name")));
    text.push_str(&format!(" {}\n", word(worker, "id")));
    if !word(worker, "description").is_empty() {
        text.push_str(&format!("{}\n", printable(word(worker, "description"))));
    }
    let facts = [
        ("process", number(worker, "pid").to_string()),
        ("status", word(worker, "status").to_owned()),
        ("zone", word(worker, "zone").to_owned()),
        ("namespace", word(worker, "namespace").to_owned()),
        ("written in", format!("{} {}", word(worker, "runtime"), word(worker, "version"))),
        ("waits", word(worker, "wait_mode").to_owned()),
        ("attached for", age(now_ms.saturating_sub(number(worker, "connected_at_ms")))),
        ("calls running", number(worker, "active_invocations").to_string()),
    ];
    for (name, value) in facts {
        text.push_str(&printable(&format!("  {name:<14}{value}")));
        text.push('\n');
    }
    let mut table = Table::new(&["FUNCTION", "DESCRIPTION"]);
    for function in list(info, "functions") {
        let description = word(function, "description").lines().next().unwrap_or_default();
        table.row([word(function, "function_id").to_owned(), description.to_owned()]);
    }
    if !table.is_empty() {
        text.push_str(&format!("\n{}", table.render(terminal)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_one_line() {
        let workers = [json!({
            "name": "docs", "id": "00ff", "runtime": "rust", "zone": "default", "status": "connected",
            "function_count": 2, "active_invocations": 1, "wait_mode": "balanced", "connected_at_ms": 1_000,
        })];
        let table = table(&workers, &[("00ff".to_owned(), 42)], 62_000);
        let found = table.render(Terminal { interactive: true, colour: false, width: 120 });
        let expected = "\
            WORKER  ID    PID  RUNTIME  ZONE     STATUS     FUNCTIONS  RUNNING  WAIT      UP\n\
            docs    00ff   42  rust     default  connected          2        1  balanced  1m\n";
        assert_eq!(found, expected, "\n{found}");
    }
}
