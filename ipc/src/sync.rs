//! The only door to atomics, fences and locks in this crate: `core` and `parking_lot` in a normal build, the loom model
//! checker under `cfg(loom)`. Every concurrent module uses these names, so the code that is model checked is the code
//! that ships. It must not know what is built from them.
//!
//! These are type aliases and not re-exports, so that a lint on the outside types still catches a direct import.

#[cfg(not(loom))]
mod real {
    /// An atomic `u64`.
    pub type AtomicU64 = core::sync::atomic::AtomicU64;
    /// An atomic `u32`.
    pub type AtomicU32 = core::sync::atomic::AtomicU32;
    /// An atomic `usize`.
    pub type AtomicUsize = core::sync::atomic::AtomicUsize;
    /// An atomic `bool`.
    pub type AtomicBool = core::sync::atomic::AtomicBool;
    /// A short lock. Nothing blocks, allocates much or calls out while it is held.
    pub type Mutex<T> = parking_lot::Mutex<T>;
    /// What [`Mutex::lock`] returns.
    pub type MutexGuard<'a, T> = parking_lot::MutexGuard<'a, T>;
    pub use core::sync::atomic::fence;
    /// A cell whose accesses the model checker watches.
    pub type UnsafeCell<T> = core::cell::UnsafeCell<T>;

    /// Where the cell's value lies.
    #[inline]
    pub fn cell_ptr<T>(cell: &UnsafeCell<T>) -> *mut T {
        cell.get()
    }

    /// Tells the CPU that this thread is waiting for another one (`pause`).
    #[inline]
    pub fn spin_loop() {
        core::hint::spin_loop();
    }

    /// Lets another thread run.
    #[inline]
    pub fn yield_now() {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
mod real {
    /// An atomic `u64`.
    pub type AtomicU64 = loom::sync::atomic::AtomicU64;
    /// An atomic `u32`.
    pub type AtomicU32 = loom::sync::atomic::AtomicU32;
    /// An atomic `usize`.
    pub type AtomicUsize = loom::sync::atomic::AtomicUsize;
    /// An atomic `bool`.
    pub type AtomicBool = loom::sync::atomic::AtomicBool;
    /// What [`Mutex::lock`] returns.
    pub type MutexGuard<'a, T> = loom::sync::MutexGuard<'a, T>;
    pub use loom::sync::atomic::fence;

    /// A cell whose accesses the model checker watches.
    pub type UnsafeCell<T> = loom::cell::UnsafeCell<T>;

    /// Where the cell's value lies. The model counts this as the access and fails when another is not ordered with it.
    pub fn cell_ptr<T>(cell: &UnsafeCell<T>) -> *mut T {
        cell.with_mut(|value| value)
    }

    /// The model checker's lock with the shape of `parking_lot`'s: no poisoning.
    #[derive(Debug)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// Makes a lock around `value`.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Takes the lock.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model thread panicked while it held a lock")
        }

        /// Takes the lock if it is free now.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// Tells the model that this thread waits for another one.
    pub fn spin_loop() {
        loom::hint::spin_loop();
    }

    /// Lets another model thread run.
    pub fn yield_now() {
        loom::thread::yield_now();
    }
}

pub use core::sync::atomic::Ordering;

pub use real::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, UnsafeCell, cell_ptr, fence, spin_loop,
    yield_now,
};
