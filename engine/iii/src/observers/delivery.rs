//! The calls that observers make: in their order, at most so many at once, by the listener's own worker. Nobody waits for
//! their answers. It must not know why they are made.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringway::{Baggage, CallError, CallOptions, Encoding, Message, Pending, TraceContext};

use super::call::Ended;
use super::hop::Hop;
use super::lane::{Lane, Offered, Weighed};
use super::registry::{Effect, Fired};
use super::spec::{Name, Spec};
use super::{Observers, code, sources};
use crate::limits::QUICK_CALLS_MAX;
use crate::protocol::{Delivered, uuid_of, uuid_random};
use crate::shared::Shared;

/// How long a target may take, which is as good as no limit; none at all would be the worker's usual one.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// One call that an observer makes.
#[derive(Debug)]
pub(crate) struct Shot {
    spec: Arc<Spec>,
    activation_id: String,
    payload: String,
    /// The function that was called, with its host.
    caller: Option<String>,
    /// How many observers there are up to this one.
    depth: u32,
    traceparent: Option<String>,
    baggage: Option<String>,
}

impl Weighed for Shot {
    fn bytes(&self) -> usize {
        self.payload.len() + self.caller.as_ref().map_or(0, String::len)
    }
}

impl Shot {
    fn of(call: &Ended<'_>, spec: &Arc<Spec>, host: Option<(&str, Option<&str>)>) -> Self {
        let activation_id = uuid_random();
        Self {
            payload: call.payload(spec, &activation_id),
            spec: Arc::clone(spec),
            activation_id,
            caller: Some(call.as_caller(host)),
            depth: call.depth + 1,
            traceparent: call.traceparent.as_deref().map(str::to_owned),
            baggage: call.baggage.as_deref().map(str::to_owned),
        }
    }

    /// A call of the target with a payload as it is.
    pub(crate) fn plain(spec: &Arc<Spec>, payload: &str, caller: Option<String>, depth: u32) -> Self {
        Self {
            spec: Arc::clone(spec),
            activation_id: uuid_random(),
            payload: payload.to_owned(),
            caller,
            depth: depth + 1,
            traceparent: None,
            baggage: None,
        }
    }

    /// Under the span and with the baggage of a call.
    pub(crate) fn under(mut self, traceparent: Option<&str>, baggage: Option<&str>) -> Self {
        self.traceparent = traceparent.map(str::to_owned);
        self.baggage = baggage.map(str::to_owned);
        self
    }

    /// Makes the call. May block while the target has no room.
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> Result<Started, CallError> {
        let Name { namespace, id } = &self.spec.target;
        let handle = shared.worker.handle_in(namespace, id);
        let mut baggage =
            self.baggage.as_deref().and_then(|text| Baggage::parse(text).ok()).unwrap_or_default();
        let activation = Some((self.spec.id.clone(), self.activation_id.clone()));
        let by = uuid_of(shared.worker.id());
        if let Some(hop) = Hop::new(&by, self.caller.as_deref(), self.depth, activation) {
            hop.put(&mut baggage);
        }
        let mut options = CallOptions::new().timeout(PATIENCE).baggage(baggage);
        let parent = self.traceparent.as_deref().and_then(|text| TraceContext::parse_traceparent(text).ok());
        if let Some(parent) = parent {
            options = options.parent(parent);
        }
        if let Some(metadata) = &self.spec.metadata {
            options = options.metadata(metadata.clone());
        }
        let message = Message::new(Encoding::Json, self.payload.as_bytes());
        let begin = || handle.start(&message, &options);
        // All observers share the listener's channel to a target. Where it may be full, others are to go on meanwhile.
        let before = shared.observers.calls.fetch_add(1, Ordering::AcqRel);
        let under_way = UnderWay(Arc::clone(shared));
        let quick = before < QUICK_CALLS_MAX && handle.replicas() > 0;
        let pending = if quick { begin() } else { tokio::task::block_in_place(begin) }?;
        Ok(Started { pending, _under_way: under_way })
    }
}

/// A call that is counted among those that observers make.
#[derive(Debug)]
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.observers.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A call that an observer has begun.
#[derive(Debug)]
pub(crate) struct Started {
    pending: Pending,
    _under_way: UnderWay,
}

impl Started {
    /// Waits for its end.
    pub(crate) async fn ended(self) -> Result<Message, CallError> {
        self.pending.await
    }
}

impl Observers {
    /// Has an observer's target called.
    pub(super) fn deliver(&self, call: &Ended<'_>, fired: Fired<Shot>, host: Option<(&str, Option<&str>)>) {
        let Fired { spec, lane } = fired;
        match lane.offer(Shot::of(call, &spec, host)) {
            Offered::Pump => self.pump(lane),
            Offered::Waits => {}
            Offered::Full => self.dropped(&spec.id, code::OVERFLOW),
        }
    }

    /// Makes the calls that wait, as long as there is a place for one.
    pub(crate) fn pump(&self, lane: Arc<Lane<Shot>>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let runtime = shared.runtime.clone();
        runtime.spawn(async move {
            while let Some(shot) = lane.next() {
                let (started, spec) = (shot.start(&shared), Arc::clone(&shot.spec));
                // What was sent is kept by nobody until it is answered.
                drop(shot);
                let (shared, lane) = (Arc::clone(&shared), Arc::clone(&lane));
                tokio::spawn(async move {
                    let ended = match started {
                        Ok(started) => started.ended().await.map(drop),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = ended {
                        tracing::debug!(observer = spec.id, %error, "the target of an observer failed");
                    }
                    shared.observers.left(lane);
                });
            }
        });
    }

    /// A call of a lane has ended.
    pub(crate) fn left(&self, lane: Arc<Lane<Shot>>) {
        if lane.leave() {
            self.pump(lane);
        }
    }

    /// Tells those who observe observers. What such an observer does is no event itself, or it would never end.
    pub(super) fn tell_of(&self, events: Vec<Effect>) {
        for event in events {
            let Effect::Event { spec, state, reason } = event else { continue };
            if spec.source.id == sources::OBSERVERS_CHANGED {
                continue;
            }
            let name = Name::new(ringway::protocol::naming::NAMESPACE_DEFAULT, sources::OBSERVERS_CHANGED);
            if !self.is_watched(&name.namespace, &name.id) {
                continue;
            }
            let reason =
                reason.map(|error| serde_json::json!({ "code": error.code, "message": error.message }));
            let mut event = serde_json::json!({
                "observer_id": spec.id,
                "function_id": spec.source.id,
                "target": spec.target.id,
                "state": state.word(),
            });
            if let (Some(reason), Some(fields)) = (reason, event.as_object_mut()) {
                fields.insert("reason".to_owned(), reason);
            }
            let event = event.to_string();
            self.ended(&event_of(&name, &event, 0), &Delivered::default(), None);
        }
    }
}

/// An event of a source here, which is as a call of it that answered with what it was asked.
pub(super) fn event_of<'a>(name: &'a Name, event: &'a str, depth: u32) -> Ended<'a> {
    Ended {
        name: std::borrow::Cow::Borrowed(name),
        invocation_id: uuid_random().into(),
        success: true,
        input: Some(event),
        output: Some(event),
        error: None,
        caller: None,
        metadata: None,
        started_at_ms: super::call::now_ms(),
        duration_ms: 0.0,
        depth,
        traceparent: None,
        baggage: None,
    }
}
