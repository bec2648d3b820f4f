//! Shared-memory segments, rings, arenas, doorbells and channels.
#![expect(
    unsafe_code,
    reason = "shared memory is mapped, read and written through raw pointers; docs/unsafe.md has every place"
)]

pub mod foreign;
pub mod limits;
pub mod segment;
pub mod sync;
#[cfg(target_os = "linux")]
pub mod sys;

#[cfg(target_os = "linux")]
pub mod floor;
