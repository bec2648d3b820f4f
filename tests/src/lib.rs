//! What the tests over whole processes share: where the repository and its programs are, and how far a slow test is
//! to go. Used by `tests/it` alone. It must not know any area that is tested.

#![forbid(unsafe_code)]

pub mod effort;
pub mod local;
pub mod repository;
