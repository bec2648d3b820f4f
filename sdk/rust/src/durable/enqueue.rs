//! Handing a call over to a queue, which keeps it on disk and makes it when its turn comes: what iii calls
//! `TriggerAction::Enqueue`. Used by handles and by the worker; it must not know what the queue does with it.

use std::time::{Duration, SystemTime};

use ringway_protocol::header::Encoding;
use ringway_protocol::{CallError, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Receipt, millis};
use crate::call::CallOptions;
use crate::error::Failure;
use crate::function::Typed;
use crate::handle::{Handle, TypedHandle};
use crate::message::Message;
use crate::worker::Worker;

const ENQUEUE: &str = "queue::enqueue";

/// To hand a call over to a queue instead of waiting for it: which queue, and how it treats the message.
///
/// ```no_run
/// # use std::time::Duration;
/// # use ringway::{Enqueue, Worker};
/// # let worker = Worker::connect("shop")?;
/// let receipt = worker.enqueue("orders::charge", &17, &Enqueue::to("orders").key("order-17"))?;
/// let ended = receipt.wait(Duration::from_secs(60))?;
/// # Ok::<(), ringway::CallError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Enqueue {
    queue: String,
    group: Option<String>,
    key: Option<String>,
    dedupe: Option<Duration>,
    priority: u8,
    delay: Option<Duration>,
    /// Not both this and `delay`: the one that was said last.
    at: Option<SystemTime>,
    ttl: Option<Duration>,
    id: Option<String>,
    options: CallOptions,
}

/// What `queue::enqueue` takes.
#[derive(Serialize)]
struct Request<'a> {
    queue: &'a str,
    function_id: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    priority: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_retention_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

/// What it answers.
#[derive(Deserialize)]
struct Taken {
    id: String,
    duplicate: bool,
}

impl Enqueue {
    /// To this queue, which is made if there is none.
    pub fn to(queue: impl Into<String>) -> Self {
        Self {
            queue: queue.into(),
            group: None,
            key: None,
            dedupe: None,
            priority: 0,
            delay: None,
            at: None,
            ttl: None,
            id: None,
            options: CallOptions::new(),
        }
    }

    /// The message group in a fifo queue, within which order is kept; in a standard one, whose share it takes.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Of several calls with this key only the first is taken; the others get its receipt.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How long [`Enqueue::key`] is remembered. A day unless it is said.
    pub fn dedupe(mut self, window: Duration) -> Self {
        self.dedupe = Some(window);
        self
    }

    /// From 0 to 9, the highest first. 0 unless it is said.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Not to be delivered before this time has passed since it was enqueued. Takes the place of [`Enqueue::at`].
    pub fn delay(mut self, delay: Duration) -> Self {
        (self.delay, self.at) = (Some(delay), None);
        self
    }

    /// Not to be delivered before this moment; at once where it is over. Takes the place of [`Enqueue::delay`].
    pub fn at(mut self, moment: SystemTime) -> Self {
        (self.delay, self.at) = (None, Some(moment));
        self
    }

    /// A dead letter if it has not begun within this time.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The message's id, unique over all queues. The queue makes one unless it is said.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How the queue itself is called: the time that it has to take the message, the trace that the attempts belong to.
    /// What travels beside the body is for the queue and does not reach the function, but for baggage.
    pub fn options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }

    fn request(&self, function: &str, message: &Message) -> Result<Message, CallError> {
        let data = json_of(message)?;
        // Now, and not when the action was made, which may serve for many calls.
        let until = |moment: SystemTime| moment.duration_since(SystemTime::now()).unwrap_or_default();
        let delay = self.delay.or_else(|| self.at.map(until));
        let request = Request {
            queue: &self.queue,
            function_id: function,
            data: &data,
            delay_ms: delay.map(millis).filter(|delay| *delay > 0),
            priority: self.priority,
            group: self.group.as_deref(),
            idempotency_key: self.key.as_deref(),
            idempotency_retention_ms: self.dedupe.map(millis),
            ttl_ms: self.ttl.map(millis),
            id: self.id.as_deref(),
        };
        Message::json(&request).map_err(Failure::into_error)
    }
}

/// The body as JSON, which is how a queue keeps it.
fn json_of(message: &Message) -> Result<Box<RawValue>, CallError> {
    let text = match message.encoding() {
        Encoding::Json if message.attachments().is_empty() => message.body(),
        Encoding::None if message.attachments().is_empty() => b"null",
        other => {
            let beside = if message.attachments().is_empty() { "" } else { " with attachments" };
            let text = format!(
                "a queue keeps JSON, and the message is {other}{beside}: enqueue a value that serde can write (every typed request is one), or put the bytes into `blob::put` and enqueue their id"
            );
            return Err(CallError::new(ErrorCode::UnsupportedEncoding, text));
        }
    };
    let read: Result<&RawValue, _> = serde_json::from_slice(text);
    let no_json = |error| Failure::invalid(format!("the message says that it is JSON, and is not: {error}"));
    Ok(read.map_err(|error| no_json(error).into_error())?.to_owned())
}

fn receipt(worker: &Worker, answer: &Message) -> Result<Receipt, CallError> {
    let taken: Taken = serde_json::from_slice(answer.body())
        .map_err(|error| CallError::new(ErrorCode::InvalidRequest, format!("the queue's answer: {error}")))?;
    Ok(Receipt::new(worker.clone(), taken.id, taken.duplicate))
}

impl Handle {
    /// Hands a call over to a queue, and returns when it is on disk there. The function need not be there yet. The message
    /// is kept as JSON.
    ///
    /// # Errors
    /// `unsupported_encoding` for what is no JSON, `not_found` where no queue runs, and whatever the queue refuses.
    pub fn enqueue(&self, message: &Message, action: &Enqueue) -> Result<Receipt, CallError> {
        let request = action.request(self.id(), message)?;
        receipt(&self.worker, &self.worker.handle(ENQUEUE).call_with(&request, &action.options)?)
    }

    /// As [`Handle::enqueue`], from async code.
    ///
    /// # Errors
    /// As [`Handle::enqueue`].
    pub async fn enqueue_async(&self, message: &Message, action: &Enqueue) -> Result<Receipt, CallError> {
        let request = action.request(self.id(), message)?;
        let queue = self.worker.handle(ENQUEUE);
        receipt(&self.worker, &queue.call_async_with(&request, &action.options).await?)
    }
}

impl<Req: Typed, Resp: Typed> TypedHandle<Req, Resp> {
    /// Hands a call over to a queue, and returns when it is on disk there. The request is kept as JSON, which every typed
    /// function takes as well as archives.
    ///
    /// # Errors
    /// As [`Handle::enqueue`].
    pub fn enqueue(&self, request: &Req, action: &Enqueue) -> Result<Receipt, CallError> {
        self.handle().enqueue(&Message::json(request).map_err(Failure::into_error)?, action)
    }
}

impl Worker {
    /// Hands a call over to a queue, and returns when it is on disk there.
    ///
    /// # Errors
    /// As [`Handle::enqueue`].
    pub fn enqueue<T: Serialize + ?Sized>(
        &self,
        id: &str,
        request: &T,
        action: &Enqueue,
    ) -> Result<Receipt, CallError> {
        self.handle(id).enqueue(&Message::json(request).map_err(Failure::into_error)?, action)
    }

    /// As [`Worker::enqueue`], from async code.
    ///
    /// # Errors
    /// As [`Handle::enqueue`].
    pub async fn enqueue_async<T: Serialize + Sync + ?Sized>(
        &self,
        id: &str,
        request: &T,
        action: &Enqueue,
    ) -> Result<Receipt, CallError> {
        let message = Message::json(request).map_err(Failure::into_error)?;
        self.handle(id).enqueue_async(&message, action).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_request_says_what_was_asked_for_and_nothing_else() {
        let check = |action: Enqueue, message: &Message, expected: Value| {
            let request = action.request("f::g", message).unwrap();
            let found: Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(found, expected);
        };
        let plain = json!({ "queue": "q", "function_id": "f::g", "data": null, "priority": 0 });
        check(Enqueue::to("q"), &Message::empty(), plain.clone());
        check(Enqueue::to("q").at(SystemTime::UNIX_EPOCH), &Message::empty(), plain);
        let all = Enqueue::to("q").group("g").key("k").dedupe(Duration::from_secs(1)).priority(3);
        let all = all.delay(Duration::from_millis(2)).ttl(Duration::from_secs(4)).id("own");
        let expected = json!({
            "queue": "q", "function_id": "f::g", "data": { "n": 1 }, "priority": 3, "group": "g",
            "idempotency_key": "k", "idempotency_retention_ms": 1000, "delay_ms": 2, "ttl_ms": 4000, "id": "own",
        });
        check(all, &Message::json(&json!({ "n": 1 })).unwrap(), expected);
    }

    #[test]
    fn a_moment_is_waited_for_from_the_call_on() {
        let delay = |action: &Enqueue| {
            let request = action.request("f", &Message::empty()).unwrap();
            serde_json::from_slice::<Value>(request.body()).unwrap()["delay_ms"].as_u64()
        };
        let soon = SystemTime::now() + Duration::from_millis(20);
        let action = Enqueue::to("q").at(soon);
        while SystemTime::now() < soon {
            std::thread::yield_now();
        }
        assert_eq!(delay(&action), None, "the moment is over");
        assert_eq!(delay(&action.delay(Duration::from_secs(3))), Some(3000), "the last one counts");
        let action = Enqueue::to("q").delay(Duration::from_secs(3)).at(SystemTime::UNIX_EPOCH);
        assert_eq!(delay(&action), None);
    }

    #[test]
    fn what_is_no_json_is_told_what_to_do() {
        let error = Enqueue::to("q").request("f", &Message::bytes(b"x")).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsupportedEncoding);
        assert!(error.message.contains("blob::put"), "{error}");
        let error = Enqueue::to("q").request("f", &Message::new(Encoding::Json, b"{")).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
    }
}
