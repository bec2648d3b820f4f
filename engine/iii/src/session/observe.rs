//! What this client says and is told of observers: those that it wants, those of its functions, calls that it makes itself.
//! It must not know what becomes of them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Session;
use super::calls::{ReplyTo, value_of};
use crate::observers::{self, Declared, Ended, Hosting, Name, Shot, Spec, State, Told, stamped};
use crate::otel;
use crate::protocol::{
    Ack, ErrorBody, Features, Frame, Invoke, LocalStats, NewFunction, NewObserver, ObservedItem, code,
    of_call,
};

/// Metrics of calls that a client makes itself, as OTLP names what only counts since the last time.
const DELTA: u8 = 1;

impl Session {
    /// What the client can do; nothing, until it has said who it is.
    pub(super) fn features(&self) -> Features {
        self.peer.get().map(|peer| peer.features).unwrap_or_default()
    }

    /// The client wants an observer. Blocks until a hook has said that it may.
    pub(super) fn observe(self: &Arc<Self>, said: &NewObserver) {
        if !self.features().observes {
            tracing::debug!(worker = %self.uuid, id = said.id, "an observer was ignored: the client says that it knows none");
            return;
        }
        match self.checked(said) {
            Ok(Some(spec)) => self.place.shared.observers.observe(self.worker_id, spec),
            // A hook does not want it, and iii says nothing then.
            Ok(None) => {}
            Err(error) => {
                let told = Told::Result {
                    id: said.id.clone(),
                    state: State::Error,
                    error: Some(error),
                    warnings: Vec::new(),
                };
                self.told(&told);
            }
        }
    }

    /// An observer as the client wants it and may have it.
    fn checked(self: &Arc<Self>, said: &NewObserver) -> Result<Option<Spec>, ErrorBody> {
        let mut spec = Spec::read(said)?;
        let Some(peer) = self.peer.get() else { return Ok(None) };
        let observers = &self.place.shared.observers;
        // Under its own names, it means its own functions.
        for name in [&mut spec.source, &mut spec.target] {
            if name.namespace == peer.namespace
                && let Some(hosted) = observers.hosted(self.worker_id, &name.namespace, &name.id)
            {
                *name = hosted;
            }
        }
        let forbidden = |name: &Name| {
            let text = format!("function {name} not allowed (add to rbac.expose_functions)");
            ErrorBody::new(code::FORBIDDEN, text)
        };
        let may = |name: &Name| self.may_call(&name.namespace, &name.id, None) || self.is_own(name);
        if !may(&spec.target) {
            return Err(forbidden(&spec.target));
        }
        let Some(trigger_type) = observers::trigger_type(&spec.source) else {
            return if may(&spec.source) { Ok(Some(spec)) } else { Err(forbidden(&spec.source)) };
        };
        // The engine's own events are what a trigger would bring, and whoever may not bind that may not observe them.
        if !self.granted.may_bind(trigger_type) {
            return Err(forbidden(&spec.source));
        }
        let hook = self.place.rules.rbac.as_ref();
        let hook = hook.and_then(|rbac| rbac.on_trigger_registration_function_id.as_deref());
        let asked = json!({"trigger_id": spec.id, "trigger_type": trigger_type, "function_id": spec.target.id,
            "config": spec.args, "metadata": spec.metadata, "namespace": spec.target.namespace});
        Ok(self.asked_hook(hook, asked).map(|_| spec))
    }

    pub(super) fn unobserve(&self, id: &str) {
        self.place.shared.observers.unobserve(self.worker_id, id);
    }

    /// The client says whether it accepts an observer.
    pub(super) fn acked(&self, ack: &Ack) {
        if let Some(peer) = self.peer.get() {
            self.place.shared.observers.ack(self.worker_id, &peer.namespace, ack);
        }
    }

    /// The client serves a function from now on.
    pub(super) fn hosts(&self, registered: &str, own: &str, declared: Declared, elsewhere: bool) {
        let Some(peer) = self.peer.get() else { return };
        let rules = &self.place.rules;
        // What somebody has to look at does not stay within the client.
        let looked_at = rules.rbac.is_some() || rules.middleware_function_id.is_some();
        let hosting = Hosting {
            client: self.worker_id,
            own: own.to_owned(),
            declared,
            observes: peer.features.observes,
            local: peer.features.calls_itself && !elsewhere && !looked_at,
        };
        let stands_for = hosting.declared.legacy.clone();
        self.place.shared.observers.host(&Name::new(&peer.namespace, registered), hosting);
        if let Some(trigger_type) = stands_for {
            self.stands_for(&trigger_type);
        }
    }

    /// The client serves a function no longer.
    pub(super) fn hosts_no_longer(&self, registered: &str) {
        if let Some(peer) = self.peer.get() {
            let name = Name::new(&peer.namespace, registered);
            self.place.shared.observers.unhost(self.worker_id, &name);
        }
    }

    /// What a registration says of who may observe its function.
    pub(super) fn declared(&self, said: &NewFunction) -> Result<Declared, ErrorBody> {
        let declared = Declared::read(said.observe.as_ref(), said.args_format.as_ref(), said.observable)?;
        let (input, output) = (said.request_format.clone(), said.response_format.clone());
        Ok(Declared { input, output, ..declared })
    }

    /// Calls within the client, which observers want to know of.
    pub(super) fn observed(&self, items: &[ObservedItem<'_>]) {
        let Some(peer) = self.peer.get() else { return };
        let observers = &self.place.shared.observers;
        for item in items {
            let Some(name) = observers.hosted(self.worker_id, &peer.namespace, &item.function()) else {
                tracing::debug!(worker = %self.uuid, function = %item.function(), "calls were reported of a function that is not the client's");
                continue;
            };
            let matched = item.matched();
            // Newer SDKs leave it to this side to say which worker it was: the client itself.
            let said = item.caller();
            let whole = said.is_some_and(names_its_worker);
            let caller = (!whole).then(|| stamped(said, &self.uuid, peer.name.as_deref()));
            let call = Ended {
                name: Cow::Owned(name),
                invocation_id: item.invocation_id(),
                success: item.succeeded(),
                input: item.input(),
                output: item.output(),
                error: item.error().map(without_stack),
                caller: caller.as_deref().or(said),
                metadata: item.metadata(),
                started_at_ms: item.started_at_ms(),
                duration_ms: item.duration_ms(),
                depth: item.observe_depth(),
                traceparent: item.traceparent(),
                baggage: item.baggage(),
            };
            let host = Some((self.uuid.as_str(), peer.name.as_deref()));
            observers.fire(&call, matched.iter().map(String::as_str), true, host);
        }
    }

    /// How often the client called its own functions itself: metrics, as it would have sent them.
    pub(super) fn local_stats(self: &Arc<Self>, stats: &LocalStats) {
        let frame = otlp(stats, &self.uuid, self.peer.get().and_then(|peer| peer.name.as_deref()));
        let bytes: Bytes = [&b"MTRC"[..], frame.to_string().as_bytes()].concat().into();
        otel::ingest(&self.place, self.caller(), &bytes);
    }

    /// The client calls through an observer of one of its functions.
    pub(super) fn call_through(self: &Arc<Self>, observer: &str, invoke: &Invoke<'_>, reply: ReplyTo) {
        let shared = &self.place.shared;
        let depth = invoke.observe_depth;
        let through = match shared.observers.call_through(self.worker_id, observer, depth) {
            Ok(through) => through,
            Err(error) => return self.reply(&reply, Err(error)),
        };
        let name = self.peer.get().and_then(|peer| peer.name.as_deref());
        let caller = stamped(invoke.caller, &self.uuid, name);
        let baggage = invoke.baggage.as_deref();
        let shot = Shot::plain(&through.spec, invoke.data, Some(caller), depth)
            .under(invoke.traceparent.as_deref(), baggage);
        // Begun at once, so that such calls keep their order.
        let started = shot.start(shared);
        let session = Arc::clone(self);
        tokio::spawn(async move {
            let ended = match started {
                Ok(started) => started.ended().await,
                Err(error) => Err(error),
            };
            session.place.shared.observers.left(through.lane);
            match ended {
                Ok(message) => match value_of(&message) {
                    Ok(value) => session.reply(&reply, Ok(value)),
                    Err(error) => session.reply(&reply, Err(error)),
                },
                Err(error) => {
                    let target = &through.spec.target;
                    session.reply(&reply, Err(of_call(&error, &target.namespace, &target.id, &[])));
                }
            }
        });
    }

    /// Tells the client of observers. Of one that is a trigger it hears only that it cannot be.
    pub(crate) fn told(&self, told: &Told) {
        if let Told::Result { id, state, error: reason, .. } | Told::Changed { id, state, reason, .. } = told
        {
            let bridged = self.bridged.lock().get(id).cloned();
            if let Some(refused) = bridged {
                if let (State::Error, Some(error)) = (state, reason) {
                    self.trigger_refused(&refused, error);
                }
                return;
            }
        }
        let number = |number: u64| number.to_string();
        let frame = match told {
            Told::Result { id, state, error, warnings } => {
                let frame = Frame::new("observeresult").text("id", id).plain("state", state.word());
                let frame = match error {
                    Some(error) => frame.error(error),
                    None => frame,
                };
                let warnings = (!warnings.is_empty()).then(|| json!(warnings).to_string());
                frame.maybe_json("warnings", warnings.as_deref())
            }
            Told::Changed { id, state, reason, fires } => {
                let reason =
                    reason.as_ref().map(|error| json!({"code": error.code, "message": error.message}));
                Frame::new("observerstatechanged")
                    .text("id", id)
                    .plain("state", state.word())
                    .maybe_json("reason", reason.map(|reason| reason.to_string()).as_deref())
                    .json("fires", &number(*fires))
            }
            Told::Registered { own, namespace, revision, local, observers } => {
                Frame::new("functionregistered")
                    .text("id", own)
                    .text("namespace", namespace)
                    .json("revision", &number(*revision))
                    .json("local_dispatch", if *local { "true" } else { "false" })
                    .json("observers", &json!(observers).to_string())
            }
            Told::Added { own, namespace, revision, view } => Frame::new("observeradded")
                .text("function_id", own)
                .text("namespace", namespace)
                .json("revision", &number(*revision))
                .json("observer", &view.to_string()),
            Told::Removed { own, namespace, revision, id } => Frame::new("observerremoved")
                .text("function_id", own)
                .text("namespace", namespace)
                .json("revision", &number(*revision))
                .text("id", id),
        };
        self.send(frame);
    }

    /// Whether the client serves a function.
    fn is_own(&self, name: &Name) -> bool {
        let hosted = |peer: &super::Peer| {
            peer.namespace == name.namespace
                && peer.worker.handle_in(&name.namespace, &name.id).sole_worker() == Some(self.worker_id)
        };
        self.peer.get().is_some_and(hosted)
    }
}

/// Whether what is said of a caller says which worker it is; of its own caller it may say so all the same.
fn names_its_worker(caller: &str) -> bool {
    serde_json::from_str::<Value>(caller).is_ok_and(|caller| caller["worker_id"].is_string())
}

/// An error as observers see it: without where it happened.
fn without_stack(error: &str) -> Cow<'_, str> {
    if !error.contains("stacktrace") {
        return error.into();
    }
    let said: Value = serde_json::from_str(error).unwrap_or_default();
    json!({ "code": said["code"], "message": said["message"] }).to_string().into()
}

/// Counts as OTLP metrics, of this moment.
fn otlp(stats: &LocalStats, worker: &str, name: Option<&str>) -> Value {
    let now = u128::from(observers::now_ms()) * 1_000_000;
    let start = now.saturating_sub(u128::from(stats.window_ms) * 1_000_000);
    let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
    let point = |attributes: Vec<Value>, value: Value| {
        let mut point = json!({"attributes": attributes, "startTimeUnixNano": start.to_string(),
            "timeUnixNano": now.to_string()});
        if let (Value::Object(point), Value::Object(value)) = (&mut point, value) {
            point.extend(value);
        }
        point
    };
    let of = |function: &str| text("function.id", function);
    let whole = |count: u64| json!({"asInt": count.to_string()});
    let sum = |name: &str, unit: &str, points: Vec<Value>| {
        json!({"name": name, "unit": unit,
            "sum": {"aggregationTemporality": DELTA, "isMonotonic": true, "dataPoints": points}})
    };
    let functions = &stats.functions;
    let calls = functions.iter().map(|calls| point(vec![of(&calls.function_id)], whole(calls.count)));
    let errors = functions.iter().map(|calls| point(vec![of(&calls.function_id)], whole(calls.errors)));
    let time = functions
        .iter()
        .map(|calls| point(vec![of(&calls.function_id)], json!({"asDouble": calls.duration_ms_sum})));
    let dropped = stats
        .dropped
        .iter()
        .map(|lost| point(vec![of(&lost.function_id), text("reason", &lost.reason)], whole(lost.count)));
    let metrics = [
        sum("iii.local.invocations", "1", calls.collect()),
        sum("iii.local.errors", "1", errors.collect()),
        sum("iii.local.duration", "ms", time.collect()),
        sum("iii.local.dropped_reports", "1", dropped.collect()),
    ];
    let metrics: Vec<Value> = metrics
        .into_iter()
        .filter(|metric| metric["sum"]["dataPoints"].as_array().is_some_and(|points| !points.is_empty()))
        .collect();
    let mut resource = vec![text("worker.id", worker)];
    resource.extend(name.map(|name| text("service.name", name)));
    json!({"resourceMetrics": [{"resource": {"attributes": resource},
        "scopeMetrics": [{"scope": {"name": "iii.local"}, "metrics": metrics}]}]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Incoming, decode};

    #[test]
    fn local_calls_are_metrics() {
        let text = r#"{"type":"localinvocationstats","window_ms":10000,
            "functions":[{"function_id":"a::b","count":7,"errors":1,"duration_ms_sum":2.5}]}"#;
        let Incoming::LocalStats(stats) = decode(text).unwrap() else { panic!() };
        let frame = otlp(&stats, "W", Some("n"));
        let metrics = &frame["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let names: Vec<&str> =
            metrics.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["iii.local.invocations", "iii.local.errors", "iii.local.duration"]);
        let point = &metrics[0]["sum"]["dataPoints"][0];
        assert_eq!(
            (&point["asInt"], &point["attributes"][0]["value"]["stringValue"]),
            (&json!("7"), &json!("a::b"))
        );
    }
}
