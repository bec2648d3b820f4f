//! `engine::triggers::list` and `engine::triggers::info`: trigger types.

use ringway_protocol::error::CallError;
use ringway_protocol::naming::NAMESPACE_DEFAULT;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Listing, is_engine_id, not_found, search};
use crate::bindings::{Provider, TypeKey};

#[derive(Deserialize)]
pub(super) struct ListInput {
    search: Option<String>,
    prefix: Option<String>,
    worker: Option<String>,
    #[serde(default)]
    include_internal: bool,
}

#[derive(Deserialize)]
pub(super) struct InfoInput {
    id: String,
    namespace: Option<String>,
}

impl<'a> Listing<'a> {
    /// Returns the trigger types that the caller may see, each with the provider in charge for it.
    fn types(&self) -> impl Iterator<Item = (&'a TypeKey, &'a Provider)> {
        let types = self.core.bindings.types();
        types.filter_map(|(key, providers)| {
            let mut visible = providers.iter().rev().filter(|p| self.may_see(&p.zone, p.everywhere));
            visible.next().map(|provider| (key, provider))
        })
    }

    pub(super) fn type_summary(&self, key: &TypeKey, provider: &Provider) -> Value {
        json!({
            "id": key.1,
            "namespace": &*key.0,
            "worker_name": self.worker_name(provider.worker, &key.1),
            "description": provider.spec.description,
        })
    }

    pub(super) fn triggers_list(&self, input: &ListInput) -> Result<Value, CallError> {
        let mut found = Vec::new();
        for (key, provider) in self.types() {
            let id = key.1.as_str();
            let name = self.worker_name(provider.worker, id);
            let hidden = is_engine_id(id) && !input.include_internal;
            let prefix = input.prefix.as_deref().unwrap_or_default();
            if hidden
                || !id.starts_with(prefix)
                || input.worker.as_ref().is_some_and(|worker| *worker != name)
            {
                continue;
            }
            if let Some(rank) = search::rank(input.search.as_deref(), id, &provider.spec.description) {
                found.push((rank, id, &*key.0, self.type_summary(key, provider)));
            }
        }
        found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let triggers: Vec<_> = found.into_iter().map(|(.., summary)| summary).collect();
        Ok(json!({ "triggers": triggers }))
    }

    /// Returns all that is known of a trigger type.
    pub(super) fn type_detail(&self, id: &str, namespace: &str) -> Option<Value> {
        let (key, provider) = self.types().find(|(key, _)| key.1 == id && *key.0 == *namespace)?;
        let mut detail = self.type_summary(key, provider);
        let spec = &provider.spec;
        let schemas = [
            ("configuration_schema", &spec.configuration_schema),
            ("request_schema", &spec.request_schema),
            ("response_schema", &spec.response_schema),
        ];
        for (name, schema) in schemas {
            if let Some(schema) = schema {
                detail[name] = schema.clone();
            }
        }
        let bound = self
            .live_bindings()
            .filter(|binding| binding.spec.trigger_type == id && binding.provider == Some(provider.worker));
        detail["instance_count"] = bound.count().into();
        Some(detail)
    }

    pub(super) fn triggers_info(&self, input: &InfoInput) -> Result<Value, CallError> {
        let namespace = input.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        let detail = self.type_detail(&input.id, namespace);
        detail
            .ok_or_else(|| not_found(format!("trigger type {} not found in namespace {namespace}", input.id)))
    }

    pub(super) fn types_of(&self, worker: ringway_protocol::WorkerId) -> Vec<Value> {
        let own = self.types().filter(|(_, provider)| provider.worker == worker);
        own.map(|(key, provider)| self.type_summary(key, provider)).collect()
    }

    /// Finds the namespace of the type that a live binding is bound to.
    pub(super) fn type_of(&self, id: &str, provider: ringway_protocol::WorkerId) -> Option<Value> {
        let mut own = self.types().filter(|(key, found)| key.1 == id && found.worker == provider);
        own.next().and_then(|(key, _)| self.type_detail(id, &key.0))
    }
}
