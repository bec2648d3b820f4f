//! The `ringway` executable. All of it is in the library, so that tests can reach it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringway_cli::main()
}
