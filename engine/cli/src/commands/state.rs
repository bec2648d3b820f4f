//! `ringway state`: what is kept in scopes and keys, through the functions `state::…`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{ask, cell, show, typed_value};
use super::list;
use crate::arguments::Place;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Terminal};

const WORKER: &str = "state";

/// How often others may change a key between a look at it and its deletion.
const ATTEMPTS_MAX: u32 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Write the value of a key to standard output, as JSON; exit with 3 if there is none
    Get(KeyArguments),
    /// Set a key; the answer, with what was there before, goes to standard output as JSON
    Set {
        #[command(flatten)]
        key: KeyArguments,
        /// JSON, or else a text; from a file with @FILE, from standard input with -
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Delete a key, and write what it held, as JSON; exit with 3 if it held nothing
    Delete(KeyArguments),
    /// List the values of a scope
    List {
        /// The scope
        scope: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys and values of a scope in order, a page at a time
    Scan(ScanArguments),
    /// List the scopes
    Groups {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyArguments {
    /// The scope
    scope: String,
    /// The key in it
    key: String,
    /// Write JSON, as it does anyway
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArguments {
    /// The scope
    scope: String,
    /// Only keys that begin so
    #[arg(long, conflicts_with_all = ["from", "to"])]
    prefix: Option<String>,
    /// The first key
    #[arg(long)]
    from: Option<String>,
    /// The key to stop before
    #[arg(long)]
    to: Option<String>,
    /// Entries of a page
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(place: &Place, command: &StateCommand) -> Result<ExitCode, Failure> {
    match command {
        StateCommand::Get(key) => output::json(&held(place, key)?.0)?,
        StateCommand::Delete(key) => delete(place, key)?,
        StateCommand::Set { key: KeyArguments { scope, key, .. }, value } => {
            let request = json!({ "scope": scope, "key": key, "value": typed_value(value)? });
            output::json(&ask(place, WORKER, "state::set", &request)?)?;
        }
        StateCommand::List { scope, json } => {
            let answer = ask(place, WORKER, "state::list", &json!({ "scope": scope }))?;
            show(&answer, *json, |answer| {
                let values = answer.as_array().map_or(&[][..], Vec::as_slice);
                values.iter().map(|value| format!("{value}\n")).collect()
            })?;
        }
        StateCommand::Scan(arguments) => scan(place, arguments)?,
        StateCommand::Groups { json } => {
            let answer = ask(place, WORKER, "state::list_groups", &json!({}))?;
            show(&answer, *json, |answer| {
                list(answer, "groups").iter().map(|group| format!("{}\n", cell(Some(group)))).collect()
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a key holds, and since which revision. A key may hold null; one that holds nothing has none.
fn held(place: &Place, arguments: &KeyArguments) -> Result<(Value, u64), Failure> {
    let KeyArguments { scope, key, .. } = arguments;
    let request = json!({ "scope": scope, "key": key, "with_revision": true });
    let mut answer = ask(place, WORKER, "state::get", &request)?;
    match answer.get("revision").and_then(Value::as_u64) {
        None | Some(0) => {
            let failure = Failure::not_found(format_args!("the scope `{scope}` holds no key `{key}`"));
            Err(failure.hint(format_args!("`ringway state scan {scope}` lists its keys")))
        }
        Some(revision) => Ok((answer["value"].take(), revision)),
    }
}

/// Deletes what was seen to be there, so that what is written is what was deleted.
fn delete(place: &Place, arguments: &KeyArguments) -> Result<(), Failure> {
    let KeyArguments { scope, key, .. } = arguments;
    let mut attempts = 0;
    loop {
        let (value, revision) = held(place, arguments)?;
        let request = json!({ "scope": scope, "key": key, "if_revision": revision });
        attempts += 1;
        match ask(place, WORKER, "state::delete", &request) {
            // Somebody changed it in between.
            Err(failure) if failure.has_code("REVISION_MISMATCH") && attempts < ATTEMPTS_MAX => {}
            Err(failure) => return Err(failure),
            Ok(_) => return output::json(&value),
        }
    }
}

fn scan(place: &Place, arguments: &ScanArguments) -> Result<(), Failure> {
    let request = json!({
        "scope": arguments.scope,
        "prefix": arguments.prefix,
        "from": arguments.from,
        "to": arguments.to,
        "limit": arguments.limit,
        "cursor": arguments.cursor,
        "reverse": arguments.reverse,
        "keys_only": arguments.keys_only,
    });
    let answer = ask(place, WORKER, "state::scan", &request)?;
    show(&answer, arguments.json, |answer| {
        let mut table = Table::new(&["KEY", ">REVISION", "VALUE"]);
        for entry in list(answer, "entries") {
            table.row(["key", "revision", "value"].map(|field| cell(entry.get(field))));
        }
        table.render(Terminal::of_stdout())
    })?;
    if let (Some(cursor), false) = (answer.get("cursor").and_then(Value::as_str), arguments.json) {
        output::note(&format!("there are more: --cursor {cursor}"));
    }
    Ok(())
}
