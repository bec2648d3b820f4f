//! What a binary wraps around an engine: signals, systemd, the limit on open files. A program that embeds an engine and has
//! its own ideas about these uses none of it.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::engine::Engine;

/// Why an engine cannot be run as a service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(#[source] io::Error),
}

/// Raises the limit on open files as far as the system allows without asking: each attached worker takes four, each
/// channel one.
///
/// # Errors
/// Whatever `setrlimit` reports.
pub fn raise_file_limit() -> io::Result<()> {
    let found = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: found.maximum, maximum: found.maximum })?)
}

/// SIGTERM and SIGINT, caught from when this is made: one that comes while a program still starts ends it in order once it
/// runs, and does not kill it in the middle.
#[derive(Debug)]
pub struct StopSignals(Signals);

impl StopSignals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn catch() -> Result<Self, ServiceError> {
        Signals::new([SIGTERM, SIGINT]).map(Self).map_err(ServiceError::Signals)
    }
}

/// Runs until SIGTERM or SIGINT, then stops gracefully within `drain`; a second signal cuts that short. Tells systemd,
/// where it listens.
///
/// # Errors
/// [`ServiceError`]; the engine is stopped.
pub fn run_until_signal(engine: &Engine, drain: Duration) -> Result<(), ServiceError> {
    run_until_signal_then(engine, StopSignals::catch()?, || drain, || (), |_| engine.stop_now());
    Ok(())
}

/// As [`run_until_signal`], for a program that has things to end before the engine, such as workers of its own. After the
/// first signal `drain` says how long all of it may take; workers of other processes end the calls that they work on; then
/// `end` ends what is the program's own; then the engine stops. At a second signal `again` is called with it.
pub fn run_until_signal_then(
    engine: &Engine,
    signals: StopSignals,
    drain: impl FnOnce() -> Duration + Send,
    end: impl FnOnce() + Send,
    again: impl FnOnce(i32),
) {
    let StopSignals(mut signals) = signals;
    notify(&[sd_notify::NotifyState::Ready]);
    let signal = signals.forever().next();
    tracing::info!(signal, "stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    let handle = signals.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (drain, begun) = (drain(), Instant::now());
            if !engine.drain_workers(drain) {
                tracing::warn!("workers still run calls while their time is up");
            }
            end();
            engine.shutdown(drain.saturating_sub(begun.elapsed()));
            handle.close();
        });
        if let Some(second) = signals.forever().next() {
            tracing::warn!(signal = second, "stopping at once");
            again(second);
        }
    });
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}
