//! Every limit of this crate in one place, with the asserts that hold between them. Used by all modules here; the engine
//! prints them. It must not know the limits of other layers.

use std::time::Duration;

/// Payloads of one frame that are copied behind it instead of being sent as a transfer of their own, in bytes together.
/// A copy of so much costs about a microsecond, a system call less than that is worth.
pub const COPIED_BYTES_MAX: u64 = 16 << 10;

/// What a transfer sends at a time while small frames come and go, in bytes. With [`BULK_BYTES_MIN`] it says how long one of
/// them waits where memory is slow, such as when a GiB is received into pages that were never touched, at 0.35 GB/s. The 99th
/// percentile of 64 bytes beside that, by that of peace (`benches/remote`, `interplay`, two processors, medians of five): 7 with
/// 64 KiB and 256 under way, 2.8 with 16 and 48, 2.5 to 3.5 with 12 and 36. With 12 and 24 it was 1.6 and 1.9, and 1.2 to
/// 1.8 GB/s, but on memory that had been touched.
pub const CHUNK_BYTES: usize = 12 << 10;

/// What a transfer sends at a time when nothing else is going on, in bytes: fewer and larger system calls, each of which may
/// wake somebody, move two to three times as much (benches/links).
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// For how long no small frame must have come or gone before pieces grow, in nanoseconds: longer than a call that waits
/// behind large pieces takes. Answers to the large ones themselves do not count.
pub const QUIET_NS: u64 = 50_000_000;

/// Frames that one end may send over a channel before the other end says that it has taken some.
pub const FRAMES_AHEAD: u64 = 256;

/// Bytes of pieces that are moved before whoever else wants the processor has it, while small frames come and go.
pub const GIVE_WAY_BYTES: u64 = 24 << 10;

/// Giving way for longer than it takes to make a call or to answer one is time lost to somebody who computes, in
/// nanoseconds.
pub const GIVE_WAY_NS: u64 = 100_000;

/// Time that may be lost so at once, in nanoseconds: a few slices.
pub const GIVE_WAY_LOST_NS_MAX: i64 = 20_000_000;

/// The share of its time that a transfer may lose so in the long run: one of so many parts.
pub const GIVE_WAY_SHARE: u64 = 8;

/// Bytes of transfers under way at first and at least: two pieces, so that the receiver has one while its answer to the other
/// is on the way; see `pace`.
pub const BULK_BYTES_MIN: u64 = 24 << 10;

/// Bytes of a long piece after which its receiver says how many have arrived; it says so at the end of each piece anyway.
pub const ARRIVED_BYTES: u64 = 128 << 10;

/// For how long at least the bytes last that are under way, in nanoseconds, so that the receiver has work while its answer
/// wakes the sender: about what a wake-up takes.
pub const BULK_NS_MIN: u64 = 100_000;

/// What the wake-ups of both ends add to a ping at most, in nanoseconds. One that takes longer than the network says by more
/// goes through somebody between, such as a proxy or a tunnel, and the network's word is of the way to there.
pub const WAKE_UPS_NS_MAX: u64 = 500_000;

/// Bytes of transfers under way at least while nothing else is going on.
pub const BULK_BYTES_QUIET: u64 = 4 << 20;

/// Bytes of transfers under way at most, for links that are fast and far: 10 Gbit/s over 50 ms.
pub const BULK_BYTES_MAX: u64 = 64 << 20;

/// Bytes of frames that wait for the socket before rings are left alone, so that callers feel the back-pressure.
pub const WAITING_BYTES_MAX: usize = 256 << 10;

/// Bytes of heads and frames that wait for the socket before the link is closed: the other end asks, and does not read the
/// answers. Rings are left alone long before ([`WAITING_BYTES_MAX`]), so these are credits of all channels, and what
/// one read of the socket has asked for.
pub const ANSWERS_WAITING_BYTES_MAX: usize = 8 << 20;

/// Answers that wait for a piece to land. One is usual; with many the other end invents them.
pub const LATE_MAX: usize = 64;

/// Bytes that are read at a time while no large payload is on its way.
pub const STAGING_BYTES: usize = 64 << 10;

/// Bytes read ahead, behind a piece of a transfer, for the header of the next.
pub const READ_AHEAD_BYTES: usize = 4 << 10;

/// The longest message between the owners of the two ends, in bytes.
pub const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// What a message sends at a time, in bytes: frames go between its pieces.
pub const MESSAGE_PIECE_BYTES: usize = 64 << 10;

/// Bytes of messages between the owners that wait for the socket before the link is closed: the other end does not read.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 128 << 20;

/// How long the network may keep what was sent without a sign of the other end, before the connection counts as cut.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(4);

/// The longest pause after which what was lost is sent again, where the system can be told (Linux 6.15): whoever was cut off
/// for a while is back so soon after the network is. The least that can be asked for.
pub const RETRANSMIT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Channels of one link at a time.
pub const CHANNELS_MAX: usize = 16 << 10;

/// Transfers that the other end may have begun and not ended.
pub const TRANSFERS_MAX: usize = 8 << 10;

const _: () = assert!(COPIED_BYTES_MAX <= STAGING_BYTES as u64);
const _: () = assert!(2 * CHUNK_BYTES as u64 <= BULK_BYTES_MIN);
const _: () = assert!(GIVE_WAY_BYTES <= BULK_BYTES_MIN);
const _: () = assert!(CHUNK_BYTES <= CHUNK_BYTES_MAX && CHUNK_BYTES_MAX as u64 <= BULK_BYTES_QUIET);
const _: () = assert!(BULK_BYTES_QUIET <= BULK_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= MESSAGES_WAITING_BYTES_MAX as u64);
const _: () = assert!(WAITING_BYTES_MAX < ANSWERS_WAITING_BYTES_MAX);
const _: () = assert!(READ_AHEAD_BYTES <= STAGING_BYTES);
const _: () = assert!(BULK_BYTES_MIN <= BULK_BYTES_MAX);
