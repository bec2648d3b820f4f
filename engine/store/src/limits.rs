//! Every bound of the store, in one place, each with the error that names it.

/// Bytes of a table's name, so that its length fits in one byte.
pub const TABLE_BYTES_MAX: usize = 200;

/// Bytes of a key. Longer keys would leave few of them in a page of the index.
pub const KEY_BYTES_MAX: usize = 2048;

/// Bytes of a value. Larger things belong into a blob store, with their address here.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Bytes of one batch, so that a group fits in a segment of the log.
pub const BATCH_BYTES_MAX: usize = 32 << 20;

/// Bytes of a blob.
pub const BLOB_BYTES_MAX: u64 = 4 << 30;

/// Batches that wait for the committer before `submit` answers `Busy` and `commit` waits.
pub const WAITING_MAX: usize = 65_536;

/// Bytes that wait for the committer, likewise.
pub const WAITING_BYTES_MAX: usize = 128 << 20;

/// Bytes of batches that are written with one `fdatasync`.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Bytes of a segment of the log.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes in memory before they move to the index. The double may be held while that is under way.
pub const MEMORY_BYTES_MAX: usize = 32 << 20;

/// Bytes of cache for each of the two index files.
pub const CACHE_BYTES: usize = 64 << 20;

/// Entries that a scan returns at most.
pub const SCAN_MAX: usize = 100_000;

const _: () = assert!(TABLE_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX + TABLE_BYTES_MAX + 64 <= BATCH_BYTES_MAX);
const _: () = assert!(((GROUP_BYTES_MAX + BATCH_BYTES_MAX) as u64) < SEGMENT_BYTES);
