//! Every limit of this crate in one place, with the asserts that hold between them. Errors that a limit causes name it.
//! Used by all modules here; `docs/limits.md` and `doctor` print them. It must not know the limits of other layers.

/// The unit of segment sizes and the strictest alignment that a block can have, in bytes. The page size of every
/// supported machine divides a segment, or is refused when it is mapped.
pub const PAGE_BYTES: usize = 4096;

/// The largest segment: 1 TiB, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 40;

const _: () = assert!(SEGMENT_BYTES_MAX.is_multiple_of(PAGE_BYTES as u64));
const _: () = assert!(PAGE_BYTES.is_power_of_two());
