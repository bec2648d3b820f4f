//! One subscription: its queue, and the delivery of one message after the other. It must not know topics of others.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use ringway_worker_kit::Binding;

use crate::config::{Bound, OnFull};
use crate::functions::SubscriptionView;
use crate::history::Message;

/// One subscription.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) binding: Arc<Binding<Bound>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Message>>,
    /// A future takes messages out.
    delivering: bool,
    /// The trigger is gone.
    over: bool,
    /// Messages whose publishers wait for room, in order, by the publishers' numbers.
    overflow: VecDeque<(u64, Arc<Message>)>,
    next_number: u64,
    /// What those publishers are woken by.
    waiting: Vec<Waker>,
    delivered: u64,
    skipped: u64,
    dropped: u64,
    failed: u64,
    last_error: Option<String>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits; `true` if somebody has to begin delivering.
    Queued(bool),
    /// It was left out.
    Dropped,
    /// There is no room; the publisher is to wait with this number.
    Full(u64),
}

/// A message that waits for room, for as long as its publisher does.
#[derive(Debug)]
pub(crate) struct Blocked {
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) number: u64,
}

impl Blocked {
    /// Waits until the message is in the queue, or the subscription has ended.
    pub(crate) async fn admitted(self) {
        poll_fn(|context| {
            let mut state = self.subscriber.state.lock();
            if !state.overflow.iter().any(|(number, _)| *number == self.number) {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|known| known.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Blocked {
    /// A publisher that has given up takes its message back.
    fn drop(&mut self) {
        self.subscriber.state.lock().overflow.retain(|(number, _)| *number != self.number);
    }
}

/// How a delivery ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Delivered,
    Skipped,
    Failed(String),
}

impl Subscriber {
    /// A subscription with messages that wait for it from the start. Those of a subscription that it takes the place of come
    /// first.
    pub(crate) fn new(binding: &Arc<Binding<Bound>>, first: Vec<Arc<Message>>) -> Self {
        let state = State { queue: first.into(), ..State::default() };
        let subscriber = Self { binding: Arc::clone(binding), state: Mutex::new(state) };
        subscriber.trim();
        subscriber
    }

    fn trim(&self) {
        let mut state = self.state.lock();
        while state.queue.len() > self.binding.config.config.queue_max {
            state.queue.pop_front();
            state.dropped += 1;
        }
    }

    /// Ends it; gives what still waited.
    pub(crate) fn end(&self) -> Vec<Arc<Message>> {
        let mut state = self.state.lock();
        state.over = true;
        state.waiting.drain(..).for_each(Waker::wake);
        let overflow: Vec<_> = state.overflow.drain(..).map(|(_, message)| message).collect();
        state.queue.drain(..).chain(overflow).collect()
    }

    /// Puts a message into the queue, behind those that wait for room.
    pub(crate) fn push(&self, message: &Arc<Message>) -> Pushed {
        let config = &self.binding.config.config;
        let mut state = self.state.lock();
        if state.over {
            return Pushed::Dropped;
        }
        if state.queue.len() >= config.queue_max || !state.overflow.is_empty() {
            match config.on_full {
                OnFull::Block => {
                    let number = state.next_number;
                    state.next_number += 1;
                    state.overflow.push_back((number, Arc::clone(message)));
                    return Pushed::Full(number);
                }
                OnFull::DropOldest => {
                    state.queue.pop_front();
                }
                OnFull::DropNewest => {}
            }
            state.dropped += 1;
            if state.dropped.is_power_of_two() {
                let (subscription, dropped) = (&self.binding.id, state.dropped);
                tracing::warn!(target: "ringway", subscription, dropped, "a subscriber is too slow; messages are left out");
            }
            if config.on_full == OnFull::DropNewest {
                return Pushed::Dropped;
            }
        }
        state.queue.push_back(Arc::clone(message));
        Pushed::Queued(!std::mem::replace(&mut state.delivering, true))
    }

    /// Whether somebody has to begin delivering what waits from the start.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        !state.queue.is_empty() && !std::mem::replace(&mut state.delivering, true)
    }

    /// The next message, for whoever delivers; none ends that.
    pub(crate) fn pop(&self) -> Option<Arc<Message>> {
        let mut state = self.state.lock();
        let next = if state.over { None } else { state.queue.pop_front() };
        state.delivering = next.is_some();
        if state.queue.len() < self.binding.config.config.queue_max
            && let Some((_, message)) = state.overflow.pop_front()
        {
            state.queue.push_back(message);
            state.waiting.drain(..).for_each(Waker::wake);
        }
        next
    }

    pub(crate) fn note(&self, ended: Ended) {
        let mut state = self.state.lock();
        match ended {
            Ended::Delivered => (state.delivered, state.last_error) = (state.delivered + 1, None),
            Ended::Skipped => state.skipped += 1,
            Ended::Failed(error) => (state.failed, state.last_error) = (state.failed + 1, Some(error)),
        }
    }

    pub(crate) fn view(&self) -> SubscriptionView {
        let state = self.state.lock();
        SubscriptionView {
            id: self.binding.id.clone(),
            topic: self.binding.config.pattern.text().to_owned(),
            function_id: self.binding.function_id.clone(),
            waiting: state.queue.len(),
            blocked: state.overflow.len(),
            delivering: state.delivering,
            delivered: state.delivered,
            skipped: state.skipped,
            dropped: state.dropped,
            failed: state.failed,
            last_error: state.last_error.clone(),
        }
    }
}
