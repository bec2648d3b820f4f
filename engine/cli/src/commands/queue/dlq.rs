//! `ringway queue dlq`: dead letters are listed, sent again, thrown away, mended; which ones, a filter or ids say. It must not
//! know why a message died.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{WORKER, rows};
use crate::arguments::{Place, duration};
use crate::commands::ask::{ask, cell, show, typed_value};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List the dead letters of a queue, the newest first; without a queue, the queues that have some
    List {
        /// The queue, or the topic
        queue: Option<String>,
        #[command(flatten)]
        filter: Filter,
        /// Go on behind the page that named this cursor
        #[arg(long)]
        cursor: Option<String>,
        /// Show so many
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again: all of a queue, some by their ids, or such as a filter lets pass
    Redrive {
        /// The queue, or the topic
        queue: String,
        /// The messages' ids
        messages: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// Send them one after the other, so far apart
        #[arg(long, value_name = "TIME", value_parser = duration)]
        interval: Option<Duration>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Throw dead letters away: some by their ids, such as a filter lets pass, or all
    Discard {
        /// The queue, or the topic
        queue: String,
        /// The messages' ids
        messages: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// Every dead letter of the queue
        #[arg(long)]
        all: bool,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a dead letter other data; redrive it afterwards
    Edit {
        /// The message's id
        message: String,
        /// JSON, or else a text; from a file with @FILE, from standard input with -
        #[arg(allow_hyphen_values = true)]
        data: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those for this function
    #[arg(long = "function", value_name = "FN")]
    function_id: Option<String>,
    /// Only those that died of this error code
    #[arg(long)]
    code: Option<String>,
    /// Only those whose error contains this
    #[arg(long)]
    text: Option<String>,
    /// Only those that died then or later (2030-01-31T08:00:00Z)
    #[arg(long, value_name = "WHEN")]
    after: Option<String>,
    /// Only those that died before then
    #[arg(long, value_name = "WHEN")]
    before: Option<String>,
}

impl Filter {
    fn put_into(&self, request: &mut Map<String, Value>) {
        let fields = [
            ("function_id", &self.function_id),
            ("code", &self.code),
            ("text", &self.text),
            ("after", &self.after),
            ("before", &self.before),
        ];
        let set =
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        request.extend(set);
    }
}

/// A request for a queue's dead letters, of which some are chosen.
fn request(queue: &str, messages: &[String], filter: &Filter) -> Map<String, Value> {
    let mut request = Map::from_iter([("queue".to_owned(), json!(queue))]);
    if !messages.is_empty() {
        request.insert("message_ids".to_owned(), json!(messages));
    }
    filter.put_into(&mut request);
    request
}

pub(super) fn run(place: &Place, command: &DlqCommand) -> Result<(), Failure> {
    match command {
        DlqCommand::List { queue: None, filter, cursor, json, .. } => {
            let mut asked = Map::new();
            filter.put_into(&mut asked);
            if !asked.is_empty() || cursor.is_some() {
                let text = "wanted a queue with a filter or a cursor, found none: name the queue, or leave both out \
                            to list the queues that have dead letters";
                return Err(Failure::usage(format_args!("{text}")));
            }
            let answer = ask(place, WORKER, "queue::dlq::topics", &json!({}))?;
            let columns = [("QUEUE", "topic"), ("BROKER", "broker_type"), (">DEAD LETTERS", "message_count")];
            show(&answer, *json, |answer| rows(answer, &columns))
        }
        DlqCommand::List { queue: Some(queue), filter, cursor, limit, json } => {
            let mut request = request(queue, &[], filter);
            request.insert("limit".to_owned(), json!(limit));
            request.extend(cursor.iter().map(|cursor| ("cursor".to_owned(), json!(cursor))));
            list(place, &request.into(), *json)
        }
        DlqCommand::Redrive { queue, messages, filter, interval, json } => {
            let mut request = request(queue, messages, filter);
            if let Some(interval) = interval {
                let milliseconds = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
                request.insert("interval_ms".to_owned(), json!(milliseconds));
            }
            let answer = ask(place, WORKER, "iii::queue::redrive", &request.into())?;
            some_were_there(&answer, "redriven", queue, messages)?;
            show(&answer, *json, |answer| format!("{} sent again\n", cell(answer.get("redriven"))))
        }
        DlqCommand::Discard { queue, messages, filter, all, json } => {
            let mut request = request(queue, messages, filter);
            if *all {
                request.insert("all".to_owned(), json!(true));
            }
            if request.len() == 1 {
                let wanted =
                    "wanted the ids of messages, a filter, or --all for every dead letter, found none";
                return Err(Failure::usage(format_args!("{wanted}")));
            }
            let answer = ask(place, WORKER, "queue::dlq::discard", &request.into())?;
            some_were_there(&answer, "discarded", queue, messages)?;
            show(&answer, *json, |answer| format!("{} thrown away\n", cell(answer.get("discarded"))))
        }
        DlqCommand::Edit { message, data, json } => {
            let request = json!({ "message_id": message, "data": typed_value(data)? });
            let answer = ask(place, WORKER, "queue::dlq::edit", &request)?;
            show(&answer, *json, |_| format!("{message} has other data\n"))
        }
    }
}

fn list(place: &Place, request: &Value, as_json: bool) -> Result<(), Failure> {
    let answer = ask(place, WORKER, "queue::dlq::list", request)?;
    if as_json {
        return output::json(&answer);
    }
    let columns = [(">RETRIES", "retries"), (">BYTES", "size_bytes"), ("ID", "id"), ("ERROR", "error")];
    let mut messages = answer.get("messages").cloned().unwrap_or_default();
    for message in messages.as_array_mut().into_iter().flatten() {
        if let Some(why) = message.get("unreadable").filter(|why| !why.is_null()) {
            message["error"] = json!(format!("unreadable: {}", cell(Some(why))));
        }
    }
    output::text(&rows(&messages, &columns))?;
    if let Some(cursor) = answer.get("cursor").and_then(Value::as_str) {
        output::note(&format!("there are more: --cursor {cursor}"));
    }
    Ok(())
}

/// Who names messages wants to hear if none of them was there.
fn some_were_there(answer: &Value, count: &str, queue: &str, messages: &[String]) -> Result<(), Failure> {
    if messages.is_empty() || answer.get(count).and_then(Value::as_u64) != Some(0) {
        return Ok(());
    }
    let names = messages.join("`, `");
    let failure = Failure::not_found(format_args!("`{queue}` has no dead letter `{names}`"));
    Err(failure.hint(format_args!("`ringway queue dlq list {queue}` lists them")))
}
