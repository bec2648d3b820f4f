//! Two fences that pair within one process, of which the one that runs often costs nothing: the *light* side only keeps
//! the compiler from moving accesses, the *heavy* side makes every CPU that runs a thread of this process fence
//! (membarrier(2), `PRIVATE_EXPEDITED`), a few microseconds. As if both were `fence(SeqCst)`: of two threads that store, fence
//! and look at what the other stored, one sees the other, provided that at least one of them used the heavy side.
//!
//! Used where a call path meets a thread that is about to sleep ([`crate::lock`], [`crate::turns`]). A fence
//! on that path would wait until the frame that was just stored has reached the cache, whose lines the peer holds.
//!
//! Where the kernel lacks it, and under the model checker, both sides are `fence(SeqCst)`.

use crate::sync::{Ordering, fence};

#[cfg(not(loom))]
mod real {
    use std::sync::OnceLock;

    use crate::sync::AtomicBool;

    use super::Ordering;

    /// Whether light sides leave the fence to the heavy one. Relaxed is enough: a thread that reads the old value fences
    /// for itself, and one that reads the new value finds the process registered, which every heavy side asks for first.
    pub(super) static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

    pub(super) fn register() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| {
            let registered = crate::sys::barrier::register_in_process();
            // Only from here on may a light side rely on the heavy one, which asks `register` first.
            ASYMMETRIC.store(registered, Ordering::SeqCst);
            registered
        })
    }
}

/// Whether the heavy side can stand in for the light one. Asks the kernel at the first call of a process.
#[must_use]
pub fn is_asymmetric() -> bool {
    #[cfg(not(loom))]
    return real::register();
    #[cfg(loom)]
    true
}

/// The side that runs often. Free of instructions once [`is_asymmetric`] said yes in this process.
#[inline]
pub fn light() {
    #[cfg(not(loom))]
    if real::ASYMMETRIC.load(Ordering::Relaxed) {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        return;
    }
    fence(Ordering::SeqCst);
}

/// The side that runs seldom. A few microseconds.
///
/// # Panics
/// When the kernel refuses the barrier that it registered this process for: going on would break whoever relies on it.
#[cold]
pub fn heavy() {
    // Both kinds of light side pair with it: the real fence by this one, the compiler's by the barrier.
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    if real::register() {
        crate::sys::barrier::in_process().expect("the process is registered for the barrier");
    }
}
