//! What a worker does while another one lies to it: it serves one function of every shape, and calls the other's
//! functions all the time. Used by the tests with a hostile peer, in their own process and in another. It must not know
//! how its peers lie.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway::{
    CallError, CallOptions, Context, Encoding, ErrorCode, Function, HandlerResult, Message, View, Worker,
};
use ringway_ipc::clock::now_ns;

use crate::dice::Dice;
use crate::service::{self, BLOB_BYTES};

/// How long the victim waits for an answer of a peer that may not give any.
const PATIENCE: Duration = Duration::from_millis(30);

/// What a typed function is asked. Its archive has pointers, so that bytes which do not validate would be missed.
#[derive(
    Debug,
    Clone,
    PartialEq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
pub struct Order {
    /// Comes back in the answer.
    pub number: u64,
    /// Its length is added up.
    pub name: String,
    /// Are added up.
    pub amounts: Vec<u32>,
}

/// What it answers.
#[derive(
    Debug,
    Clone,
    PartialEq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
pub struct Total {
    /// The order's number.
    pub number: u64,
    /// The length of the name and all amounts.
    pub sum: u64,
    /// The order's name.
    pub name: String,
}

impl Order {
    /// An order that fits a slot.
    #[must_use]
    pub fn small(number: u64) -> Self {
        let low = u32::try_from(number & 0xffff).unwrap_or(0);
        Self { number, name: format!("order {low}"), amounts: vec![low, 1, 2] }
    }

    /// The right answer.
    #[must_use]
    pub fn total(&self) -> Total {
        let amounts: u64 = self.amounts.iter().map(|amount| u64::from(*amount)).sum();
        Total { number: self.number, sum: amounts + self.name.len() as u64, name: self.name.clone() }
    }
}

/// The functions of [`service::functions`], and `PREFIX::typed`, `…::typed-pooled`, `…::json`, `…::stream-async`, and
/// `…::never`, which ends only when its caller gives up.
#[must_use]
pub fn functions(prefix: &str) -> Vec<Function> {
    let name = |shape: &str| format!("{prefix}::{shape}");
    let mut all = service::functions(prefix, |_| {});
    all.extend([
        Function::typed(&name("typed"), total).inline(),
        Function::typed(&name("typed-pooled"), total).pooled(),
        Function::json(&name("json"), |_, order: Order| Ok(order.total())),
        Function::stream_async(&name("stream-async"), |_, request, input, output| async move {
            while let Some(item) = input.recv_async().await? {
                output.send_async(item).await?;
            }
            Ok(request)
        }),
        Function::raw_async(&name("never"), |_, _| async {
            futures_lite::future::pending::<()>().await;
            Ok(Message::empty())
        }),
    ]);
    all
}

fn total(_: &Context, order: View<'_, Order>) -> HandlerResult<Total> {
    Ok(order.to_value()?.total())
}

/// Calls a typed function, as an archive and as JSON, and checks both answers.
///
/// # Errors
/// As the call ended; `invalid_request` for a wrong answer.
pub fn call_typed(worker: &Worker, prefix: &str, number: u64) -> Result<(), CallError> {
    let order = Order::small(number);
    for shape in ["typed", "typed-pooled"] {
        let found: Total = worker.trigger(&format!("{prefix}::{shape}"), &order)?;
        right(&found, &order)?;
    }
    let json = serde_json::to_value(&order).map_err(|error| unfit(&error))?;
    let found = worker.trigger_json(&format!("{prefix}::json"), &json)?;
    right(&serde_json::from_value(found).map_err(|error| unfit(&error))?, &order)
}

fn unfit(error: &serde_json::Error) -> CallError {
    CallError::new(ErrorCode::InvalidRequest, error.to_string())
}

fn right(found: &Total, order: &Order) -> Result<(), CallError> {
    if *found == order.total() {
        return Ok(());
    }
    Err(CallError::new(ErrorCode::InvalidRequest, format!("{found:?} is not the answer to {order:?}")))
}

/// What a victim's own calls came to.
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
pub struct Calls {
    /// Calls that ended, in whatever way.
    pub ended: u64,
    /// Of these, with an answer that passed for one.
    pub answered: u64,
    /// The others, by the code of their error.
    pub failed: BTreeMap<String, u64>,
    /// The longest time that one took, in nanoseconds.
    pub longest_ns: u64,
}

/// Calls the functions of a peer that may lie, in every way there is, until told to stop. Whatever it answers, each call
/// ends.
pub fn keep_calling(worker: &Worker, prefix: &str, seed: u64, stop: &AtomicBool) -> Calls {
    let (mut dice, mut calls) = (Dice::new(seed), Calls::default());
    while !stop.load(Ordering::Relaxed) {
        let begun_ns = now_ns();
        let outcome = one_call(worker, prefix, &mut dice);
        calls.ended += 1;
        calls.longest_ns = calls.longest_ns.max(now_ns() - begun_ns);
        calls.answered += u64::from(outcome.is_ok());
        if let Err(error) = outcome {
            *calls.failed.entry(error.code.as_str().to_owned()).or_default() += 1;
            // A peer that closes every channel at once must not keep this process busy with opening them.
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    calls
}

fn one_call(worker: &Worker, prefix: &str, dice: &mut Dice) -> Result<(), CallError> {
    let options = CallOptions::new().timeout(PATIENCE);
    let id = |shape: &str| format!("{prefix}::{shape}");
    let body = Message::bytes(&dice.bits().to_le_bytes());
    match dice.below(7) {
        0 => {
            let order = Order::small(dice.below(1000));
            let handle = worker.function::<Order, Total>(&id("typed"));
            handle.call_with(&order, &options)?.value().map(drop)
        }
        1 => worker.trigger_json_with(&id("json"), &serde_json::json!({"a": [1, "two"]}), &options).map(drop),
        2 => read(&worker.handle(&id("bytes")).call_with(&body, &options)?),
        3 => {
            let mut loan = worker.loan(BLOB_BYTES)?;
            loan[..8].copy_from_slice(&dice.bits().to_le_bytes());
            let message = Message::from_loan(Encoding::Bytes, loan);
            read(&worker.handle(&id("blob")).call_with(&message, &options)?)
        }
        4 => stream(worker, &id("stream"), &body, &options),
        5 => {
            let handle = worker.handle(&id("bytes"));
            let pending: Result<Vec<_>, _> = (0..8).map(|_| handle.start(&body, &options)).collect();
            let mut pending = pending?;
            // Half of them are given up while they are under way.
            pending.truncate(4);
            pending.into_iter().try_for_each(|pending| read(&pending.wait()?))
        }
        _ => worker.handle(&id("bytes")).send(&body, &options),
    }
}

/// Looks at every byte of an answer, where it lies.
fn read(answer: &Message) -> Result<(), CallError> {
    let mut sum = answer.body().iter().fold(0u64, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    for part in answer.attachments() {
        sum = part.payload().iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
    std::hint::black_box(sum);
    Ok(())
}

fn stream(worker: &Worker, id: &str, body: &Message, options: &CallOptions) -> Result<(), CallError> {
    let mut call = worker.handle(id).stream(body, options)?;
    for _ in 0..4 {
        call.send(body.clone())?;
    }
    call.finish();
    // No more than a peer that streams without end may take of this thread's time.
    for _ in 0..64 {
        match call.recv()? {
            Some(item) => read(&item)?,
            None => return read(&call.end()?),
        }
    }
    Ok(())
}
