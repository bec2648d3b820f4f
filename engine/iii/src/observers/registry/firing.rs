//! Whether a call is told to an observer, and what that does to the observer. It must not know what the call says.

use std::sync::Arc;

use ringway::WorkerId;

use super::super::code;
use super::super::lane::{Lane, Weighed};
use super::super::spec::{Name, Spec};
use super::{Effect, Registry, State, expired};
use crate::limits::OBSERVE_DEPTH_MAX;
use crate::protocol::ErrorBody;

/// An observer that is told of a call.
#[derive(Debug)]
pub(crate) struct Fired<T> {
    pub(crate) spec: Arc<Spec>,
    pub(crate) lane: Arc<Lane<T>>,
}

/// A call through an observer.
#[derive(Debug)]
pub(crate) struct Through<T> {
    pub(crate) spec: Arc<Spec>,
    pub(crate) lane: Arc<Lane<T>>,
}

impl<T: Weighed> Registry<T> {
    /// A call of its source is an event for an observer. Each goes through here once, so that none fires more often than
    /// it may.
    pub(crate) fn fire(
        &mut self,
        id: &str,
        source: &Name,
        depth: u32,
        now: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<Fired<T>> {
        let observer = self.observers.get_mut(id)?;
        if observer.state != State::Active || observer.spec.source != *source {
            *observer.dropped.entry(code::INACTIVE).or_default() += 1;
            return None;
        }
        if observer.expires_at.is_some_and(|at| at <= now) {
            self.dispose(id, expired(), effects);
            return None;
        }
        if depth >= OBSERVE_DEPTH_MAX {
            *observer.dropped.entry(code::LOOP_GUARD).or_default() += 1;
            return None;
        }
        let fired = Fired { spec: Arc::clone(&observer.spec), lane: Arc::clone(&observer.lane) };
        self.count(id, effects);
        Some(fired)
    }

    fn count(&mut self, id: &str, effects: &mut Vec<Effect>) {
        let Some(observer) = self.observers.get_mut(id) else { return };
        observer.fires += 1;
        if observer.spec.max_fires.is_some_and(|max| observer.fires >= max) {
            let text = format!("it has fired {} times, as often as it may", observer.fires);
            self.dispose(id, ErrorBody::new(code::MAX_FIRES, text), effects);
        }
    }

    /// Calls that an observer was not told of.
    pub(crate) fn drop_of(&mut self, id: &str, reason: &'static str) {
        if let Some(observer) = self.observers.get_mut(id) {
            *observer.dropped.entry(reason).or_default() += 1;
        }
    }

    /// The host of an observer's source calls the observer's target. What it takes a place in is left by whoever calls.
    pub(crate) fn call_through(
        &mut self,
        client: WorkerId,
        id: &str,
        depth: u32,
        now: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Through<T>, ErrorBody> {
        let refused = |code: &str, text: String| Err(ErrorBody::new(code, text));
        let Some(observer) = self.observers.get(id) else {
            return refused(code::OBSERVER_NOT_FOUND, format!("no observer has the id '{id}'"));
        };
        let source = self.sources.get(&observer.spec.source);
        if !source.is_some_and(|source| source.hosts.contains_key(&client)) {
            let text =
                format!("only the worker that serves {} calls through observer '{id}'", observer.spec.source);
            return refused(code::NOT_FUNCTION_OWNER, text);
        }
        if observer.expires_at.is_some_and(|at| at <= now) {
            self.dispose(id, expired(), effects);
            return refused(code::OBSERVER_NOT_ACTIVE, format!("observer '{id}' has expired"));
        }
        if observer.state != State::Active {
            let text = format!("observer '{id}' is {}", observer.state.word());
            return refused(code::OBSERVER_NOT_ACTIVE, text);
        }
        if depth >= OBSERVE_DEPTH_MAX {
            let text = format!("{depth} observers have led to this call; there is a circle");
            return refused(code::LOOP_GUARD, text);
        }
        let (spec, lane) = (Arc::clone(&observer.spec), Arc::clone(&observer.lane));
        if !lane.enter() {
            self.drop_of(id, code::OVERFLOW);
            let text = format!(
                "{} calls of observer '{id}' are under way, as many as it may have",
                spec.in_flight_max()
            );
            return refused(code::OVERFLOW, text);
        }
        self.count(id, effects);
        Ok(Through { spec, lane })
    }
}
