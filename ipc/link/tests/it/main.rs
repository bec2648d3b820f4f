//! Links as their users see them: two drivers, a socket between, and a local peer at each end. Every test runs on both ways
//! of moving bytes, with and without encryption.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failure")]

mod bed;
mod conformance;
mod hostile;
mod lies;
mod raw;
mod sockets;
mod splits;
