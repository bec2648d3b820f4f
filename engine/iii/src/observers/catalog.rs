//! Which functions there are, and what time it is: looked after by a thread as long as there are observers. It must not know
//! what follows.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringway::protocol::control::Catalog;

use super::Observers;
use super::registry::Registry;
use super::spec::Name;
use crate::shared::Shared;

/// How often it is looked whether somebody's time is over.
const EVERY: Duration = Duration::from_millis(100);

/// Functions of the catalog, and whether native workers serve them. The catalog may still name clients that have left.
fn known(shared: &Shared, catalog: &Catalog) -> HashMap<Name, bool> {
    let mut left = shared.observers.left.lock();
    let mut known = HashMap::with_capacity(catalog.functions.len());
    for function in &catalog.functions {
        let native = !left.contains(&function.worker) && shared.session(function.worker).is_none();
        let name = Name::new(&function.namespace, function.id.as_str());
        // One client among those that serve it is enough to observe that one's calls.
        known.entry(name).and_modify(|all: &mut bool| *all &= native).or_insert(native);
    }
    left.retain(|client| catalog.workers.iter().any(|worker| worker.id == *client));
    known
}

impl Observers {
    /// Has the catalog and the time looked after, if nobody does.
    pub(super) fn attend(&self) {
        if self.attended.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(shared) = self.shared.upgrade() else { return };
        let first = shared.worker.catalog();
        self.step(|registry, _| registry.catalog(known(&shared, &first)));
        let weak = Arc::downgrade(&shared);
        let started = std::thread::Builder::new()
            .name("ringway-iii-observers".to_owned())
            .spawn(move || look_after(&weak, first.revision));
        if let Err(error) = started {
            tracing::error!(%error, "nobody looks after observers");
            self.attended.store(false, Ordering::Release);
        }
    }
}

/// Until the listener ends, or has no observers.
fn look_after(shared: &Weak<Shared>, mut revision: u64) {
    while let Some(shared) = shared.upgrade() {
        let observers = &shared.observers;
        let changed = shared.worker.wait_until(EVERY, |catalog| catalog.revision != revision);
        if changed {
            let catalog = shared.worker.catalog();
            revision = catalog.revision;
            let known = known(&shared, &catalog);
            observers.step(|registry, _| registry.catalog(known));
        } else if !shared.worker.is_attached() {
            std::thread::sleep(EVERY);
        }
        observers.step(Registry::tick);
        if observers.registry.lock().is_empty() {
            observers.attended.store(false, Ordering::Release);
            // Somebody may have come who saw that it was looked after.
            let came = !observers.registry.lock().is_empty();
            if !came || observers.attended.swap(true, Ordering::AcqRel) {
                observers.left.lock().clear();
                return;
            }
        }
    }
}
