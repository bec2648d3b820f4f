//! The listener at a real engine, with real sockets.

#![forbid(unsafe_code)]

#[cfg(test)]
mod channels;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod otel;
