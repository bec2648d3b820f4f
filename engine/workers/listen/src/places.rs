//! How many may be there at a time: connections, requests. It must not know who.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places for connections or requests: so many at a time, and nobody waits.
#[derive(Debug)]
pub struct Places {
    max: usize,
    taken: AtomicUsize,
}

impl Places {
    /// So many, all free.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: AtomicUsize::new(0) })
    }

    /// One more, or none. Nothing else is ordered by the number.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let room = |taken| (taken < self.max).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        taken.ok().map(|_| Admitted(Arc::clone(self)))
    }

    /// How many are taken now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Places>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_had_once_until_it_is_given_back() {
        let places = Places::new(2);
        let first = places.admit().unwrap();
        let _second = places.admit().unwrap();
        assert!(places.admit().is_none());
        drop(first);
        assert_eq!(places.taken(), 1);
        assert!(places.admit().is_some());
        assert!(Places::new(0).admit().is_none());
    }
}
