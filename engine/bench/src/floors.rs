//! What the machine itself costs: bare loops between two processes pinned to two cores. Used by `ringway bench` and by
//! `benches/peers` in the same run as the figures they stand beside. It must not know channels, frames or calls.
//!
//! The other process is this executable started again with a hidden argument, which hands its arguments to
//! [`run_floor_child`]. What the two share is passed as the child's standard input and output, so neither names nor
//! descriptor numbers are needed, and the child leaves when its parent does.

mod child;
mod copy;
mod kernel;
mod memory;

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::{CpuPair, cpu_pair, pin_current_thread};
use crate::stats::{Clock, CurvePoint, Runs, Summary, median};

pub use child::run_floor_child;
pub use copy::{CopySpeed, copy_speeds};

/// Untimed round trips before a run is timed.
const WARM_UP: u64 = 1000;
/// How long the other process waits for a question before it leaves.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests under way when the ring's throughput is measured.
pub const IN_FLIGHT: usize = 64;

/// How to run the floors.
#[derive(Debug, Clone)]
pub struct FloorOptions {
    /// Where the two processes are pinned.
    pub cpus: CpuPair,
    /// Runs of each floor; the median counts.
    pub runs: usize,
    /// Length of one run.
    pub run_time: Duration,
    /// How long to wait for one answer before the other process counts as gone.
    pub patience: Duration,
    /// What to put before the floor's own arguments when this executable is started again.
    pub child_args: Vec<OsString>,
}

impl FloorOptions {
    /// Five runs of 300 ms each, for an executable whose hidden argument is `ringway bench --floor-child`.
    #[must_use]
    pub fn new() -> Self {
        let child_args = ["bench", "--floor-child"].map(OsString::from).to_vec();
        let run_time = Duration::from_millis(300);
        Self { cpus: cpu_pair(), runs: 5, run_time, patience: PATIENCE, child_args }
    }

    /// Five runs of 60 ms each: about four seconds in all.
    #[must_use]
    pub fn quick() -> Self {
        Self { run_time: Duration::from_millis(60), ..Self::new() }
    }
}

impl Default for FloorOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// One floor: a round trip of the barest kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Floor {
    /// Median over the runs.
    #[serde(flatten)]
    pub summary: Summary,
    /// How many runs.
    pub runs: usize,
    /// How the faster way of polling waits; only where there is polling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spin: Option<SpinName>,
    /// Round trips per second with `in_flight` under way; only for the ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trips_per_s: Option<f64>,
    /// Requests under way when that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<usize>,
    /// Percentile curve over all runs.
    pub curve: Vec<CurvePoint>,
}

impl Floor {
    fn of(runs: &Runs) -> Self {
        Self { summary: runs.summary(), runs: runs.len(), curve: runs.curve(), ..Self::default() }
    }
}

/// How a loop polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpinName {
    /// Back to back.
    Bare,
    /// With the processor's spin hint between polls.
    Pause,
}

/// All floors of one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Floors {
    /// Two words, each on its own pair of cache lines.
    pub cache_line: Floor,
    /// Two rings of 256-byte slots, the stamp in the slot, 64 bytes of payload.
    pub stamp_ring: Floor,
    /// Two event counters, both sides asleep in between.
    pub eventfd: Floor,
    /// 64 bytes over a Unix stream socket, both sides asleep in between.
    pub unix_socket: Floor,
    /// One core copying warm memory, by size.
    #[serde(default)]
    pub memcpy: Vec<CopySpeed>,
}

/// Why a floor could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FloorError {
    /// The other process could not be started.
    #[error("could not start the other process of a floor")]
    Start(#[source] io::Error),
    /// The system refused something else.
    #[error("a floor's system call failed")]
    System(#[from] io::Error),
    /// The other process went quiet.
    #[error(transparent)]
    Silent(#[from] ringway_ipc::floor::PeerSilent),
    /// The hidden arguments were not those of a floor.
    #[error("wanted a floor, a way to poll and a processor, found {0:?}")]
    Arguments(Vec<OsString>),
    /// The measuring thread panicked.
    #[error("the thread that measures floors panicked")]
    Panicked,
}

impl From<rustix::io::Errno> for FloorError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Measures every floor as often as the options say; see [`FloorSession`].
///
/// # Errors
/// The first floor that fails.
pub fn measure(options: &FloorOptions, clock: &Clock) -> Result<Floors, FloorError> {
    let mut session = FloorSession::start(options, clock)?;
    for _ in 0..options.runs.max(1) {
        session.round()?;
    }
    Ok(session.floors())
}

/// Floors that are measured round by round, so that other measurements stand between the rounds: whatever disturbs the
/// machine for a while then disturbs both sides of a ratio.
#[derive(Debug)]
pub struct FloorSession<'a> {
    options: &'a FloorOptions,
    clock: &'a Clock,
    cache_line_spin: SpinName,
    stamp_ring_spin: SpinName,
    cache_line: Runs,
    stamp_ring: Runs,
    eventfd: Runs,
    unix_socket: Runs,
    /// Rates of the ring with many in flight, polling bare and with pauses.
    rates: [Vec<f64>; 2],
    memcpy: Vec<CopySpeed>,
}

impl<'a> FloorSession<'a> {
    /// Finds the faster way of polling for each floor that polls, and measures copying.
    ///
    /// # Errors
    /// The first floor that fails.
    pub fn start(options: &'a FloorOptions, clock: &'a Clock) -> Result<Self, FloorError> {
        pinned(options, || {
            Ok(Self {
                options,
                clock,
                cache_line_spin: memory::faster(options, |spin, time| {
                    memory::cache_line(options, clock, spin, time)
                })?,
                stamp_ring_spin: memory::faster(options, |spin, time| {
                    memory::stamp_ring(options, clock, spin, time)
                })?,
                cache_line: Runs::default(),
                stamp_ring: Runs::default(),
                eventfd: Runs::default(),
                unix_socket: Runs::default(),
                rates: [Vec::new(), Vec::new()],
                memcpy: copy_speeds(clock),
            })
        })
    }

    /// Measures each floor once.
    ///
    /// # Errors
    /// The first floor that fails.
    pub fn round(&mut self) -> Result<(), FloorError> {
        let (options, clock) = (self.options, self.clock);
        pinned(options, || {
            let time = options.run_time;
            self.cache_line.add(&memory::cache_line(options, clock, self.cache_line_spin, time)?);
            self.stamp_ring.add(&memory::stamp_ring(options, clock, self.stamp_ring_spin, time)?);
            // Both ways of polling again: what suits one slot at a time need not suit sixty-four.
            for (spin, rates) in [SpinName::Bare, SpinName::Pause].into_iter().zip(&mut self.rates) {
                rates.push(memory::pumped(options, spin)?);
            }
            self.eventfd.add(&kernel::eventfd(options, clock)?);
            self.unix_socket.add(&kernel::unix_socket(options, clock)?);
            Ok(())
        })
    }

    /// Sums up the rounds so far.
    #[must_use]
    pub fn floors(&self) -> Floors {
        let [bare, pause] = self.rates.clone().map(|rates| median(rates).unwrap_or(0.0));
        Floors {
            cache_line: Floor { spin: Some(self.cache_line_spin), ..Floor::of(&self.cache_line) },
            stamp_ring: Floor {
                spin: Some(self.stamp_ring_spin),
                round_trips_per_s: Some(bare.max(pause)),
                in_flight: Some(IN_FLIGHT),
                ..Floor::of(&self.stamp_ring)
            },
            eventfd: Floor::of(&self.eventfd),
            unix_socket: Floor::of(&self.unix_socket),
            memcpy: self.memcpy.clone(),
        }
    }
}

/// Measures on a thread of its own that is pinned, so that the caller's affinity stays as it is.
fn pinned<T: Send>(
    options: &FloorOptions,
    measured: impl FnOnce() -> Result<T, FloorError> + Send,
) -> Result<T, FloorError> {
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            pin_current_thread(options.cpus.caller)?;
            measured()
        });
        measuring.join().unwrap_or(Err(FloorError::Panicked))
    })
}

/// The other process; ended and reaped when dropped.
#[derive(Debug)]
struct Echoer {
    child: Child,
}

impl Echoer {
    /// Starts this executable again as the other side of `floor`.
    fn start(
        options: &FloorOptions,
        floor: &str,
        spin: &str,
        input: Stdio,
        output: Stdio,
    ) -> Result<Self, FloorError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&options.child_args).args([floor, spin]).arg(options.cpus.callee.to_string());
        let child = command.stdin(input).stdout(output).spawn().map_err(FloorError::Start)?;
        Ok(Self { child })
    }

    /// Waits for the child, which has been told to leave.
    fn finish(mut self) -> Result<(), FloorError> {
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("the other process ended: {status}")).into())
        }
    }
}

impl Drop for Echoer {
    fn drop(&mut self) {
        // Already gone after `finish`; then both calls do nothing. After a failure nobody is left to hear of another.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}
