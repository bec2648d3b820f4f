//! Says whether this machine lets a file system be mounted, by mounting one. Used by the project's commands before they run
//! what needs it. It must not know what that is.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn mount() -> Result<(), String> {
    use ringway_power::{Disk, Mode, Mounted};
    let mounted = Mounted::new(&Disk::new(Mode::Strict)).map_err(|refused| refused.to_string())?;
    // A mount that nobody can use is none.
    std::fs::write(mounted.folder().join("probe"), b"x")
        .map_err(|error| format!("wanted to write to it, found: {error}"))
}

#[cfg(not(target_os = "linux"))]
fn mount() -> Result<(), String> {
    Err("wanted Linux, found another system".to_owned())
}

fn main() -> ExitCode {
    match mount() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            drop(writeln!(std::io::stdout(), "{reason}"));
            ExitCode::FAILURE
        }
    }
}
