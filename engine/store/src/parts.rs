//! What another implementation of [`Store`](crate::Store) is made of: keys within the whole store, seals, and records of
//! batches as the log has them. Used by stores outside this crate. It must not know where they keep them.

use crate::batch::{Batch, Change};
use crate::{keys, log};

pub use crate::keys::{after_prefix, join, seal, split};

/// Batches on their way into one record, with a checksum over all of it.
#[derive(Debug)]
pub struct Record {
    bytes: Vec<u8>,
    batches: u32,
}

impl Record {
    /// Begins one.
    #[must_use]
    pub fn begin() -> Self {
        let mut bytes = Vec::new();
        log::begin(&mut bytes);
        Self { bytes, batches: 0 }
    }

    /// Appends a batch, which has the revision after the one before.
    pub fn add(&mut self, batch: &Batch) {
        log::encode(&batch.changes, &mut self.bytes);
        self.batches += 1;
    }

    /// Ends it; `first` is the revision of its first batch.
    #[must_use]
    pub fn finish(mut self, first: u64) -> Vec<u8> {
        log::finish(&mut self.bytes, first, self.batches, 0);
        self.bytes
    }

    /// The batches of a record, each with its revision, or `None` if it is not whole.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Vec<(u64, Vec<Change>)>> {
        log::read_one(bytes)
    }
}

/// The table of a key within the whole store, and the key in it, for words.
#[must_use]
pub fn named(joined: &[u8]) -> (String, Vec<u8>) {
    let (table, key) = keys::split(joined).unwrap_or(("", joined));
    (table.to_owned(), key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all() {
        let mut record = Record::begin();
        record.add(&Batch::new().put("t", b"a", &b"1"[..]).delete("t", b"b"));
        record.add(&Batch::new());
        let bytes = record.finish(7);
        let read = Record::read(&bytes).unwrap();
        let seen: Vec<(u64, usize)> =
            read.iter().map(|(revision, changes)| (*revision, changes.len())).collect();
        assert_eq!(seen, [(7, 2), (8, 0)]);
        assert_eq!(read[0].1[0].value.as_deref(), Some(&b"1"[..]));
        for length in 0..bytes.len() {
            assert!(Record::read(&bytes[..length]).is_none(), "{length} of {} bytes", bytes.len());
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::read(&damaged).is_none(), "bit {bit}");
        }
    }
}
