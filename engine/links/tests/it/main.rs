//! Remote workers as their users see them: an engine, its links, workers on both sides, all in this process.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failure")]

mod calls;
mod crowds;
mod doors;
mod drains;
mod ends;
mod engines;
mod grants;
mod shapes;
mod stage;
mod strangers;
mod suite;
