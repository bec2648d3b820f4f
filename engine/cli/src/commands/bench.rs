//! `ringway bench`: calls measured beside the floors of the machine. All of it is in `ringway-bench`.

use std::process::ExitCode;

use ringway_bench::BenchArgs;

use crate::failure::Failure;

pub(crate) fn run(arguments: &BenchArgs) -> Result<ExitCode, Failure> {
    ringway_bench::run(arguments).map_err(|error| Failure::error(format_args!("{error:#}")))?;
    Ok(ExitCode::SUCCESS)
}
