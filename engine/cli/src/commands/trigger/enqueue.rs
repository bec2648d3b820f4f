//! `ringway trigger FN --enqueue QUEUE`: hands the call over to a queue; the receipt goes to standard output, with `--wait` how
//! the message ended. Used by `trigger`; it must not know how the request was typed.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringway::{Enqueue, MessageStatus, Receipt};
use serde_json::{Value, json};

use super::super::ask;
use crate::arguments::duration;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
pub(super) struct EnqueueOptions {
    /// Hand the call over to this queue, which makes it when its turn comes, and again if it fails; the receipt goes to
    /// standard output
    #[arg(long = "enqueue", value_name = "QUEUE", conflicts_with_all = ["void", "idempotent", "metadata"])]
    queue: Option<String>,
    /// With --enqueue: keep the order within this group
    #[arg(long, requires = "queue")]
    group: Option<String>,
    /// With --enqueue: the same key again is the same message
    #[arg(long, requires = "queue")]
    key: Option<String>,
    /// With --enqueue: from 0 to 9, the highest first
    #[arg(long, requires = "queue", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: u8,
    /// With --enqueue: deliver it no earlier than after this time (500ms, 2s, 1m)
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = duration)]
    delay: Option<Duration>,
    /// With --enqueue: give it up if it has not begun within this time
    #[arg(long, value_name = "TIME", requires = "queue", value_parser = duration)]
    ttl: Option<Duration>,
    /// With --enqueue: wait until the message has ended, as long as --timeout says
    #[arg(long, requires = "queue")]
    wait: bool,
}

impl EnqueueOptions {
    /// Whether the call goes to a queue.
    pub(super) fn is_wanted(&self) -> bool {
        self.queue.is_some()
    }

    fn action(&self) -> Enqueue {
        let mut action = Enqueue::to(self.queue.as_deref().unwrap_or_default()).priority(self.priority);
        if let Some(group) = &self.group {
            action = action.group(group);
        }
        if let Some(key) = &self.key {
            action = action.key(key);
        }
        if let Some(delay) = self.delay {
            action = action.delay(delay);
        }
        if let Some(ttl) = self.ttl {
            action = action.ttl(ttl);
        }
        action
    }
}

/// Hands the call over and says what came of it. A message that does not end as done is an error.
pub(super) fn run(
    connection: &Connection,
    function: &str,
    request: &Value,
    options: &EnqueueOptions,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let failed = |error| ask::hint_at("queue", error);
    let receipt = connection.worker.enqueue(function, request, &options.action()).map_err(failed)?;
    if !options.wait {
        output::json(&json!({ "id": receipt.id(), "duplicate": receipt.is_duplicate() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = receipt.wait(timeout).map_err(|error| {
        let id = receipt.id();
        failed(error).hint(format_args!(
            "the message stays in its queue; `ringway queue receipt {id}` says how it stands"
        ))
    })?;
    output::json(&json!({ "id": receipt.id(), "status": ended.status, "attempts": ended.attempts }))?;
    match ended.status {
        MessageStatus::Done => Ok(ExitCode::SUCCESS),
        status => Err(not_done(&receipt, options, status, ended.error.as_deref())),
    }
}

fn not_done(
    receipt: &Receipt,
    options: &EnqueueOptions,
    status: MessageStatus,
    error: Option<&str>,
) -> Failure {
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    let failure = Failure::error(format_args!("message `{}` is {status}{why}", receipt.id()));
    if status == MessageStatus::Dead {
        let queue = options.queue.as_deref().unwrap_or_default();
        return failure.hint(format_args!(
            "`ringway queue dlq list {queue}` lists the dead letters, `ringway queue dlq redrive {queue} {}` sends this one again",
            receipt.id()
        ));
    }
    failure
}
