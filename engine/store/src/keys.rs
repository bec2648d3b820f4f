//! A key within the whole store: the length of the table's name, the name, the key. Entries of a table lie together, in
//! the order of their keys. Also the seal that binds a value to its key. Used by everything below the trait.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Puts table and key together.
#[must_use]
pub fn join(table: &str, key: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(1 + table.len() + key.len());
    // Longer names are refused by `Batch`; in a read they find nothing, since no such table can exist.
    joined.push(u8::try_from(table.len()).unwrap_or(u8::MAX));
    joined.extend_from_slice(table.as_bytes());
    joined.extend_from_slice(key);
    joined
}

/// Takes table and key apart, or `None` if that is no key of ours.
#[must_use]
pub fn split(joined: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = joined.split_first()?;
    let (table, key) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(table).ok()?, key))
}

/// The first key that lies behind every key with this beginning, `None` if there is none.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// A checksum over value, revision and key, so that a value is never taken for that of another key or time.
#[must_use]
pub fn seal(key: &[u8], revision: u64, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key) ^ revision.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_do_not_mix() {
        assert!(join("a", b"zzz") < join("b", b""));
        assert_eq!(split(&join("queue", b"k")), Some(("queue", b"k".as_slice())));
        assert_eq!(split(&[9, b'x']), None);
    }

    #[test]
    fn a_prefix_ends_before_the_next() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
    }
}
