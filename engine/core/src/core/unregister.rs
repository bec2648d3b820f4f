//! `unregister`: a worker takes functions, trigger types and triggers back. To take back what is not there
//! succeeds.

use std::collections::BTreeSet;

use ringway_protocol::control::{EngineMessage, RegistrationOutcome, RegistrationResult, Unregister};
use ringway_protocol::ids::WorkerId;

use super::Core;
use crate::catalog::FunctionKey;
use crate::effect::Effect;
use crate::event::ConnectionId;

impl Core {
    pub(super) fn unregister(
        &mut self,
        id: WorkerId,
        from: ConnectionId,
        unregister: Unregister,
        out: &mut Vec<Effect>,
    ) {
        let Unregister { request, functions, trigger_types, triggers } = unregister;
        let Some(worker) = self.catalog.workers.get(&id) else { return };
        let (namespace, zone) = (worker.namespace.clone(), worker.zone.clone());
        let (mut results, mut notices) = (Vec::new(), Vec::new());
        let (mut keys, mut indexes) = (BTreeSet::new(), Vec::new());
        let done = |name: &str| RegistrationResult::done(name, RegistrationOutcome::Unregistered);
        for function in functions {
            results.push(done(&function));
            let key = FunctionKey { namespace: namespace.clone(), id: function };
            indexes.extend(self.catalog.remove(id, &key));
            keys.insert(key);
        }
        for name in trigger_types {
            results.push(done(&name));
            self.take_trigger_type(id, &name, &mut notices);
        }
        for name in triggers {
            results.push(done(&name));
            self.take_trigger(id, &name, &mut notices);
        }
        self.permit(id, &indexes, out);
        self.refresh(&keys);
        self.retire_relays(&zone, &keys);
        self.publish(Some(id), out);
        self.send_all(notices, out);
        out.push(Effect::Send { to: from, message: EngineMessage::Registered { request, results } });
    }
}
