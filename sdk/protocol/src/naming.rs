//! The ids that ship with Ringway: functions of the engine, of every worker, and the names that no user
//! may take. The engine serves them, the command line and the SDKs call them.

/// The namespace of everything that names none, and of all the engine's functions.
pub const NAMESPACE_DEFAULT: &str = "default";
/// The zone of processes of the engine's own user that attach natively.
pub const ZONE_DEFAULT: &str = "default";
/// What ids of the engine's functions and trigger types start with. Only the engine may register them.
pub const ENGINE_PREFIX: &str = "engine::";
/// What ids of the engine's start with that the built-in queue serves.
pub const QUEUE_PREFIX: &str = "engine::queue::";
/// What ids of the engine's start with that the listener for iii's SDKs serves.
pub const CHANNELS_PREFIX: &str = "engine::channels::";
/// What ids of the functions that every worker serves start with.
pub const RINGWAY_PREFIX: &str = "ringway::";
/// The name the engine's own worker has in the catalog.
pub const ENGINE_WORKER_NAME: &str = "engine";

/// Function index 0 of every worker: its segments, leases, channels and counters.
pub const WORKER_INSPECT: &str = "ringway::worker::inspect";

/// Lists functions.
pub const FUNCTIONS_LIST: &str = "engine::functions::list";
/// Describes one function or several.
pub const FUNCTIONS_INFO: &str = "engine::functions::info";
/// Lists workers.
pub const WORKERS_LIST: &str = "engine::workers::list";
/// Describes one worker.
pub const WORKERS_INFO: &str = "engine::workers::info";
/// Lets a worker say what it is called and what it is, after it has attached.
pub const WORKERS_REGISTER: &str = "engine::workers::register";
/// Lists trigger types.
pub const TRIGGERS_LIST: &str = "engine::triggers::list";
/// Describes one trigger type.
pub const TRIGGERS_INFO: &str = "engine::triggers::info";
/// Lists bound triggers.
pub const REGISTERED_TRIGGERS_LIST: &str = "engine::registered-triggers::list";
/// Describes one bound trigger.
pub const REGISTERED_TRIGGERS_INFO: &str = "engine::registered-triggers::info";
/// Creates a binding that outlives the connection of whoever asked for it.
pub const REGISTER_TRIGGER: &str = "engine::register_trigger";
/// Removes a binding.
pub const UNREGISTER_TRIGGER: &str = "engine::unregister_trigger";
/// Says whether the engine is well.
pub const HEALTH: &str = "engine::health::check";
/// Lists recent traces.
pub const TRACES_LIST: &str = "engine::traces::list";
/// Returns one trace as a tree.
pub const TRACES_TREE: &str = "engine::traces::tree";
/// Gathers recent spans by the value of an attribute.
pub const TRACES_GROUP_BY: &str = "engine::traces::group_by";
/// Forgets all traces.
pub const TRACES_CLEAR: &str = "engine::traces::clear";
/// Forgets all logs.
pub const LOGS_CLEAR: &str = "engine::logs::clear";
/// Lists logs.
pub const LOGS_LIST: &str = "engine::logs::list";
/// Reports counters of the engine.
pub const METRICS_LIST: &str = "engine::metrics::list";
/// Reports segments, blocks and leases of all workers.
pub const MEMORY_LIST: &str = "engine::memory::list";

/// What ids of the engine's functions start with that write into its log, for iii's SDKs.
pub const LOG_PREFIX: &str = "engine::log::";
/// What ids of the engine's functions start with that tell of baggage, for iii's SDKs.
pub const BAGGAGE_PREFIX: &str = "engine::baggage::";
/// What ids of the engine's functions start with that tell of observers, for iii's SDKs.
pub const OBSERVERS_PREFIX: &str = "engine::observers::";
/// Makes a channel and tells its two ends.
pub const CHANNELS_CREATE: &str = "engine::channels::create";
/// Streams what is written to a channel.
pub const CHANNELS_READ: &str = "engine::channels::read";
/// Writes what is streamed to a channel.
pub const CHANNELS_WRITE: &str = "engine::channels::write";
/// Takes in spans, logs and figures in OpenTelemetry's formats.
pub const TELEMETRY_INGEST: &str = "engine::telemetry::ingest";

/// The trigger type that fires when the list of functions changes.
pub const TRIGGER_FUNCTIONS_AVAILABLE: &str = "engine::functions-available";
/// The trigger type that fires when a worker comes, changes or goes.
pub const TRIGGER_WORKERS_AVAILABLE: &str = "engine::workers-available";
/// The trigger type that fires when a log line comes in.
pub const TRIGGER_LOG: &str = "log";
/// The trigger type that fires when traces end.
pub const TRIGGER_TRACE: &str = "trace";

/// Says whether only the engine may register this id.
#[must_use]
pub fn is_reserved(id: &str) -> bool {
    id.starts_with(ENGINE_PREFIX) || id.starts_with(RINGWAY_PREFIX)
}

/// Says whether a built-in worker may register this reserved id, which it may only in the engine's own process.
#[must_use]
pub fn is_built_in(id: &str) -> bool {
    [QUEUE_PREFIX, CHANNELS_PREFIX, LOG_PREFIX, BAGGAGE_PREFIX, OBSERVERS_PREFIX]
        .iter()
        .any(|prefix| id.starts_with(prefix))
}

/// Returns the part of an id before its first `::`, or the whole id.
#[must_use]
pub fn first_segment(id: &str) -> &str {
    id.split("::").next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engine_and_ringway_are_reserved() {
        let check = |id: &str, reserved: bool| assert_eq!(is_reserved(id), reserved, "{id}");
        check(FUNCTIONS_LIST, true);
        check(WORKER_INSPECT, true);
        check("engine", false);
        check("engineer::build", false);
        check("orders::engine::x", false);
    }

    #[test]
    fn of_the_engines_ids_few_are_built_in() {
        assert!(is_built_in("engine::log::info") && is_built_in("engine::baggage::get"));
        assert!(is_built_in("engine::observers::get") && is_reserved("engine::observers::get"));
        assert!(is_built_in(CHANNELS_CREATE) && is_built_in(CHANNELS_READ) && is_built_in(CHANNELS_WRITE));
        assert!(is_built_in("engine::queue::enqueue") && is_reserved("engine::queue::enqueue"));
        assert!(!is_built_in(FUNCTIONS_LIST) && !is_built_in("queue::enqueue"));
    }

    #[test]
    fn a_first_segment_ends_at_the_first_pair_of_colons() {
        let check = |id: &str, first: &str| assert_eq!(first_segment(id), first);
        check("orders::validate", "orders");
        check("a::b::c", "a");
        check("publish", "publish");
    }
}
