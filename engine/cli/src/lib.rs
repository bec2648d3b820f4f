//! The `ringway` command: runs an engine, calls functions from a shell, and shows what is there and what happened.
//!
//! Results go to standard output and nothing else does; notes, progress and errors go to standard error. Exit codes:
//! 0 done, 1 error, 2 wrong usage, 3 not found, 4 refused, 124 timeout, 128 and a signal's number where a second signal
//! stopped an engine at once. It knows the engine only as any worker does, by
//! attaching and calling the `engine::` functions; `up` alone starts one.
//!
//! - `arguments`: what can be typed;
//! - `commands`: one file for each command;
//! - `output`: how results, tables and errors look;
//! - `connection`: attaching to the engine that is meant.

#![forbid(unsafe_code)]

mod arguments;

mod commands;

mod output;

mod failure;

mod connection;

use ringway_config::suggest;

use std::process::ExitCode;

use arguments::Arguments;

/// Reads the process's arguments, does what they say, and returns how to exit.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let arguments = match Arguments::read(&words) {
        Ok(arguments) => arguments,
        Err(error) => return arguments::refuse(&error),
    };
    output::use_colour(arguments.colour);
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
