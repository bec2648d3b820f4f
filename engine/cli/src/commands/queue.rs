//! `ringway queue`: queues and their dead letters, through the functions `queue::…` and
//! `iii::queue::…`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{ask, cell, show, typed_value};
use crate::arguments::{Place, duration};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{self, Terminal};

const WORKER: &str = "queue";

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List queues and topics
    List {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Count what waits, and who takes it
    Stats(OneQueue),
    /// Hand something over durably; the receipt goes to standard output
    Enqueue(EnqueueArguments),
    /// Take in messages and deliver none; what is under way goes on
    Pause(OneQueue),
    /// Deliver again
    Resume(OneQueue),
    /// Look at messages that were given up, send them again, or throw them away
    #[command(subcommand)]
    Dlq(DlqCommand),
}

#[derive(Debug, Args)]
pub(crate) struct OneQueue {
    /// The queue, or the topic
    queue: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArguments {
    /// The queue
    queue: String,
    /// The function that gets the data; the queue's own if it has one
    #[arg(long = "function", value_name = "FN")]
    function_id: Option<String>,
    /// JSON, or else a text; from a file with @FILE, from standard input with -
    #[arg(allow_hyphen_values = true, default_value = "null")]
    data: String,
    /// Deliver it no earlier than after this time (500ms, 2s, 1m)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
    /// The same key again is the same message
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List the dead letters of a queue, the newest first; without a queue, the queues that have some
    List {
        /// The queue, or the topic
        queue: Option<String>,
        /// Leave out so many
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// Show so many
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again: all of a queue, or one
    Redrive {
        /// The queue, or the topic
        queue: String,
        /// The message's id
        message: Option<String>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Throw a dead letter away
    Discard {
        /// The queue, or the topic
        queue: String,
        /// The message's id
        message: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(place: &Place, command: &QueueCommand) -> Result<ExitCode, Failure> {
    match command {
        QueueCommand::List { json } => {
            let answer = ask(place, WORKER, "queue::topics", &json!({}))?;
            let columns =
                [("QUEUE", "name"), ("BROKER", "broker_type"), (">SUBSCRIBERS", "subscriber_count")];
            show(&answer, *json, |answer| rows(answer, &columns))?;
        }
        QueueCommand::Stats(OneQueue { queue, json }) => {
            let answer = ask(place, WORKER, "queue::stats", &json!({ "topic": queue }))?;
            show(&answer, *json, |answer| {
                let facts =
                    [("waiting", "depth"), ("consumers", "consumer_count"), ("dead letters", "dlq_depth")];
                facts.iter().map(|(name, key)| format!("{name:<14}{}\n", cell(answer.get(*key)))).collect()
            })?;
        }
        QueueCommand::Enqueue(arguments) => enqueue(place, arguments)?,
        QueueCommand::Pause(one) => switch(place, "queue::pause", one)?,
        QueueCommand::Resume(one) => switch(place, "queue::resume", one)?,
        QueueCommand::Dlq(command) => dlq(place, command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(answer: &Value, columns: &[(&'static str, &str)]) -> String {
    let headings: Vec<&'static str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut table = Table::new(&headings);
    for row in answer.as_array().map_or(&[][..], Vec::as_slice) {
        table.row(columns.iter().map(|(_, key)| cell(row.get(*key))));
    }
    table.render(Terminal::of_stdout())
}

fn enqueue(place: &Place, arguments: &EnqueueArguments) -> Result<(), Failure> {
    let mut request = json!({ "queue": arguments.queue, "data": typed_value(&arguments.data)? });
    if let Some(function) = &arguments.function_id {
        request["function_id"] = json!(function);
    }
    if let Some(delay) = arguments.delay {
        request["delay_ms"] = json!(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    }
    if let Some(key) = &arguments.idempotency_key {
        request["idempotency_key"] = json!(key);
    }
    let answer = ask(place, WORKER, "queue::enqueue", &request)?;
    show(&answer, arguments.json, |answer| format!("{}\n", cell(answer.get("id"))))
}

fn switch(place: &Place, function: &str, one: &OneQueue) -> Result<(), Failure> {
    let answer = ask(place, WORKER, function, &json!({ "queue": one.queue }))?;
    show(&answer, one.json, |answer| format!("{} is {}\n", one.queue, cell(answer.get("mode"))))
}

fn dlq(place: &Place, command: &DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::List { queue: None, json, .. } => {
            let answer = ask(place, WORKER, "queue::dlq::topics", &json!({}))?;
            let columns = [("QUEUE", "topic"), ("BROKER", "broker_type"), (">DEAD LETTERS", "message_count")];
            show(&answer, *json, |answer| rows(answer, &columns))
        }
        DlqCommand::List { queue: Some(queue), offset, limit, json } => {
            let request = json!({ "topic": queue, "offset": offset, "limit": limit });
            let answer = ask(place, WORKER, "queue::dlq::messages", &request)?;
            let columns =
                [(">RETRIES", "retries"), (">BYTES", "size_bytes"), ("ID", "id"), ("ERROR", "error")];
            show(&answer, *json, |answer| rows(answer, &columns))
        }
        DlqCommand::Redrive { queue, message: None, json } => {
            let answer = ask(place, WORKER, "iii::queue::redrive", &json!({ "queue": queue }))?;
            show(&answer, *json, |answer| format!("{} sent again\n", cell(answer.get("redriven"))))
        }
        DlqCommand::Redrive { queue, message: Some(message), json } => {
            one_letter(place, "iii::queue::redrive_message", "sent again", [queue, message], *json)
        }
        DlqCommand::Discard { queue, message, json } => {
            one_letter(place, "iii::queue::discard_message", "thrown away", [queue, message], *json)
        }
    }
}

fn one_letter(
    place: &Place,
    function: &str,
    done: &str,
    [queue, message]: [&String; 2],
    as_json: bool,
) -> Result<(), Failure> {
    let answer = ask(place, WORKER, function, &json!({ "queue": queue, "message_id": message }))?;
    if answer.get("redriven").and_then(Value::as_u64) == Some(0) {
        let failure = Failure::not_found(format_args!("`{queue}` has no dead letter `{message}`"));
        return Err(failure.hint(format_args!("`ringway queue dlq list {queue}` lists them")));
    }
    if as_json {
        return output::json(&answer);
    }
    output::text(&format!("{message} {done}\n"))
}
