//! Engines of the tests' own, at addresses that leave no file behind.

use std::sync::atomic::{AtomicU32, Ordering};

use ringway_engine::Engine;

/// A fresh abstract address.
#[must_use]
pub fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("@ringway-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Starts an engine at a fresh address.
///
/// # Panics
/// When it cannot start.
#[must_use]
pub fn engine_at() -> Engine {
    start(&address())
}

/// Starts an engine at an address.
///
/// # Panics
/// When it cannot start.
#[must_use]
pub fn start(address: &str) -> Engine {
    Engine::builder().address(address).start().expect("an engine starts at a free address")
}
