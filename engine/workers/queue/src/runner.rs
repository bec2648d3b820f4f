//! Attempts: reads a message, picks the function, calls it, and says how that ended. Each attempt is a future that holds no
//! thread while it waits. Used by the driver. It must not know when an attempt is tried again.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_lite::FutureExt;
use parking_lot::RwLock;
use ringway::{Baggage, CallError, CallOptions, ErrorCode, Message, Started, TraceContext, Worker};
use ringway_protocol::naming;
use ringway_store::Store;
use ringway_worker_kit::crew::Task;
use ringway_worker_kit::{Condition, Spawner};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::attempt;
use crate::blobs::{Unread, read_message};
use crate::driver::Driver;
use crate::machine::{Delivery, Failed, Outcome};
use crate::record::{self, Head, Place, Unreadable};

/// How long an attempt waits that found its function busy or leaving, in milliseconds.
const BUSY_MS: u64 = 50;

/// How long an attempt waits until the catalog shows a function that the engine already knows, in milliseconds.
const NEWS_MS: u64 = 20;

/// How long the engine may take to say whether there is a function.
const ENGINE_MAX: Duration = Duration::from_secs(5);

/// What is bound to a queue.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) function: String,
    pub(crate) metadata: Option<Value>,
    /// The binding, of whichever type, with its condition.
    pub(crate) wants: Arc<dyn Wants>,
}

impl Target {
    /// The functions without which it can do nothing: the one that is bound, and the one that decides.
    pub(crate) fn needs(&self) -> Vec<String> {
        let decides = match self.wants.condition() {
            Condition::Function(id) => Some(id.clone()),
            _ => None,
        };
        [self.function.clone()].into_iter().chain(decides).collect()
    }
}

/// What is known of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It can be called.
    Here,
    /// The engine knows it, and the catalog will show it.
    Coming,
    Absent,
    /// The engine could not be asked.
    Unknown,
}

/// Something with a condition.
pub(crate) trait Wants: std::fmt::Debug + Send + Sync {
    fn condition(&self) -> &Condition;
}

impl<C: std::fmt::Debug + Send + Sync> Wants for ringway_worker_kit::Binding<C> {
    fn condition(&self) -> &Condition {
        &self.condition
    }
}

/// What is bound, by queue.
pub(crate) type Targets = HashMap<String, Arc<[Target]>>;

/// Runs attempts. What they need is apart, so that an attempt does not keep alive what runs it.
#[derive(Debug)]
pub(crate) struct Runner {
    caller: Arc<Caller>,
    spawner: Spawner,
}

/// What attempts need.
#[derive(Debug)]
struct Caller {
    worker: Worker,
    store: Arc<dyn Store>,
    targets: RwLock<Arc<Targets>>,
    turn: AtomicUsize,
}

impl Runner {
    pub(crate) fn new(worker: Worker, store: Arc<dyn Store>, spawner: Spawner) -> Self {
        let caller = Caller { worker, store, targets: RwLock::default(), turn: AtomicUsize::new(0) };
        Self { caller: Arc::new(caller), spawner }
    }

    /// Says what is bound to queues.
    pub(crate) fn set_targets(&self, targets: Targets) {
        *self.caller.targets.write() = Arc::new(targets);
    }

    /// Starts an attempt. Dropping the task gives it up.
    pub(crate) fn start(&self, delivery: Delivery, driver: Driver) -> Option<Task<()>> {
        let caller = Arc::clone(&self.caller);
        self.spawner.start(async move {
            let token = delivery.token;
            let attempt = AssertUnwindSafe(caller.attempt(&delivery));
            // Nothing here is meant to panic; if it does, the message must not stay on lease for ever.
            let outcome = attempt.catch_unwind().await.unwrap_or_else(|_| {
                let message = "the queue itself panicked during the attempt".to_owned();
                Outcome::Failed(Failed {
                    code: "QUEUE_ERROR".into(),
                    message,
                    retry_after_ms: None,
                    fatal: false,
                })
            });
            driver.ended(token, outcome);
        })
    }

    /// Looks whether functions that an attempt did not find are there after all; later ones are told of by a trigger.
    pub(crate) fn look_for(&self, functions: Vec<String>, driver: &Driver) {
        for function in functions {
            let (caller, driver) = (Arc::clone(&self.caller), driver.clone());
            let look = async move {
                let presence = caller.look(&function).await;
                driver.run(move |core| {
                    let now_ms = core.now_ms();
                    match presence {
                        Presence::Here | Presence::Coming => core.machine.found(now_ms, &function),
                        Presence::Unknown => core.machine.not_looked_for(now_ms, &function),
                        Presence::Absent => {}
                    }
                });
            };
            self.spawner.spawn(look);
        }
    }
}

impl Caller {
    /// Looks for a function: in the catalog, then at the engine, which knows before the catalog does. Holds no thread.
    async fn look(&self, function: &str) -> Presence {
        if self.worker.handle(function).replicas() > 0 {
            return Presence::Here;
        }
        // Where this worker's calls go; another namespace may have one of that name that it cannot call.
        let question = json!({ "function_id": function, "namespace": naming::NAMESPACE_DEFAULT });
        let options = CallOptions::new().timeout(ENGINE_MAX);
        match self.worker.trigger_json_async(naming::FUNCTIONS_INFO, &question, &options).await {
            Ok(_) => Presence::Coming,
            // An answer, and not a call that came to nothing.
            Err(error) if error.user_code.is_some() => Presence::Absent,
            Err(_) => Presence::Unknown,
        }
    }

    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let (head, data) = match read_message(&*self.store, &delivery.place) {
            Ok(Some(message)) => message,
            Ok(None) => return fatal("MESSAGE_LOST", "its record is not in the store".into()),
            Err(error) if error.lasts() => return fatal(error.code(), error.to_string()),
            Err(error) => {
                let (code, message) = (error.code().to_owned(), error.to_string());
                tracing::warn!(code, message, "a message cannot be read for now");
                return Outcome::Failed(Failed { code, message, retry_after_ms: None, fatal: false });
            }
        };
        let (function, target) = match head.function.clone() {
            Some(function) => (function, None),
            None => match self.target(&delivery.place.queue).await {
                Ok((targets, at)) => (targets[at].function.clone(), Some((targets, at))),
                Err(absent) => return Outcome::Absent(absent),
            },
        };
        let target = target.as_ref().map(|(targets, at)| &targets[*at]);
        let sender = head.trace.as_deref().and_then(|trace| trace.parse::<TraceContext>().ok());
        let mut span = attempt::begin(&self.worker, delivery, sender);
        let call = self.call(delivery, (&head, &data), &function, target, span.context());
        let outcome = span.within_async(call).await;
        attempt::end(&mut span, delivery, &message_id(delivery, &head), &function, &outcome);
        outcome
    }

    async fn call(
        &self,
        delivery: &Delivery,
        (head, data): (&Head, &RawValue),
        function: &str,
        target: Option<&Target>,
        trace: TraceContext,
    ) -> Outcome {
        if let Some(target) = target {
            match self.is_wanted(target.wants.condition(), data).await {
                Ok(true) => {}
                // Not wanted is done.
                Ok(false) => return Outcome::Succeeded,
                Err(error) => {
                    let decides = match target.wants.condition() {
                        Condition::Function(id) => id,
                        _ => function,
                    };
                    let absent = self.is_absent(decides).await;
                    return outcome_of(error, decides, absent);
                }
            }
        }
        let metadata = metadata(delivery, head, target.and_then(|target| target.metadata.as_ref()));
        let mut options = CallOptions::new().metadata(metadata);
        if trace.is_valid() {
            options = options.parent(trace);
        }
        if let Some(baggage) = head.baggage.as_deref().and_then(|baggage| Baggage::parse(baggage).ok()) {
            options = options.baggage(baggage);
        }
        if delivery.timeout_ms > 0 {
            options = options.timeout(Duration::from_millis(delivery.timeout_ms));
        }
        let handle = self.worker.handle(function);
        let message = match Message::json(data) {
            Ok(message) => message,
            Err(error) => return fatal("MESSAGE_UNREADABLE", error.to_string()),
        };
        match handle.call_async_with(&message, &options).await {
            Ok(_) => Outcome::Succeeded,
            Err(error) => {
                let absent = self.is_absent(function).await;
                outcome_of(error, function, absent)
            }
        }
    }

    async fn is_absent(&self, function: &str) -> bool {
        self.look(function).await == Presence::Absent
    }

    /// What is bound to a queue, one after the other where there are several, and passing over those whose functions are
    /// not there. If none can be called, the functions that are missing.
    async fn target(&self, queue: &str) -> Result<(Arc<[Target]>, usize), Vec<String>> {
        let Some(targets) = self.targets.read().get(queue).cloned() else { return Err(Vec::new()) };
        let count = targets.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or(0);
        if count == 1 {
            return Ok((targets, 0));
        }
        let order = || (0..count).map(|number| (turn + number) % count);
        let is_here = |at: &usize| {
            targets[*at].needs().iter().all(|function| self.worker.handle(function).replicas() > 0)
        };
        if let Some(at) = order().find(is_here) {
            return Ok((targets, at));
        }
        let mut missing = Vec::new();
        for at in order() {
            let before = missing.len();
            for function in targets[at].needs() {
                if self.is_absent(&function).await {
                    missing.push(function);
                }
            }
            if missing.len() == before {
                return Ok((targets, at));
            }
        }
        Err(missing)
    }

    async fn is_wanted(&self, condition: &Condition, data: &RawValue) -> Result<bool, CallError> {
        if matches!(condition, Condition::Always) {
            return Ok(true);
        }
        let unreadable =
            |error: serde_json::Error| CallError::new(ErrorCode::InvalidRequest, error.to_string());
        let payload: Value = serde_json::from_str(data.get()).map_err(unreadable)?;
        condition.holds_async(&self.worker, &payload).await
    }
}

/// A message with its data, unless that lies in a blob.
pub(crate) type Parts = (Head, Option<Box<RawValue>>);

/// Reads a message, but no blob.
pub(crate) fn read_parts(store: &dyn Store, place: &Place) -> Result<Option<Parts>, Unread> {
    let key = place.key();
    let Some(value) = store.get(record::MESSAGE, &key)? else { return Ok(None) };
    let mut head = record::decode::<Head>(record::MESSAGE, &key, &value.bytes)?;
    let data = match head.data.take() {
        Some(data) => Some(data),
        None if head.blob.is_some() => None,
        None => match store.get(record::BODY, &key)? {
            Some(value) => Some(record::decode_body(&key, &value.bytes)?),
            None => return Err(Unreadable::new(record::BODY, &key, "it is not there").into()),
        },
    };
    Ok(Some((head, data)))
}

/// The id that the sender knows.
fn message_id(delivery: &Delivery, head: &Head) -> String {
    head.receipt.clone().unwrap_or_else(|| delivery.place.id())
}

/// What the function reads beside the data.
fn metadata(delivery: &Delivery, head: &Head, of_trigger: Option<&Value>) -> Value {
    let mut metadata = json!({
        "queue": &*delivery.place.queue,
        "message_id": message_id(delivery, head),
        "attempt": delivery.attempt,
        "attempts_max": delivery.attempts_max,
        "status": if delivery.attempt == 1 { "first" } else { "retry" },
        "fencing_token": delivery.token,
        "enqueued_at_ms": head.enqueued_ms,
    });
    if let Some(of_trigger) = of_trigger {
        metadata["trigger"] = of_trigger.clone();
    }
    if !head.lane.is_empty() {
        metadata["group"] = json!(head.lane);
    }
    metadata
}

fn fatal(code: &str, message: String) -> Outcome {
    tracing::error!(code, message, "a message cannot be delivered");
    Outcome::Failed(Failed { code: code.to_owned(), message, retry_after_ms: None, fatal: true })
}

/// What the end of a call means for the message. `absent`: nobody offers the function now.
fn outcome_of(error: CallError, function: &str, absent: bool) -> Outcome {
    // An error of a call that the function made names another function, and is the function's own failure.
    let ours = error.function.as_deref().is_none_or(|named| named == function);
    let missing = || Outcome::Absent(vec![function.to_owned()]);
    let never_began = matches!(
        error.code,
        ErrorCode::Busy | ErrorCode::Draining | ErrorCode::StaleHandle | ErrorCode::EngineUnavailable
    );
    if ours && (error.code == ErrorCode::WorkerGone && error.started == Some(Started::No) || never_began) {
        let after_ms = if error.code == ErrorCode::WorkerGone { 0 } else { BUSY_MS };
        return if absent { missing() } else { Outcome::NotStarted { after_ms } };
    }
    if ours && error.code == ErrorCode::NotFound && error.user_code.is_none() {
        return if absent { missing() } else { Outcome::NotStarted { after_ms: NEWS_MS } };
    }
    let asked = error.details.as_deref().and_then(|details| details.get("retry_after_ms")?.as_u64());
    let by_code = || {
        let asks = error.user_code.as_deref() == Some("RETRY_AFTER");
        asks.then(|| error.message.trim().parse().ok()).flatten()
    };
    // Who died is not given time to get well: another replica, or the same one started again, may take over at once.
    let died = (ours && error.code == ErrorCode::WorkerGone).then_some(0);
    let retry_after_ms = asked.or_else(by_code).or(died);
    let code = error.user_code.clone().unwrap_or_else(|| error.code.as_str().to_owned());
    let message = error.message.clone();
    let fatal = error.details.as_deref().is_some_and(|details| details["retry"] == false);
    Outcome::Failed(Failed { code, message, retry_after_ms, fatal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_counts_as_an_attempt() {
        let check = |error: CallError, absent, expected: &Outcome| {
            assert_eq!(outcome_of(error, "f", absent), *expected);
        };
        let failed = |code: &str, message: &str, retry_after_ms| {
            Outcome::Failed(Failed {
                code: code.into(),
                message: message.into(),
                retry_after_ms,
                fatal: false,
            })
        };
        let gone = |started| {
            let mut error = CallError::new(ErrorCode::WorkerGone, "gone");
            error.started = started;
            error
        };
        check(gone(Some(Started::No)), false, &Outcome::NotStarted { after_ms: 0 });
        let absent = || Outcome::Absent(vec!["f".into()]);
        check(gone(Some(Started::No)), true, &absent());
        check(gone(Some(Started::Maybe)), true, &failed("worker_gone", "gone", Some(0)));
        check(CallError::function_not_found("f"), true, &absent());
        check(CallError::function_not_found("f"), false, &Outcome::NotStarted { after_ms: NEWS_MS });
        // What the function itself did not find is its failure.
        let nested = CallError::function_not_found("g");
        check(nested.clone(), true, &failed("not_found", &nested.message, None));
        check(CallError::new(ErrorCode::Busy, "full"), false, &Outcome::NotStarted { after_ms: BUSY_MS });
        let own = CallError::new(ErrorCode::HandlerError, "no").with_user_code("E1");
        check(own.clone(), false, &failed("E1", "no", None));
        let asks = own.with_details(json!({ "retry_after_ms": 70 }));
        check(asks, false, &failed("E1", "no", Some(70)));
        let asks = CallError::new(ErrorCode::HandlerError, "250").with_user_code("RETRY_AFTER");
        check(asks, false, &failed("RETRY_AFTER", "250", Some(250)));
        let hopeless = ringway::Failure::with_code("E2", "never").do_not_retry().into_error();
        let dead = Failed { code: "E2".into(), message: "never".into(), retry_after_ms: None, fatal: true };
        check(hopeless, false, &Outcome::Failed(dead));
    }
}
