//! How a message stands: `queue::receipt`.

use std::sync::Arc;

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_store::Store;
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unreadable;
use crate::driver::{Answer, Core, Driver};
use crate::machine::Standing;
use crate::record::{self, End, Place};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Request {
    /// The id that `queue::enqueue` answered.
    #[serde(default)]
    pub(super) id: String,
}

/// How a message stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Receipt {
    id: String,
    queue: String,
    /// `waiting`, `delayed`, `running`, `done`, `dead`, `cancelled` or `discarded`.
    pub(super) status: &'static str,
    /// Attempts that have begun.
    attempts: u32,
    /// Not to be delivered before, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<u64>,
    /// Why it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Receipt {
    fn new(id: &str, place: &Place, status: &'static str, attempts: u32) -> Self {
        let (id, queue) = (id.to_owned(), place.queue.to_string());
        Self { id, queue, status, attempts, due_ms: None, ended_ms: None, error: None }
    }

    /// Of a message that is no more.
    pub(super) fn of_done(id: &str, place: &Place, done: &record::DoneRecord) -> Self {
        let status = match done.end {
            End::Done => "done",
            End::Cancelled => "cancelled",
            End::Discarded => "discarded",
        };
        Self { ended_ms: Some(done.at_ms), ..Self::new(id, place, status, done.attempts) }
    }

    /// Whether nothing more happens to the message by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.ended_ms.is_some()
    }
}

pub(super) fn receipt(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::receipt", move |_: Context, request: Request| {
        let driver = driver.clone();
        async move { of(&driver, request.id).await }
    })
    .description("says how a message stands: waiting, running, done or dead")
    .idempotent()
}

/// The place of a message.
pub(super) fn place(store: &dyn Store, id: &str) -> HandlerResult<Place> {
    let key = id.as_bytes();
    let chosen = store.get(record::RECEIPT, key).map_err(|error| store_failure("RECEIPT_ERROR", &error))?;
    if let Some(value) = chosen {
        let read = record::decode::<record::ReceiptRecord>(record::RECEIPT, key, &value.bytes);
        let read = read.map_err(|error| unreadable("RECEIPT_ERROR", &error))?;
        return Ok(Place::new(&read.queue, read.seq));
    }
    Place::from_id(id).ok_or_else(|| not_found(id))
}

pub(super) fn not_found(id: &str) -> Failure {
    let text = format!(
        "no message `{id}` is known: it never was, or its receipt was kept as long as the queue keeps it"
    );
    Failure::with_code("NOT_FOUND", text)
}

/// How often it is looked once more for a message that was not found: it may have changed between two looks.
const LOOKS: usize = 3;

/// How a message stands. The store is read here, not on the driver's thread.
pub(super) async fn of(driver: &Driver, id: String) -> HandlerResult<Receipt> {
    let store = driver.ask(|core, answer| answer.give(Ok(Arc::clone(&core.store)))).await?;
    let place = place(&*store, &id)?;
    for _ in 0..LOOKS {
        let at = place.clone();
        let stands = move |core: &mut Core, answer: Answer<_>| {
            answer.give(Ok((core.machine.standing(&at), core.now_ms())));
        };
        let (standing, now_ms) = driver.ask(stands).await?;
        let found = match standing {
            Some(standing) => Some(alive(&id, &place, standing, now_ms)),
            None => ended(&*store, &id, &place)?,
        };
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(not_found(&id))
}

fn alive(id: &str, place: &Place, standing: Standing, now_ms: u64) -> Receipt {
    let delayed = standing.due_ms > now_ms;
    let status = match (standing.running, delayed) {
        (true, _) => "running",
        (false, true) => "delayed",
        (false, false) => "waiting",
    };
    let due_ms = (status == "delayed").then_some(standing.due_ms);
    let attempts = standing.attempts.saturating_add(u32::from(standing.running));
    Receipt { due_ms, ..Receipt::new(id, place, status, attempts) }
}

fn ended(store: &dyn Store, id: &str, place: &Place) -> HandlerResult<Option<Receipt>> {
    let key = place.key();
    let snapshot = store.snapshot().map_err(|error| store_failure("RECEIPT_ERROR", &error))?;
    let get = |table: &str| snapshot.get(table, &key).map_err(|error| store_failure("RECEIPT_ERROR", &error));
    if let Some(value) = get(record::DEAD)? {
        let dead = record::decode::<record::DeadRecord>(record::DEAD, &key, &value.bytes);
        let dead = dead.map_err(|error| unreadable("RECEIPT_ERROR", &error))?;
        let error = Some(format!("{}: {}", dead.code, dead.message));
        let receipt = Receipt::new(id, place, "dead", dead.attempts);
        return Ok(Some(Receipt { ended_ms: Some(dead.at_ms), error, ..receipt }));
    }
    let Some(value) = get(record::DONE)? else { return Ok(None) };
    let done = record::decode::<record::DoneRecord>(record::DONE, &key, &value.bytes);
    let done = done.map_err(|error| unreadable("RECEIPT_ERROR", &error))?;
    Ok(Some(Receipt::of_done(id, place, &done)))
}
