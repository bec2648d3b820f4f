//! Commits that are in the log and not yet in the index, by key and revision. The committer writes, everybody reads
//! without a lock. Old versions stay until the whole of it moves to the index, so that a snapshot is a revision.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_skiplist::SkipMap;

use crate::store::Value;

/// What an entry costs beside its bytes: tower, counts, allocation.
const ENTRY_OVERHEAD: usize = 120;

/// A version of a key; newer versions of a key come first.
#[derive(Debug)]
struct Slot {
    key: Arc<[u8]>,
    revision: u64,
}

/// How a slot is looked for without making one.
trait Place {
    fn place(&self) -> (&[u8], Reverse<u64>);
}

impl Place for Slot {
    fn place(&self) -> (&[u8], Reverse<u64>) {
        (&self.key, Reverse(self.revision))
    }
}

impl Place for (&[u8], u64) {
    fn place(&self) -> (&[u8], Reverse<u64>) {
        (self.0, Reverse(self.1))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Place + '_ {}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl<'a> Borrow<dyn Place + 'a> for Slot {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

/// A key with its newest version up to some revision; `None` was removed.
pub(crate) type Version = (Arc<[u8]>, u64, Option<Arc<[u8]>>);

/// A generation of commits.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    map: SkipMap<Slot, Option<Arc<[u8]>>>,
    bytes: AtomicUsize,
}

impl Memory {
    /// Only the committer calls this.
    pub(crate) fn insert(&self, key: Arc<[u8]>, revision: u64, value: Option<Arc<[u8]>>) {
        let bytes = key.len() + value.as_ref().map_or(0, |value| value.len()) + ENTRY_OVERHEAD;
        self.bytes.fetch_add(bytes, Relaxed);
        self.map.insert(Slot { key, revision }, value);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The newest version up to the revision: `None` if there is none here, `Some(None)` if the key was removed.
    pub(crate) fn get(&self, key: &[u8], revision: u64) -> Option<Option<Value>> {
        let place: &dyn Place = &(key, revision);
        let entry = self.map.lower_bound(Bound::Included(place))?;
        if *entry.key().key != *key {
            return None;
        }
        let revision = entry.key().revision;
        Some(entry.value().clone().map(|bytes| Value { revision, bytes }))
    }

    /// Up to `limit` keys within the bounds with their newest version up to the revision, in order or against it.
    pub(crate) fn versions(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        revision: u64,
        limit: usize,
    ) -> Vec<Version> {
        let mut found: Vec<Version> = Vec::new();
        let mut cursor = if reverse {
            // Behind every version of the last key that is wanted.
            match to {
                Bound::Included(key) => {
                    let place: &dyn Place = &(key, 0);
                    self.map.upper_bound(Bound::Included(place))
                }
                Bound::Excluded(key) => {
                    let place: &dyn Place = &(key, u64::MAX);
                    self.map.upper_bound(Bound::Excluded(place))
                }
                Bound::Unbounded => self.map.back(),
            }
        } else {
            match from {
                Bound::Included(key) => {
                    let place: &dyn Place = &(key, u64::MAX);
                    self.map.lower_bound(Bound::Included(place))
                }
                Bound::Excluded(key) => {
                    let place: &dyn Place = &(key, 0);
                    self.map.lower_bound(Bound::Excluded(place))
                }
                Bound::Unbounded => self.map.front(),
            }
        };
        while let Some(entry) = cursor {
            let slot = entry.key();
            let beyond = if reverse {
                match from {
                    Bound::Included(key) => *slot.key < *key,
                    Bound::Excluded(key) => *slot.key <= *key,
                    Bound::Unbounded => false,
                }
            } else {
                match to {
                    Bound::Included(key) => *slot.key > *key,
                    Bound::Excluded(key) => *slot.key >= *key,
                    Bound::Unbounded => false,
                }
            };
            let same = found.last().is_some_and(|(key, _, _)| *key == slot.key);
            if beyond || (!same && found.len() == limit) {
                break;
            }
            if slot.revision <= revision {
                let version = (Arc::clone(&slot.key), slot.revision, entry.value().clone());
                match found.last_mut() {
                    // Forwards the newest comes first; backwards the newest comes last.
                    Some(last) if same && reverse => *last = version,
                    Some(_) if same => {}
                    _ => found.push(version),
                }
            }
            cursor = if reverse { entry.prev() } else { entry.next() };
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Memory {
        let memory = Memory::default();
        for (key, revision, value) in
            [("a", 1, Some("1")), ("b", 2, Some("2")), ("a", 3, None), ("c", 4, Some("4"))]
        {
            memory.insert(key.as_bytes().into(), revision, value.map(|value| value.as_bytes().into()));
        }
        memory
    }

    #[test]
    fn a_revision_sees_what_was_there() {
        let memory = filled();
        assert_eq!(memory.get(b"a", 0), None);
        assert_eq!(memory.get(b"a", 2).flatten().map(|value| value.revision), Some(1));
        assert_eq!(memory.get(b"a", 3), Some(None));
        assert_eq!(memory.get(b"c", 3), None);
    }

    #[test]
    fn versions_go_both_ways() {
        let memory = filled();
        let check = |reverse: bool, revision: u64, limit: usize, expected: &[(&[u8], u64)]| {
            let found = memory.versions(Bound::Unbounded, Bound::Unbounded, reverse, revision, limit);
            let found: Vec<(&[u8], u64)> =
                found.iter().map(|(key, revision, _)| (&**key, *revision)).collect();
            assert_eq!(found, expected, "reverse {reverse}, revision {revision}, limit {limit}");
        };
        check(false, 9, 9, &[(b"a", 3), (b"b", 2), (b"c", 4)]);
        check(true, 9, 9, &[(b"c", 4), (b"b", 2), (b"a", 3)]);
        check(true, 2, 9, &[(b"b", 2), (b"a", 1)]);
        check(false, 9, 1, &[(b"a", 3)]);
    }
}
