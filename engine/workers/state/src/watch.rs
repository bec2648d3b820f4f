//! The latest changes, for those who watch. All watchers read one ring of limited size, each from a place of his own; who
//! falls out of it is told so. Filled by `core` as commits end, in their order. It must not know who watches, or why.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::change::Change;

/// Commits that a watcher takes at once.
const TAKEN_MAX: usize = 64;

/// The changes of one commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
    bytes: usize,
}

/// The watcher's place is no longer, or not yet, in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Watching may begin after this revision.
    pub(crate) oldest: u64,
}

#[derive(Debug, Default)]
struct Ring {
    commits: VecDeque<Arc<Commit>>,
    changes: usize,
    bytes: usize,
    /// Every change after this revision is here.
    oldest: u64,
    wakers: HashMap<u64, Waker>,
    watchers: u64,
}

/// The ring, and who waits for more.
#[derive(Debug)]
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    changes_max: usize,
    bytes_max: usize,
}

impl Hub {
    /// An empty ring: changes after `revision` will be in it.
    pub(crate) fn new(revision: u64, changes_max: usize, bytes_max: usize) -> Self {
        Self { ring: Mutex::new(Ring { oldest: revision, ..Ring::default() }), changes_max, bytes_max }
    }

    /// Adds a commit, newer than all before, and wakes who waits. Holds a lock for that long and no longer.
    pub(crate) fn publish(&self, revision: u64, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let bytes = changes.iter().map(Change::bytes).sum();
        let mut gone = Vec::new();
        let wakers = {
            let mut ring = self.ring.lock();
            ring.changes += changes.len();
            ring.bytes += bytes;
            ring.commits.push_back(Arc::new(Commit { revision, changes, bytes }));
            while ring.changes > self.changes_max || ring.bytes > self.bytes_max {
                let Some(oldest) = ring.commits.pop_front() else { break };
                ring.changes -= oldest.changes.len();
                ring.bytes -= oldest.bytes;
                ring.oldest = oldest.revision;
                gone.push(oldest);
            }
            std::mem::take(&mut ring.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// A place in the ring, after a revision.
    pub(crate) fn watch(self: &Arc<Self>, after: u64) -> Watcher {
        let mut ring = self.ring.lock();
        ring.watchers += 1;
        Watcher { hub: Arc::clone(self), number: ring.watchers, after }
    }

    /// How many wait now.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.ring.lock().wakers.len()
    }
}

/// Reads the ring from a place on.
#[derive(Debug)]
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    number: u64,
    after: u64,
}

impl Watcher {
    /// The next commits, at least one; waits for it.
    ///
    /// # Errors
    /// [`Behind`] if some have left the ring unread.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Commit>>, Behind> {
        let taken = std::future::poll_fn(|context| {
            let mut ring = self.hub.ring.lock();
            if self.after < ring.oldest {
                return Poll::Ready(Err(Behind { oldest: ring.oldest }));
            }
            let from = ring.commits.partition_point(|commit| commit.revision <= self.after);
            if from == ring.commits.len() {
                ring.wakers.insert(self.number, context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(ring.commits.range(from..).take(TAKEN_MAX).cloned().collect::<Vec<_>>()))
        })
        .await?;
        self.after = taken.last().map_or(self.after, |commit| commit.revision);
        Ok(taken)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.ring.lock().wakers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    fn change(key: &str) -> Change {
        Change { key: crate::keys::join("s", key).unwrap().into(), old: None, new: None }
    }

    fn revisions(commits: &[Arc<Commit>]) -> Vec<u64> {
        commits.iter().map(|commit| commit.revision).collect()
    }

    #[test]
    fn a_watcher_reads_from_its_place_and_waits() {
        let hub = Arc::new(Hub::new(5, 100, 1 << 20));
        hub.publish(7, vec![change("a")]);
        hub.publish(8, vec![]);
        hub.publish(9, vec![change("b"), change("c")]);
        let mut early = hub.watch(5);
        let mut late = hub.watch(8);
        assert_eq!(revisions(&block_on(early.next()).unwrap()), [7, 9]);
        assert_eq!(revisions(&block_on(late.next()).unwrap()), [9]);
        let waiting = block_on(async {
            let mut next = Box::pin(early.next());
            assert!(poll_once(&mut next).await.is_none());
            hub.publish(12, vec![change("d")]);
            next.await.unwrap()
        });
        assert_eq!(revisions(&waiting), [12]);
    }

    #[test]
    fn who_falls_behind_is_told() {
        let hub = Arc::new(Hub::new(0, 3, 1 << 20));
        let mut slow = hub.watch(0);
        for revision in 1..=5 {
            hub.publish(revision, vec![change("a")]);
        }
        assert_eq!(block_on(slow.next()).unwrap_err(), Behind { oldest: 2 });
        assert_eq!(revisions(&block_on(hub.watch(2).next()).unwrap()), [3, 4, 5]);
        let narrow = Arc::new(Hub::new(0, 100, 2 * change("a").bytes()));
        for revision in 1..=5 {
            narrow.publish(revision, vec![change("a")]);
        }
        assert_eq!(revisions(&block_on(narrow.watch(3).next()).unwrap()), [4, 5]);
        assert!(block_on(narrow.watch(2).next()).is_err());
    }

    #[test]
    fn a_watcher_that_leaves_leaves_nothing() {
        let hub = Arc::new(Hub::new(0, 3, 1 << 20));
        let mut watcher = hub.watch(0);
        block_on(async { assert!(poll_once(watcher.next()).await.is_none()) });
        assert_eq!(hub.waiting(), 1);
        drop(watcher);
        assert_eq!(hub.waiting(), 0);
    }
}
