//! The functions that the worker serves, one file per group; here is what they share. iii's ids and shapes are kept. They
//! ask the driver and wait without holding a thread; they must not know how the machine decides.

pub(crate) mod browse;
pub(crate) mod control;
pub(crate) mod dead;
pub(crate) mod enqueue;
pub(crate) mod letters;
pub(crate) mod list;
pub(crate) mod receipt;
pub(crate) mod steps;
pub(crate) mod wait;

use std::sync::Arc;

use ringway::{Failure, Function, HandlerResult};
use ringway_store::StoreError;
use ringway_worker_kit::store_failure;

use crate::blobs::Shelf;
use crate::driver::Driver;
use crate::record::Unreadable;
use crate::topics::TOPIC;

/// Bytes of a queue's or topic's name.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// All functions but the reserved ones.
pub(crate) fn all(driver: &Driver, shelf: &Arc<Shelf>) -> Vec<Function> {
    let mut functions =
        vec![enqueue::enqueue(driver, shelf), enqueue::publish(driver, shelf), receipt::receipt(driver)];
    functions.push(wait::wait(driver));
    functions.extend(steps::all(driver));
    functions.extend(control::all(driver));
    functions.extend(dead::all(driver));
    functions.extend([
        list::topics(driver, "queue::topics"),
        list::stats(driver, "queue::stats"),
        list::dead_topics(driver, "queue::dlq::topics"),
        browse::by_offset(driver, "queue::dlq::messages"),
        browse::by_filter(driver, "queue::dlq::list"),
    ]);
    functions
}

/// Functions whose ids only the engine may register.
pub(crate) fn reserved(driver: &Driver, shelf: &Arc<Shelf>) -> Vec<Function> {
    vec![
        enqueue::engine_enqueue(driver, shelf, "engine::queue::enqueue"),
        list::topics(driver, "engine::queue::list_topics"),
        list::stats(driver, "engine::queue::topic_stats"),
        list::dead_topics(driver, "engine::queue::dlq_topics"),
        browse::by_offset(driver, "engine::queue::dlq_messages"),
    ]
}

/// A name that may be part of a key; `code` is for one that is missing.
pub(crate) fn check_name(what: &str, name: &str, code: &str) -> HandlerResult<()> {
    if name.is_empty() {
        return Err(Failure::with_code(code, format!("wanted the name of a {what}, found none")));
    }
    check_length(what, name, NAME_BYTES_MAX)?;
    if name.chars().any(char::is_control) {
        let text = format!("wanted the name of a {what} without control characters, found {name:?}");
        return Err(Failure::invalid(text));
    }
    Ok(())
}

/// The name of a queue, which must not look like one of a topic's.
pub(crate) fn check_queue(name: &str) -> HandlerResult<()> {
    check_name("queue", name, "queue_not_set")?;
    if name.starts_with(TOPIC) {
        let text =
            format!("names that begin with `{TOPIC}` are for the queues of topics: give `{name}` another");
        return Err(Failure::invalid(text));
    }
    Ok(())
}

pub(crate) fn check_length(what: &str, text: &str, max: usize) -> HandlerResult<()> {
    if text.len() > max {
        let found = text.len();
        return Err(Failure::invalid(format!("wanted a {what} of at most {max} bytes, found {found}")));
    }
    Ok(())
}

/// What the caller hears when a commit ended.
pub(crate) fn written(code: &str, outcome: Result<(), StoreError>) -> HandlerResult<()> {
    outcome.map_err(|error| store_failure(code, &error))
}

pub(crate) fn unreadable(code: &str, error: &Unreadable) -> Failure {
    Failure::with_code(code, error.to_string())
}
