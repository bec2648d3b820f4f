//! Who holds which memory: every worker is asked for itself, the engine's own among them.

use std::sync::Arc;

use ringway::{Context, Function, WorkerId};
use ringway_protocol::naming;
use serde_json::{Value, json};

use super::answer;
use crate::shared::Shared;

/// How many workers are asked at a time.
const ASKED_AT_ONCE: usize = 8;

struct Asked {
    id: WorkerId,
    name: String,
    pid: u32,
}

pub(super) fn list(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::MEMORY_LIST, |shared, context, _| {
        let workers = workers(shared, context);
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let share = workers.len().div_ceil(ASKED_AT_ONCE).max(1);
            let askers: Vec<_> = workers
                .chunks(share)
                .map(|share| {
                    scope.spawn(|| share.iter().map(|worker| ask(context, worker)).collect::<Vec<_>>())
                })
                .collect();
            askers.into_iter().filter_map(|asker| asker.join().ok()).flatten().collect()
        });
        // What the engine's process maps besides its worker's channels: a page for each channel, a ring for each worker.
        let mut engine = json!({ "id": shared.engine_id, "pid": std::process::id() });
        // How many there are of these tells how many workers other zones have.
        if workers.iter().any(|worker| worker.id == shared.engine_id) {
            engine["permission_pages"] = shared.counters.report().permission_pages.into();
            engine["telemetry_rings"] = shared.core.read().workers().count().into();
        }
        Ok(json!({ "workers": answers, "engine": engine }))
    })
    .description("segments, blocks and leases of all workers")
}

/// The workers of the caller's zone; the engine's own is in the default one.
fn workers(shared: &Shared, context: &Context) -> Vec<Asked> {
    let core = shared.core.read();
    let zone = core.worker(context.caller()).map(|caller| Arc::clone(&caller.zone));
    core.workers()
        .filter(|(_, worker)| Some(&worker.zone) == zone.as_ref())
        .map(|(id, worker)| Asked { id, name: worker.hello.name.clone(), pid: worker.credentials.pid })
        .collect()
}

fn ask(context: &Context, worker: &Asked) -> Value {
    let mut answer = json!({ "id": worker.id, "name": worker.name, "pid": worker.pid });
    match context.worker().inspect(worker.id) {
        Ok(memory) => answer["memory"] = memory,
        Err(error) => answer["error"] = json!(error),
    }
    answer
}
