//! The work of `ringway demo`, as plain functions over plain values: answering questions from documents with
//! sources, and finding duplicate data in files. Requests and replies are serde types with a JSON Schema.
//!
//! [`workers`] puts that work behind function names, one process each, and [`run`](run::run) starts an engine and those processes
//! and has both jobs done. Only [`calls`], [`socket`], [`workers`] and [`run`](mod@run) know of engines and workers.

#![forbid(unsafe_code)]

pub mod calls;
pub mod corpus;
pub mod critic;
pub mod desk;
pub mod pipeline;
mod processes;
pub mod prose;
pub mod report;
pub mod researcher;
pub mod run;
pub mod search;
pub mod setup;
pub mod socket;
pub mod summarize;
pub mod words;
pub mod workers;
