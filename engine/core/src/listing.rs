//! The built-in listings: what is there, as JSON, with the filters, hidden ids, order and errors of the iii
//! protocol (its ids, its field names, its codes `NOT_FOUND`, `INVALID_ARGUMENTS`, `FORBIDDEN`). The
//! engine's worker serves these functions. A caller sees only what it may call. Fields that are ours alone
//! are added beside iii's, never in their place.

use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::ids::WorkerId;
use ringway_protocol::naming;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::catalog::{Replica, Worker};
use crate::core::Core;

mod functions;
mod registered;
mod search;
mod triggers;
mod workers;

/// The ids of the functions that [`Core::query`] answers.
pub const LISTING_FUNCTIONS: &[&str] = &[
    naming::FUNCTIONS_LIST,
    naming::FUNCTIONS_INFO,
    naming::WORKERS_LIST,
    naming::WORKERS_INFO,
    naming::TRIGGERS_LIST,
    naming::TRIGGERS_INFO,
    naming::REGISTERED_TRIGGERS_LIST,
    naming::REGISTERED_TRIGGERS_INFO,
];

impl Core {
    /// Answers a built-in listing for a caller; without one, everything is shown. Costs a walk over the
    /// catalog.
    ///
    /// # Errors
    /// The input does not fit, what was asked for is not there or not for this caller, or the id is no
    /// listing.
    pub fn query(&self, caller: Option<WorkerId>, function: &str, input: &Value) -> Result<Value, CallError> {
        let listing = Listing { core: self, caller: self.asking(caller)? };
        let answer = match function {
            naming::FUNCTIONS_LIST => listing.functions_list(&read(input)?),
            naming::FUNCTIONS_INFO => listing.functions_info(&read(input)?),
            naming::WORKERS_LIST => listing.workers_list(&read(input)?),
            naming::WORKERS_INFO => listing.workers_info(&read(input)?),
            naming::TRIGGERS_LIST => listing.triggers_list(&read(input)?),
            naming::TRIGGERS_INFO => listing.triggers_info(&read(input)?),
            naming::REGISTERED_TRIGGERS_LIST => listing.registered_list(&read(input)?),
            naming::REGISTERED_TRIGGERS_INFO => listing.registered_info(&read(input)?),
            other => Err(CallError::function_not_found(other)),
        };
        answer.map_err(|error| error.with_function(function))
    }

    fn asking(&self, caller: Option<WorkerId>) -> Result<Option<&Worker>, CallError> {
        let Some(id) = caller else { return Ok(None) };
        let worker = self.catalog.workers.get(&id);
        worker.map(Some).ok_or_else(|| CallError::not_found("worker", &id.to_string()))
    }
}

/// One question and who asks it.
#[derive(Clone, Copy)]
struct Listing<'a> {
    core: &'a Core,
    caller: Option<&'a Worker>,
}

/// Reads the input of a listing. None and null are an input without fields; unknown fields are passed over.
fn read<T: DeserializeOwned>(input: &Value) -> Result<T, CallError> {
    let empty = Value::Object(serde_json::Map::new());
    let input = if input.is_null() { &empty } else { input };
    T::deserialize(input).map_err(|problem| {
        CallError::invalid_request("the input", problem).with_user_code("deserialization_error")
    })
}

fn not_found(message: String) -> CallError {
    CallError::new(ErrorCode::NotFound, message).with_user_code("NOT_FOUND")
}

fn invalid_arguments(message: impl Into<String>) -> CallError {
    CallError::new(ErrorCode::InvalidRequest, message).with_user_code("INVALID_ARGUMENTS")
}

fn forbidden(message: String) -> CallError {
    CallError::new(ErrorCode::Forbidden, message).with_user_code("FORBIDDEN")
}

impl Listing<'_> {
    /// Says whether the caller may call what a replica offers.
    fn may_call(&self, replica: &Replica) -> bool {
        self.caller.is_none_or(|caller| self.core.allows(caller, &replica.zone, &replica.spec.id))
    }

    /// Says whether the caller may know of what a replica offers, be it its to call or not.
    fn may_know(&self, replica: &Replica) -> bool {
        self.caller.is_none_or(|caller| self.core.shows(caller, &replica.zone, &replica.spec.id))
    }

    /// Says whether the caller may see a worker: of its own zone, the engine's, or everything for the
    /// engine itself.
    fn may_see(&self, zone: &str, engine: bool) -> bool {
        self.caller.is_none_or(|caller| engine || caller.credentials.engine || *caller.zone == *zone)
    }

    fn worker_name(&self, worker: WorkerId, id: &str) -> String {
        match self.core.catalog.workers.get(&worker) {
            Some(worker) if !worker.hello.name.is_empty() => worker.hello.name.clone(),
            _ => naming::first_segment(id).to_owned(),
        }
    }
}

/// Says whether a trigger type or a binding's target is hidden unless asked for.
fn is_engine_id(id: &str) -> bool {
    id.starts_with(naming::ENGINE_PREFIX)
}

#[cfg(test)]
mod tests;
