//! Benchmarks with their physical floors in the same run. A figure such as "240 ns" says nothing until one knows what
//! the machine itself takes to move a cache line; here every report carries both. Used by `ringway bench` and by
//! `benches/peers`. It measures the public SDK from outside, as a user's program would; how calls travel it must not know.
//! Linux only, as what it measures is: elsewhere the crate is empty.
//!
//! Read in this order: [`machine`] (where we run), [`stats`] (how time is counted), [`floors`] (what the machine costs),
//! [`report`] (what comes out), [`html`] (the same as a page), [`run()`] (`ringway bench`: the cases and their order).
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

pub mod machine;

pub mod stats;

pub mod floors;

pub mod report;

pub mod html;

mod callee;
mod payload;

mod cases;

mod run;

pub use callee::run_callee;
pub use run::{BenchArgs, measure, run};
