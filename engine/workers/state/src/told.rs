//! One value on its way from the store's thread to whoever waits for it as a future. The future may be dropped before; then
//! the value goes nowhere. It must not know what the value is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

#[derive(Debug)]
struct Shared<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Where the value is told, once.
#[derive(Debug)]
pub(crate) struct Teller<T>(Arc<Mutex<Shared<T>>>);

/// The value, as soon as it is there.
#[derive(Debug)]
pub(crate) struct Told<T>(Arc<Mutex<Shared<T>>>);

/// Both ends.
pub(crate) fn told<T>() -> (Teller<T>, Told<T>) {
    let shared = Arc::new(Mutex::new(Shared { value: None, waker: None }));
    (Teller(Arc::clone(&shared)), Told(shared))
}

impl<T> Teller<T> {
    pub(crate) fn tell(self, value: T) {
        let waker = {
            let mut shared = self.0.lock();
            shared.value = Some(value);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Told<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut shared = self.0.lock();
        if let Some(value) = shared.value.take() {
            return Poll::Ready(value);
        }
        shared.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
