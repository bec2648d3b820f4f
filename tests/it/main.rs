//! One test program with a module per area: first what reads the repository, then what starts processes.

#![forbid(unsafe_code)]

mod layering;
mod licences;
mod tidy;
