//! Trigger types and triggers: what registrations, deaths and the engine's own functions do to bindings.

use ringway_protocol::control::{EngineMessage, RegistrationOutcome, TriggerSpec, TriggerTypeSpec};
use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::ids::WorkerId;
use ringway_protocol::naming::NAMESPACE_DEFAULT;

use super::Core;
use crate::bindings::{Binding, Notice, Provider};
use crate::catalog::{self, Worker};
use crate::effect::Effect;
use crate::zones::Zone;

impl Core {
    pub(super) fn add_trigger_type(
        &mut self,
        id: WorkerId,
        spec: TriggerTypeSpec,
        notices: &mut Vec<Notice>,
    ) -> Result<(), CallError> {
        let Some(worker) = self.catalog.workers.get_mut(&id) else {
            return Err(CallError::not_found("worker", &id.to_string()));
        };
        catalog::check_trigger_type(&spec, worker)?;
        let limit = self.config.limits.triggers_max;
        if worker.trigger_types.len() >= limit as usize && !worker.trigger_types.contains(&spec.id) {
            return Err(CallError::invalid_registration(format!(
                "one worker may have {limit} trigger types"
            )));
        }
        worker.trigger_types.insert(spec.id.clone());
        let everywhere = worker.credentials.engine;
        let provider = Provider { worker: id, zone: worker.zone.clone(), everywhere, spec };
        self.bindings.add_type(&worker.namespace.clone(), provider, notices);
        Ok(())
    }

    pub(super) fn add_trigger(
        &mut self,
        id: WorkerId,
        spec: TriggerSpec,
        notices: &mut Vec<Notice>,
    ) -> Result<RegistrationOutcome, CallError> {
        catalog::check_trigger(&spec)?;
        let limit = self.config.limits.triggers_max;
        let Some(worker) = self.catalog.workers.get(&id) else {
            return Err(CallError::not_found("worker", &id.to_string()));
        };
        if worker.triggers.len() >= limit as usize && !worker.triggers.contains(&spec.id) {
            return Err(CallError::invalid_registration(format!("one worker may have {limit} triggers")));
        }
        self.check_binding_zone(&worker.zone, &spec)?;
        let (zone, home) = (worker.zone.clone(), worker.namespace.clone());
        self.disown(&spec.id);
        if let Some(worker) = self.catalog.workers.get_mut(&id) {
            worker.triggers.insert(spec.id.clone());
        }
        let live = self.bindings.add(Binding::new(spec, Some(id), zone, home), notices);
        Ok(if live { RegistrationOutcome::Registered } else { RegistrationOutcome::Parked })
    }

    /// Refuses to let one zone replace another's binding.
    fn check_binding_zone(&self, zone: &Zone, spec: &TriggerSpec) -> Result<(), CallError> {
        match self.bindings.get(&spec.id) {
            Some(old) if old.zone != *zone => {
                let message =
                    format!("trigger `{}` belongs to zone `{}`; choose another id", spec.id, old.zone);
                Err(CallError::new(ErrorCode::RegistrationConflict, message))
            }
            _ => Ok(()),
        }
    }

    /// Takes a binding, which is about to be replaced, out of its owner's list.
    fn disown(&mut self, id: &str) {
        let owner = self.bindings.get(id).and_then(|old| old.owner);
        if let Some(owner) = owner.and_then(|owner| self.catalog.workers.get_mut(&owner)) {
            owner.triggers.remove(id);
        }
    }

    pub(super) fn take_trigger(&mut self, id: WorkerId, name: &str, notices: &mut Vec<Notice>) {
        if self.bindings.get(name).is_some_and(|binding| binding.owner == Some(id)) {
            self.bindings.remove(name, notices);
        }
        if let Some(worker) = self.catalog.workers.get_mut(&id) {
            worker.triggers.remove(name);
        }
    }

    pub(super) fn take_trigger_type(&mut self, id: WorkerId, name: &str, notices: &mut Vec<Notice>) {
        let Some(worker) = self.catalog.workers.get_mut(&id) else { return };
        if worker.trigger_types.remove(name) {
            self.bindings.remove_type(&worker.namespace.clone(), name, id, notices);
        }
    }

    /// Ends what a worker bound and provided: its triggers go, those bound to its types find another
    /// provider or are parked.
    pub(super) fn drop_triggers(&mut self, id: WorkerId, worker: &Worker, out: &mut Vec<Effect>) {
        let mut notices = Vec::new();
        for name in &worker.triggers {
            self.take_trigger(id, name, &mut notices);
        }
        for name in &worker.trigger_types {
            self.bindings.remove_type(&worker.namespace, name, id, &mut notices);
        }
        self.send_all(notices, out);
    }

    pub(super) fn trigger_bound(
        &mut self,
        provider: WorkerId,
        binding: &str,
        error: Option<CallError>,
        out: &mut Vec<Effect>,
    ) {
        let mut notices = Vec::new();
        let answered = self.bindings.answer(binding, provider, error.is_some(), &mut notices);
        let Some(owner) = answered.map(|answered| answered.owner) else { return };
        self.send_all(notices, out);
        let id = binding.to_owned();
        match (owner, error) {
            (None, error) => out.push(Effect::TriggerSettled { id, error }),
            (Some(owner), Some(error)) => self.send(owner, EngineMessage::TriggerRefused { id, error }, out),
            (Some(owner), None) => self.send(owner, EngineMessage::TriggerAccepted { id }, out),
        }
    }

    /// Says whether [`crate::Event::TriggerKept`] would be taken; the event itself has no answer.
    ///
    /// # Errors
    /// The binding is over a limit, or its id belongs to another zone.
    pub fn check_kept_trigger(&self, zone: &Zone, spec: &TriggerSpec) -> Result<(), CallError> {
        catalog::check_trigger(spec)?;
        self.check_binding_zone(zone, spec)
    }

    pub(super) fn keep_trigger(&mut self, zone: &Zone, spec: TriggerSpec, out: &mut Vec<Effect>) {
        if self.check_kept_trigger(zone, &spec).is_err() {
            return;
        }
        self.disown(&spec.id);
        let mut notices = Vec::new();
        let id = spec.id.clone();
        let binding = Binding::new(spec, None, zone.clone(), NAMESPACE_DEFAULT.into());
        let live = self.bindings.add(binding, &mut notices);
        self.send_all(notices, out);
        if !live {
            out.push(Effect::TriggerSettled { id, error: None });
        }
    }

    pub(super) fn remove_kept_trigger(&mut self, zone: &Zone, id: &str, out: &mut Vec<Effect>) {
        if self.bindings.get(id).is_none_or(|binding| binding.zone != *zone) {
            return;
        }
        let mut notices = Vec::new();
        let owner = self.bindings.remove(id, &mut notices).and_then(|binding| binding.owner);
        if let Some(owner) = owner.and_then(|owner| self.catalog.workers.get_mut(&owner)) {
            owner.triggers.remove(id);
        }
        self.send_all(notices, out);
    }
}
