//! The floors in shared memory: the bare ping-pong and the bare ring. The loops themselves are `ringway_ipc::floor`;
//! here is who runs them, and which way of polling was the faster.

use std::process::Stdio;
use std::time::{Duration, Instant};

use ringway_ipc::floor::{FloorMap, PingPong, Spin, StampRings};

use super::{Echoer, FloorError, FloorOptions, IN_FLIGHT, SpinName, WARM_UP};
use crate::stats::{Clock, Run, closed_loop, median};

/// Measures the bare two-word ping-pong once.
pub(super) fn cache_line(
    options: &FloorOptions,
    clock: &Clock,
    spin: SpinName,
    run_time: Duration,
) -> Result<Run, FloorError> {
    with_echoer(options, "cache_line", spin, |map| {
        let mut floor = PingPong::new(map, spin.into(), options.patience);
        let run = closed_loop(clock, WARM_UP, run_time, || floor.round_trip());
        floor.stop();
        Ok(run?)
    })
}

/// Measures the bare ring once, one slot at a time.
pub(super) fn stamp_ring(
    options: &FloorOptions,
    clock: &Clock,
    spin: SpinName,
    run_time: Duration,
) -> Result<Run, FloorError> {
    with_echoer(options, "stamp_ring", spin, |map| {
        let mut floor = StampRings::new(map, spin.into(), options.patience);
        let run = closed_loop(clock, WARM_UP, run_time, || floor.round_trip());
        floor.stop();
        Ok(run?)
    })
}

/// Returns the rate of the ring with many requests in flight.
pub(super) fn pumped(options: &FloorOptions, spin: SpinName) -> Result<f64, FloorError> {
    with_echoer(options, "stamp_ring", spin, |map| {
        let mut floor = StampRings::new(map, spin.into(), options.patience);
        let warm = floor.pump(IN_FLIGHT, Instant::now() + options.run_time / 10);
        let started = Instant::now();
        let answered = warm.and_then(|_| floor.pump(IN_FLIGHT, started + options.run_time));
        let elapsed = started.elapsed();
        floor.stop();
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let answered = answered? as f64;
        Ok(answered / elapsed.as_secs_f64())
    })
}

/// Starts the other side, measures, waits for it to leave.
fn with_echoer<T>(
    options: &FloorOptions,
    floor: &str,
    spin: SpinName,
    measured: impl FnOnce(&FloorMap) -> Result<T, FloorError>,
) -> Result<T, FloorError> {
    let map = FloorMap::create()?;
    let input = Stdio::from(map.file().try_clone_to_owned()?);
    let echoer = Echoer::start(options, floor, spin.name(), input, Stdio::null())?;
    let result = measured(&map)?;
    echoer.finish()?;
    Ok(result)
}

/// Tries both ways of polling for a while each and returns the one with the lower median.
pub(super) fn faster(
    options: &FloorOptions,
    one_run: impl Fn(SpinName, Duration) -> Result<Run, FloorError>,
) -> Result<SpinName, FloorError> {
    let median_ns = |spin| {
        let tries: Result<Vec<u64>, FloorError> =
            (0..3).map(|_| Ok(one_run(spin, options.run_time / 4)?.latencies.summary().p50_ns)).collect();
        Ok::<_, FloorError>(median(tries?).unwrap_or(u64::MAX))
    };
    Ok(if median_ns(SpinName::Bare)? <= median_ns(SpinName::Pause)? {
        SpinName::Bare
    } else {
        SpinName::Pause
    })
}

impl SpinName {
    /// Returns the word used in arguments and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Pause => "pause",
        }
    }
}

impl From<SpinName> for Spin {
    fn from(name: SpinName) -> Self {
        match name {
            SpinName::Bare => Self::Bare,
            SpinName::Pause => Self::Pause,
        }
    }
}
