//! Every limit of this crate in one place, with the asserts that hold between them. Errors that a limit causes name it.
//! Used by all modules here; `doctor` prints them. It must not know the limits of other layers.

/// The unit of segment sizes and the strictest alignment that a block can have, in bytes. The page size of every
/// supported machine divides a segment, or is refused when it is mapped.
pub const PAGE_BYTES: usize = 4096;

/// The largest segment: 1 TiB, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 40;

/// The most payloads that one peer holds at a time over one channel.
pub const LEASES_PER_CHANNEL_MAX: u32 = 1 << 20;

/// The most segments of one peer that are mapped at a time over one channel.
pub const SEGMENTS_PER_CHANNEL_MAX: usize = 4096;

/// The most frames that wait for room in a peer's ring: 4,096 calls with a window of 32 stream items each, twice.
pub const FRAMES_KEPT_MAX: usize = 1 << 18;

/// The most segments of one arena. Each costs its maker, and every reader, one descriptor and one mapping.
pub const ARENA_SEGMENTS_MAX: usize = 2048;

/// The largest block: as large as the largest segment, in bytes.
pub const BLOCK_BYTES_MAX: u64 = SEGMENT_BYTES_MAX;

/// The smallest block, in bytes.
pub const BLOCK_BYTES_MIN: usize = 256;

/// How segments of an arena are divided: runs of this many bytes.
pub const GRANULE_BYTES: usize = 64 << 10;

const _: () = assert!(ARENA_SEGMENTS_MAX <= SEGMENTS_PER_CHANNEL_MAX);
const _: () = assert!(GRANULE_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(GRANULE_BYTES.is_multiple_of(BLOCK_BYTES_MIN));
const _: () = assert!(SEGMENT_BYTES_MAX.is_multiple_of(GRANULE_BYTES as u64));
const _: () = assert!(SEGMENT_BYTES_MAX.is_multiple_of(PAGE_BYTES as u64));
const _: () = assert!(PAGE_BYTES.is_power_of_two());
