//! Which parts of an arena's segments are cut into blocks and which are free: runs of whole granules. Used by `arena`
//! under its lock. It must not know what a run is used for.
//!
//! Invariant. The free runs of a segment lie inside it, do not touch or overlap each other, and together with the runs
//! taken cover it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SegmentId;
use crate::limits::GRANULE_BYTES;
use crate::segment::Segment;

/// A part of one segment.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) segment_id: SegmentId,
    pub(super) segment: Arc<Segment>,
    pub(super) offset: usize,
}

/// The segments of an arena.
#[derive(Debug, Default)]
pub(super) struct Runs {
    segments: BTreeMap<SegmentId, Entry>,
    last_id: SegmentId,
    held_bytes: u64,
    free_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    segment: Arc<Segment>,
    /// Offset to length.
    free: BTreeMap<usize, usize>,
    free_bytes: usize,
}

impl Runs {
    /// Adds a new, wholly free segment.
    pub(super) fn insert(&mut self, id: SegmentId, segment: Arc<Segment>) {
        let bytes = usable(&segment);
        self.held_bytes += segment.len() as u64;
        self.free_bytes += bytes as u64;
        self.segments.insert(id, Entry { segment, free: BTreeMap::from([(0, bytes)]), free_bytes: bytes });
    }

    /// Returns an id that no segment of this arena had before.
    pub(super) fn next_id(&mut self) -> SegmentId {
        // 4 billion segments, each at least a millisecond's work: a process does not live that long.
        self.last_id = self.last_id.checked_add(1).expect("an arena makes fewer than 2^32 segments");
        self.last_id
    }

    /// Takes a run, from the oldest segment that has room, so that newer ones run empty and can go.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Run> {
        for (&segment_id, entry) in &mut self.segments {
            if entry.free_bytes < bytes {
                continue;
            }
            let found = entry.free.iter().find(|&(_, &length)| length >= bytes);
            let Some((&offset, &length)) = found else { continue };
            entry.free.remove(&offset);
            if length > bytes {
                entry.free.insert(offset + bytes, length - bytes);
            }
            entry.free_bytes -= bytes;
            self.free_bytes -= bytes as u64;
            return Some(Run { segment_id, segment: Arc::clone(&entry.segment), offset });
        }
        None
    }

    /// Gives a run back.
    pub(super) fn give_back(&mut self, segment_id: SegmentId, offset: usize, bytes: usize) {
        let entry = self.segments.get_mut(&segment_id).expect("a segment stays while a run of it is taken");
        let (mut start, mut length) = (offset, bytes);
        if let Some((&before, &before_bytes)) = entry.free.range(..offset).next_back() {
            assert!(before + before_bytes <= offset, "a run is given back once");
            if before + before_bytes == offset {
                entry.free.remove(&before);
                start = before;
                length += before_bytes;
            }
        }
        if let Some((&after, &after_bytes)) = entry.free.range(offset..).next() {
            assert!(offset + bytes <= after, "a run is given back once");
            if offset + bytes == after {
                entry.free.remove(&after);
                length += after_bytes;
            }
        }
        entry.free.insert(start, length);
        entry.free_bytes += bytes;
        self.free_bytes += bytes as u64;
    }

    /// Removes all segments, whatever is taken of them, and returns the last id that was used.
    pub(super) fn remove_all(&mut self) -> (SegmentId, Vec<(SegmentId, Arc<Segment>)>) {
        let segments = std::mem::take(&mut self.segments);
        (self.held_bytes, self.free_bytes) = (0, 0);
        (self.last_id, segments.into_iter().map(|(id, entry)| (id, entry.segment)).collect())
    }

    /// Removes the largest segment of which nothing is taken.
    pub(super) fn remove_empty(&mut self) -> Option<(SegmentId, Arc<Segment>)> {
        let empty = self.segments.iter().filter(|(_, entry)| entry.free_bytes == usable(&entry.segment));
        let (&id, _) = empty.max_by_key(|(_, entry)| entry.free_bytes)?;
        let entry = self.segments.remove(&id)?;
        self.held_bytes -= entry.segment.len() as u64;
        self.free_bytes -= entry.free_bytes as u64;
        Some((id, entry.segment))
    }

    /// Bytes of all segments.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes that are in no run.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Lists the segments.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentId, &Arc<Segment>)> {
        self.segments.iter().map(|(&id, entry)| (id, &entry.segment))
    }
}

/// The bytes of a segment that can be in runs: whole granules.
fn usable(segment: &Segment) -> usize {
    segment.len() / GRANULE_BYTES * GRANULE_BYTES
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const G: usize = GRANULE_BYTES;

    #[test]
    fn freed_neighbours_become_one() {
        let mut runs = Runs::default();
        let id = runs.next_id();
        runs.insert(id, Segment::heap(4 * G));
        let taken: Vec<Run> = (0..4).map(|_| runs.take(G).unwrap()).collect();
        assert!(runs.take(G).is_none());
        for index in [0, 2, 1] {
            assert!(runs.take(3 * G).is_none());
            runs.give_back(id, taken[index].offset, G);
        }
        assert_eq!(runs.take(3 * G).unwrap().offset, 0);
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn a_second_return_is_caught() {
        let mut runs = Runs::default();
        let id = runs.next_id();
        runs.insert(id, Segment::heap(4 * G));
        runs.take(2 * G).unwrap();
        runs.give_back(id, 0, G);
        runs.give_back(id, 0, G);
    }

    proptest! {
        /// Against a set of granules.
        #[test]
        fn runs_never_overlap(steps in prop::collection::vec((any::<bool>(), 1_usize..6, any::<usize>()), 0..80)) {
            let mut runs = Runs::default();
            for _ in 0..2 {
                let id = runs.next_id();
                runs.insert(id, Segment::heap(8 * G));
            }
            let mut taken: Vec<(SegmentId, usize, usize)> = Vec::new();
            let mut used: BTreeSet<(SegmentId, usize)> = BTreeSet::new();
            let cells = |&(id, start, count): &(SegmentId, usize, usize)| (start..start + count).map(move |at| (id, at));
            for (take, count, choice) in steps {
                if take {
                    let fits = (1..=2).any(|id| (0..=8 - count).any(|at| cells(&(id, at, count)).all(|cell| !used.contains(&cell))));
                    let run = runs.take(count * G);
                    prop_assert_eq!(run.is_some(), fits);
                    if let Some(run) = run {
                        let entry = (run.segment_id, run.offset / G, count);
                        for cell in cells(&entry) {
                            prop_assert!(cell.1 < 8 && used.insert(cell));
                        }
                        taken.push(entry);
                    }
                } else if !taken.is_empty() {
                    let entry = taken.swap_remove(choice % taken.len());
                    cells(&entry).for_each(|cell| assert!(used.remove(&cell)));
                    runs.give_back(entry.0, entry.1 * G, entry.2 * G);
                }
                prop_assert_eq!(runs.free_bytes(), ((16 - used.len()) * G) as u64);
            }
            let empty = (1..=2).filter(|id| used.iter().all(|cell| cell.0 != *id)).count();
            let removed = std::iter::from_fn(|| runs.remove_empty()).count();
            prop_assert_eq!(removed, empty);
            prop_assert_eq!(runs.len(), 2 - empty);
        }
    }
}
