//! The pub/sub worker as its users meet it: a real engine, the SDK as client.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod queues;
mod stage;
mod topics;
