//! Cron.
#![forbid(unsafe_code)]
pub mod config;
mod expression;
mod job;
mod ledger;
mod record;
pub mod schedule;
pub use expression::ExpressionError;
