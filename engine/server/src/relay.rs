//! Calls from one zone into another. The engine's worker takes them, asks the core at each whether its caller may make it
//! and where it goes, makes the call itself, and passes the answer back. Payloads are copied on both ways into memory of
//! the zone that they go to (`zone_of` of the worker's builder sees to that), so that no zone sees memory or descriptors
//! of another. What the caller set travels on: deadline, metadata, baggage, trace, and cancellation, since giving up the
//! one call drops the other.
//!
//! It must not know what is called, nor decide who may.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use ringway::{
    CallError, CallOptions, ErrorCode, Failure, Handle, Message, Relayed, Started, StreamReader,
    StreamWriter, Worker, WorkerId, relayed_function,
};
use ringway_engine_core::RelayTarget;

use crate::counters;
use crate::limits;
use crate::shared::Shared;

/// Calls that are being passed on, by their caller.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    by_caller: Mutex<HashMap<WorkerId, usize>>,
}

/// One of them; the place is free again when it is dropped.
struct Place<'a> {
    in_flight: &'a InFlight,
    caller: WorkerId,
}

impl InFlight {
    /// Takes a place for a caller's call.
    fn enter(&self, caller: WorkerId) -> Result<Place<'_>, CallError> {
        let mut by_caller = self.by_caller.lock();
        let all: usize = by_caller.values().sum();
        let own = by_caller.get(&caller).copied().unwrap_or(0);
        if own >= limits::RELAYED_PER_CALLER_MAX {
            return Err(CallError::busy(
                "calls of this worker into other zones",
                limits::RELAYED_PER_CALLER_MAX as u64,
            ));
        }
        if all >= limits::RELAYED_MAX {
            return Err(CallError::busy("calls between zones", limits::RELAYED_MAX as u64));
        }
        by_caller.insert(caller, own + 1);
        Ok(Place { in_flight: self, caller })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut by_caller = self.in_flight.by_caller.lock();
        let left = by_caller.get(&self.caller).map_or(0, |own| own - 1);
        if left == 0 {
            by_caller.remove(&self.caller);
        } else {
            by_caller.insert(self.caller, left);
        }
    }
}

/// Has the engine's worker pass on calls into other zones.
pub(crate) fn serve(worker: &Worker, shared: &Arc<Shared>) -> Result<(), CallError> {
    let shared = Arc::clone(shared);
    let served = worker.serve_relayed(move |call| {
        let shared = Arc::clone(&shared);
        async move {
            counters::count(&shared.counters.relayed_calls);
            let passed = pass_on(&shared, call).await;
            match &passed {
                Err(error) if error.code == ErrorCode::Forbidden => {
                    counters::count(&shared.counters.relayed_forbidden);
                }
                Err(_) => counters::count(&shared.counters.relayed_errors),
                Ok(_) => {}
            }
            passed.map_err(Failure::from)
        }
    });
    served.map_err(Failure::into_error)
}

async fn pass_on(shared: &Shared, call: Relayed) -> Result<Message, CallError> {
    let caller = call.context.caller();
    // Whoever is refused holds nothing up, so permission is asked before anything else.
    let mut target = shared.core.read().relay(caller, call.index)?;
    let _place = shared.relayed.enter(caller)?;
    let options = call.options();
    let bytes = call.message.total_bytes();
    counters::add(&shared.counters.relayed_bytes, bytes);
    if bytes > limits::RELAYED_AT_ONCE_BYTES_MAX {
        leave_the_dispatcher().await;
    }
    if target.streams && !call.is_send {
        let Relayed { context, message, input, output, .. } = call;
        let handle = handle(context.worker(), &target);
        return stream(shared, &handle, message, &options, input, output).await;
    }
    let Relayed { context, message, is_send, index, .. } = call;
    let mut pause = limits::RELAY_PAUSE_FIRST;
    for attempt in 1.. {
        let handle = handle(context.worker(), &target);
        let error = match once(&handle, &message, &options, is_send).await {
            Ok(reply) => {
                counters::add(&shared.counters.relayed_bytes, reply.total_bytes());
                return Ok(reply);
            }
            Err(error) => error,
        };
        if attempt == limits::RELAY_ATTEMPTS_MAX || !may_be_repeated(&error, target.idempotent) {
            return Err(error);
        }
        // The catalog is about to say what the callee has said already.
        context.worker().pause(pause).await;
        pause *= 2;
        target = shared.core.read().relay(caller, index)?;
    }
    Err(CallError::draining(target.key.id.as_str()))
}

/// Whether a call has not run, so that it may go to another replica, or to the same one as the catalog has it by then.
fn may_be_repeated(error: &CallError, idempotent: bool) -> bool {
    match (error.code, error.started) {
        (ErrorCode::Draining | ErrorCode::StaleHandle, None) | (ErrorCode::WorkerGone, Some(Started::No)) => {
            true
        }
        (ErrorCode::WorkerGone, Some(Started::Maybe)) => idempotent,
        _ => false,
    }
}

fn handle(worker: &Worker, target: &RelayTarget) -> Handle {
    let replicas = target.replicas.iter();
    let replicas = replicas
        .map(|(worker, index, generation)| relayed_function(&target.key.id, *worker, *index, *generation));
    worker.fixed_handle(replicas.collect())
}

async fn once(
    handle: &Handle,
    message: &Message,
    options: &CallOptions,
    is_send: bool,
) -> Result<Message, CallError> {
    if is_send {
        return handle.send(message, options).map(|()| Message::empty());
    }
    handle.start(message, options)?.await
}

/// Passes on a call with streams: items go both ways, as they come and as far as their readers have room, until the callee
/// answers.
async fn stream(
    shared: &Shared,
    handle: &Handle,
    message: Message,
    options: &CallOptions,
    input: StreamReader,
    output: StreamWriter,
) -> Result<Message, CallError> {
    let (writer, reader, reply) = handle.stream(&message, options)?.split();
    drop(message);
    let count = |item: &Message| counters::add(&shared.counters.relayed_bytes, item.total_bytes());
    let mut upwards = pin!(async {
        let Some(writer) = writer else { return };
        // An error here is the end of one of the two calls, which the other direction hears of too.
        while let Ok(Some(item)) = input.recv_async().await {
            count(&item);
            if writer.send_async(item).await.is_err() {
                break;
            }
        }
    });
    let mut downwards = pin!(async {
        while let Some(item) = reader.recv_async().await? {
            count(&item);
            output.send_async(item).await?;
        }
        output.finish();
        let reply = reply.await?;
        count(&reply);
        Ok(reply)
    });
    let mut up_ended = false;
    std::future::poll_fn(|cx| {
        if !up_ended {
            up_ended = upwards.as_mut().poll(cx).is_ready();
        }
        downwards.as_mut().poll(cx)
    })
    .await
}

/// Goes on on a thread of the pool: the one that reads the rings is not to copy what is large.
async fn leave_the_dispatcher() {
    let mut left = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut left, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The zone of a worker, for the engine's worker to keep zones apart.
pub(crate) fn zone_of(shared: &Shared, worker: WorkerId) -> Option<String> {
    shared.core.read().worker(worker).map(|worker| worker.zone.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_places_and_gets_them_back() {
        let in_flight = InFlight::default();
        let (a, b) = (WorkerId::new(1), WorkerId::new(2));
        let held: Vec<_> = (0..limits::RELAYED_PER_CALLER_MAX)
            .map(|_| in_flight.enter(a).unwrap_or_else(|e| panic!("{e}")))
            .collect();
        assert_eq!(in_flight.enter(a).err().map(|error| error.code), Some(ErrorCode::Busy));
        assert!(in_flight.enter(b).is_ok(), "others have their own");
        drop(held);
        assert!(in_flight.enter(a).is_ok() && in_flight.by_caller.lock().is_empty());
    }

    #[test]
    fn only_what_has_not_run_is_repeated() {
        let gone = |started| CallError::worker_gone(WorkerId::new(1), started);
        assert!(may_be_repeated(&gone(Started::No), false));
        assert!(!may_be_repeated(&gone(Started::Maybe), false));
        assert!(may_be_repeated(&gone(Started::Maybe), true));
        assert!(may_be_repeated(&CallError::stale_handle(1, 2), false));
        assert!(!may_be_repeated(&CallError::handler("no"), true));
    }
}
