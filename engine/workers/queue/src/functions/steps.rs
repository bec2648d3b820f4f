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

use super::{check_name, unreadable, written};
use crate::driver::{Answer, Core, Driver};
use crate::machine::{Ticket, Token};
use crate::record::{self, Place};

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
            // The handler names it the same the next time.
            check_name("step", &request.name, "INVALID_STEP").map_err(Failure::do_not_retry)?;
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
                answer.give(Ok(core.step_usages.contains_key(&token)));
            };
            if !driver.ask(known).await? {
                load(&driver, &request.message_id, token).await?;
            }
            driver.ask(move |core, answer| step(core, &request, answer)).await
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

/// The message that is on lease by a token.
fn leased(core: &Core, id: &str, token: Token) -> HandlerResult<Place> {
    core.machine.leased(token, id).ok_or_else(|| {
        let text = format!(
            "the attempt with token {token} of message `{id}` is over: it was given up, or the queue has started anew and delivers the message again; end the handler"
        );
        Failure::with_code("LEASE_LOST", text)
    })
}

/// The finished steps of a message that is on lease. The store is read here, not on the driver's thread; only who has the lease
/// writes to them.
async fn load(driver: &Driver, id: &str, token: Token) -> HandlerResult<Vec<Kept>> {
    let of = id.to_owned();
    let find = move |core: &mut Core, answer: Answer<_>| {
        answer.give(leased(core, &of, token).map(|place| (place, Arc::clone(&core.store))));
    };
    let (place, store) = driver.ask(find).await?;
    let steps = read(&*store, &place)?;
    drop(store);
    let (of, usage) = (id.to_owned(), Usage::of(&steps));
    let note = move |core: &mut Core, answer: Answer<()>| {
        answer.give(leased(core, &of, token).map(|_| {
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

fn step(core: &mut Core, request: &StepRequest, answer: Answer<StepAnswer>) {
    match keep(core, request) {
        Ok(ticket) => core.after(
            ticket,
            Box::new(move |_, outcome| {
                answer.give(written(CODE, outcome).map(|()| StepAnswer { kept: true }));
            }),
        ),
        Err(failure) => answer.give(Err(failure)),
    }
}

fn keep(core: &mut Core, request: &StepRequest) -> HandlerResult<Ticket> {
    let StepRequest { message_id, fencing_token: token, name, ordinal, value } = request;
    let place = leased(core, message_id, *token)?;
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
    Ok(core.machine.keep_step(&place, *ordinal, name, bytes))
}
