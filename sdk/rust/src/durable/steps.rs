//! Steps: parts of a handler whose results the queue keeps with the message, so that a handler that is called again for the
//! same message goes on where it stopped. Used by handlers through their context. It must not know where results lie.
//!
//! A step is known by its name and by how many of that name the attempt began before it. A step whose result is kept is
//! not run again; one that failed, or that a death interrupted, is. In a call that no queue made, a step just runs.

use std::collections::HashMap;
use std::future::Future;
use std::sync::OnceLock;

use parking_lot::Mutex;
use ringway_protocol::ErrorCode;
use ringway_protocol::telemetry::SpanKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::Delivery;
use crate::call::CallOptions;
use crate::context::Context;
use crate::error::{Failure, HandlerResult};
use crate::message::Message;
use crate::span::Span;

const STEPS: &str = "queue::steps";
const STEP: &str = "queue::step";

/// What an attempt knows about steps. It lies beside the metadata of its call, which clones of the context share.
#[derive(Debug, Default)]
pub(crate) struct KeptSteps(OnceLock<Box<Mutex<State>>>);

/// What travels to another call is not this attempt's.
impl Clone for KeptSteps {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct State {
    /// Steps of each name that this attempt has begun.
    begun: HashMap<String, u32>,
    /// Results of attempts before, once the queue was asked.
    kept: Option<HashMap<(String, u32), Box<RawValue>>>,
}

#[derive(Serialize)]
struct StepsRequest<'a> {
    message_id: &'a str,
    fencing_token: u64,
}

#[derive(Deserialize)]
struct StepsAnswer {
    steps: Vec<KeptStep>,
}

#[derive(Deserialize)]
struct KeptStep {
    name: String,
    ordinal: u32,
    value: Box<RawValue>,
}

#[derive(Serialize)]
struct StepRequest<'a> {
    message_id: &'a str,
    fencing_token: u64,
    name: &'a str,
    ordinal: u32,
    value: &'a RawValue,
}

/// A step of a delivery before it is run.
struct Step<'a> {
    context: &'a Context,
    delivery: Delivery,
    name: &'a str,
    ordinal: u32,
}

impl Context {
    /// Runs a part of a handler, once for all attempts of a message: where its result is kept from an attempt before, that is
    /// returned and nothing is run. The result is on disk when this returns. A step that fails is run again by the next
    /// attempt.
    ///
    /// A step is known by its name, and by its place among those of the same name: steps may be added, removed and put in
    /// another order while messages are under way. Work that changes its meaning gets another name.
    ///
    /// # Errors
    /// The step's own; the code `STEP_CHANGED` when the result that is kept does not fit the type, `STEP_TOO_LARGE` or
    /// `STEP_LIMIT` when the queue does not keep it, `LEASE_LOST` when this attempt is over and another may be under way. The
    /// last is to be passed on: what this attempt does is in vain.
    pub fn step<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        work: impl FnOnce() -> HandlerResult<T>,
    ) -> HandlerResult<T> {
        let mut span = self.step_span(name);
        let done = match Step::begin(self, name) {
            Some(step) => step.run(&span, work),
            None => span.within(work),
        };
        told(&mut span, done)
    }

    /// As [`Context::step`], for async handlers.
    ///
    /// # Errors
    /// As [`Context::step`].
    pub async fn step_async<T, Fut>(&self, name: &str, work: impl FnOnce() -> Fut) -> HandlerResult<T>
    where
        T: Serialize + DeserializeOwned,
        Fut: Future<Output = HandlerResult<T>>,
    {
        let mut span = self.step_span(name);
        let done = match Step::begin(self, name) {
            Some(step) => step.run_async(&span, work).await,
            None => span.within_async(async { work().await }).await,
        };
        told(&mut span, done)
    }

    fn step_span(&self, name: &str) -> Span {
        let mut span = self.worker.span(format_args!("step {name}"), SpanKind::Internal, self.trace());
        // A step whose future is dropped says nothing more.
        span.fail(ErrorCode::Cancelled);
        span
    }
}

/// Has a span say how the step ended.
fn told<T>(span: &mut Span, done: HandlerResult<T>) -> HandlerResult<T> {
    match &done {
        Ok(_) => span.succeed(),
        Err(failure) => span.fail(failure.code()),
    }
    done
}

impl<'a> Step<'a> {
    /// Counts a step; none where no queue made the call.
    fn begin(context: &'a Context, name: &'a str) -> Option<Self> {
        let delivery = context.delivery()?;
        let mut state = context.meta.as_ref()?.steps.0.get_or_init(Box::default).lock();
        let begun = state.begun.entry(name.to_owned()).or_default();
        let ordinal = *begun;
        *begun += 1;
        drop(state);
        Some(Self { context, delivery, name, ordinal })
    }

    fn run<T: Serialize + DeserializeOwned>(
        &self,
        span: &Span,
        work: impl FnOnce() -> HandlerResult<T>,
    ) -> HandlerResult<T> {
        let (worker, options) = (&self.context.worker, CallOptions::new());
        if self.asks_first() {
            self.learn(&worker.handle(STEPS).call_with(&self.question()?, &options)?)?;
        }
        if let Some(kept) = self.kept() {
            return self.read(&kept);
        }
        span.within(|| {
            let result = work()?;
            worker.handle(STEP).call_with(&self.result(&result)?, &options)?;
            Ok(result)
        })
    }

    async fn run_async<T, Fut>(&self, span: &Span, work: impl FnOnce() -> Fut) -> HandlerResult<T>
    where
        T: Serialize + DeserializeOwned,
        Fut: Future<Output = HandlerResult<T>>,
    {
        let (worker, options) = (&self.context.worker, CallOptions::new());
        if self.asks_first() {
            let question = self.question()?;
            self.learn(&worker.handle(STEPS).call_async_with(&question, &options).await?)?;
        }
        if let Some(kept) = self.kept() {
            return self.read(&kept);
        }
        let run = async {
            let result = work().await?;
            let request = self.result(&result)?;
            worker.handle(STEP).call_async_with(&request, &options).await?;
            Ok(result)
        };
        span.within_async(run).await
    }

    fn with_state<R>(&self, look: impl FnOnce(&mut State) -> R) -> Option<R> {
        Some(look(&mut self.context.meta.as_ref()?.steps.0.get()?.lock()))
    }

    /// Whether the queue has not been asked yet what it keeps.
    fn asks_first(&self) -> bool {
        self.with_state(|state| state.kept.is_none()).unwrap_or_default()
    }

    fn question(&self) -> HandlerResult<Message> {
        let Delivery { message_id, fencing_token, .. } = &self.delivery;
        Message::json(&StepsRequest { message_id, fencing_token: *fencing_token })
    }

    fn learn(&self, answer: &Message) -> HandlerResult<()> {
        let answer: StepsAnswer = serde_json::from_slice(answer.body())?;
        let kept = answer.steps.into_iter().map(|step| ((step.name, step.ordinal), step.value)).collect();
        self.with_state(|state| state.kept = Some(kept));
        Ok(())
    }

    /// The result of an attempt before. It is needed once.
    fn kept(&self) -> Option<Box<RawValue>> {
        let place = (self.name.to_owned(), self.ordinal);
        self.with_state(|state| state.kept.as_mut()?.remove(&place))?
    }

    fn read<T: DeserializeOwned>(&self, kept: &RawValue) -> HandlerResult<T> {
        serde_json::from_str(kept.get()).map_err(|error| {
            let (name, id) = (self.name, &self.delivery.message_id);
            let text = format!(
                "step `{name}` of message `{id}` was finished by an earlier attempt, and its result does not fit what the code wants now ({error}): give a step that returns something else another name"
            );
            Failure::with_code("STEP_CHANGED", text)
        })
    }

    fn result<T: Serialize>(&self, result: &T) -> HandlerResult<Message> {
        let Delivery { message_id, fencing_token, .. } = &self.delivery;
        let (fencing_token, name, ordinal) = (*fencing_token, self.name, self.ordinal);
        let value = &*to_raw_value(result)?;
        Message::json(&StepRequest { message_id, fencing_token, name, ordinal, value })
    }
}
