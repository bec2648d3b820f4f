//! Nudges those who wait for entries of a group: they read the log themselves, each from a place of his own, so that a slow
//! one holds up nobody and nothing is kept for him. Told by `core` as commits end. It must not know who waits, or why.

use std::collections::HashMap;
use std::sync::Arc;

use async_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::place::Place;

#[derive(Debug, Default)]
struct Waiting {
    by_place: HashMap<Arc<[u8]>, HashMap<u64, Sender<()>>>,
    numbers: u64,
}

/// Who waits for what.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Waiting>);

/// Hears of entries of one group from now on.
#[derive(Debug)]
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    key: Arc<[u8]>,
    number: u64,
    news: Receiver<()>,
}

impl Hub {
    /// Begins to hear of a group. Whoever reads the log after this misses nothing.
    pub(crate) fn watch(self: &Arc<Self>, place: &Place) -> Watcher {
        let (tell, news) = bounded(1);
        let mut waiting = self.0.lock();
        waiting.numbers += 1;
        let number = waiting.numbers;
        waiting.by_place.entry(Arc::clone(&place.key)).or_default().insert(number, tell);
        Watcher { hub: Arc::clone(self), key: Arc::clone(&place.key), number, news }
    }

    /// The log of a group has grown. Waits for nobody.
    pub(crate) fn publish(&self, place: &Place) {
        if let Some(watchers) = self.0.lock().by_place.get(&place.key) {
            // One that has been nudged and has not looked yet will see this as well.
            for watcher in watchers.values() {
                let _nudged_or_full = watcher.try_send(());
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().by_place.len()
    }
}

impl Watcher {
    /// Waits until the log has grown since this was last asked.
    pub(crate) async fn news(&self) {
        // Its other end lives as long as this.
        let _told = self.news.recv().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut waiting = self.hub.0.lock();
        let Some(watchers) = waiting.by_place.get_mut(&self.key) else { return };
        watchers.remove(&self.number);
        if watchers.is_empty() {
            waiting.by_place.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_watcher_hears_of_its_group_only_and_leaves_nothing() {
        let hub = Arc::new(Hub::default());
        let (mine, other) = (Place::new("s", "g").unwrap(), Place::new("s", "h").unwrap());
        let watcher = hub.watch(&mine);
        hub.publish(&other);
        assert!(block_on(poll_once(watcher.news())).is_none());
        hub.publish(&mine);
        hub.publish(&mine);
        block_on(watcher.news());
        assert!(block_on(poll_once(watcher.news())).is_none(), "two nudges are one");
        drop(watcher);
        assert_eq!(hub.len(), 0);
    }
}
