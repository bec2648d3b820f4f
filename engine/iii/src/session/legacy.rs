//! Triggers of types that nobody provides, where a client serves a function that stands for the type: such a trigger is an
//! observer of that function. It must not know how observers are kept.

use std::sync::Arc;

use iii_filter::Filter;
use ringway::ErrorCode;
use ringway::protocol::naming::{NAMESPACE_DEFAULT, TRIGGERS_INFO};
use serde_json::json;

use super::Session;
use super::triggers::Refused;
use crate::observers::{Capture, Deliver, Name, On, Spec};
use crate::protocol::NewTrigger;

impl Session {
    /// Makes a trigger an observer, if it has to be one. Says whether it is. Blocks until the engine has said who provides
    /// the type.
    pub(super) fn bridges(self: &Arc<Self>, trigger: &NewTrigger) -> bool {
        let shared = &self.place.shared;
        let Some(source) = shared.observers.stands_for(&trigger.trigger_type) else { return false };
        if self.is_provided(trigger) {
            return false;
        }
        let refused = Refused::of(trigger);
        self.bridged.lock().insert(trigger.id.clone(), refused);
        let namespace = trigger.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        let spec = Spec {
            id: trigger.id.clone(),
            source,
            args: None,
            filter: Filter::match_all(),
            capture: Capture::USUAL,
            on: On::Success,
            // Whoever is bound by a trigger gets the event as it is.
            deliver: Deliver::Input,
            target: Name::new(namespace, &self.granted.prefixed(&trigger.function_id)),
            metadata: trigger.metadata.clone(),
            max_fires: None,
            expires_in_ms: None,
            max_in_flight: None,
            legacy: Some((trigger.trigger_type.clone(), trigger.config.clone())),
        };
        shared.observers.observe(self.worker_id, spec);
        true
    }

    /// Whether somebody provides the type of a trigger.
    fn is_provided(&self, trigger: &NewTrigger) -> bool {
        let Some(peer) = self.peer.get() else { return true };
        let named = trigger.trigger_namespace.as_deref();
        let namespaces = match named {
            Some(named) => vec![named],
            None => vec![peer.namespace.as_str(), NAMESPACE_DEFAULT],
        };
        namespaces.into_iter().any(|namespace| {
            let asked = json!({ "id": trigger.trigger_type, "namespace": namespace });
            match self.place.shared.worker.trigger_json(TRIGGERS_INFO, &asked) {
                Ok(_) => true,
                Err(error) => {
                    error.code != ErrorCode::NotFound && error.user_code.as_deref() != Some("NOT_FOUND")
                }
            }
        })
    }

    /// A function of this client stands for a type from now on: triggers that wait for that type are its observers.
    pub(super) fn stands_for(&self, trigger_type: &str) {
        for (session, trigger) in self.place.shared.triggers_of(trigger_type) {
            let is_bridged = session.bridged.lock().contains_key(&trigger.id);
            if !is_bridged
                && session.bridges(&trigger)
                && let Some(peer) = session.peer.get()
            {
                // The engine has it no longer, so that it does not fire twice when somebody provides its type.
                drop(peer.worker.unregister_trigger(&trigger.id));
            }
        }
    }

    /// Ends a trigger that is an observer. Says whether it was one.
    pub(super) fn unbridges(&self, id: &str) -> bool {
        self.place.shared.forget_trigger(self, id);
        let bridged = self.bridged.lock().remove(id).is_some();
        if bridged {
            self.unobserve(id);
        }
        bridged
    }
}
