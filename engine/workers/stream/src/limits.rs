//! Every bound that no setting moves. The others are fields of `Config`.

/// Bytes of stream, group and item in the store: a key there has at most 2,048, and the index of expiries puts eight before
/// them.
pub const KEY_BYTES_MAX: usize = 2040;

/// The largest `value_bytes_max`: an item and the entry that tells of it are written with one batch.
pub const VALUE_BYTES_MAX: u64 = 7 << 20;

/// Entries of a page of `stream::list` and `stream::read`.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// Entries of a page unless the caller says.
pub(crate) const PAGE_ENTRIES: usize = 100;

/// Entries that one look at the store takes, for whatever reads many.
pub(crate) const CHUNK: usize = 500;

/// How often a change is tried anew when a commit before it failed.
pub(crate) const TRIES_MAX: usize = 1000;

const _: () = assert!(KEY_BYTES_MAX + 8 <= ringway_store::limits::KEY_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX + 65_536 <= ringway_store::limits::VALUE_BYTES_MAX as u64);
const _: () = assert!(3 * VALUE_BYTES_MAX + 131_072 <= ringway_store::limits::BATCH_BYTES_MAX as u64);
