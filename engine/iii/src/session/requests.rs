//! What others ask of this client: calls of its functions, and its answers. It must not know who asks, beyond the name.

use std::sync::{Arc, Weak};

use ringway::{CallError, Context, Encoding, ErrorCode, Failure, HandlerResult, Message, NearCall};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::bodies::with_fields;
use super::calls::ReplyTo;
use super::{Serving, Session};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::protocol::{ErrorBody, Frame, Outcome, code, with_uuids};

/// How the engine's events begin that name a worker, which clients know by its UUID.
const WORKER_EVENT: &str = "{\"event\":\"worker_";

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// Somebody who called by the SDK.
    Task(oneshot::Sender<Answer>),
    /// Another client.
    Client(Box<Near>),
}

/// A call of another client's, which hears the answer without a detour.
#[derive(Debug)]
pub(crate) struct Near {
    pub(crate) caller: Weak<Session>,
    pub(crate) reply: ReplyTo,
    pub(crate) call: NearCall,
}

impl Waiting {
    /// Tells the outcome.
    pub(super) fn tell(self, outcome: Outcome<'_>) {
        match self {
            Self::Task(task) => {
                let _given_up = task.send(match outcome {
                    Outcome::Value(value) => Ok(value.unwrap_or_default().as_bytes().to_vec()),
                    Outcome::Error(error) => Err(error),
                });
            }
            Self::Client(near) => {
                let Near { caller, reply, call } = *near;
                let outcome = match outcome {
                    Outcome::Value(value) => Ok(value),
                    Outcome::Error(error) => Err(error),
                };
                call.end(match &outcome {
                    Ok(value) => Ok(value.map_or(0, str::len) as u64),
                    Err(error) if *error == ErrorBody::stopped() => Err(ErrorCode::WorkerGone),
                    Err(_) => Err(ErrorCode::HandlerError),
                });
                if let Some(caller) = caller.upgrade() {
                    caller.reply(&reply, outcome);
                }
            }
        }
    }
}

/// An answer: a value as JSON, empty for null, or an error.
pub(crate) type Answer = Result<Vec<u8>, ErrorBody>;

/// A call of a client's function.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The function as the client knows it.
    pub(crate) function: &'a str,
    /// The payload, as JSON.
    pub(crate) data: &'a str,
    /// Who called, where it is another client.
    pub(crate) caller: Option<&'a str>,
    pub(crate) metadata: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) baggage: Option<&'a str>,
}

/// A call that was asked. Dropping it forgets the call.
#[derive(Debug)]
pub(crate) struct Asking {
    session: Arc<Session>,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(waiting) = self.session.waiting.lock().as_mut() {
            waiting.remove(&self.number);
        }
    }
}

impl Asking {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or_else(|_| Err(ErrorBody::stopped()))
    }
}

impl Session {
    /// Asks the client to run one of its functions.
    pub(crate) fn ask(self: &Arc<Self>, asked: &Asked<'_>) -> Result<Asking, ErrorBody> {
        let (sender, answer) = oneshot::channel();
        let number = self.ask_for(asked, Waiting::Task(sender)).map_err(|(error, _)| error)?;
        Ok(Asking { session: Arc::clone(self), number, answer })
    }

    /// As [`Session::ask`], for somebody who is told; who cannot be told later is given back.
    pub(crate) fn ask_for(
        &self,
        asked: &Asked<'_>,
        waiting: Waiting,
    ) -> Result<u64, (ErrorBody, Option<Waiting>)> {
        let number = self.invocations.draw();
        let room = asked.data.len() + asked.metadata.map_or(0, str::len) + 256;
        let frame = Frame::with_room("invokefunction", room)
            .plain("invocation_id", self.invocations.name(number))
            .text("function_id", asked.function)
            .payload(asked.data, asked.caller)
            .maybe_json("metadata", asked.metadata)
            .maybe_text("traceparent", asked.traceparent)
            .maybe_text("baggage", asked.baggage)
            .end();
        if let Err(error) = self.check_size(frame.len()) {
            return Err((error, Some(waiting)));
        }
        match self.waiting.lock().as_mut() {
            Some(all) => drop(all.insert(number, waiting)),
            None => return Err((ErrorBody::stopped(), Some(waiting))),
        }
        if self.outbox.send(frame).is_err() {
            let waiting = self.waiting.lock().as_mut().and_then(|all| all.remove(&number));
            return Err((ErrorBody::stopped(), waiting));
        }
        Ok(number)
    }

    /// Tells all who wait that the client is gone; nobody can wait from then on.
    pub(super) fn stop_waiting(&self) {
        let waiting = self.waiting.lock().take();
        for (_, waiting) in waiting.into_iter().flatten() {
            waiting.tell(Outcome::Error(ErrorBody::stopped()));
        }
    }

    /// How the client serves a function; none where under the same name, and itself.
    pub(super) fn serving(&self, function: &str) -> Option<Serving> {
        self.serving.read().get(function).cloned()
    }

    /// Keeps how the client serves a function, where that is worth keeping.
    pub(super) fn keep(&self, function: &str, serving: Serving) {
        let mut all = self.serving.write();
        if serving.elsewhere || *serving.own != *function {
            all.insert(function.to_owned(), serving);
        } else {
            all.remove(function);
        }
    }

    /// Whether the client takes a message of this length.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), ErrorBody> {
        let bytes_max = self.peer.get().map_or(MESSAGE_BYTES_MAX, |peer| peer.bytes_max);
        if bytes <= bytes_max {
            return Ok(());
        }
        let text =
            format!("the message has {bytes} bytes, and the worker that it is for takes at most {bytes_max}");
        Err(ErrorBody::new(code::PAYLOAD_TOO_LARGE, text))
    }

    /// The client answers. What nobody waits for is ignored.
    pub(super) fn answered(&self, invocation_id: &str, outcome: Outcome<'_>) {
        let Some(number) = self.invocations.number(invocation_id) else { return };
        let waiting = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&number));
        if let Some(waiting) = waiting {
            waiting.tell(outcome);
        }
    }

    /// Passes a call that came by the SDK on to the client, with more fields in its payload.
    pub(crate) fn serve(
        self: &Arc<Self>,
        function: &str,
        context: &Context,
        message: &Message,
        more: Option<&str>,
    ) -> HandlerResult<Asking> {
        let data = payload(message)?;
        let with_more = more.map(|fields| with_fields(data, fields)).transpose()?;
        let data = with_more.as_deref().unwrap_or(data);
        let caller = self.place.shared.session(context.caller()).map(|caller| caller.uuid.clone());
        // What a queue says of its delivery is no metadata to iii's clients; what the trigger said is.
        let metadata = match context.delivery() {
            Some(_) => context.metadata().and_then(|delivery| delivery.get("trigger")),
            None => context.metadata(),
        };
        let metadata = metadata.map(ToString::to_string);
        let event = (caller.is_none() && data.starts_with(WORKER_EVENT)).then(|| with_uuids(data));
        let data = event.as_deref().unwrap_or(data);
        let trace = context.trace();
        let traceparent = trace.is_valid().then(|| trace.to_string());
        let baggage = context.baggage().map(|baggage| super::calls::baggage_for(baggage, function));
        self.ask(&Asked {
            function,
            data,
            caller: caller.as_deref(),
            metadata: metadata.as_deref(),
            traceparent: traceparent.as_deref(),
            baggage: baggage.as_deref(),
        })
        .map_err(ErrorBody::into_failure)
    }
}

/// Waits for the answer to a call that came by the SDK.
pub(crate) async fn answered(asked: HandlerResult<Asking>) -> HandlerResult<Message> {
    let value = asked?.answer().await.map_err(ErrorBody::into_failure)?;
    let value = if value.is_empty() { b"null".to_vec() } else { value };
    Ok(Message::from_vec(Encoding::Json, value))
}

/// The payload of a call as JSON. Other workers may send anything, and a client would drop a message that is broken.
fn payload(message: &Message) -> Result<&str, Failure> {
    let body = message.body();
    if body.is_empty() {
        return Ok("null");
    }
    let checked: Result<&RawValue, _> = serde_json::from_slice(body);
    checked.map(RawValue::get).map_err(|error| {
        CallError::new(ErrorCode::InvalidRequest, format!("the request is no JSON: {error}")).into()
    })
}
