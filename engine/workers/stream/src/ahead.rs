//! What each group will be when the commits under way have ended. A writer takes the shard of its group, plans on this or on
//! the store, submits its batch and lets go: nobody holds a shard while the disk works. Each batch expects the head of the
//! group that the one before it writes, so the commits of a group form a chain and share the next `fdatasync`. Should a link
//! break (the disk is full), those behind it are refused by their own precondition, and all of them plan anew.
//!
//! I1. Only the store decides: each batch carries its precondition, this is merely a good guess at the outcome.
//! I2. A chain that broke is forgotten by whoever takes its shard next, so that he looks at the store.
//! I3. The store's thread never waits for a shard: it sets a number or a mark that the holder reads.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::place::Place;
use crate::record::{Head, Item};

const SHARDS: usize = 64;

/// Groups of a shard that are remembered before those without commits under way are forgotten.
const IDLE_MAX: usize = 256;

/// What the store says about a chain.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The number of the last batch that was committed.
    done: AtomicU64,
    broken: AtomicBool,
}

impl Link {
    /// This batch was committed, and with it all before.
    pub(crate) fn end(&self, batch: u64) {
        self.done.fetch_max(batch, Ordering::Release);
    }

    pub(crate) fn tear(&self) {
        self.broken.store(true, Ordering::Release);
    }
}

/// A group as it will be.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// As it lies in the store; none if the group is new.
    pub(crate) head: Option<Head>,
    /// Items that are being written, with the batch that does.
    items: HashMap<Arc<str>, (Option<Item>, u64)>,
    /// The same in the order of batches.
    order: VecDeque<(u64, Arc<str>)>,
    batches: u64,
    link: Arc<Link>,
}

impl Ahead {
    fn new(head: Option<Head>) -> Self {
        let (items, order) = (HashMap::new(), VecDeque::new());
        Self { head, items, order, batches: 0, link: Arc::default() }
    }

    /// Whether a commit has not ended yet.
    pub(crate) fn is_under_way(&self) -> bool {
        self.link.done.load(Ordering::Acquire) < self.batches
    }

    /// What an item will be; the outer `None` if no commit that writes it is under way.
    pub(crate) fn item(&self, item: &str) -> Option<&Option<Item>> {
        self.items.get(item).map(|(item, _)| item)
    }

    /// The number of the next batch, and where its end is told.
    pub(crate) fn next(&self) -> (u64, Arc<Link>) {
        (self.batches + 1, Arc::clone(&self.link))
    }

    /// The next batch was submitted; this is what it writes.
    pub(crate) fn submitted(&mut self, head: Option<Head>, items: Vec<(Arc<str>, Option<Item>)>) {
        self.batches += 1;
        self.head = head;
        for (id, item) in items {
            self.order.push_back((self.batches, Arc::clone(&id)));
            self.items.insert(id, (item, self.batches));
        }
    }

    /// Forgets items that are in the store by now.
    fn settle(&mut self) {
        let done = self.link.done.load(Ordering::Acquire);
        while let Some((batch, id)) = self.order.pop_front_if(|(batch, _)| *batch <= done) {
            if self.items.get(&id).is_some_and(|(_, written)| *written == batch) {
                self.items.remove(&id);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    groups: HashMap<Arc<[u8]>, Ahead>,
    /// With more groups than this the idle ones are forgotten.
    many: usize,
}

/// All groups that were written lately.
#[derive(Debug)]
pub(crate) struct Groups {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

/// The shard of a group, held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    shard: MutexGuard<'a, Shard>,
    key: Arc<[u8]>,
}

impl Default for Groups {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Groups {
    /// Takes the shard of a group, and reads its head if it is not known. Waits while others submit.
    ///
    /// # Errors
    /// That of `read`.
    pub(crate) fn hold<E>(
        &self,
        place: &Place,
        read: impl FnOnce() -> Result<Option<Head>, E>,
    ) -> Result<Held<'_>, E> {
        let number = self.hasher.hash_one(&*place.key) % SHARDS as u64;
        let mut shard = self.shards[usize::try_from(number).unwrap_or(0)].lock();
        if shard.groups.get(&place.key).is_some_and(|ahead| ahead.link.broken.load(Ordering::Acquire)) {
            shard.groups.remove(&place.key);
        }
        if shard.groups.len() > shard.many.max(IDLE_MAX) {
            shard.groups.retain(|_, ahead| ahead.is_under_way());
            shard.many = 2 * shard.groups.len();
        }
        match shard.groups.get_mut(&place.key) {
            Some(ahead) => ahead.settle(),
            None => {
                let ahead = Ahead::new(read()?);
                shard.groups.insert(Arc::clone(&place.key), ahead);
            }
        }
        Ok(Held { shard, key: Arc::clone(&place.key) })
    }
}

impl Held<'_> {
    pub(crate) fn ahead(&mut self) -> &mut Ahead {
        self.shard.groups.get_mut(&self.key).expect("a shard that is held keeps the group it was taken for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::new("s", "g").unwrap()
    }

    fn hold(groups: &Groups, head: Option<Head>) -> Held<'_> {
        groups.hold::<()>(&place(), || Ok(head)).unwrap()
    }

    fn write(held: &mut Held<'_>, version: u64) -> (u64, Arc<Link>) {
        let link = held.ahead().next();
        let item = Item::new(version, None, b"1");
        let head = Head { last: version, ..Head::default() };
        held.ahead().submitted(Some(head), vec![("i".into(), Some(item))]);
        link
    }

    fn version(held: &mut Held<'_>) -> Option<u64> {
        held.ahead().item("i").and_then(|item| item.as_ref().map(|item| item.version))
    }

    #[test]
    fn what_is_written_is_seen_until_the_store_has_it() {
        let groups = Groups::default();
        let mut held = hold(&groups, None);
        let first = write(&mut held, 1);
        let second = write(&mut held, 2);
        first.1.end(first.0);
        drop(held);
        let mut held = hold(&groups, None);
        assert_eq!((version(&mut held), held.ahead().is_under_way()), (Some(2), true));
        second.1.end(second.0);
        drop(held);
        let mut held = hold(&groups, None);
        assert_eq!((version(&mut held), held.ahead().is_under_way()), (None, false));
        assert_eq!(held.ahead().head.map(|head| head.last), Some(2), "the head is still known");
    }

    #[test]
    fn a_broken_chain_is_forgotten_and_its_late_ends_change_nothing() {
        let groups = Groups::default();
        let mut held = hold(&groups, None);
        let first = write(&mut held, 1);
        drop(held);
        first.1.tear();
        let mut held = hold(&groups, Some(Head { last: 7, ..Head::default() }));
        assert_eq!((version(&mut held), held.ahead().head.map(|head| head.last)), (None, Some(7)));
        let _next = write(&mut held, 8);
        first.1.end(first.0);
        assert_eq!((version(&mut held), held.ahead().is_under_way()), (Some(8), true));
    }

    #[test]
    fn idle_groups_are_forgotten() {
        let groups = Groups::default();
        for number in 0..SHARDS * IDLE_MAX * 2 {
            let place = Place::new("s", &number.to_string()).unwrap();
            drop(groups.hold::<()>(&place, || Ok(None)).unwrap());
        }
        let known: usize = groups.shards.iter().map(|shard| shard.lock().groups.len()).sum();
        assert!(known <= SHARDS * (IDLE_MAX + 1), "{known}");
    }
}
