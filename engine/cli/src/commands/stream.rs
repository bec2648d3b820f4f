//! `ringway stream`: items in groups, and the logs of groups, through the functions `stream::…`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use ringway::{CallOptions, Message};
use serde_json::{Value, json};

use super::ask::{ask, cell, hint_at, show, typed_value};
use super::list;
use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Terminal};

const WORKER: &str = "stream";

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// List streams with their groups, the groups of a stream with what they take, or the items of a group
    List {
        /// The stream
        stream: Option<String>,
        /// The group in it
        group: Option<String>,
        /// Items of a page
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Where the page before ended
        #[arg(long)]
        cursor: Option<String>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Write an item to standard output, as JSON; exit with 3 if there is none
    Get(ItemArguments),
    /// Set an item; the answer, with what was there before, goes to standard output as JSON
    Set {
        #[command(flatten)]
        item: ItemArguments,
        /// JSON, or else a text; from a file with @FILE, from standard input with -
        #[arg(allow_hyphen_values = true)]
        data: String,
    },
    /// Add an entry to the log of a group; the answer, with its offset, goes to standard output as JSON
    Append {
        /// The stream
        stream: String,
        /// The group in it
        group: String,
        /// JSON, or else a text; from a file with @FILE, from standard input with -
        #[arg(allow_hyphen_values = true)]
        data: String,
        /// Write JSON, as it does anyway
        #[arg(long)]
        json: bool,
    },
    /// Read the log of a group, a page at a time
    Read(ReadArguments),
    /// Write entries of a log as they come, until interrupted
    Tail(TailArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ItemArguments {
    /// The stream
    stream: String,
    /// The group in it
    group: String,
    /// The item in it
    item: String,
    /// Write JSON, as it does anyway
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// The stream
    stream: String,
    /// The group in it; the one without a name unless given
    #[arg(default_value = "")]
    group: String,
    /// The first entry
    #[arg(long, conflicts_with = "from_time_ms")]
    from: Option<u64>,
    /// The first entry written at or after this time, in milliseconds since 1970
    #[arg(long, value_name = "MS")]
    from_time_ms: Option<u64>,
    /// Begin after what this consumer has committed
    #[arg(long)]
    consumer: Option<String>,
    /// Write JSON; one line for each entry of a tail
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    #[command(flatten)]
    log: LogArguments,
    /// Entries of a page
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct TailArguments {
    #[command(flatten)]
    log: LogArguments,
    /// End after so many entries
    #[arg(long)]
    count: Option<u64>,
}

pub(crate) fn run(place: &Place, command: &StreamCommand) -> Result<ExitCode, Failure> {
    match command {
        StreamCommand::List { stream: None, json, .. } => streams(place, *json)?,
        StreamCommand::List { stream: Some(stream), group: None, json, .. } => groups(place, stream, *json)?,
        StreamCommand::List { stream: Some(stream), group: Some(group), limit, cursor, json } => {
            let request =
                json!({ "stream_name": stream, "group_id": group, "limit": limit, "cursor": cursor });
            items(place, &request, *json)?;
        }
        StreamCommand::Get(item) => get(place, item)?,
        StreamCommand::Set { item, data } => {
            let mut request = named(item);
            request["data"] = typed_value(data)?;
            output::json(&ask(place, WORKER, "stream::set", &request)?)?;
        }
        StreamCommand::Append { stream, group, data, .. } => {
            let request = json!({ "stream_name": stream, "group_id": group, "data": typed_value(data)? });
            output::json(&ask(place, WORKER, "stream::append", &request)?)?;
        }
        StreamCommand::Read(arguments) => read(place, arguments)?,
        StreamCommand::Tail(arguments) => tail(place, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn named(item: &ItemArguments) -> Value {
    json!({ "stream_name": item.stream, "group_id": item.group, "item_id": item.item })
}

fn streams(place: &Place, json: bool) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "stream::list_all", &json!({}))?;
    show(&answer, json, |answer| {
        let mut table = Table::new(&["STREAM", "GROUPS"]);
        for stream in list(answer, "stream") {
            let groups: Vec<String> = list(stream, "groups").iter().map(|group| cell(Some(group))).collect();
            table.row([cell(stream.get("id")), groups.join(", ")]);
        }
        table.render(Terminal::of_stdout())
    })
}

fn groups(place: &Place, stream: &str, json: bool) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "stream::logs", &json!({ "stream_name": stream }))?;
    show(&answer, json, |answer| {
        let mut table = Table::new(&["GROUP", ">ITEMS", ">ITEM BYTES", ">FIRST", ">LAST", ">LOG BYTES"]);
        let columns = ["group_id", "items", "item_bytes", "first_offset", "last_offset", "log_bytes"];
        for group in list(answer, "groups") {
            table.row(columns.map(|field| cell(group.get(field))));
        }
        table.render(Terminal::of_stdout())
    })
}

fn items(place: &Place, request: &Value, json: bool) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "stream::list", request)?;
    show(&answer, json, |answer| {
        let mut table = Table::new(&["ITEM", ">VERSION", "DATA"]);
        for item in list(answer, "items") {
            table.row(["id", "version", "data"].map(|field| cell(item.get(field))));
        }
        table.render(Terminal::of_stdout())
    })?;
    if let (Some(cursor), false) = (answer.get("cursor").and_then(Value::as_str), json) {
        output::note(&format!("there may be more: --cursor {cursor}"));
    }
    Ok(())
}

fn get(place: &Place, item: &ItemArguments) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "stream::get", &named(item))?;
    if answer.is_null() {
        let ItemArguments { stream, group, item, .. } = item;
        let failure = Failure::not_found(format_args!("group `{group}` holds no item `{item}`"));
        return Err(failure.hint(format_args!("`ringway stream list {stream} {group}` lists its items")));
    }
    output::json(&answer)
}

fn wanted(log: &LogArguments) -> Value {
    json!({
        "stream_name": log.stream,
        "group_id": log.group,
        "from_offset": log.from,
        "from_time_ms": log.from_time_ms,
        "consumer": log.consumer,
    })
}

fn read(place: &Place, arguments: &ReadArguments) -> Result<(), Failure> {
    let mut request = wanted(&arguments.log);
    request["limit"] = json!(arguments.limit);
    let answer = ask(place, WORKER, "stream::read", &request)?;
    show(&answer, arguments.log.json, |answer| {
        let mut table = Table::new(&[">OFFSET", "TYPE", "ITEM", "DATA"]);
        for entry in list(answer, "entries") {
            table.row(["offset", "type", "id", "data"].map(|field| cell(entry.get(field))));
        }
        table.render(Terminal::of_stdout())
    })?;
    if arguments.log.json {
        return Ok(());
    }
    if super::number(&answer, "missed") > 0 {
        output::note(&format!("{} entries before were removed", super::number(&answer, "missed")));
    }
    let next = super::number(&answer, "next_offset");
    if next <= super::number(&answer, "last_offset") {
        output::note(&format!("there are more: --from {next}"));
    }
    Ok(())
}

fn tail(place: &Place, arguments: &TailArguments) -> Result<(), Failure> {
    let connection = Connection::open(place, Tracing::Environment)?;
    let request = Message::json(&wanted(&arguments.log)).map_err(ringway::Failure::into_error)?;
    let handle = connection.worker.handle("stream::tail");
    let stream = handle.stream(&request, &CallOptions::new()).map_err(|error| hint_at(WORKER, error))?;
    let mut left = arguments.count;
    while left != Some(0) {
        let Some(message) = stream.recv().map_err(|error| hint_at(WORKER, error))? else { break };
        let entry: Value = serde_json::from_slice(message.body())
            .map_err(|error| Failure::usage(format_args!("the worker sent what is no JSON: {error}")))?;
        match entry.get("type").and_then(Value::as_str) {
            Some("tailing") => continue,
            Some("gap") => output::note(&format!("{} entries were removed", super::number(&entry, "missed"))),
            _ if arguments.log.json => output::json(&entry)?,
            _ => output::text(&format!(
                "{} {} {}\n",
                super::number(&entry, "offset"),
                cell(entry.get("type")),
                cell(entry.get("data"))
            ))?,
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}
