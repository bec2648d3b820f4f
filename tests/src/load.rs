//! Calls of every shape, one after the other, each with the story of how it ended. Used by the tests that kill, on both
//! sides of the kill. It must not know who dies.

use std::sync::atomic::{AtomicBool, Ordering};

use ringway::{CallError, CallOptions, Encoding, ErrorCode, Message, Worker};
use ringway_ipc::clock::now_ns;

use crate::dice::Dice;
use crate::service::BLOB_BYTES;

/// How a call came to its end.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The call's number, which its handler tells when it runs.
    pub call: u64,
    /// The function's last word.
    pub shape: &'static str,
    /// When it was made, in nanoseconds of `CLOCK_MONOTONIC`.
    pub begun_ns: u64,
    /// When it was over.
    pub ended_ns: u64,
    /// How it ended.
    pub outcome: Result<(), CallError>,
}

/// What shapes of calls there are.
pub const SHAPES: &[&str] = &["inline", "pooled", "async", "slow", "blob", "stream", "window"];

/// Makes one call of a shape, or several at once for `window`, and waits for the end of each.
pub fn call(worker: &Worker, prefix: &str, shape: &'static str, call: u64, ended: &mut Vec<Ended>) {
    let begun_ns = now_ns();
    let mut over = |call, outcome| ended.push(Ended { call, shape, begun_ns, ended_ns: now_ns(), outcome });
    match shape {
        "window" => window(worker, prefix, call, &mut over),
        "blob" => over(call, blob(worker, &format!("{prefix}::blob"), call)),
        "stream" => over(call, stream(worker, &format!("{prefix}::stream"), call)),
        shape => over(call, plain(worker, &format!("{prefix}::{shape}"), call)),
    }
}

/// Makes calls of random shapes until `stop`, or until one ends because the worker is gone. Numbers count up from
/// `first`.
pub fn until_gone(worker: &Worker, prefix: &str, first: u64, stop: &AtomicBool) -> Vec<Ended> {
    let mut dice = Dice::new(first);
    let mut ended = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        call(worker, prefix, dice.one_of(SHAPES), number, &mut ended);
        number += 16;
        if ended.iter().rev().take(8).any(|end| end.outcome.is_err()) {
            break;
        }
    }
    ended
}

fn checked(reply: &Message, call: u64) -> Result<(), CallError> {
    if reply.body().first_chunk() == Some(&call.to_le_bytes()) {
        return Ok(());
    }
    Err(CallError::new(
        ErrorCode::InvalidRequest,
        format!("wanted the reply to call {call}, found another's"),
    ))
}

fn plain(worker: &Worker, id: &str, call: u64) -> Result<(), CallError> {
    checked(&worker.handle(id).call(&Message::bytes(&call.to_le_bytes()))?, call)
}

/// Calls with a payload that is read in place, and checks the one that comes back.
///
/// # Errors
/// As the call ended.
pub fn blob(worker: &Worker, id: &str, call: u64) -> Result<(), CallError> {
    let mut loan = worker.loan(BLOB_BYTES)?;
    loan[..8].copy_from_slice(&call.to_le_bytes());
    checked(&worker.handle(id).call(&Message::from_loan(Encoding::Bytes, loan))?, call)
}

fn stream(worker: &Worker, id: &str, call: u64) -> Result<(), CallError> {
    let mut streaming =
        worker.handle(id).stream(&Message::bytes(&call.to_le_bytes()), &CallOptions::new())?;
    for item in 0..12u64 {
        streaming.send(Message::bytes(&item.to_le_bytes()))?;
    }
    streaming.finish();
    let mut items = 0;
    while streaming.recv()?.is_some() {
        items += 1;
    }
    checked(&streaming.end()?, call)?;
    if items == 12 {
        Ok(())
    } else {
        Err(CallError::new(ErrorCode::InvalidRequest, format!("{items} of 12 items")))
    }
}

/// Twelve calls at once: some are queued at the callee, some still in the ring.
fn window(worker: &Worker, prefix: &str, first: u64, over: &mut dyn FnMut(u64, Result<(), CallError>)) {
    let handles = ["inline", "pooled", "slow"].map(|shape| worker.handle(&format!("{prefix}::{shape}")));
    let numbers = first..first + 12;
    let start = |call: u64| {
        let handle = &handles[usize::try_from(call % 3).unwrap_or(0)];
        handle.start(&Message::bytes(&call.to_le_bytes()), &CallOptions::new())
    };
    let pending: Vec<_> = numbers.clone().map(start).collect();
    for (call, pending) in numbers.zip(pending) {
        over(call, pending.and_then(ringway::Pending::wait).and_then(|reply| checked(&reply, call)));
    }
}
