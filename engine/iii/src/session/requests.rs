//! What others ask of this client: calls of its functions, and its answers. It must not know who asks, beyond the name.

use std::sync::{Arc, Weak};

use ringway::{CallError, Context, Encoding, ErrorCode, Failure, HandlerResult, Message, NearCall};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::bodies::with_fields;
use super::calls::ReplyTo;
use super::{Serving, Session};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::observers::{Beginning, Begun, Hop, Name, stamped};
use crate::protocol::{
    Delivered, ErrorBody, Frame, Outcome, code, of_call, uuid_of, uuid_random, with_uuids,
};

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

/// A call that was not answered yet.
#[derive(Debug)]
pub(crate) struct Open {
    waiting: Waiting,
    /// What observers want to know of it, if there are any.
    begun: Option<Box<Begun>>,
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
    /// The function as others know it.
    pub(crate) registered: &'a str,
    /// The payload, as JSON.
    pub(crate) data: &'a str,
    /// Who called, where it is another client.
    pub(crate) caller: Option<&'a str>,
    /// The same, in full, for those that want to know it.
    pub(crate) from: From<'a>,
    pub(crate) metadata: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) baggage: Option<&'a str>,
}

/// Who calls, from which handler, and with how many observers behind it.
#[derive(Debug, Default)]
pub(crate) struct From<'a> {
    /// Its UUID and its name; none where what is said names it already.
    worker: Option<(&'a str, Option<&'a str>)>,
    said: Option<&'a str>,
    depth: u32,
    /// The observer and the activation that the call is.
    activation: Option<&'a (String, String)>,
}

impl<'a> From<'a> {
    pub(crate) const fn worker(
        uuid: &'a str,
        name: Option<&'a str>,
        said: Option<&'a str>,
        depth: u32,
    ) -> Self {
        Self { worker: Some((uuid, name)), said, depth, activation: None }
    }

    /// The caller, as JSON.
    fn caller(&self) -> Option<String> {
        match self.worker {
            Some((uuid, name)) => Some(stamped(self.said, uuid, name)),
            None => self.said.map(str::to_owned),
        }
    }
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
        let given_up = self.session.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&self.number));
        if let Some(begun) = given_up.and_then(|open| open.begun) {
            self.session.told_of(&begun, &Outcome::Error(ErrorBody::stopped()), &Delivered::default());
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
        let invocation = self.invocations.name(number);
        let Some(peer) = self.peer.get() else { return Err((ErrorBody::stopped(), Some(waiting))) };
        let (told, from) = (peer.features.observes, &asked.from);
        let watched = self.place.shared.observers.is_watched(&peer.namespace, asked.registered);
        let caller = if told || watched { from.caller() } else { None };
        let activation = from.activation.filter(|_| told).map(|(observer, activation)| {
            Frame::object(128).text("observer_id", observer).plain("activation_id", activation).end()
        });
        let depth = (told && from.depth > 0).then(|| from.depth.to_string());
        let room = asked.data.len() + asked.metadata.map_or(0, str::len) + 256;
        let frame = Frame::with_room("invokefunction", room)
            .plain("invocation_id", invocation)
            .text("function_id", asked.function)
            .payload(asked.data, asked.caller)
            .maybe_json("metadata", asked.metadata)
            .maybe_text("traceparent", asked.traceparent)
            .maybe_text("baggage", asked.baggage)
            .maybe_json("caller", caller.as_deref().filter(|_| told))
            .maybe_json("observe_depth", depth.as_deref())
            .maybe_json("activation", activation.as_deref())
            .end();
        let begun = watched.then(|| {
            Begun::now(Beginning {
                name: Name::new(&peer.namespace, asked.registered),
                invocation_id: invocation.to_string(),
                input: asked.data,
                caller,
                metadata: asked.metadata,
                depth: from.depth,
                traceparent: asked.traceparent,
                baggage: asked.baggage,
            })
        });
        if let Err(error) = self.check_size(frame.len()) {
            return Err((error, Some(waiting)));
        }
        match self.waiting.lock().as_mut() {
            Some(all) => drop(all.insert(number, Open { waiting, begun })),
            None => return Err((ErrorBody::stopped(), Some(waiting))),
        }
        if self.outbox.send(frame).is_err() {
            let open = self.waiting.lock().as_mut().and_then(|all| all.remove(&number));
            return Err((ErrorBody::stopped(), open.map(|open| open.waiting)));
        }
        Ok(number)
    }

    /// Tells all who wait that the client is gone; nobody can wait from then on.
    pub(super) fn stop_waiting(&self) {
        let waiting = self.waiting.lock().take();
        for (_, open) in waiting.into_iter().flatten() {
            open.waiting.tell(Outcome::Error(ErrorBody::stopped()));
            if let Some(begun) = open.begun {
                self.told_of(&begun, &Outcome::Error(ErrorBody::stopped()), &Delivered::default());
            }
        }
    }

    /// Whether the client can be asked: its connection is not over.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// A call of the client's has ended: whoever observes it is told.
    fn told_of(&self, begun: &Begun, outcome: &Outcome<'_>, delivered: &Delivered) {
        let name = self.peer.get().and_then(|peer| peer.name.as_deref());
        let host = Some((self.uuid.as_str(), name));
        self.place.shared.observers.ended(&begun.ended(outcome), delivered, host);
    }

    /// How the client serves a function; none where under the same name, and itself.
    pub(super) fn serving(&self, function: &str) -> Option<Serving> {
        self.serving.read().get(function).cloned()
    }

    /// Keeps how the client serves a function, where that is worth keeping.
    pub(super) fn keep(&self, function: &str, serving: Serving) {
        let mut all = self.serving.write();
        if serving.elsewhere || serving.private || *serving.own != *function {
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
    pub(super) fn answered(&self, invocation_id: &str, outcome: Outcome<'_>, delivered: &Delivered) {
        let Some(number) = self.invocations.number(invocation_id) else { return };
        let open = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&number));
        let Some(Open { waiting, begun }) = open else { return };
        let Some(begun) = begun else { return waiting.tell(outcome) };
        // Whoever called hears of it before those who only watch.
        waiting.tell(outcome.clone());
        self.told_of(&begun, &outcome, delivered);
    }

    /// Passes a call that came by the SDK on to the client, with more fields in its payload. The function is named as the client
    /// knows it, and as it is registered.
    pub(crate) fn serve(
        self: &Arc<Self>,
        (function, registered): (&str, &str),
        context: &Context,
        message: &Message,
        more: Option<&str>,
    ) -> HandlerResult<Asking> {
        let data = payload(message)?;
        let with_more = more.map(|fields| with_fields(data, fields)).transpose()?;
        let data = with_more.as_deref().unwrap_or(data);
        let shared = &self.place.shared;
        let client = shared.session(context.caller());
        let by = uuid_of(context.caller());
        let caller = client.is_some().then_some(by.as_str());
        let hop = Hop::read(context.baggage(), &by);
        self.may_be_called(registered, context, &hop)?;
        let name = self.name_of(context, registered);
        let name = name.as_deref();
        // The listener itself says who calls in whose place.
        let from = From {
            worker: (context.caller() != shared.worker.id() || hop.caller().is_none())
                .then_some((&*by, name)),
            said: hop.caller(),
            depth: hop.depth,
            activation: hop.activation.as_ref(),
        };
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
        let baggage = baggage.filter(|baggage| !baggage.is_empty());
        self.ask(&Asked {
            function,
            registered,
            from,
            data,
            caller,
            metadata: metadata.as_deref(),
            traceparent: traceparent.as_deref(),
            baggage: baggage.as_deref(),
        })
        .map_err(ErrorBody::into_failure)
    }
}

impl Session {
    /// What a caller is called, for those that want to know.
    fn name_of(&self, context: &Context, function: &str) -> Option<Arc<str>> {
        let peer = self.peer.get()?;
        let shared = &self.place.shared;
        if !peer.features.observes && !shared.observers.is_watched(&peer.namespace, function) {
            return None;
        }
        match shared.session(context.caller()) {
            Some(client) => client.peer.get()?.name.as_deref().map(Arc::from),
            None => shared.stranger(context.caller()),
        }
    }

    /// A call of a function begins that somebody else serves for the client, if anybody wants to know of it.
    pub(super) fn begun(&self, function: &str, context: &Context, message: &Message) -> Option<Box<Begun>> {
        let peer = self.peer.get()?;
        if !self.place.shared.observers.is_watched(&peer.namespace, function) {
            return None;
        }
        let by = uuid_of(context.caller());
        let hop = Hop::read(context.baggage(), &by);
        let metadata = context.metadata().map(ToString::to_string);
        let trace = context.trace();
        Some(Begun::now(Beginning {
            name: Name::new(&peer.namespace, function),
            invocation_id: uuid_random(),
            input: payload(message).unwrap_or("null"),
            caller: Some(stamped(hop.caller(), &by, self.name_of(context, function).as_deref())),
            metadata: metadata.as_deref(),
            depth: hop.depth,
            traceparent: trace.is_valid().then(|| trace.to_string()).as_deref(),
            baggage: context.baggage().map(ringway::Baggage::format).as_deref(),
        }))
    }

    /// Such a call has ended.
    pub(super) fn ended(&self, begun: &Begun, result: Result<&Message, &CallError>) {
        let outcome = match result {
            Ok(message) => Outcome::Value(Some(payload(message).unwrap_or("null"))),
            Err(error) => Outcome::Error(of_call(error, &begun.name.namespace, &begun.name.id, &[])),
        };
        self.told_of(begun, &outcome, &Delivered::default());
    }

    /// Whether somebody may call a function: its own client alone, where that one says so, or an observer of it.
    fn may_be_called(&self, function: &str, context: &Context, hop: &Hop) -> Result<(), Failure> {
        let private = self.serving(function).is_some_and(|serving| serving.private);
        if !private || context.caller() == self.worker_id {
            return Ok(());
        }
        let observers = &self.place.shared.observers;
        match &hop.activation {
            Some((observer, _)) if observers.is_of(observer, self.worker_id) => Ok(()),
            _ => Err(super::calls::private(function).into_failure()),
        }
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
