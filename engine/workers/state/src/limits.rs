//! Every bound that no setting moves. The others are fields of `Config`.

/// Bytes of scope and key in the store: a key there has at most 2,048, and the index of expiries puts eight before them.
pub(crate) const KEY_BYTES_MAX: usize = 2040;

/// The largest `value_bytes_max`: a change with its old and its new value must fit into one entry of the outbox.
pub const VALUE_BYTES_MAX: u64 = 7 << 20;

/// Entries of a page of `state::scan`.
pub const PAGE_ENTRIES_MAX: usize = 1000;

/// Entries of a page unless the caller says.
pub(crate) const PAGE_ENTRIES: usize = 100;

/// Entries that one look at the store takes, for whatever reads many.
pub(crate) const CHUNK: usize = 500;

/// Bytes from which on a value is written into a block for its caller; smaller ones go through the message, which has room
/// for 192 of them.
pub(crate) const LOAN_BYTES_MIN: usize = 1024;

/// How often a change is tried anew when others were faster.
pub(crate) const TRIES_MAX: usize = 1000;

const _: () = assert!(KEY_BYTES_MAX + 8 <= ringway_store::limits::KEY_BYTES_MAX);
const _: () = assert!(2 * VALUE_BYTES_MAX + 65_536 <= ringway_store::limits::VALUE_BYTES_MAX as u64);
const _: () = assert!(3 * VALUE_BYTES_MAX + 131_072 <= ringway_store::limits::BATCH_BYTES_MAX as u64);
