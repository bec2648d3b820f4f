//! The floors that sleep: two event counters, and a Unix stream socket. Both sides block in the kernel between messages,
//! so the figures are what a wake-up costs on this machine.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::event::EventfdFlags;

use super::{Echoer, FloorError, FloorOptions, WARM_UP};
use crate::stats::{Clock, Run, closed_loop};

/// Bytes of a message over the socket.
pub(super) const MESSAGE_BYTES: usize = 64;
/// Added to an event counter to ask or answer.
pub(super) const ASK: u64 = 1;
/// Added to an event counter to tell the other side to leave.
pub(super) const STOP: u64 = 2;

/// Measures a round trip over two event counters once.
pub(super) fn eventfd(options: &FloorOptions, clock: &Clock) -> Result<Run, FloorError> {
    let [ask, answer] = [EventfdFlags::empty(); 2].map(|flags| rustix::event::eventfd(0, flags));
    let (ask, answer) = (ask?, answer?);
    let shared = |end: &OwnedFd| Ok::<_, FloorError>(Stdio::from(end.try_clone()?));
    let echoer = Echoer::start(options, "eventfd", "asleep", shared(&ask)?, shared(&answer)?)?;
    let run = closed_loop(clock, WARM_UP / 10, options.run_time, || {
        signal(&ask, ASK)?;
        wait(&answer).map(drop)
    })?;
    signal(&ask, STOP)?;
    echoer.finish()?;
    Ok(run)
}

/// Measures a round trip of 64 bytes over a Unix stream socket once.
pub(super) fn unix_socket(options: &FloorOptions, clock: &Clock) -> Result<Run, FloorError> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(options.patience))?;
    let echoer =
        Echoer::start(options, "unix_socket", "asleep", OwnedFd::from(theirs).into(), Stdio::null())?;
    let mut message = [0x5a; MESSAGE_BYTES];
    let run = closed_loop(clock, WARM_UP / 10, options.run_time, || {
        ours.write_all(&message)?;
        ours.read_exact(&mut message)
    })?;
    drop(ours);
    echoer.finish()?;
    Ok(run)
}

/// Adds to an event counter.
pub(super) fn signal(counter: impl AsFd, value: u64) -> Result<(), FloorError> {
    rustix::io::write(counter, &value.to_ne_bytes())?;
    Ok(())
}

/// Sleeps until an event counter is not zero, then empties it.
pub(super) fn wait(counter: impl AsFd) -> Result<u64, FloorError> {
    let mut value = [0; 8];
    rustix::io::retry_on_intr(|| rustix::io::read(&counter, &mut value))?;
    Ok(u64::from_ne_bytes(value))
}
