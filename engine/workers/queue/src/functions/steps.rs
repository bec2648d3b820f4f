//! What attempts keep of their steps: `queue::steps` and `queue::step`, which the SDK calls on behalf of handlers. Both are
//! fenced by the attempt's lease, so that an attempt that is over writes nothing. Results lie beside the message, also while
//! it is dead, and go with its receipt. It must not know what a step does.

use std::collections::HashMap;
use std::sync::Arc;

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_store::{Scan, Store};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{check_length, check_name, receipt, unreadable, written};
use crate::driver::{Answer, Core, Driver};
use crate::machine::{Ticket, Token};
use crate::record::{self, Place};

/// Bytes of a step's name.
const NAME_BYTES_MAX: usize = 128;

/// Bytes of the result of one step.
const STEP_BYTES_MAX: usize = 256 << 10;

/// Steps of one message.
const STEPS_MAX: usize = 1000;

/// Bytes of the results of one message, so that they travel in one answer.
const STEPS_BYTES_MAX: usize = 8 << 20;

/// The code when steps cannot be read or written.
const CODE: &str = "STEP_ERROR";

/// Steps and bytes that a message has kept, by the lease of the attempt that adds to them.
pub(crate) type Usages = HashMap<Token, Usage>;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    steps: usize,
    bytes: usize,
}

impl Usage {
    fn of(steps: &[Kept]) -> Self {
        Self { steps: steps.len(), bytes: steps.iter().map(|step| step.value.get().len()).sum() }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
struct StepsRequest {
    /// The id of the message that is being delivered.
    #[serde(default)]
    message_id: String,
    /// The token of the attempt, from the metadata of its call.
    #[serde(default)]
    fencing_token: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StepsAnswer {
    steps: Vec<Kept>,
}

/// A step that is finished.
#[derive(Debug, Serialize, JsonSchema)]
struct Kept {
    name: String,
    /// How many steps of the same name the attempt had begun before it.
    ordinal: u32,
    /// Its result.
    #[schemars(with = "Value")]
    value: Box<RawValue>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct StepRequest {
    /// The id of the message that is being delivered.
    #[serde(default)]
    message_id: String,
    /// The token of the attempt, from the metadata of its call.
    #[serde(default)]
    fencing_token: u64,
    /// The name of the step.
    #[serde(default)]
    name: String,
    /// How many steps of the same name the attempt has begun before it.
    #[serde(default)]
    ordinal: u32,
    /// Its result.
    #[schemars(with = "Value")]
    value: Box<RawValue>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StepAnswer {
    /// Always true: what is not kept is an error.
    kept: bool,
}

pub(super) fn all(driver: &Driver) -> Vec<Function> {
    let (of_steps, of_step) = (driver.clone(), driver.clone());
    let steps = Function::json_async("queue::steps", move |_: Context, request: StepsRequest| {
        let driver = of_steps.clone();
        async move {
            let steps = load(&driver, &request.message_id, request.fencing_token).await?;
            Ok(StepsAnswer { steps })
        }
    });
    let step = Function::json_async("queue::step", move |_: Context, request: StepRequest| {
        let driver = of_step.clone();
        async move {
            check_name("step", &request.name, "INVALID_STEP")?;
            check_length("name of a step", &request.name, NAME_BYTES_MAX)?;
            let found = request.value.get().len();
            if found > STEP_BYTES_MAX {
                let name = &request.name;
                let text = format!(
                    "wanted a result of at most {STEP_BYTES_MAX} bytes of step `{name}`, found {found}: put it into `blob::put`, and return its id from the step"
                );
                return Err(Failure::with_code("STEP_TOO_LARGE", text).do_not_retry());
            }
            let token = request.fencing_token;
            let known = move |core: &mut Core, answer: Answer<_>| {
                answer.give(Ok((core.step_usages.contains_key(&token), Arc::clone(&core.store))));
            };
            let (known, store) = driver.ask(known).await?;
            if !known {
                load(&driver, &request.message_id, token).await?;
            }
            let place = receipt::place(&*store, &request.message_id)?;
            drop(store);
            driver.ask(move |core, answer| step(core, &place, &request, answer)).await
        }
    });
    vec![
        steps
            .description("the finished steps of the message that an attempt has on lease")
            .internal()
            .idempotent(),
        step.description("keeps the result of a step of the attempt that has this lease")
            .internal()
            .idempotent(),
    ]
}

/// Checks that a message is on lease by a token.
fn check_lease(core: &Core, place: &Place, id: &str, token: Token) -> HandlerResult<()> {
    if core.machine.leased(token).as_ref() == Some(place) {
        return Ok(());
    }
    let text = format!(
        "the attempt with token {token} of message `{id}` is over: it was given up, or the queue has started anew and delivers the message again; end the handler"
    );
    Err(Failure::with_code("LEASE_LOST", text))
}

/// The finished steps of a message that is on lease. The store is read here, not on the driver's thread; only who has the lease
/// writes to them.
async fn load(driver: &Driver, id: &str, token: Token) -> HandlerResult<Vec<Kept>> {
    let store = driver.ask(|core, answer| answer.give(Ok(Arc::clone(&core.store)))).await?;
    let place = receipt::place(&*store, id)?;
    let (at, of) = (place.clone(), id.to_owned());
    driver.ask(move |core, answer| answer.give(check_lease(core, &at, &of, token))).await?;
    let steps = read(&*store, &place)?;
    drop(store);
    let (of, usage) = (id.to_owned(), Usage::of(&steps));
    let note = move |core: &mut Core, answer: Answer<()>| {
        answer.give(check_lease(core, &place, &of, token).map(|()| {
            // What was added meanwhile was counted.
            core.step_usages.entry(token).or_insert(usage);
        }));
    };
    driver.ask(note).await?;
    Ok(steps)
}

fn read(store: &dyn Store, place: &Place) -> HandlerResult<Vec<Kept>> {
    let scan = Scan::table(record::STEP).prefix(&place.key());
    let entries = store.scan(&scan).map_err(|error| store_failure(CODE, &error))?;
    let read = |entry: ringway_store::Entry| {
        let (ordinal, name) = Place::parse_step(&entry.key)?;
        let value = record::decode::<Box<RawValue>>(record::STEP, &entry.key, &entry.value.bytes)?;
        Ok(Kept { name, ordinal, value })
    };
    let kept: Result<_, record::Unreadable> = entries.into_iter().map(read).collect();
    kept.map_err(|error| unreadable(CODE, &error))
}

fn step(core: &mut Core, place: &Place, request: &StepRequest, answer: Answer<StepAnswer>) {
    match keep(core, place, request) {
        Ok(ticket) => core.after(
            ticket,
            Box::new(move |_, outcome| {
                answer.give(written(CODE, outcome).map(|()| StepAnswer { kept: true }));
            }),
        ),
        Err(failure) => answer.give(Err(failure)),
    }
}

fn keep(core: &mut Core, place: &Place, request: &StepRequest) -> HandlerResult<Ticket> {
    let StepRequest { message_id, fencing_token: token, name, ordinal, value } = request;
    check_lease(core, place, message_id, *token)?;
    // Whoever has the lease has read how much there is.
    let mut usage = core.step_usages.get(token).copied().unwrap_or_default();
    usage.steps += 1;
    usage.bytes += value.get().len();
    if usage.steps > STEPS_MAX || usage.bytes > STEPS_BYTES_MAX {
        let text = format!(
            "wanted at most {STEPS_MAX} steps with results of {STEPS_BYTES_MAX} bytes in all for message `{message_id}`, found {} with {}: split the work into several messages",
            usage.steps, usage.bytes
        );
        return Err(Failure::with_code("STEP_LIMIT", text).do_not_retry());
    }
    core.step_usages.insert(*token, usage);
    let bytes = record::encode_body(value);
    core.machine.keep_step(*token, *ordinal, name, bytes).ok_or_else(|| receipt::not_found(message_id))
}
