//! The HTTP front door as its clients meet it: a real engine, real functions, real connections.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod access;
mod answers;
mod connections;
mod once;
mod raw;
mod stage;
mod streamed;
mod tls;
