//! One commit whose end does two things: it tells whoever waits, and does what must follow whether or not anybody waits any
//! more. The store's own future does the first only, and a handler's future is dropped when its caller gives up. It must
//! not know what is committed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use ringway_store::{Batch, Durability, Store, StoreError};

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<u64, StoreError>>,
    waker: Option<Waker>,
}

/// A commit under way.
#[derive(Debug)]
pub(crate) struct Committing(Arc<Mutex<State>>);

/// Hands a batch over. Once it is on disk, and before this future says so, `then` runs on a thread of the store, in the
/// order of the commits; it must not wait.
pub(crate) fn durable(
    store: &dyn Store,
    batch: Batch,
    then: impl FnOnce() + Send + 'static,
) -> Result<Committing, StoreError> {
    let state = Arc::new(Mutex::new(State::default()));
    let told = Arc::clone(&state);
    let done = move |outcome: Result<u64, StoreError>| {
        if outcome.is_ok() {
            then();
        }
        let waker = {
            let mut state = told.lock();
            state.outcome = Some(outcome);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    store.submit(batch, Durability::Durable, Box::new(done))?;
    Ok(Committing(state))
}

impl Future for Committing {
    type Output = Result<u64, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
