//! Linux, one thin call each: memory, sockets that carry file descriptors, events, processes, barriers, and facts about
//! the machine. Used by the rest of this crate and by `doctor`. It holds no policy and must not know about rings, arenas
//! or workers; what a call means is said where it is used.

pub mod barrier;
pub mod event;
pub mod machine;
pub mod memory;
pub mod process;
pub mod socket;
