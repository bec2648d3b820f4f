//! The listener at a real engine, with real sockets.

#![forbid(unsafe_code)]

#[cfg(test)]
mod access;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod observers;
#[cfg(test)]
mod otel;
#[cfg(test)]
mod outbound;
#[cfg(test)]
mod registrations;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod triggers;
