//! Benchmarks with their physical floors in the same run. A figure such as "240 ns" says nothing until one knows what
//! the machine itself takes to move a cache line; here every report carries both. Used by `ringway bench` and by
//! `benches/peers`. It knows how to measure, count and show; what a call is, its users know.
//!
//! Read in this order: [`machine`] (where we run), [`stats`] (how time is counted), [`floors`] (what the machine costs).
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod floors;
#[cfg(target_os = "linux")]
pub mod machine;
pub mod stats;
