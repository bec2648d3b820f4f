//! The receipt of a message: asks the queue how it stands, waits until the queue says that it has ended, takes it back.
//! It outlives restarts of the queue: a wait goes on with the next one. It must not know why a message ends.

use std::time::Duration;

use ringway_ipc::clock::now_ns;
use ringway_protocol::{CallError, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::millis;
use crate::call::CallOptions;
use crate::worker::Worker;

const RECEIPT: &str = "queue::receipt";
const WAIT: &str = "queue::wait";
const CANCEL: &str = "queue::cancel";

/// Between two looks for a queue that is gone.
const AWAY_NS: u64 = 20_000_000;

/// A message that was handed over to a queue.
#[derive(Debug, Clone)]
pub struct Receipt {
    worker: Worker,
    id: String,
    duplicate: bool,
}

/// How a message stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MessageState {
    /// Its queue.
    pub queue: String,
    /// Whether it waits, runs or has ended.
    pub status: MessageStatus,
    /// Attempts that have begun.
    pub attempts: u32,
    /// Not to be delivered before, in milliseconds since 1970.
    #[serde(default)]
    pub due_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Why it is dead.
    #[serde(default)]
    pub error: Option<String>,
}

/// Whether a message waits, runs or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageStatus {
    /// It waits for its turn.
    Waiting,
    /// It is not to be delivered yet, the first time or after a failed attempt.
    Delayed,
    /// An attempt is under way.
    Running,
    /// An attempt succeeded.
    Done,
    /// No attempt succeeded, and there will be none unless it is redriven.
    Dead,
    /// It was taken back.
    Cancelled,
    /// It was dead and was thrown away.
    Discarded,
}

impl MessageStatus {
    /// Whether nothing more happens to it by itself.
    #[must_use]
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Waiting | Self::Delayed | Self::Running)
    }
}

impl std::fmt::Display for MessageStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Delayed => "delayed",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
        })
    }
}

impl Worker {
    /// The receipt of a message by its id, as another process or an earlier run got it. Asks nobody.
    #[must_use]
    pub fn receipt(&self, id: impl Into<String>) -> Receipt {
        Receipt::new(self.clone(), id.into(), false)
    }
}

impl Receipt {
    pub(super) fn new(worker: Worker, id: String, duplicate: bool) -> Self {
        Self { worker, id, duplicate }
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the message had been taken before, by its idempotency key or its id.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    fn request(&self) -> Value {
        json!({ "id": self.id })
    }

    /// How the message stands.
    ///
    /// # Errors
    /// The code `NOT_FOUND` of its own when the queue has forgotten it; how the call ended otherwise.
    pub fn state(&self) -> Result<MessageState, CallError> {
        read(self.worker.trigger_json(RECEIPT, &self.request())?)
    }

    /// As [`Receipt::state`], from async code.
    ///
    /// # Errors
    /// As [`Receipt::state`].
    pub async fn state_async(&self) -> Result<MessageState, CallError> {
        read(self.worker.trigger_json_async(RECEIPT, &self.request(), &CallOptions::new()).await?)
    }

    /// Waits until the message has ended: done, dead, cancelled or discarded. The queue tells it; nothing is asked
    /// meanwhile, unless the engine starts anew.
    ///
    /// # Errors
    /// `deadline_exceeded` when it has not ended within this time; else as [`Receipt::state`].
    pub fn wait(&self, timeout: Duration) -> Result<MessageState, CallError> {
        let mut waiting = Waiting::new(timeout);
        loop {
            match self.worker.trigger_json_with(WAIT, &self.request(), &waiting.options()) {
                Ok(ended) => return read(ended),
                Err(error) => waiting.goes_on_after(error)?,
            }
            crate::dispatcher::blocking(|| std::thread::sleep(Duration::from_nanos(AWAY_NS)));
        }
    }

    /// As [`Receipt::wait`], from async code.
    ///
    /// # Errors
    /// As [`Receipt::wait`].
    pub async fn wait_async(&self, timeout: Duration) -> Result<MessageState, CallError> {
        let mut waiting = Waiting::new(timeout);
        loop {
            match self.worker.trigger_json_async(WAIT, &self.request(), &waiting.options()).await {
                Ok(ended) => return read(ended),
                Err(error) => waiting.goes_on_after(error)?,
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        let until = now_ns() + AWAY_NS;
        std::future::poll_fn(|cx| {
            if now_ns() >= until {
                return std::task::Poll::Ready(());
            }
            let _never_cancelled = self.worker.inner().schedule_wake(until, cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }

    /// Takes the message back. Returns whether it had not ended; an attempt that is under way is told, and may have done its
    /// work.
    ///
    /// # Errors
    /// As [`Receipt::state`].
    pub fn cancel(&self) -> Result<bool, CallError> {
        Ok(was_cancelled(&self.worker.trigger_json(CANCEL, &self.request())?))
    }

    /// As [`Receipt::cancel`], from async code.
    ///
    /// # Errors
    /// As [`Receipt::state`].
    pub async fn cancel_async(&self) -> Result<bool, CallError> {
        let request = self.request();
        Ok(was_cancelled(&self.worker.trigger_json_async(CANCEL, &request, &CallOptions::new()).await?))
    }
}

fn was_cancelled(answer: &Value) -> bool {
    answer["cancelled"] == true
}

fn read(answer: Value) -> Result<MessageState, CallError> {
    serde_json::from_value(answer)
        .map_err(|error| CallError::new(ErrorCode::InvalidRequest, format!("the queue's answer: {error}")))
}

/// A wait over restarts of the queue.
struct Waiting {
    timeout: Duration,
    until_ns: u64,
    /// The queue was there, and went.
    lost: bool,
}

impl Waiting {
    fn new(timeout: Duration) -> Self {
        let until_ns = now_ns().saturating_add(millis(timeout).saturating_mul(1_000_000));
        Self { timeout, until_ns, lost: false }
    }

    fn options(&self) -> CallOptions {
        CallOptions::new().deadline_ns(self.until_ns).idempotent()
    }

    /// Whether to ask again after an error: the queue is gone, and there is time for it to come back.
    fn goes_on_after(&mut self, error: CallError) -> Result<(), CallError> {
        let stopped = error.user_code.as_deref() == Some("QUEUE_STOPPED");
        let absent = error.code == ErrorCode::NotFound && error.user_code.is_none();
        let gone = matches!(
            error.code,
            ErrorCode::WorkerGone
                | ErrorCode::EngineUnavailable
                | ErrorCode::Draining
                | ErrorCode::StaleHandle
        );
        // A queue that was never there does not come back.
        if !(stopped || gone || absent && self.lost) {
            return Err(error);
        }
        self.lost = true;
        if now_ns() >= self.until_ns {
            return Err(CallError::deadline_exceeded(self.timeout).with_function(WAIT));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_goes_on_while_the_queue_may_come_back() {
        let mut waiting = Waiting::new(Duration::from_secs(3600));
        let absent = || CallError::function_not_found(WAIT);
        assert!(waiting.goes_on_after(absent()).is_err(), "there never was one");
        let forgotten = CallError::handler("no such message").with_user_code("NOT_FOUND");
        assert!(waiting.goes_on_after(forgotten).is_err());
        let stopped = CallError::handler("it has stopped").with_user_code("QUEUE_STOPPED");
        waiting.goes_on_after(stopped).unwrap();
        waiting.goes_on_after(absent()).unwrap();
        let mut over = Waiting::new(Duration::ZERO);
        let error = over.goes_on_after(CallError::new(ErrorCode::WorkerGone, "gone")).unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    }

    #[test]
    fn a_state_reads_what_the_queue_says() {
        let dead = json!({ "id": "q:1", "queue": "q", "status": "dead", "attempts": 4, "ended_ms": 9, "error": "E: no" });
        let state = read(dead).unwrap();
        assert!(state.status.has_ended());
        assert_eq!((state.attempts, state.error.as_deref()), (4, Some("E: no")));
        let waiting =
            read(json!({ "id": "q:1", "queue": "q", "status": "delayed", "attempts": 0, "due_ms": 7 }));
        assert!(!waiting.unwrap().status.has_ended());
    }
}
