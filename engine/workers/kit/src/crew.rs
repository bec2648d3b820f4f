//! The threads on which deliveries are begun and ended. A delivery is a future, so that a function that takes an hour holds
//! none of them. Used by workers that deliver much at once. It must not know what the futures do.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread::{Builder, JoinHandle};

use async_executor::Executor;
pub use async_executor::Task;
use futures_lite::future::block_on;
use parking_lot::Mutex;

/// Threads that run futures until they are told to stop.
#[derive(Debug)]
pub struct Crew {
    executor: Arc<Executor<'static>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop(Mutex<(bool, Vec<Waker>)>);

impl Stop {
    async fn told(&self) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.0 {
                return Poll::Ready(());
            }
            if !state.1.iter().any(|known| known.will_wake(context.waker())) {
                state.1.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn tell(&self) {
        let mut state = self.0.lock();
        state.0 = true;
        std::mem::take(&mut state.1).into_iter().for_each(Waker::wake);
    }
}

/// Hands futures to a crew, as long as it is there.
#[derive(Debug, Clone)]
pub struct Spawner(std::sync::Weak<Executor<'static>>);

impl Spawner {
    /// Runs a future; drops it if the crew has gone.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(task) = self.start(future) {
            task.detach();
        }
    }

    /// Runs a future until what is returned is dropped; `None` if the crew has gone.
    pub fn start(&self, future: impl Future<Output = ()> + Send + 'static) -> Option<Task<()>> {
        self.0.upgrade().map(|executor| executor.spawn(future))
    }
}

impl Crew {
    /// Starts threads with names that begin so, one at least.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(name: &str, count: usize) -> std::io::Result<Self> {
        let mut crew = Self { executor: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for number in 0..count.max(1) {
            let (executor, stop) = (Arc::clone(&crew.executor), Arc::clone(&crew.stop));
            let life = move || block_on(executor.run(stop.told()));
            crew.threads.push(Builder::new().name(format!("{name}-{number}")).spawn(life)?);
        }
        Ok(crew)
    }

    /// What to hand futures over with.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.executor))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.tell();
        for thread in self.threads.drain(..) {
            // A thread of the crew may be the one that drops it.
            if thread.thread().id() != std::thread::current().id() {
                let _panicked = thread.join();
            }
        }
    }
}
