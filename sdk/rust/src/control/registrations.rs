//! What this worker wants to have registered. Remembers what the engine accepted, and what it was asked and has not
//! answered; after a re-attach everything goes out again in one message, so that nothing is lost and nothing is
//! registered twice. It must not know how messages travel.

use std::collections::{BTreeMap, HashMap};

use ringway_protocol::control::{
    FunctionSpec, Register, RegistrationOutcome, RegistrationResult, RequestId, TriggerSpec, TriggerTypeSpec,
    Unregister, WorkerMessage,
};
use ringway_protocol::{CallError, FunctionId};

use super::command::Done;

/// Called with the results, in the order of the request.
pub(super) type RegistrationDone = Done<Vec<RegistrationResult>>;

/// What is to be added or taken back.
#[derive(Debug)]
pub(super) enum Wanted {
    Add(Register),
    TakeBack(Unregister),
}

/// The three lists in which a request names things, and its results come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Function,
    TriggerType,
    Trigger,
}

struct Pending {
    wanted: Wanted,
    sent: bool,
    done: RegistrationDone,
}

/// Functions, trigger types and triggers by id.
#[derive(Default)]
struct Known {
    functions: BTreeMap<FunctionId, FunctionSpec>,
    trigger_types: BTreeMap<String, TriggerTypeSpec>,
    triggers: BTreeMap<String, TriggerSpec>,
}

#[derive(Default)]
pub(super) struct Registrations {
    known: Known,
    pending: BTreeMap<RequestId, Pending>,
    /// The replay that is under way, and the requests whose answer it brings.
    replay: Option<(RequestId, Register, Vec<RequestId>)>,
}

impl Known {
    fn add(&mut self, register: &Register, keep: impl Fn(Kind, &str) -> bool) {
        for function in register.functions.iter().filter(|item| keep(Kind::Function, &item.id)) {
            self.functions.insert(function.id.clone(), function.clone());
        }
        for item in register.trigger_types.iter().filter(|item| keep(Kind::TriggerType, &item.id)) {
            self.trigger_types.insert(item.id.clone(), item.clone());
        }
        for item in register.triggers.iter().filter(|item| keep(Kind::Trigger, &item.id)) {
            self.triggers.insert(item.id.clone(), item.clone());
        }
    }

    fn remove(&mut self, unregister: &Unregister) {
        unregister.functions.iter().for_each(|id| drop(self.functions.remove(id)));
        unregister.trigger_types.iter().for_each(|id| drop(self.trigger_types.remove(id)));
        unregister.triggers.iter().for_each(|id| drop(self.triggers.remove(id)));
    }
}

fn names_of(register: &Register) -> Vec<(Kind, String)> {
    let functions = register.functions.iter().map(|item| (Kind::Function, item.id.to_string()));
    let types = register.trigger_types.iter().map(|item| (Kind::TriggerType, item.id.clone()));
    let triggers = register.triggers.iter().map(|item| (Kind::Trigger, item.id.clone()));
    functions.chain(types).chain(triggers).collect()
}

fn taken_back(unregister: &Unregister) -> Vec<RegistrationResult> {
    let functions = unregister.functions.iter().map(ToString::to_string);
    let others = unregister.trigger_types.iter().chain(&unregister.triggers).cloned();
    functions
        .chain(others)
        .map(|id| RegistrationResult::done(id, RegistrationOutcome::Unregistered))
        .collect()
}

/// Results by what they are about; the engine answers in the order of the request.
fn by_name(
    register: &Register,
    results: Vec<RegistrationResult>,
) -> HashMap<(Kind, String), RegistrationResult> {
    names_of(register).into_iter().zip(results).collect()
}

fn is_refused(results: &HashMap<(Kind, String), RegistrationResult>, kind: Kind, id: &str) -> bool {
    let result = results.get(&(kind, id.to_owned()));
    result.is_none_or(|result| result.outcome == RegistrationOutcome::Refused)
}

impl Registrations {
    /// Takes a request and returns the message to send if an engine is there. Without one it waits for the next attach.
    pub(super) fn ask(
        &mut self,
        request: RequestId,
        mut wanted: Wanted,
        done: RegistrationDone,
        attached: bool,
    ) -> Option<WorkerMessage> {
        match &mut wanted {
            Wanted::Add(register) => register.request = request,
            Wanted::TakeBack(unregister) => {
                unregister.request = request;
                // Whatever the engine answers, this worker serves it no longer.
                self.known.remove(unregister);
            }
        }
        let message = match (&wanted, attached) {
            (Wanted::Add(register), true) => Some(WorkerMessage::Register(register.clone())),
            (Wanted::TakeBack(unregister), true) => Some(WorkerMessage::Unregister(unregister.clone())),
            (Wanted::TakeBack(unregister), false) => {
                // No engine knows it, and none will be told.
                self.forget_unsent(unregister);
                done(Ok(taken_back(unregister)));
                return None;
            }
            (Wanted::Add(_), false) => None,
        };
        self.pending.insert(request, Pending { wanted, sent: attached, done });
        message
    }

    /// Strikes what is taken back from earlier requests, so that the next attach does not add it.
    fn forget_unsent(&mut self, unregister: &Unregister) {
        for (_, pending) in self.pending.range_mut(..unregister.request) {
            let Wanted::Add(register) = &mut pending.wanted else { continue };
            register.functions.retain(|item| !unregister.functions.contains(&item.id));
            register.trigger_types.retain(|item| !unregister.trigger_types.contains(&item.id));
            register.triggers.retain(|item| !unregister.triggers.contains(&item.id));
        }
    }

    /// Takes the engine's answer.
    pub(super) fn answer(&mut self, request: RequestId, results: Vec<RegistrationResult>) {
        if self.replay.as_ref().is_some_and(|(replay, ..)| *replay == request) {
            self.answer_replay(results);
            return;
        }
        let Some(pending) = self.pending.remove(&request) else { return };
        match &pending.wanted {
            Wanted::Add(register) => {
                let named = by_name(register, results.clone());
                self.known.add(register, |kind, id| !is_refused(&named, kind, id));
            }
            // Once more: what it takes back may have been answered after it was asked.
            Wanted::TakeBack(unregister) => self.known.remove(unregister),
        }
        (pending.done)(Ok(results));
    }

    fn answer_replay(&mut self, results: Vec<RegistrationResult>) {
        let Some((_, register, requests)) = self.replay.take() else { return };
        let named = by_name(&register, results);
        for ((_, id), result) in &named {
            if let Some(error) = &result.error {
                tracing::warn!(%id, %error, "the engine refused to register this again");
            }
        }
        for pending in requests.into_iter().filter_map(|request| self.pending.remove(&request)) {
            let Wanted::Add(register) = &pending.wanted else { continue };
            self.known.add(register, |kind, id| !is_refused(&named, kind, id));
            let result = |name: (Kind, String)| named.get(&name).cloned();
            (pending.done)(Ok(names_of(register).into_iter().filter_map(result).collect()));
        }
    }

    /// The engine is gone: what it did not answer goes out again with the next attach. What was to be taken back is gone
    /// with it.
    pub(super) fn engine_gone(&mut self) {
        self.replay = None;
        for (request, mut pending) in std::mem::take(&mut self.pending) {
            pending.sent = false;
            match &pending.wanted {
                Wanted::Add(_) => drop(self.pending.insert(request, pending)),
                Wanted::TakeBack(unregister) => {
                    self.forget_unsent(unregister);
                    (pending.done)(Ok(taken_back(unregister)));
                }
            }
        }
    }

    /// Returns everything in one message, if there is anything.
    pub(super) fn replay(&mut self, request: RequestId) -> Option<WorkerMessage> {
        let mut all = Known::default();
        std::mem::swap(&mut all, &mut self.known);
        self.known = Known {
            functions: all.functions.clone(),
            trigger_types: all.trigger_types.clone(),
            triggers: all.triggers.clone(),
        };
        let mut requests = Vec::new();
        for (waiting, pending) in &mut self.pending {
            if let Wanted::Add(register) = &pending.wanted {
                all.add(register, |_, _| true);
                pending.sent = true;
                requests.push(*waiting);
            }
        }
        let register = Register {
            request,
            functions: all.functions.into_values().collect(),
            trigger_types: all.trigger_types.into_values().collect(),
            triggers: all.triggers.into_values().collect(),
        };
        if names_of(&register).is_empty() {
            // Requests that name nothing any more are answered here.
            for pending in requests.into_iter().filter_map(|request| self.pending.remove(&request)) {
                (pending.done)(Ok(Vec::new()));
            }
            return None;
        }
        self.replay = Some((request, register.clone(), requests));
        Some(WorkerMessage::Register(register))
    }

    /// The time of a request is up. One that no engine has seen is given up; one that is under way may still succeed,
    /// and counts if it does.
    pub(super) fn expire(&mut self, request: RequestId, error: impl FnOnce(bool) -> CallError) {
        let Some(pending) = self.pending.get_mut(&request) else { return };
        let sent = pending.sent;
        let done = std::mem::replace(&mut pending.done, Box::new(|_| ()));
        if !sent {
            self.pending.remove(&request);
        }
        done(Err(error(sent)));
    }

    /// Ends every request with an error.
    pub(super) fn fail_all(&mut self, error: &CallError) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            (pending.done)(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
