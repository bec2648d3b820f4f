//! Futures that are ready at a time of the clock: one thread that sleeps until the first of them. Used by workers whose
//! deliveries are futures. It must not know what is done then.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::thread::{Builder, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::clock::Clock;

#[derive(Debug, Default)]
struct State {
    /// Who is woken when, by the time and a number of its own.
    waiting: BTreeMap<(u64, u64), Waker>,
    numbers: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
    news: Condvar,
}

/// Wakes futures at their times. Dropping it ends the thread; who still waits then waits for ever.
#[derive(Debug)]
pub struct Alarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Asks an alarm for times. Clones share it.
#[derive(Debug, Clone)]
pub struct Bell(Arc<Shared>);

impl Alarm {
    /// Starts the thread, under a name, over a clock.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(name: &str, clock: Clock) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { clock, state: Mutex::default(), news: Condvar::new() });
        let weak = Arc::downgrade(&shared);
        shared.clock.on_set(move || {
            if let Some(shared) = weak.upgrade() {
                let _waits_or_has_not_looked_yet = shared.state.lock();
                shared.news.notify_all();
            }
        });
        let own = Arc::clone(&shared);
        let thread = Builder::new().name(name.to_owned()).spawn(move || own.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What to wait with.
    #[must_use]
    pub fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.shared))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.news.notify_all();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            drop(thread.join());
        }
        // They may hold what waits for this to end.
        drop(std::mem::take(&mut self.shared.state.lock().waiting));
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.stopping {
            let now_ms = self.clock.now_ms();
            let later = state.waiting.split_off(&(now_ms.saturating_add(1), 0));
            let due = std::mem::replace(&mut state.waiting, later);
            if due.is_empty() {
                let next_ms = state.waiting.keys().next().map(|(at_ms, _)| *at_ms);
                self.clock.wait(&self.news, &mut state, next_ms);
                continue;
            }
            // A waker may drop its future, and with it one of our own numbers.
            drop(state);
            due.into_values().for_each(Waker::wake);
            state = self.state.lock();
        }
    }
}

impl Bell {
    /// The clock that it looks at.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Ready at this time, in milliseconds since 1970.
    pub async fn at(&self, at_ms: u64) {
        let mut place = Place { shared: &self.0, key: None };
        poll_fn(|context| {
            let mut state = self.0.state.lock();
            if self.0.clock.now_ms() >= at_ms {
                return Poll::Ready(());
            }
            let key = *place.key.get_or_insert_with(|| {
                state.numbers += 1;
                (at_ms, state.numbers)
            });
            state.waiting.insert(key, context.waker().clone());
            if state.waiting.keys().next() == Some(&key) {
                self.0.news.notify_all();
            }
            Poll::Pending
        })
        .await;
    }
}

/// A number that is given back when nobody waits for it any more.
struct Place<'a> {
    shared: &'a Shared,
    key: Option<(u64, u64)>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.shared.state.lock().waiting.remove(&key);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn futures_are_ready_at_their_times() {
        let clock = Clock::manual(1000);
        let alarm = Alarm::start("test", clock.clone()).unwrap();
        let bell = alarm.bell();
        block_on(bell.at(1000));
        let (far, near) = (bell.clone(), bell.clone());
        let far = std::thread::spawn(move || block_on(far.at(3000)));
        let waiting = clock.clone();
        let near = std::thread::spawn(move || {
            block_on(near.at(2000));
            waiting.now_ms()
        });
        clock.set(2000);
        assert_eq!(near.join().unwrap(), 2000);
        assert!(!far.is_finished());
        clock.set(3000);
        far.join().unwrap();
    }

    #[test]
    fn who_gives_up_leaves_nothing() {
        let alarm = Alarm::start("test", Clock::manual(0)).unwrap();
        let bell = alarm.bell();
        let mut waiting = Box::pin(bell.at(5));
        assert!(block_on(poll_once(&mut waiting)).is_none());
        assert_eq!(bell.0.state.lock().waiting.len(), 1);
        drop(waiting);
        assert_eq!(bell.0.state.lock().waiting.len(), 0);
    }
}
