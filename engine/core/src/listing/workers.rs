//! `engine::workers::list` and `engine::workers::info`.

use ringway_protocol::WorkerId;
use ringway_protocol::control::WorkerStatus;
use ringway_protocol::error::CallError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Listing, invalid_arguments, not_found, search};
use crate::catalog::Worker;

#[derive(Deserialize)]
pub(super) struct ListInput {
    search: Option<String>,
    runtime: Option<String>,
    status: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct InfoInput {
    name: String,
    namespace: Option<String>,
}

fn status(worker: &Worker) -> &'static str {
    match worker.status {
        WorkerStatus::Draining => "draining",
        WorkerStatus::Ready if worker.credentials.engine => "available",
        WorkerStatus::Ready => "connected",
    }
}

fn runtime(worker: &Worker) -> &str {
    if worker.credentials.engine { "engine" } else { &worker.hello.runtime }
}

impl<'a> Listing<'a> {
    fn visible_workers(&self) -> impl Iterator<Item = (WorkerId, &'a Worker)> {
        let listing = *self;
        self.core
            .workers()
            .filter(move |(_, worker)| listing.may_see(&worker.zone, worker.credentials.engine))
    }

    fn worker_summary(&self, id: WorkerId, worker: &Worker) -> Value {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        json!({
            "name": known(&worker.hello.name),
            "description": worker.hello.description,
            "version": known(&worker.hello.sdk_version),
            "id": id,
            "namespace": worker.hello.namespace,
            "runtime": known(runtime(worker)),
            "os": known(&worker.hello.os),
            "status": status(worker),
            "function_count": worker.functions.len(),
            "connected_at_ms": self.core.unix_ms(worker.attached_at_ns),
            "active_invocations": null,
            "isolation": worker.announced.isolation,
            "ip_address": worker.hello.remote.as_ref().map(|remote| remote.host.as_str()),
            "zone": &*worker.zone,
            "wait_mode": worker.hello.wait_mode,
            "epoch": worker.epoch,
        })
    }

    pub(super) fn workers_list(&self, input: &ListInput) -> Result<Value, CallError> {
        let wanted =
            |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|filter| filter == value);
        let mut found = Vec::new();
        for (id, worker) in self.visible_workers() {
            let description = worker.hello.description.as_deref().unwrap_or_default();
            let shown = wanted(&input.runtime, runtime(worker)) && wanted(&input.status, status(worker));
            let rank = search::rank(input.search.as_deref(), &worker.hello.name, description);
            if let Some(rank) = rank.filter(|_| shown) {
                found.push((rank, &worker.hello.name, id, self.worker_summary(id, worker)));
            }
        }
        found.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let workers: Vec<_> = found.into_iter().map(|(.., summary)| summary).collect();
        Ok(json!({ "workers": workers }))
    }

    /// Finds a worker by its name or its id. Names need not be unique; an id is.
    fn find_worker(&self, input: &InfoInput) -> Result<(WorkerId, &'a Worker), CallError> {
        let name = input.name.as_str();
        let namespace =
            |worker: &Worker| input.namespace.as_ref().is_none_or(|wanted| *wanted == worker.hello.namespace);
        let named = self.visible_workers().filter(|(id, worker)| {
            namespace(worker) && (worker.hello.name == name || id.to_string() == name)
        });
        match named.collect::<Vec<_>>().as_slice() {
            [only] => Ok(*only),
            [] => Err(not_found(format!("worker {name} not found"))),
            several => {
                let places: Vec<_> = several
                    .iter()
                    .map(|(id, worker)| format!("{id} in {}", worker.hello.namespace))
                    .collect();
                let places = places.join(", ");
                Err(invalid_arguments(format!("several workers are named {name}: {places}; ask by id")))
            }
        }
    }

    pub(super) fn workers_info(&self, input: &InfoInput) -> Result<Value, CallError> {
        let (id, worker) = self.find_worker(input)?;
        let mut summary = self.worker_summary(id, worker);
        summary["pid"] = worker.credentials.pid.into();
        summary["internal"] = worker.credentials.engine.into();
        if let Some(remote) = &worker.hello.remote {
            summary["remote"] = json!(remote);
        }
        if let Some(metadata) = &worker.hello.metadata {
            summary["metadata"] = metadata.clone();
        }
        for (field, value) in
            [("telemetry", json!(worker.announced.telemetry)), ("features", json!(worker.announced.features))]
        {
            if !value.is_null() {
                summary[field] = value;
            }
        }
        Ok(json!({
            "worker": summary,
            "functions": self.functions_of(id),
            "trigger_types": self.types_of(id),
            "registered_triggers": self.bindings_of(id),
        }))
    }
}
