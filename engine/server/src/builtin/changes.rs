//! The trigger types that tell of the catalog's changes. A thread of their own calls the bound functions, so that a slow
//! one holds up neither the control thread nor the engine's other functions. With nothing bound, changes are not even sent
//! here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use ringway::{CallError, CallOptions, ErrorCode, Failure, Message, TriggerProvider, Worker};
use ringway_protocol::control::{Change, TriggerSpec, TriggerTypeSpec};
use ringway_protocol::naming;
use serde_json::{Value, json};

use crate::limits;
use crate::shared::Shared;

/// What is bound to one of the two trigger types, by the binding's id.
type Bound = Mutex<BTreeMap<String, Binding>>;

/// Whom to tell, and what of the binding's own to tell along.
#[derive(Debug, Clone)]
struct Binding {
    function: String,
    metadata: Option<Value>,
}

/// Watches on behalf of one trigger type.
struct Watcher {
    shared: Arc<Shared>,
    bound: Arc<Bound>,
}

impl TriggerProvider for Watcher {
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError> {
        let bound =
            Binding { function: binding.function_id.as_str().to_owned(), metadata: binding.metadata.clone() };
        if self.bound.lock().insert(binding.id.clone(), bound).is_none() {
            self.shared.watchers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn unbind(&self, id: &str) {
        if self.bound.lock().remove(id).is_some() {
            self.shared.watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Changes {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Changes {
    pub(super) fn start(worker: &Worker, shared: &Arc<Shared>) -> Result<Self, CallError> {
        let (functions, workers) = (Arc::<Bound>::default(), Arc::<Bound>::default());
        for (id, description, bound) in [
            (naming::TRIGGER_FUNCTIONS_AVAILABLE, "the list of functions changed", &functions),
            (naming::TRIGGER_WORKERS_AVAILABLE, "a worker came, changed or went", &workers),
        ] {
            let spec = TriggerTypeSpec {
                id: id.into(),
                description: description.into(),
                ..TriggerTypeSpec::default()
            };
            let watcher = Watcher { shared: Arc::clone(shared), bound: Arc::clone(bound) };
            worker.register_trigger_type(spec, watcher)?;
        }
        let (sender, receiver) = channel();
        *shared.changes.lock() = Some(sender);
        let teller = Teller { worker: worker.clone(), shared: Arc::clone(shared), functions, workers };
        let thread = std::thread::Builder::new()
            .name("ringway-changes".to_owned())
            .spawn(move || teller.run(&receiver))
            .map_err(|error| {
                CallError::new(ErrorCode::OutOfMemory, format!("cannot start a thread: {error}"))
            })?;
        Ok(Self { shared: Arc::clone(shared), thread })
    }

    pub(super) fn stop(self) {
        *self.shared.changes.lock() = None;
        if self.thread.join().is_err() {
            tracing::error!("the thread that tells of changes panicked");
        }
    }
}

struct Teller {
    worker: Worker,
    shared: Arc<Shared>,
    functions: Arc<Bound>,
    workers: Arc<Bound>,
}

impl Teller {
    fn run(&self, receiver: &Receiver<Vec<Change>>) {
        while let Ok(mut changes) = receiver.recv() {
            // What came while the last ones were told is told at once.
            changes.extend(receiver.try_iter().flatten());
            for change in &changes {
                if let Some(event) = worker_event(change) {
                    self.tell(&self.workers, &event);
                }
            }
            if !self.functions.lock().is_empty() && changes.iter().any(changes_functions) {
                self.tell_functions();
            }
        }
    }

    fn tell_functions(&self) {
        let listing = self.shared.core.read().query(None, naming::FUNCTIONS_LIST, &Value::Null);
        match listing {
            Ok(listing) => {
                let event = json!({ "event": "functions_changed", "functions": listing["functions"] });
                self.tell(&self.functions, &event);
            }
            Err(error) => tracing::error!(%error, "cannot list functions"),
        }
    }

    fn tell(&self, bound: &Bound, event: &Value) {
        let bound: Vec<Binding> = bound.lock().values().cloned().collect();
        for Binding { function, metadata } in bound {
            let mut options = CallOptions::new().timeout(limits::TELL_TIME_MAX);
            if let Some(metadata) = metadata {
                options = options.metadata(metadata);
            }
            let sent = Message::json(event).map_err(Failure::into_error);
            let sent = sent.and_then(|message| self.worker.handle(&function).send(&message, &options));
            if let Err(error) = sent {
                tracing::debug!(function, %error, "a trigger was not told");
            }
        }
    }
}

fn worker_event(change: &Change) -> Option<Value> {
    let (event, id) = match change {
        Change::WorkerAdded { worker } => ("worker_connected", worker.id),
        Change::WorkerChanged { worker } => ("worker_metadata_updated", worker.id),
        Change::WorkerGone { id, .. } => ("worker_disconnected", *id),
        _ => return None,
    };
    Some(json!({ "event": event, "worker_id": id }))
}

const fn changes_functions(change: &Change) -> bool {
    matches!(
        change,
        Change::FunctionAdded { .. } | Change::FunctionRemoved { .. } | Change::WorkerGone { .. }
    )
}
