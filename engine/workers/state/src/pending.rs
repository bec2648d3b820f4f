//! What each key will be when the commits under way have ended. A writer takes the shards of its keys, reads this or the
//! store, submits its batch and lets go: nobody holds a shard while the disk works. So the changes of one key form a chain
//! in which each expects the bytes that the one before it writes, and all of them share the next `fdatasync`; 64 writers
//! of one key take turns at a lock of microseconds instead of at the disk, and none has to begin anew because another was
//! faster. Should a link break (the disk is full), those behind it are refused by their own precondition and begin anew.
//!
//! I1. Only the store decides: each batch carries its precondition, this is merely a good guess at the outcome.
//! I2. A chain that broke is forgotten at once, so that the next writer looks at the store.
//! I3. The store's thread never waits for a shard: what it has to say is put aside, and read by whoever holds the shard
//!     before or after he lets go.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::record::Record;

const SHARDS: usize = 64;

/// What a key will be.
#[derive(Debug)]
struct Head {
    record: Option<Record>,
    in_flight: usize,
    chain: u64,
}

#[derive(Debug, Default)]
struct Shard {
    heads: HashMap<Arc<[u8]>, Head>,
    chains: u64,
}

/// The end of a link of a chain.
#[derive(Debug)]
struct Ended {
    key: Arc<[u8]>,
    chain: u64,
    broken: bool,
}

/// All keys with commits under way.
#[derive(Debug)]
pub(crate) struct Pending {
    shards: Vec<(Mutex<Shard>, Mutex<Vec<Ended>>)>,
    hasher: RandomState,
}

/// A link that was put at the end of a chain; to be ended when its commit has.
#[derive(Debug)]
pub(crate) struct Link {
    key: Arc<[u8]>,
    chain: u64,
}

/// The shards of some keys, held.
pub(crate) struct Held<'a> {
    pending: &'a Pending,
    shards: Vec<(usize, MutexGuard<'a, Shard>)>,
}

impl Default for Pending {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Default::default()).collect(), hasher: RandomState::new() }
    }
}

impl Pending {
    fn place(&self, key: &[u8]) -> usize {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0)
    }

    /// Takes the shards of these keys, always in the same order. Waits while others submit.
    pub(crate) fn hold<'a>(&'a self, keys: impl Iterator<Item = &'a [u8]>) -> Held<'a> {
        let mut places: Vec<usize> = keys.map(|key| self.place(key)).collect();
        places.sort_unstable();
        places.dedup();
        let lock = |place: usize| {
            let (shard, ended) = &self.shards[place];
            let mut shard = shard.lock();
            settle(&mut shard, ended);
            (place, shard)
        };
        Held { pending: self, shards: places.into_iter().map(lock).collect() }
    }

    /// Ends links: their commit has succeeded, or not. Never waits.
    pub(crate) fn end(&self, links: Vec<Link>, broken: bool) {
        for Link { key, chain } in links {
            let place = self.place(&key);
            self.shards[place].1.lock().push(Ended { key, chain, broken });
            self.try_settle(place);
        }
    }

    fn try_settle(&self, place: usize) {
        let (shard, ended) = &self.shards[place];
        if let Some(mut shard) = shard.try_lock() {
            settle(&mut shard, ended);
        }
    }

    /// Keys with commits under way.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|(shard, _)| shard.lock().heads.len()).sum()
    }
}

fn settle(shard: &mut Shard, ended: &Mutex<Vec<Ended>>) {
    let ended = std::mem::take(&mut *ended.lock());
    for Ended { key, chain, broken } in ended {
        let Some(head) = shard.heads.get_mut(&key).filter(|head| head.chain == chain) else { continue };
        head.in_flight -= 1;
        if broken || head.in_flight == 0 {
            shard.heads.remove(&key);
        }
    }
}

impl Held<'_> {
    fn shard(&mut self, key: &[u8]) -> &mut Shard {
        let place = self.pending.place(key);
        let found = self.shards.iter_mut().find(|(held, _)| *held == place);
        &mut found.expect("a writer holds the shards of all its keys").1
    }

    /// What the key will be; the outer `None` if no commit is under way.
    pub(crate) fn head(&mut self, key: &[u8]) -> Option<Option<Record>> {
        self.shard(key).heads.get(key).map(|head| head.record.clone())
    }

    /// Says what the key will be, after whatever was said before.
    pub(crate) fn put(&mut self, key: &Arc<[u8]>, record: Option<Record>) -> Link {
        let shard = self.shard(key);
        if let Some(head) = shard.heads.get_mut(key) {
            head.record = record;
            head.in_flight += 1;
            return Link { key: Arc::clone(key), chain: head.chain };
        }
        shard.chains += 1;
        let chain = shard.chains;
        shard.heads.insert(Arc::clone(key), Head { record, in_flight: 1, chain });
        Link { key: Arc::clone(key), chain }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let places: Vec<usize> = self.shards.drain(..).map(|(place, _)| place).collect();
        // What was put aside while the shards were held.
        for place in places {
            if !self.pending.shards[place].1.lock().is_empty() {
                self.pending.try_settle(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Form;

    fn record(text: &str) -> Option<Record> {
        Some(Record::new(Form::Json, text.as_bytes(), None))
    }

    fn put(pending: &Pending, key: &Arc<[u8]>, text: &str) -> Link {
        pending.hold(std::iter::once(&**key)).put(key, record(text))
    }

    fn head(pending: &Pending, key: &Arc<[u8]>) -> Option<Option<Record>> {
        pending.hold(std::iter::once(&**key)).head(key)
    }

    #[test]
    fn a_chain_lasts_until_its_last_commit() {
        let (pending, key) = (Pending::default(), Arc::<[u8]>::from(&b"k"[..]));
        let (first, second) = (put(&pending, &key, "1"), put(&pending, &key, "2"));
        pending.end(vec![first], false);
        assert_eq!(head(&pending, &key), Some(record("2")));
        pending.end(vec![second], false);
        assert_eq!(head(&pending, &key), None);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn a_broken_chain_is_forgotten_and_the_next_is_another() {
        let (pending, key) = (Pending::default(), Arc::<[u8]>::from(&b"k"[..]));
        let (first, second) = (put(&pending, &key, "1"), put(&pending, &key, "2"));
        pending.end(vec![first], true);
        assert_eq!(head(&pending, &key), None);
        let third = put(&pending, &key, "3");
        pending.end(vec![second], true);
        assert_eq!(head(&pending, &key), Some(record("3")), "the end of the old chain ended the new one");
        pending.end(vec![third], false);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn an_end_that_comes_while_the_shard_is_held_is_not_lost() {
        let (pending, key) = (Pending::default(), Arc::<[u8]>::from(&b"k"[..]));
        let mut held = pending.hold(std::iter::once(&*key));
        let link = held.put(&key, record("1"));
        pending.end(vec![link], false);
        assert!(held.head(&key).is_some());
        drop(held);
        assert_eq!(pending.len(), 0);
    }
}
