//! A disk that loses power, under whole processes: a file system in memory that keeps what programs see apart from what was
//! synced. Used by the test of power cuts over an engine with its workers. It must not know who writes, or what.
//!
//! - [`Disk`]: files, folders, the moment of the cut, and what is left after it;
//! - [`Mounted`]: the same, mounted in a folder of this machine.

#![forbid(unsafe_code)]

mod contents;
mod disk;
#[cfg(target_os = "linux")]
mod mount;
mod names;

pub use disk::{Disk, Errno, Lost, Mode};
#[cfg(target_os = "linux")]
pub use mount::{Mounted, Refused};
