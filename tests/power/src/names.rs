//! What folders hold, as programs see it and as it is on disk, and the changes between the two in their order. Used by
//! `disk`; it must not know what is in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// Entries of one folder: a name, and the number of what has it.
pub(crate) type Entries = BTreeMap<OsString, u64>;

/// A name in a folder.
pub(crate) type Place = (u64, OsString);

/// One change of names; it is on disk as a whole or not at all.
#[derive(Debug)]
pub(crate) enum Change {
    Make(Place, u64),
    Rename(Place, Place),
    Remove(Place),
}

/// All folders by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    now: BTreeMap<u64, Entries>,
    synced: BTreeMap<u64, Entries>,
    /// What is not on disk yet; none where the disk keeps no order of changes.
    journal: Option<Vec<Change>>,
}

fn apply(folders: &mut BTreeMap<u64, Entries>, change: &Change) {
    match change {
        Change::Make((folder, name), node) => {
            folders.entry(*folder).or_default().insert(name.clone(), *node);
        }
        Change::Rename((from, old), (to, new)) => {
            if let Some(node) = folders.entry(*from).or_default().remove(old) {
                folders.entry(*to).or_default().insert(new.clone(), node);
            }
        }
        Change::Remove((folder, name)) => {
            folders.entry(*folder).or_default().remove(name);
        }
    }
}

impl Names {
    /// Names that are all on disk; later changes reach it in their order, or only folder by folder.
    pub(crate) fn synced(folders: BTreeMap<u64, Entries>, in_order: bool) -> Self {
        Self { now: folders.clone(), synced: folders, journal: in_order.then(Vec::new) }
    }

    pub(crate) fn find(&self, folder: u64, name: &OsStr) -> Option<u64> {
        self.now.get(&folder)?.get(name).copied()
    }

    pub(crate) fn entries(&self, folder: u64) -> impl Iterator<Item = (&OsString, u64)> {
        self.now.get(&folder).into_iter().flatten().map(|(name, node)| (name, *node))
    }

    pub(crate) fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        if let Some(journal) = &mut self.journal {
            journal.push(change);
        }
    }

    /// Brings the entries of a folder to disk: with all changes before, or those of no other.
    pub(crate) fn sync_folder(&mut self, folder: u64) {
        if self.journal.is_some() {
            return self.sync_journal();
        }
        let now = self.now.get(&folder).cloned().unwrap_or_default();
        self.synced.insert(folder, now);
    }

    /// Brings all changes to disk, where they reach it in their order.
    pub(crate) fn sync_journal(&mut self) {
        for change in self.journal.iter_mut().flat_map(|journal| journal.drain(..)) {
            apply(&mut self.synced, &change);
        }
    }

    /// What is on disk, with some of the first of the changes that were not synced, and how many names that leaves out.
    pub(crate) fn after_cut(&self, below: &mut dyn FnMut(u64) -> u64) -> (BTreeMap<u64, Entries>, u64) {
        let mut left = self.synced.clone();
        if let Some(journal) = &self.journal {
            let kept = usize::try_from(below(journal.len() as u64 + 1)).unwrap_or(0);
            journal[..kept].iter().for_each(|change| apply(&mut left, change));
        }
        let lost = differences(&self.now, &left);
        (left, lost)
    }
}

/// Names that the one has and the other has not, or has for something else.
fn differences(one: &BTreeMap<u64, Entries>, other: &BTreeMap<u64, Entries>) -> u64 {
    let named = |folders: &BTreeMap<u64, Entries>| {
        let all = folders.iter().flat_map(|(folder, entries)| {
            entries.iter().map(move |(name, node)| (*folder, name.clone(), *node))
        });
        all.collect::<BTreeSet<_>>()
    };
    named(one).symmetric_difference(&named(other)).count() as u64
}
