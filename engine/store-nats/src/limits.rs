//! Every bound of the store on NATS, in one place.

use std::time::Duration;

/// Bytes of a name, which becomes a part of the names of stream, bucket and subjects.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of one message's body. A longer record or value is several messages.
pub const PART_BYTES: usize = 768 << 10;

/// What a server must take in one message: NATS's own default. The rest beside a part is for headers.
pub const PAYLOAD_BYTES_MIN: usize = 1 << 20;

/// The oldest server that lets a message say how long it stays, by which traces of removed keys go away.
pub const SERVER_MIN: (i64, i64, i64) = (2, 11, 0);

/// Bytes of a key as it is written in a subject. Longer ones are written as a hash, with the key in a header.
pub(crate) const SUBJECT_KEY_BYTES_MAX: usize = 512;

/// Messages on their way to the bucket, and their bytes, before their acknowledgements are waited for.
pub(crate) const WINDOW: usize = 128;
pub(crate) const WINDOW_BYTES: usize = 4 << 20;

/// Changed keys at which the bucket is brought up to date without waiting for more.
pub(crate) const CHANGED_MAX: usize = 16_384;

/// How long the bucket says of a key that it was removed, for those who watch.
pub(crate) const REMOVED_FOR: Duration = Duration::from_secs(3600);

/// How long a server may take to answer before it is asked anew.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// How long whoever has a store may take to say so. Silence is no harm: taking over ends the other's writes.
pub(crate) const OWNER_ANSWER: Duration = Duration::from_secs(2);

/// Between two attempts at something that a server did not answer.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(PART_BYTES + (64 << 10) <= PAYLOAD_BYTES_MIN);
const _: () = assert!(2 * ringway_store::limits::KEY_BYTES_MAX + 4096 <= 64 << 10);
