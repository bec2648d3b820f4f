//! The work of `ringway demo`, as plain functions over plain values: answering questions from documents with
//! sources, and finding duplicate data in files. The demo's workers put these behind function names. Nothing in
//! here knows of engines, channels or workers; requests and replies are serde types with a JSON Schema.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod critic;
pub mod pipeline;
pub mod prose;
pub mod report;
pub mod researcher;
pub mod search;
pub mod summarize;
pub mod words;
