//! Functions over HTTP at a real engine, with real servers.

#![forbid(unsafe_code)]

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod server;
#[cfg(test)]
mod stage;
