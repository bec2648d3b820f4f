//! Browsers' sockets at a real engine with the stream worker.

#![forbid(unsafe_code)]

#[cfg(test)]
mod entry;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod streams;
