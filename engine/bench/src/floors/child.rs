//! The other process of a floor: sends back whatever arrives on what it was given as standard input and output.

use std::ffi::OsString;
use std::os::fd::AsFd;

use ringway_ipc::floor::{FloorMap, PingPong, Spin, StampRings};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::kernel::{ASK, MESSAGE_BYTES, signal, wait};
use super::{FloorError, PATIENCE};
use crate::machine::pin_current_thread;

/// Runs the other side of a floor, given what follows the hidden argument: the floor, how to poll, and the processor.
///
/// # Errors
/// When the arguments are not a floor's, or the parent goes quiet.
pub fn run_floor_child(arguments: &[OsString]) -> Result<(), FloorError> {
    let unknown = || FloorError::Arguments(arguments.to_vec());
    let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let &[floor, spin, cpu] = words.as_slice() else { return Err(unknown()) };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    pin_current_thread(cpu.parse().map_err(|_| unknown())?)?;
    let spin = if spin == "pause" { Spin::Pause } else { Spin::Bare };
    match floor {
        "cache_line" => PingPong::new(&inherited_map()?, spin, PATIENCE).echo()?,
        "stamp_ring" => StampRings::new(&inherited_map()?, spin, PATIENCE).echo()?,
        "eventfd" => echo_events()?,
        "unix_socket" => echo_messages()?,
        _ => return Err(unknown()),
    }
    Ok(())
}

/// Maps the memory file that came as standard input.
fn inherited_map() -> Result<FloorMap, FloorError> {
    Ok(FloorMap::open(std::io::stdin().as_fd().try_clone_to_owned()?)?)
}

fn echo_events() -> Result<(), FloorError> {
    let (ask, answer) = (std::io::stdin(), std::io::stdout());
    while wait(&ask)? == ASK {
        signal(&answer, ASK)?;
    }
    Ok(())
}

fn echo_messages() -> Result<(), FloorError> {
    let socket = std::io::stdin();
    let mut message = [0; MESSAGE_BYTES];
    loop {
        let mut filled = 0;
        while filled < MESSAGE_BYTES {
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&socket, &mut message[filled..]))?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        }
        let mut sent = 0;
        while sent < MESSAGE_BYTES {
            sent += rustix::io::retry_on_intr(|| rustix::io::write(&socket, &message[sent..]))?;
        }
    }
}
