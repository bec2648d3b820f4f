//! Update operations on JSON values, shared by the workers that keep such values. [`Op`] is what callers send, [`apply`]
//! what it does, [`OpError`] what is told of an operation that was left out. This crate must not know where values are
//! kept.

#![forbid(unsafe_code)]

mod apply;
pub mod limits;
mod op;
mod path;
#[cfg(test)]
mod tests;

pub use apply::{Outcome, apply};
pub use op::{Op, OpError};
pub use path::Path;
