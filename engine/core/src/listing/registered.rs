//! `engine::registered-triggers::list` and `engine::registered-triggers::info`: triggers that are bound.
//! Parked ones are not shown.

use ringway_protocol::WorkerId;
use ringway_protocol::error::CallError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Listing, is_engine_id, not_found, search};
use crate::bindings::Binding;

/// The characters of a configuration that a summary shows.
const SUMMARY_CHARS: usize = 80;

#[derive(Deserialize)]
pub(super) struct ListInput {
    search: Option<String>,
    trigger_type: Option<String>,
    function_id: Option<String>,
    worker: Option<String>,
    #[serde(default)]
    include_internal: bool,
}

#[derive(Deserialize)]
pub(super) struct InfoInput {
    id: String,
}

/// Cuts compact JSON to what fits a line.
fn summarize(config: &Value) -> String {
    let text = config.to_string();
    match text.char_indices().nth(SUMMARY_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl<'a> Listing<'a> {
    pub(super) fn live_bindings(&self) -> impl Iterator<Item = &'a Binding> {
        let listing = *self;
        let live = self.core.bindings.all().filter(|binding| binding.provider.is_some());
        live.filter(move |binding| listing.may_see(&binding.zone, false))
    }

    fn owner_name(&self, binding: &Binding) -> String {
        match binding.owner {
            Some(owner) => self.worker_name(owner, &binding.spec.function_id),
            None => ringway_protocol::naming::ENGINE_WORKER_NAME.to_owned(),
        }
    }

    fn binding_summary(&self, binding: &Binding) -> Value {
        json!({
            "id": binding.spec.id,
            "trigger_type": binding.spec.trigger_type,
            "function_id": binding.spec.function_id,
            "worker_name": self.owner_name(binding),
            "config": binding.spec.config,
            "config_summary": summarize(&binding.spec.config),
        })
    }

    pub(super) fn registered_list(&self, input: &ListInput) -> Result<Value, CallError> {
        let wanted =
            |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|filter| filter == value);
        let mut found = Vec::new();
        for binding in self.live_bindings() {
            let (spec, name) = (&binding.spec, self.owner_name(binding));
            let shown = (input.include_internal || !is_engine_id(&spec.function_id))
                && wanted(&input.trigger_type, &spec.trigger_type)
                && wanted(&input.function_id, &spec.function_id)
                && wanted(&input.worker, &name);
            let text = format!("{} {}", spec.trigger_type, spec.function_id);
            if let Some(rank) = search::rank(input.search.as_deref(), &spec.id, &text).filter(|_| shown) {
                found.push((rank, &spec.id, self.binding_summary(binding)));
            }
        }
        found.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let found: Vec<_> = found.into_iter().map(|(.., summary)| summary).collect();
        Ok(json!({ "registered_triggers": found }))
    }

    pub(super) fn registered_info(&self, input: &InfoInput) -> Result<Value, CallError> {
        let binding = self.live_bindings().find(|binding| binding.spec.id == input.id);
        let binding =
            binding.ok_or_else(|| not_found(format!("registered trigger {} not found", input.id)))?;
        let mut detail = self.binding_summary(binding);
        if let Some(metadata) = &binding.spec.metadata {
            detail["metadata"] = metadata.clone();
        }
        let provider = binding.provider;
        detail["trigger"] = provider
            .and_then(|provider| self.type_of(&binding.spec.trigger_type, provider))
            .unwrap_or_default();
        let key = binding.target();
        let callable: Vec<_> =
            self.core.catalog.replicas(&key).iter().filter(|replica| self.may_call(replica)).collect();
        detail["function"] = self.function_detail(&key, &callable);
        Ok(detail)
    }

    pub(super) fn bindings_of(&self, worker: WorkerId) -> Vec<Value> {
        let own = self.live_bindings().filter(|binding| binding.owner == Some(worker));
        own.map(|binding| self.binding_summary(binding)).collect()
    }
}
