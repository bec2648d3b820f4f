//! Channels between workers as the engine knows them: who calls whom, and which functions the permission
//! page allows. The engine makes the pages; calls never come past it.

use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::control::ChannelId;
use ringway_protocol::ids::WorkerId;

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    /// One bit for each function index of the callee; words past the end are zero.
    pub(crate) permissions: Vec<u64>,
}

fn word_of(index: u32) -> (usize, u64) {
    ((index / 64) as usize, 1 << (index % 64))
}

/// Sets or clears bits of a bitmap that may be shorter than it needs to be.
pub(crate) fn set_bit(permissions: &mut Vec<u64>, index: u32, allowed: bool) {
    let (word, bit) = word_of(index);
    if allowed {
        if permissions.len() <= word {
            permissions.resize(word + 1, 0);
        }
        permissions[word] |= bit;
    } else if let Some(word) = permissions.get_mut(word) {
        *word &= !bit;
    }
}

/// Returns the words that differ, with their new values.
pub(crate) fn difference(old: &[u64], new: &[u64]) -> Vec<(u32, u64)> {
    let word = |words: &[u64], place: usize| words.get(place).copied().unwrap_or(0);
    (0u32..)
        .zip(0..old.len().max(new.len()))
        .filter(|(_, place)| word(old, *place) != word(new, *place))
        .map(|(index, place)| (index, word(new, place)))
        .collect()
}

/// All channels, found from either end.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_caller: BTreeMap<(WorkerId, WorkerId), Channel>,
    by_callee: BTreeSet<(WorkerId, WorkerId)>,
    next: ChannelId,
}

const LOWEST: WorkerId = WorkerId::new(0);
const HIGHEST: WorkerId = WorkerId::new(u64::MAX);

impl Channels {
    /// Records a channel, in place of an earlier one between the same two, and numbers it.
    pub(crate) fn open(&mut self, caller: WorkerId, callee: WorkerId, permissions: Vec<u64>) -> ChannelId {
        self.next += 1;
        self.by_caller.insert((caller, callee), Channel { id: self.next, permissions });
        self.by_callee.insert((callee, caller));
        self.next
    }

    pub(crate) fn close(&mut self, caller: WorkerId, callee: WorkerId) -> bool {
        self.by_callee.remove(&(callee, caller));
        self.by_caller.remove(&(caller, callee)).is_some()
    }

    pub(crate) fn get_mut(&mut self, caller: WorkerId, callee: WorkerId) -> Option<&mut Channel> {
        self.by_caller.get_mut(&(caller, callee))
    }

    pub(crate) fn contains(&self, caller: WorkerId, callee: WorkerId) -> bool {
        self.by_caller.contains_key(&(caller, callee))
    }

    pub(crate) fn callees_of(&self, caller: WorkerId) -> Vec<WorkerId> {
        self.by_caller.range((caller, LOWEST)..=(caller, HIGHEST)).map(|((_, callee), _)| *callee).collect()
    }

    pub(crate) fn callers_of(&self, callee: WorkerId) -> Vec<WorkerId> {
        self.by_callee.range((callee, LOWEST)..=(callee, HIGHEST)).map(|(_, caller)| *caller).collect()
    }

    pub(crate) fn count_of(&self, worker: WorkerId) -> usize {
        self.by_caller.range((worker, LOWEST)..=(worker, HIGHEST)).count()
            + self.by_callee.range((worker, LOWEST)..=(worker, HIGHEST)).count()
    }

    pub(crate) fn pairs(&self) -> Vec<(WorkerId, WorkerId)> {
        self.by_caller.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_grow_when_set_and_not_when_cleared() {
        let mut bits = Vec::new();
        set_bit(&mut bits, 200, false);
        assert!(bits.is_empty());
        set_bit(&mut bits, 65, true);
        assert_eq!(bits, [0, 2]);
        assert_eq!(difference(&[], &bits), [(1, 2)]);
        assert_eq!(difference(&bits, &[]), [(1, 0)]);
        assert!(difference(&bits, &[0, 2, 0]).is_empty());
        set_bit(&mut bits, 65, false);
        assert_eq!(bits, [0, 0]);
    }

    #[test]
    fn a_channel_is_found_from_either_end() {
        let (a, b) = (WorkerId::new(0), WorkerId::new(u64::MAX));
        let mut channels = Channels::default();
        assert_eq!((channels.open(a, b, vec![1]), channels.open(b, a, vec![])), (1, 2));
        assert_eq!(
            (channels.callees_of(a), channels.callers_of(a), channels.count_of(a)),
            (vec![b], vec![b], 2)
        );
        assert_eq!(channels.open(a, b, vec![2]), 3, "a new channel takes the place of the old");
        assert_eq!(channels.count_of(a), 2);
        assert!(channels.close(a, b) && !channels.close(a, b) && channels.contains(b, a));
    }
}
