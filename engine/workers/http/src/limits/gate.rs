//! So many at a time: a count that is passed or not, without waiting. It must not know what passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets so many pass at a time.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: AtomicUsize,
    max: usize,
}

/// Whoever has one is inside until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Gate>);

impl Gate {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), max })
    }

    /// A pass, unless so many are inside already.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        // Whoever is one too many goes at once, so the count is never far above what it may be.
        let pass = Pass(Arc::clone(self));
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        (before < self.max).then_some(pass)
    }

    pub(crate) fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_inside_and_no_more() {
        let gate = Gate::new(2);
        let (first, _second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 2);
        drop(first);
        assert!(gate.enter().is_some());
        assert_eq!(gate.inside(), 1);
    }
}
