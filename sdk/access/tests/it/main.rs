//! Handshakes between two ends, as a user of the crate has them: with tokens, with certificates, over TLS, and with a
//! peer that lies. The time is today's, since TLS reads the clock by itself.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod hostile;
mod secured;
mod stage;
mod tokens;
