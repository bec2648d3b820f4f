//! Tests of the queue as users see it: an engine, the worker, the SDK as client, the embedded store in a folder of its own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod blobs;
mod dead;
mod delivery;
mod letters;
mod messages;
mod order;
mod receipts;
mod restart;
mod room;
mod stage;
mod steps;
mod topics;
mod traces;
