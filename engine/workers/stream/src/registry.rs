//! Who subscribes and who tails, now: so that a subscription can be ended by its id, and of the members of a consumer one at
//! a time is given entries. It must not know what they are given.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::place::Place;

/// A consumer of a group, and its members in the order in which they came.
type Members = HashMap<(Place, Arc<str>), VecDeque<(u64, Sender<()>)>>;

#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// By id; what is dropped ends it.
    subscriptions: Mutex<HashMap<Arc<str>, Sender<()>>>,
    members: Mutex<Members>,
}

/// A subscription that is known by its id until this is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    registry: Arc<Registry>,
    pub(crate) id: Arc<str>,
    ended: Receiver<()>,
}

/// A member of a consumer until this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    registry: Arc<Registry>,
    key: (Place, Arc<str>),
    number: u64,
    first: Receiver<()>,
}

impl Registry {
    /// Makes a subscription known; `None` if there is one with that id.
    pub(crate) fn subscribe(self: &Arc<Self>, id: &str) -> Option<Subscription> {
        let (end, ended) = bounded(1);
        let id: Arc<str> = id.into();
        match self.subscriptions.lock().entry(Arc::clone(&id)) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert(end);
                Some(Subscription { registry: Arc::clone(self), id, ended })
            }
        }
    }

    /// Ends a subscription; whether there was one.
    pub(crate) fn unsubscribe(&self, id: &str) -> bool {
        self.subscriptions.lock().get(id).is_some_and(Sender::close)
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriptions(&self) -> usize {
        self.subscriptions.lock().len()
    }

    /// Joins a consumer.
    pub(crate) fn join(self: &Arc<Self>, place: &Place, consumer: &Arc<str>) -> Member {
        let (tell, first) = bounded(1);
        let key = (place.clone(), Arc::clone(consumer));
        let mut members = self.members.lock();
        let queue = members.entry(key.clone()).or_default();
        let number = queue.back().map_or(0, |(number, _)| number + 1);
        if queue.is_empty() {
            let _there_is_room = tell.try_send(());
        }
        queue.push_back((number, tell));
        Member { registry: Arc::clone(self), key, number, first }
    }
}

impl Subscription {
    /// Ready when somebody has ended it.
    pub(crate) async fn ended(&self) {
        // Nothing is sent; it is closed.
        let _closed = self.ended.recv().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.registry.subscriptions.lock().remove(&self.id);
    }
}

impl Member {
    /// Ready when it is this member's turn, which then lasts until it is dropped.
    pub(crate) async fn turn(&self) {
        // Its other end lives as long as this.
        let _told = self.first.recv().await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.registry.members.lock();
        let Some(queue) = members.get_mut(&self.key) else { return };
        queue.retain(|(number, _)| *number != self.number);
        match queue.front() {
            // One that has its turn has been told so before; it does not listen any more.
            Some((_, next)) => {
                let _told_or_full = next.try_send(());
            }
            None => drop(members.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_subscription_is_ended_by_its_id() {
        let registry = Arc::new(Registry::default());
        let subscription = registry.subscribe("a").unwrap();
        assert!(registry.subscribe("a").is_none());
        assert!(block_on(poll_once(subscription.ended())).is_none());
        assert!(registry.unsubscribe("a"));
        block_on(subscription.ended());
        assert!(!registry.unsubscribe("a"), "it ends once");
        drop(subscription);
        assert_eq!(registry.subscriptions(), 0);
        assert!(registry.subscribe("a").is_some());
    }

    #[test]
    fn members_take_turns() {
        let registry = Arc::new(Registry::default());
        let place = Place::new("s", "g").unwrap();
        let name: Arc<str> = "c".into();
        let mut members: Vec<Member> = (0..3).map(|_| registry.join(&place, &name)).collect();
        let other = registry.join(&place, &"d".into());
        block_on(other.turn());
        block_on(members[0].turn());
        assert!(block_on(poll_once(members[1].turn())).is_none());
        drop(members.remove(1));
        assert!(block_on(poll_once(members[1].turn())).is_none(), "the first still has its turn");
        drop(members.remove(0));
        block_on(members[0].turn());
        drop((members, other));
        assert!(registry.members.lock().is_empty());
    }
}
