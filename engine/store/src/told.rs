//! One value on its way from a thread that learns it to whoever waits for it, as a future or by waiting. What waits may
//! go before; then the value goes nowhere. Commits are told by it. It must not know what the value is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<(Option<T>, Option<Waker>)>,
    told: Condvar,
}

/// Where the value is told, once.
#[derive(Debug)]
pub(crate) struct Teller<T>(Arc<Shared<T>>);

/// The value, as soon as it is there: a future, which needs no runtime, or something to wait for. Dropping it changes
/// nothing.
#[derive(Debug)]
pub struct Told<T>(Arc<Shared<T>>);

/// Both ends.
pub(crate) fn told<T>() -> (Teller<T>, Told<T>) {
    let shared = Arc::new(Shared { state: Mutex::new((None, None)), told: Condvar::new() });
    (Teller(Arc::clone(&shared)), Told(shared))
}

impl<T> Teller<T> {
    pub(crate) fn tell(self, value: T) {
        let waker = {
            let mut state = self.0.state.lock();
            state.0 = Some(value);
            state.1.take()
        };
        self.0.told.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Told<T> {
    /// Waits for the value.
    #[must_use]
    pub fn wait(self) -> T {
        let mut state = self.0.state.lock();
        loop {
            if let Some(value) = state.0.take() {
                return value;
            }
            self.0.told.wait(&mut state);
        }
    }
}

impl<T> Future for Told<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.state.lock();
        if let Some(value) = state.0.take() {
            return Poll::Ready(value);
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_value_is_told_to_a_future_and_to_a_thread_before_and_after() {
        for early in [true, false] {
            let (teller, waiting) = told();
            let (other, polled) = told();
            let thread = std::thread::spawn(move || {
                if !early {
                    std::thread::yield_now();
                }
                teller.tell(7);
                other.tell(8);
            });
            assert_eq!((waiting.wait(), block_on(polled)), (7, 8));
            thread.join().unwrap();
        }
    }

    #[test]
    fn whoever_polled_last_is_woken() {
        let (teller, mut polled) = told();
        block_on(async {
            assert!(poll_once(&mut polled).await.is_none());
            std::thread::spawn(move || teller.tell(1));
            assert_eq!(polled.await, 1);
        });
    }
}
