//! `engine::functions::list` and `engine::functions::info`.

use std::collections::BTreeSet;

use ringway_protocol::error::CallError;
use ringway_protocol::naming::{self, NAMESPACE_DEFAULT};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Listing, forbidden, invalid_arguments, not_found, search};
use crate::catalog::{FunctionKey, Replica};

/// The most ids of one question.
const IDS_MAX: usize = 32;

#[derive(Deserialize)]
pub(super) struct ListInput {
    search: Option<String>,
    prefix: Option<String>,
    worker: Option<String>,
    workers: Option<Vec<String>>,
    #[serde(default)]
    include_internal: bool,
}

#[derive(Deserialize)]
pub(super) struct InfoInput {
    function_id: Option<String>,
    function_ids: Option<Vec<String>>,
    namespace: Option<String>,
}

/// Says whether a function is shown only to those who ask for it.
fn is_internal(replica: &Replica) -> bool {
    let (id, spec) = (replica.spec.id.as_str(), &replica.spec);
    let engine = naming::is_reserved(id) && !naming::is_built_in(id);
    let marked =
        spec.metadata.as_ref().and_then(|metadata| metadata.get("internal")) == Some(&Value::Bool(true));
    engine || marked || spec.internal
}

impl<'a> Listing<'a> {
    /// Returns what the caller may call of a function's replicas, its own zone's first.
    fn callable(&self, replicas: &'a [Replica]) -> Vec<&'a Replica> {
        let mut callable: Vec<_> = replicas.iter().filter(|replica| self.may_call(replica)).collect();
        callable.sort_by_key(|replica| self.caller.is_some_and(|caller| caller.zone != replica.zone));
        callable
    }

    fn summary(&self, key: &FunctionKey, replica: &Replica) -> Map<String, Value> {
        let mut summary = Map::new();
        summary.insert("function_id".into(), key.id.as_str().into());
        summary.insert("namespace".into(), (*key.namespace).into());
        summary.insert("worker_name".into(), self.worker_name(replica.worker, &key.id).into());
        if let Some(description) = &replica.spec.description {
            summary.insert("description".into(), description.as_str().into());
        }
        if let Some(metadata) = &replica.spec.metadata {
            summary.insert("metadata".into(), metadata.clone());
        }
        summary
    }

    pub(super) fn functions_list(&self, input: &ListInput) -> Result<Value, CallError> {
        let names: BTreeSet<&str> =
            input.worker.iter().chain(input.workers.iter().flatten()).map(String::as_str).collect();
        let mut found = Vec::new();
        for (key, replicas) in self.core.catalog.functions() {
            if input.prefix.as_ref().is_some_and(|prefix| !key.id.starts_with(prefix.as_str())) {
                continue;
            }
            let mut callable = self.callable(replicas);
            callable.retain(|replica| input.include_internal || !is_internal(replica));
            if !names.is_empty() {
                callable.retain(|replica| {
                    names.contains(self.worker_name(replica.worker, &key.id).as_str())
                        || names.contains(replica.worker.to_string().as_str())
                });
            }
            let Some(first) = callable.first() else { continue };
            let description = first.spec.description.as_deref().unwrap_or_default();
            let Some(rank) = search::rank(input.search.as_deref(), &key.id, description) else { continue };
            found.push((rank, key, self.summary(key, first)));
        }
        found.sort_by(|(rank_a, a, _), (rank_b, b, _)| {
            (rank_a, &a.id, &a.namespace).cmp(&(rank_b, &b.id, &b.namespace))
        });
        let functions: Vec<_> = found.into_iter().map(|(_, _, summary)| Value::Object(summary)).collect();
        Ok(json!({ "functions": functions }))
    }

    /// Returns all that is known of a function, its replicas included.
    pub(super) fn function_detail(&self, key: &FunctionKey, callable: &[&Replica]) -> Value {
        let Some(first) = callable.first() else { return Value::Null };
        let mut detail = self.summary(key, first);
        if let Some(schema) = &first.spec.request_schema {
            detail.insert("request_schema".into(), schema.clone());
        }
        if let Some(schema) = &first.spec.response_schema {
            detail.insert("response_schema".into(), schema.clone());
        }
        let bound = self.live_bindings().filter(|binding| binding.target() == *key);
        let bound: Vec<_> = bound
            .map(|binding| {
                json!({"id": binding.spec.id, "trigger_type": binding.spec.trigger_type, "config": binding.spec.config})
            })
            .collect();
        detail.insert("registered_triggers".into(), bound.into());
        detail.insert("encodings".into(), json!(first.spec.encodings));
        detail.insert("idempotent".into(), callable.iter().all(|replica| replica.spec.idempotent).into());
        detail.insert("streams_in".into(), first.spec.streams_in.into());
        detail.insert("streams_out".into(), first.spec.streams_out.into());
        detail.insert("streams_optional".into(), first.spec.streams_optional.into());
        let replicas: Vec<_> = callable.iter().map(|replica| self.replica(replica)).collect();
        detail.insert("replicas".into(), replicas.into());
        Value::Object(detail)
    }

    fn replica(&self, replica: &Replica) -> Value {
        json!({
            "worker_id": replica.worker,
            "worker_name": self.worker_name(replica.worker, &replica.spec.id),
            "zone": &*replica.zone,
            "index": replica.spec.index,
            "generation": replica.spec.generation,
            "status": self.core.catalog.workers.get(&replica.worker).map(|worker| worker.status),
        })
    }

    /// Finds a function: in the namespace named; else in the default one; else in the only one that has it. What the
    /// caller's zone is not shown is not there, in whatever namespace.
    fn find(&self, id: &str, namespace: Option<&str>) -> Result<(FunctionKey, Vec<&'a Replica>), CallError> {
        let function = ringway_protocol::FunctionId::new(id)
            .map_err(|problem| invalid_arguments(problem.to_string()))?;
        let key = |namespace: &str| FunctionKey { namespace: namespace.into(), id: function.clone() };
        let there = |key: &FunctionKey| self.is_known(self.core.catalog.replicas(key));
        let found = match namespace {
            Some(namespace) => Some(key(namespace)).filter(there),
            None => Some(key(NAMESPACE_DEFAULT)).filter(there),
        };
        let found = match (found, namespace) {
            (Some(found), _) => found,
            (None, Some(namespace)) => {
                return Err(not_found(format!("function {id} not found in namespace {namespace}")));
            }
            (None, None) => self.only_namespace(id)?,
        };
        let callable = self.callable(self.core.catalog.replicas(&found));
        if callable.is_empty() {
            return Err(forbidden(format!(
                "function '{id}' not allowed; allow it by a rule in the engine's policy"
            )));
        }
        Ok((found, callable))
    }

    fn is_known(&self, replicas: &[Replica]) -> bool {
        replicas.iter().any(|replica| self.may_know(replica))
    }

    fn only_namespace(&self, id: &str) -> Result<FunctionKey, CallError> {
        let elsewhere = self.core.catalog.functions().filter(|(key, _)| key.id.as_str() == id);
        let known = elsewhere.filter(|(_, replicas)| self.is_known(replicas));
        let elsewhere: Vec<_> = known.map(|(key, _)| key).collect();
        match elsewhere.as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err(not_found(format!("function {id} not found"))),
            several => {
                let names: Vec<_> = several.iter().map(|key| &*key.namespace).collect();
                let names = names.join(", ");
                Err(not_found(format!(
                    "function {id} not found in namespace default; it is in {names}: name one"
                )))
            }
        }
    }

    pub(super) fn functions_info(&self, input: &InfoInput) -> Result<Value, CallError> {
        let namespace = input.namespace.as_deref();
        match (&input.function_id, &input.function_ids) {
            (Some(id), None) => {
                self.find(id, namespace).map(|(key, callable)| self.function_detail(&key, &callable))
            }
            (None, Some(ids)) if (1..=IDS_MAX).contains(&ids.len()) => {
                let functions: Vec<_> = ids.iter().map(|id| self.info_entry(id, namespace)).collect();
                Ok(json!({ "functions": functions }))
            }
            (None, Some(ids)) => {
                Err(invalid_arguments(format!("wanted 1 to {IDS_MAX} function_ids, found {}", ids.len())))
            }
            _ => Err(invalid_arguments("wanted exactly one of function_id and function_ids")),
        }
    }

    fn info_entry(&self, id: &str, namespace: Option<&str>) -> Value {
        match self.find(id, namespace) {
            Ok((key, callable)) => self.function_detail(&key, &callable),
            Err(error) if error.user_code.as_deref() == Some("FORBIDDEN") => {
                json!({"function_id": id, "error": "forbidden"})
            }
            Err(_) => json!({"function_id": id, "error": "not_found"}),
        }
    }

    /// Returns the functions of one worker in the order of their ids, as its own entry shows them.
    pub(super) fn functions_of(&self, worker: ringway_protocol::WorkerId) -> Vec<Value> {
        let Some(entry) = self.core.catalog.workers.get(&worker) else { return Vec::new() };
        let keys: BTreeSet<_> = entry.functions.values().collect();
        let own = keys.into_iter().filter_map(|key| Some((key, self.core.catalog.replica(key, worker)?)));
        let own = own.filter(|(_, replica)| self.may_call(replica));
        own.map(|(key, replica)| Value::Object(self.summary(key, replica))).collect()
    }
}
