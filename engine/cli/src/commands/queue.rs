//! `ringway queue`: queues and their messages, through the functions `queue::…`. Dead letters are in `dlq`. It must not
//! know how a queue works.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::{ask, ask_within, cell, show, typed_value};
use crate::arguments::{Place, duration};
use crate::failure::Failure;
use crate::output::Terminal;
use crate::output::table::Table;

mod dlq;

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
    /// Take in no messages, and wait until those that are there have been delivered
    Drain(DrainArguments),
    /// Set what holds of a queue, over restarts; without settings, what ringway.yaml says
    Configure(ConfigureArguments),
    /// Say how a message stands
    Receipt(OneMessage),
    /// Take a message back that has not ended
    Cancel(OneMessage),
    /// End a durable subscription for good
    Unsubscribe {
        /// The topic
        topic: String,
        /// The function that is to get no more copies
        function: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at messages that were given up, send them again, or throw them away
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
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
    /// Deliver it no earlier than then (2030-01-31T08:00:00Z)
    #[arg(long, value_name = "WHEN", conflicts_with = "delay")]
    at: Option<String>,
    /// From 0 to 9, the highest first
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// The message group, or whose share of the queue it takes
    #[arg(long)]
    group: Option<String>,
    /// A dead letter if it has not begun within this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// The message's id; one is made without
    #[arg(long)]
    id: Option<String>,
    /// The same key again is the same message
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    one: OneQueue,
    /// Wait so long at most; the queue stays as it is afterwards
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigureArguments {
    /// The queue
    queue: String,
    /// All of its settings as JSON, such as '{"concurrency": 5}'; from a file with @FILE, from standard input with -
    settings: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OneMessage {
    /// The message's id
    id: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
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
        QueueCommand::Drain(arguments) => drain(place, arguments)?,
        QueueCommand::Configure(arguments) => configure(place, arguments)?,
        QueueCommand::Receipt(one) => receipt(place, one)?,
        QueueCommand::Cancel(one) => cancel(place, one)?,
        QueueCommand::Unsubscribe { topic, function, json } => {
            unsubscribe(place, [topic, function], *json)?;
        }
        QueueCommand::Dlq(command) => dlq::run(place, command)?,
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
    let milliseconds = |time: Duration| json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let fields = [
        ("function_id", arguments.function_id.as_ref().map(|text| json!(text))),
        ("delay_ms", arguments.delay.map(milliseconds)),
        ("at", arguments.at.as_ref().map(|text| json!(text))),
        ("priority", arguments.priority.map(|priority| json!(priority))),
        ("group", arguments.group.as_ref().map(|text| json!(text))),
        ("ttl_ms", arguments.ttl.map(milliseconds)),
        ("id", arguments.id.as_ref().map(|text| json!(text))),
        ("idempotency_key", arguments.idempotency_key.as_ref().map(|text| json!(text))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            request[name] = value;
        }
    }
    let answer = ask(place, WORKER, "queue::enqueue", &request)?;
    show(&answer, arguments.json, |answer| format!("{}\n", cell(answer.get("id"))))
}

fn switch(place: &Place, function: &str, one: &OneQueue) -> Result<(), Failure> {
    let answer = ask(place, WORKER, function, &json!({ "queue": one.queue }))?;
    show(&answer, one.json, |answer| format!("{} is {}\n", one.queue, cell(answer.get("mode"))))
}

fn drain(place: &Place, arguments: &DrainArguments) -> Result<(), Failure> {
    let DrainArguments { one, timeout } = arguments;
    let answer = ask_within(place, WORKER, "queue::drain", &json!({ "queue": one.queue }), Some(*timeout))?;
    show(&answer, one.json, |_| format!("{} is empty and takes no messages\n", one.queue))
}

fn configure(place: &Place, arguments: &ConfigureArguments) -> Result<(), Failure> {
    let settings = arguments.settings.as_deref().map(typed_value).transpose()?;
    let request = json!({ "queue": arguments.queue, "settings": settings });
    let answer = ask(place, WORKER, "queue::configure", &request)?;
    show(&answer, arguments.json, |answer| format!("{}\n", cell(answer.get("settings"))))
}

fn receipt(place: &Place, one: &OneMessage) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "queue::receipt", &json!({ "id": one.id }))?;
    show(&answer, one.json, |answer| {
        let facts = [("status", "status"), ("queue", "queue"), ("attempts", "attempts"), ("error", "error")];
        let known = facts.iter().filter(|(_, key)| answer.get(*key).is_some_and(|value| !value.is_null()));
        known.map(|(name, key)| format!("{name:<10}{}\n", cell(answer.get(*key)))).collect()
    })
}

fn cancel(place: &Place, one: &OneMessage) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "queue::cancel", &json!({ "id": one.id }))?;
    show(&answer, one.json, |answer| {
        let done = answer.get("cancelled") == Some(&Value::Bool(true));
        format!("{} {}\n", one.id, if done { "is taken back" } else { "has ended already" })
    })
}

fn unsubscribe(place: &Place, [topic, function]: [&String; 2], as_json: bool) -> Result<(), Failure> {
    let request = json!({ "topic": topic, "function_id": function });
    let answer = ask(place, WORKER, "queue::unsubscribe", &request)?;
    if answer.get("removed") == Some(&Value::Bool(false)) {
        return Err(Failure::not_found(format_args!("`{function}` has no subscription to `{topic}`")));
    }
    show(&answer, as_json, |_| format!("{function} gets no more of {topic}\n"))
}
