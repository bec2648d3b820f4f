//! Cron.
#![forbid(unsafe_code)]
mod expression;
pub mod schedule;
pub use expression::ExpressionError;
