//! `register`: a worker adds functions, trigger types and triggers. Each entry succeeds or fails alone.

use std::collections::BTreeSet;

use ringway_protocol::control::{
    EngineMessage, FunctionSpec, Register, RegistrationOutcome, RegistrationResult, TriggerSpec,
    TriggerTypeSpec,
};
use ringway_protocol::error::CallError;
use ringway_protocol::ids::{FunctionId, WorkerId};
use ringway_protocol::naming;

use super::Core;
use crate::bindings::Notice;
use crate::catalog::FunctionKey;
use crate::effect::Effect;
use crate::event::ConnectionId;

impl Core {
    pub(super) fn register(
        &mut self,
        id: WorkerId,
        from: ConnectionId,
        register: Register,
        out: &mut Vec<Effect>,
    ) {
        let Register { request, functions, trigger_types, triggers } = register;
        let Some(namespace) = self.catalog.workers.get(&id).map(|worker| worker.namespace.clone()) else {
            return;
        };
        let mut results = Vec::with_capacity(functions.len() + trigger_types.len() + triggers.len());
        let mut notices = Vec::new();
        let (mut keys, mut indexes) = self.settle(id, &functions, &trigger_types, &triggers, &mut notices);
        for spec in functions {
            let key = FunctionKey { namespace: namespace.clone(), id: spec.id.clone() };
            let (name, index) = (spec.id.to_string(), spec.index);
            results.push(match self.add_function(id, spec) {
                Ok(old) => {
                    indexes.extend(old);
                    if index != 0 {
                        indexes.push(index);
                        keys.insert(key);
                    }
                    RegistrationResult::done(name, RegistrationOutcome::Registered)
                }
                Err(error) => RegistrationResult::refused(name, error),
            });
        }
        for spec in trigger_types {
            let name = spec.id.clone();
            results.push(match self.add_trigger_type(id, spec, &mut notices) {
                Ok(()) => RegistrationResult::done(name, RegistrationOutcome::Registered),
                Err(error) => RegistrationResult::refused(name, error),
            });
        }
        for spec in triggers {
            let name = spec.id.clone();
            results.push(match self.add_trigger(id, spec, &mut notices) {
                Ok(outcome) => RegistrationResult::done(name, outcome),
                Err(error) => RegistrationResult::refused(name, error),
            });
        }
        self.permit(id, &indexes, out);
        self.refresh(&keys);
        if let Some(zone) = self.catalog.workers.get(&id).map(|worker| worker.zone.clone()) {
            self.retire_relays(&zone, &keys);
        }
        self.publish(Some(id), out);
        self.send_all(notices, out);
        self.adopt_channels(id, out);
        out.push(Effect::Send { to: from, message: EngineMessage::Registered { request, results } });
    }

    /// Adds one function. Index 0 is every worker's own and never listed: to register it is allowed, under
    /// its one name, and does nothing.
    fn add_function(&mut self, id: WorkerId, spec: FunctionSpec) -> Result<Option<u32>, CallError> {
        if spec.index == 0 && spec.id.as_str() == naming::WORKER_INSPECT {
            return Ok(None);
        }
        let limit = self.config.limits.functions_max;
        let worker = self.catalog.workers.get(&id);
        if worker.is_some_and(|worker| {
            worker.functions.len() >= limit as usize
                && !worker.functions.values().any(|key| key.id == spec.id)
        }) {
            return Err(CallError::invalid_registration(format!("one worker may have {limit} functions")));
        }
        self.catalog.add(id, spec)
    }

    /// After a re-attach the first registration names everything that the worker has: what it does not name
    /// is taken back, before the rest is added. Returns the functions and indexes that this concerns.
    fn settle(
        &mut self,
        id: WorkerId,
        functions: &[FunctionSpec],
        trigger_types: &[TriggerTypeSpec],
        triggers: &[TriggerSpec],
        notices: &mut Vec<Notice>,
    ) -> (BTreeSet<FunctionKey>, Vec<u32>) {
        let unconfirmed = self.catalog.workers.get_mut(&id).and_then(|worker| worker.unconfirmed.take());
        let Some(mut unconfirmed) = unconfirmed else { return Default::default() };
        for spec in triggers {
            unconfirmed.triggers.remove(&spec.id);
        }
        for spec in trigger_types {
            unconfirmed.trigger_types.remove(&spec.id);
        }
        let named: BTreeSet<&FunctionId> = functions.iter().map(|spec| &spec.id).collect();
        unconfirmed.functions.retain(|key| !named.contains(&key.id));
        for name in &unconfirmed.triggers {
            self.take_trigger(id, name, notices);
        }
        for name in &unconfirmed.trigger_types {
            self.take_trigger_type(id, name, notices);
        }
        self.bindings.remind(id, notices);
        let indexes = unconfirmed.functions.iter().filter_map(|key| self.catalog.remove(id, key)).collect();
        (unconfirmed.functions, indexes)
    }
}
