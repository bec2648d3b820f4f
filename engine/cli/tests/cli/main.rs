//! The `ringway` executable as a user meets it: an engine and a worker run in the test, the command beside them. Held are
//! what goes to which output, exit codes, and that every command finds what is there.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test")]

mod host;

mod enqueue;
mod keeping;
mod links;
mod looking;
mod running;
mod settings;
mod trigger;
