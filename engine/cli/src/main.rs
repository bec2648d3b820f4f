//! The `ringway` executable. All of it is in the library, so that tests can reach it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// What one thread allocates another frees all the time here: requests, commits, replies. The system's allocator takes a
/// lock for each of those, which the threads of a busy engine then wait for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringway_cli::main()
}
