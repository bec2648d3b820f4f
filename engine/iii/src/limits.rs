//! How much of everything. The sizes are those that iii's SDKs are made for; the reference names them. It must not know who
//! holds them.

/// The port where iii's SDKs look for an engine.
pub(crate) const PORT: u16 = 49134;

/// The largest message that is accepted, in bytes, in however many frames.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The largest frame that is sent, in bytes: the Rust SDK 0.23 takes no larger one.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// The length of the frames that a longer message is sent in, in bytes.
pub(crate) const FRAGMENT_BYTES: usize = 1 << 20;

/// Calls of one connection to one function that are begun without expecting to wait for room.
pub(crate) const QUICK_CALLS_MAX: usize = 64;

/// Functions that a connection calls whose routes are remembered while nothing is under way there.
pub(crate) const ROUTES_MAX: usize = 4096;

/// Bytes of registrations of one connection that the engine has not answered. Past that it registers faster than anybody can
/// follow, or never lets the engine begin, and it is closed.
pub(crate) const REGISTERING_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// How long the cleaning up after an earlier connection of a worker may take before the new one goes on.
pub(crate) const REATTACH_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a client has to answer a close.
pub(crate) const PARTING: std::time::Duration = std::time::Duration::from_secs(2);

/// The longest name of a worker, in characters.
pub(crate) const NAME_CHARS_MAX: usize = 280;

/// Bytes that may wait to be written to one connection. Past that its peer does not read, and it is closed.
pub(crate) const OUTBOUND_BYTES_MAX: usize = 128 << 20;

/// Messages of one client that are taken before it is another's turn: what they were for is written and worked on elsewhere while
/// the rest is taken. Measured by `cargo perf-iii` with two processors and 64 calls in flight: 16 give a sixth more calls than
/// no turns at all, 32 a little less, and 4 cost more in writes than they gain.
pub(crate) const TURN_MESSAGES: u32 = 16;

/// Observers of one connection.
pub(crate) const OBSERVERS_MAX: usize = 10_000;

/// Calls of one observer at once, where it says nothing.
pub(crate) const OBSERVER_IN_FLIGHT: u32 = 64;

/// The same at most, whatever it says: what is under way is held by nobody else's limit.
pub(crate) const OBSERVER_IN_FLIGHT_MAX: u32 = 1024;

/// Calls that wait their turn at one observer, and the memory that they hold in bytes: what SDKs keep of theirs.
pub(crate) const LANE_ITEMS_MAX: usize = 10_000;
pub(crate) const LANE_BYTES_MAX: usize = 8 << 20;

/// The memory that the calls of all observers together hold while they wait, in bytes.
pub(crate) const LANES_BYTES_MAX: usize = 256 << 20;

/// How many observers a call may have behind it before nobody is told of the next one.
pub(crate) const OBSERVE_DEPTH_MAX: u32 = 8;

/// Workers without a connection here whose names are remembered.
pub(crate) const STRANGERS_MAX: usize = 4096;

/// How long observers wait for their client to come back, in milliseconds: twice the longest pause of an SDK.
pub(crate) const OBSERVER_AWAY_MS: u64 = 80_000;

/// How long a host has to accept an observer, in milliseconds. SDKs give their hooks 30 s.
pub(crate) const ACK_MS: u64 = 35_000;

const _: () = assert!(FRAME_BYTES_MAX <= MESSAGE_BYTES_MAX && MESSAGE_BYTES_MAX <= OUTBOUND_BYTES_MAX);
