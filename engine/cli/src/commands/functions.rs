//! `ringway functions`: what can be called, from the engine's listing; one function in full when its id is given.

use std::process::ExitCode;

use clap::Args;
use ringway_protocol::naming;
use serde_json::{Value, json};

use super::{list, number, word};
use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::words::printable;
use crate::output::{self, Paint, Terminal};
use crate::suggest::closest;

#[derive(Debug, Args)]
pub(crate) struct FunctionsArguments {
    /// A function's id, or words to look for in ids and descriptions
    #[arg(value_name = "FN|WORDS")]
    search: Option<String>,
    /// Only the functions of this worker (name or id)
    #[arg(long, value_name = "WORKER")]
    worker: Option<String>,
    /// Also the functions of the engine and those marked internal
    #[arg(long, short)]
    all: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(place: &Place, arguments: &FunctionsArguments) -> Result<ExitCode, Failure> {
    let connection = Connection::open(place, Tracing::Never)?;
    let ids = connection.function_ids();
    if let Some(id) = arguments.search.as_ref().filter(|id| ids.contains(id)) {
        return details(&connection, id, arguments.json);
    }
    let input = json!({
        "search": arguments.search,
        "worker": arguments.worker,
        "include_internal": arguments.all,
    });
    if let Some(worker) = &arguments.worker {
        known_worker(&connection, worker)?;
    }
    let answer = connection.ask(naming::FUNCTIONS_LIST, &input)?;
    let functions = list(&answer, "functions");
    if functions.is_empty() {
        return none_found(arguments, &ids);
    }
    if arguments.json {
        output::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::text(&table(&connection, functions).render(Terminal::of_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that there is a worker of this name or id, lest an empty list says that it offers nothing.
fn known_worker(connection: &Connection, wanted: &str) -> Result<(), Failure> {
    let workers = connection.worker.catalog().workers;
    if workers.iter().any(|worker| worker.name == wanted || worker.id.to_string() == wanted) {
        return Ok(());
    }
    let failure = Failure::not_found(format_args!("no worker is named `{}`", printable(wanted)));
    let names = workers.iter().map(|worker| worker.name.as_str());
    Err(failure.did_you_mean(closest(wanted, names)).hint("`ringway workers` lists them"))
}

fn none_found(arguments: &FunctionsArguments, ids: &[String]) -> Result<ExitCode, Failure> {
    if let Some(words) = &arguments.search {
        let failure = Failure::not_found(format_args!(
            "no function has `{}` in its id or description",
            printable(words)
        ));
        let failure = failure.did_you_mean(closest(words, ids.iter().map(String::as_str)));
        return Err(failure.hint("`ringway functions` lists them all"));
    }
    if arguments.json {
        output::json(&json!({ "functions": [] }))?;
    } else {
        output::note(
            "no worker offers a function that this command may call; `--all` shows those of the engine",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn table(connection: &Connection, functions: &[Value]) -> Table {
    let catalog = connection.worker.catalog();
    let mut table = Table::new(&["FUNCTION", "WORKER", ">REPLICAS", "DESCRIPTION"]);
    for function in functions {
        let id = word(function, "function_id");
        let replicas = catalog.functions.iter().filter(|known| *known.id == *id).count();
        let description = word(function, "description").lines().next().unwrap_or_default();
        table.row([
            qualified(function),
            word(function, "worker_name").to_owned(),
            replicas.to_string(),
            description.to_owned(),
        ]);
    }
    table
}

/// Returns the id, with the namespace where it is not the one that is meant without a word.
fn qualified(function: &Value) -> String {
    let id = word(function, "function_id");
    match word(function, "namespace") {
        "" | naming::NAMESPACE_DEFAULT => id.to_owned(),
        namespace => format!("{id} ({namespace})"),
    }
}

fn details(connection: &Connection, id: &str, as_json: bool) -> Result<ExitCode, Failure> {
    let info = connection.ask(naming::FUNCTIONS_INFO, &json!({ "function_id": id }))?;
    if as_json {
        output::json(&info)?;
    } else {
        output::text(&describe(&info, Terminal::of_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(info: &Value, terminal: Terminal) -> String {
    let mut text = terminal.paint(Paint::Bold, &printable(&qualified(info)));
    text.push('\n');
    if !word(info, "description").is_empty() {
        text.push_str(&format!("{}\n", printable(word(info, "description"))));
    }
    let encodings: Vec<&str> = list(info, "encodings").iter().filter_map(Value::as_str).collect();
    if !encodings.is_empty() {
        text.push_str(&format!("takes {}\n", encodings.join(", ")));
    }
    let marks = [
        ("idempotent", "may be repeated"),
        ("streams_in", "reads a stream"),
        ("streams_out", "writes a stream"),
    ];
    for (_, words) in marks.iter().filter(|(key, _)| info.get(*key) == Some(&Value::Bool(true))) {
        text.push_str(&format!("{words}\n"));
    }
    let mut table = Table::new(&["REPLICA", "WORKER", "ZONE", ">INDEX", "STATUS"]);
    for replica in list(info, "replicas") {
        table.row([
            word(replica, "worker_id").to_owned(),
            word(replica, "worker_name").to_owned(),
            word(replica, "zone").to_owned(),
            number(replica, "index").to_string(),
            word(replica, "status").to_owned(),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&format!("\n{}", table.render(terminal)));
    }
    for (title, key) in
        [("request", "request_schema"), ("reply", "response_schema"), ("metadata", "metadata")]
    {
        if let Some(value) = info.get(key).filter(|value| !value.is_null()) {
            text.push_str(&format!("\n{}\n{value:#}\n", terminal.paint(Paint::Bold, title)));
        }
    }
    let triggers = list(info, "registered_triggers");
    if !triggers.is_empty() {
        text.push_str(&format!("\n{}\n", terminal.paint(Paint::Bold, "triggers")));
    }
    for trigger in triggers {
        let config = trigger.get("config").unwrap_or(&Value::Null);
        text.push_str(&printable(&format!("{} {config}", word(trigger, "trigger_type"))));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_name_replicas_and_schemas() {
        let info = json!({
            "function_id": "docs::read", "namespace": "default", "description": "Reads one.",
            "encodings": ["json"], "idempotent": true,
            "replicas": [{"worker_id": "00ff", "worker_name": "docs", "zone": "default", "index": 3, "status": "ready"}],
            "request_schema": {"type": "string"},
            "registered_triggers": [{"trigger_type": "cron", "config": {"every": "1h"}}],
        });
        let found = describe(&info, Terminal { interactive: true, colour: false, width: 80 });
        let expected = "docs::read\nReads one.\ntakes json\nmay be repeated\n\n\
            REPLICA  WORKER  ZONE     INDEX  STATUS\n\
            00ff     docs    default      3  ready\n\n\
            request\n{\n  \"type\": \"string\"\n}\n\n\
            triggers\ncron {\"every\":\"1h\"}\n";
        assert_eq!(found, expected, "\n{found}");
    }
}
