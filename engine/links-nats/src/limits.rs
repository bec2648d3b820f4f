//! Every limit of this crate in one place. It must not know the limits of other layers.

use std::time::Duration;

/// Bytes of a project's name, which becomes a part of subjects.
pub const PROJECT_BYTES_MAX: usize = 64;

/// How often an engine says that it is there, as long as there are few.
pub const BEAT_MIN: Duration = Duration::from_secs(1);

/// What each engine there adds to that, so that nobody hears more than 200 others in a second.
pub const BEAT_FOR_EACH: Duration = Duration::from_millis(5);

/// Beats that are not heard before an engine counts as silent.
pub const BEATS_MISSED_MAX: u32 = 5;

/// How long what a silent engine offered is remembered, in case that it comes back with the same.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// How long to wait for the state of an engine before it is asked again, the first time.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often that pause doubles: to 8 s.
pub const ASK_DOUBLED_MAX: u32 = 2;

/// Engines that are asked for their states at a time.
pub const ASKS_MAX: usize = 32;

/// By how much the answers to whoever says hello are spread, for each engine there: a thousand take a fifth of a second.
pub const ANSWER_FOR_EACH: Duration = Duration::from_micros(200);

/// Changes that are kept of an engine whose state is awaited.
pub const HELD_MAX: usize = 1024;

/// Bytes of one message about the catalog, where the server takes as many.
pub const PIECE_BYTES: usize = 256 << 10;

/// Bytes of a message that a server takes which does not say: NATS's own default.
pub const PAYLOAD_BYTES: usize = 1 << 20;

/// Bytes of a link in one message, where the server takes as many.
pub const CHUNK_BYTES: usize = 128 << 10;

/// What a message may have beside those.
pub const HEAD_BYTES: usize = 1 << 10;

/// Bytes of a link on their way that the other end has not taken.
pub const WINDOW_BYTES: u64 = 4 << 20;

/// What a message counts for at least, so that those on their way are few enough for a client's queue.
pub const CHARGE_MIN: u64 = 4 << 10;

/// How long an engine may take to answer when it is dialled.
pub const DIAL_MAX: Duration = Duration::from_secs(5);

/// How long a start waits for a server, to say at once what is wrong with the settings.
pub const FIRST_MAX: Duration = Duration::from_secs(2);

/// How often a server that is not there is asked, at most.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// How long the last messages may take at an end.
pub const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// How long a link may carry no channel before it is closed; the next call opens another.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// What a round trip to another engine is taken for before one was measured, in microseconds.
pub const ROUND_TRIP_US: u32 = 500;

const _: () = assert!(CHUNK_BYTES as u64 * 4 <= WINDOW_BYTES);
// What a subscription of the client holds, unless it is told otherwise.
const _: () = assert!(WINDOW_BYTES / CHARGE_MIN <= 65_536);
