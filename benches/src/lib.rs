//! The steps that a call is made of, one at a time, in one process over ordinary memory. Used twice: criterion times them
//! (`benches/steps.rs`), and callgrind counts their instructions (`instructions`), which is what the gate holds, since a
//! count is the same on a busy machine. Whole calls between processes are the business of `ringway bench`.

#![forbid(unsafe_code)]

pub mod budget;

mod steps;

pub use steps::{STEPS, Step, Taken};
