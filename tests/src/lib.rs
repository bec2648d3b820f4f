//! What the tests over whole processes share: where the repository and its programs are, how far a slow test is to go,
//! processes to kill and what they serve, and what a process holds. Used by `tests/it` and the test's own program. It
//! must not know any area that is tested.

#![forbid(unsafe_code)]

pub mod effort;
pub mod repository;

pub mod census;
pub mod dice;
pub mod figures;

pub mod load;
pub mod local;
pub mod member;
pub mod service;
pub mod victim;
