//! Every limit of the engine's server in one place. What a limit causes is counted and named in an error. Limits on what
//! workers register are in `ringway_protocol::control::Limits`.

use std::time::Duration;

/// The most control connections at a time, attached or not.
pub const CONNECTIONS_MAX: usize = 8192;
/// How long a connection may be open before its first message.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection that is being closed may take to read what was sent to it.
pub const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);
/// The most bytes that wait for a worker that does not read its control socket.
pub const QUEUED_BYTES_MAX: usize = 80 << 20;
/// How many messages of one connection are handled before the others get their turn.
pub const MESSAGES_PER_TURN: usize = 64;
/// How long to wait before accepting again when the process has no descriptor left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest telemetry segment: as many slots as a ring can have, and the page before them.
pub const TELEMETRY_SEGMENT_BYTES_MAX: u64 = (64 << 10) * 256 + 4096;
/// How many telemetry records are taken in before others may look at the store.
pub const RECORDS_PER_TURN: u64 = 256;
/// The pause between two looks at the telemetry rings while records come.
pub const DRAIN_PAUSE: Duration = Duration::from_millis(1);
/// How many looks without a record until the telemetry thread sleeps until it is rung for.
pub const IDLE_LOOKS_MAX: u32 = 8;
/// The longest sleep of the telemetry thread: what bounds the delay that a thief of its doorbell could cause.
pub const DRAIN_SLEEP_MAX: Duration = Duration::from_secs(2);
/// How long the exporter may take to send what is left when the engine stops.
pub const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);
/// The most calls of one worker that are on their way into other zones.
pub const RELAYED_PER_CALLER_MAX: usize = 256;
/// The most calls of all workers that are on their way into other zones. Each may hold a thread of the engine's worker while
/// a callee does not read, and the engine's own functions need some.
pub const RELAYED_MAX: usize = 1024;
/// The largest call into another zone that the thread which reads the rings copies itself.
pub const RELAYED_AT_ONCE_BYTES_MAX: u64 = 64 << 10;
/// How often a call into another zone that was not started is tried again, each time as the catalog has it by then.
pub const RELAY_ATTEMPTS_MAX: u32 = 6;
/// The pause before the first of these attempts; each further one is twice as long.
pub const RELAY_PAUSE_FIRST: Duration = Duration::from_millis(1);
/// How long a provider may take to say whether it watches for a binding; after that it is taken to.
pub const PROVIDER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a function may be waited for that is told of a change of the catalog, or of all the logs or traces of one look.
pub const TELL_TIME_MAX: Duration = Duration::from_secs(5);
/// How often new logs and traces are looked for while a trigger wants to hear of them. iii gathers them likewise.
pub const TELL_RECORDS_EVERY: Duration = Duration::from_millis(100);
/// Log lines that are told at a time; of more, the latest, and the others are counted.
pub const TELL_LOGS_MAX: usize = 1000;
/// Traces that are told at a time; of more, the latest.
pub const TELL_TRACES_MAX: usize = 1000;
/// How long a worker may take to say how many calls it works on.
pub const ACTIVITY_TIME_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(QUEUED_BYTES_MAX > ringway_protocol::limits::CONTROL_JSON_BYTES_MAX as usize);

/// The longest that stopping may wait for calls to end, whatever is asked for.
pub const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);
