//! What all rivals share: starting the callee, pinning, the timed loop, the payloads. It must not know any transport.
//!
//! A callee says `ready` and one line of its own on standard output, serves until its standard input ends, then leaves in
//! an orderly way, so that rivals with files in `/dev/shm` or `/tmp` can take them away.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ringway_bench::floors::{FloorOptions, Floors, SpinName};
use ringway_bench::machine::{allowed_cpus, pin_current_thread};
use ringway_bench::report::{CaseResult, Cost, FloorName, Load};
use ringway_bench::stats::{Clock, CpuMeter, Recorder, Run, Runs, closed_loop};

/// Bytes of a small request, and of every response.
pub(crate) const SMALL: usize = 64;
/// Bytes of a large request.
pub(crate) const LARGE: usize = 16 << 20;
/// Requests under way in the cases with many.
pub(crate) const IN_FLIGHT: usize = ringway_bench::floors::IN_FLIGHT;
/// How long a callee may take to start, to answer or to leave.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of so many requests in flight one is timed.
const TIMED_OF: u64 = 64;
/// Polls between two looks at the clock.
const POLLS_PER_CHECK: u32 = 1 << 16;

/// Whether polling loops execute the processor's spin hint: whichever way the floors found to be the faster here.
static PAUSE: AtomicBool = AtomicBool::new(false);

/// Chooses how every polling loop of this process waits between two polls.
fn poll_with_pause(pause: bool) {
    PAUSE.store(pause, Ordering::Relaxed);
}

/// Waits between two polls.
#[inline]
pub(crate) fn relax() {
    if PAUSE.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Polls until `ready` returns something; gives up when the other side has been silent for too long.
#[inline]
pub(crate) fn poll<T>(mut ready: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let mut started: Option<Instant> = None;
    loop {
        for _ in 0..POLLS_PER_CHECK {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            relax();
        }
        ensure!(started.get_or_insert_with(Instant::now).elapsed() < PATIENCE, "the other side is silent");
    }
}

/// A response: the request's first and last eight bytes in front, so that the callee must have looked at both ends.
pub(crate) type Response = [u8; SMALL];

/// Answers a request.
pub(crate) fn answer(request: &[u8]) -> Response {
    let mut response = [0; SMALL];
    let (front, back) = (request.first_chunk::<8>(), request.last_chunk::<8>());
    response[..8].copy_from_slice(front.unwrap_or(&[0; 8]));
    response[8..16].copy_from_slice(back.unwrap_or(&[0; 8]));
    response
}

/// Writes the sequence number at both ends of a request.
pub(crate) fn stamp(request: &mut [u8], sequence: u64) {
    let word = sequence.to_le_bytes();
    let len = request.len();
    request[..8].copy_from_slice(&word);
    request[len - 8..].copy_from_slice(&word);
}

/// Checks that a response is the one to a request stamped with `sequence`.
pub(crate) fn check(response: &[u8], sequence: u64) -> anyhow::Result<()> {
    let word = sequence.to_le_bytes();
    let ends = response.len() == SMALL && response[..8] == word && response[8..16] == word;
    ensure!(ends, "wanted the response to request {sequence}, found {response:?}");
    Ok(())
}

/// Everything that a rival needs to measure its cases.
pub(crate) struct Bench<'a> {
    /// Its name.
    pub(crate) rival: &'static str,
    /// What tells the time.
    pub(crate) clock: &'a Clock,
    /// What the machine costs.
    pub(crate) floors: &'a Floors,
    /// Runs, their length, the two processors.
    pub(crate) options: &'a FloorOptions,
    /// A folder for sockets and files, gone after the run.
    pub(crate) folder: &'a Path,
    /// Whether to pin.
    pub(crate) pinned: bool,
}

impl Bench<'_> {
    /// Starts the callee's half and waits until it is ready.
    pub(crate) fn start(&self, arguments: &[&str]) -> anyhow::Result<Callee> {
        let cpu = if self.pinned { self.options.cpus.callee.to_string() } else { "any".to_owned() };
        self.start_on(&cpu, arguments)
    }

    /// Starts a helper of the rival on any processor: a broker or a driver that is not on the path of the data.
    pub(crate) fn start_unpinned(&self, arguments: &[&str]) -> anyhow::Result<Callee> {
        self.start_on("any", arguments)
    }

    fn start_on(&self, cpu: &str, arguments: &[&str]) -> anyhow::Result<Callee> {
        let mut command = Command::new(std::env::current_exe()?);
        let pause = self.floors.cache_line.spin == Some(SpinName::Pause);
        poll_with_pause(pause);
        command.args(["peer-child", self.rival, cpu, if pause { "pause" } else { "bare" }]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("the callee has no standard output")?;
        let mut callee = Callee { child, said: String::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let Some(said) = line.strip_prefix("ready ") else {
            bail!("the callee of {} did not start", self.rival)
        };
        said.trim().clone_into(&mut callee.said);
        Ok(callee)
    }

    /// Pins the calling thread, and with it the threads that it starts from now on.
    pub(crate) fn pin_caller(&self) -> anyhow::Result<()> {
        if self.pinned {
            pin_current_thread(self.options.cpus.caller)?;
        }
        Ok(())
    }

    /// Times `round_trip`, which is given a fresh sequence number each time, in a closed loop.
    pub(crate) fn case(
        &self,
        variant: &str,
        bytes: usize,
        helpers: &[u32],
        mut round_trip: impl FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<CaseResult> {
        let mut sequence = 0;
        let warm_up = if bytes > SMALL { 8 } else { 1000 };
        let measured = self.runs(helpers, |run_time| {
            closed_loop(self.clock, warm_up, run_time, || {
                sequence += 1;
                round_trip(sequence)
            })
        });
        let (runs, cost) = measured?;
        let name = case_name(&format!("{}{variant}", self.rival), bytes);
        let result = CaseResult::new(&name, bytes as u64, Load::Closed, &runs, cost);
        Ok(result.against(FloorName::CacheLine, self.floors))
    }

    /// Keeps [`IN_FLIGHT`] small requests under way from one thread: `start` sends the one with this number, `end` waits
    /// for its response and checks it. Responses are taken in the order of the requests.
    pub(crate) fn in_flight<P>(
        &self,
        helpers: &[u32],
        mut start: impl FnMut(u64) -> anyhow::Result<P>,
        mut end: impl FnMut(P, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<CaseResult> {
        let mut sequence = 0;
        pump(self.clock, self.options.run_time / 10, &mut sequence, &mut start, &mut end)?;
        let (runs, cost) =
            self.runs(helpers, |run_time| pump(self.clock, run_time, &mut sequence, &mut start, &mut end))?;
        let name = in_flight_name(self.rival);
        let load = Load::InFlight { calls: IN_FLIGHT as u64 };
        Ok(CaseResult::new(&name, SMALL as u64, load, &runs, cost).against(FloorName::StampRing, self.floors))
    }

    fn runs(
        &self,
        helpers: &[u32],
        mut one_run: impl FnMut(Duration) -> anyhow::Result<Run>,
    ) -> anyhow::Result<(Runs, Cost)> {
        let meter = CpuMeter::start(helpers)?;
        let mut runs = Runs::default();
        for _ in 0..self.options.runs.max(1) {
            runs.add(&one_run(self.options.run_time)?);
        }
        // None of these transports counts the bytes that it copies.
        Ok((runs, Cost { cpu_s: meter.used()?.as_secs_f64(), bytes_copied: None }))
    }
}

/// Names the case of one request at a time.
pub(crate) fn case_name(rival: &str, bytes: usize) -> String {
    format!("peer/{rival}/{bytes}")
}

/// Names the case of many small requests under way.
pub(crate) fn in_flight_name(rival: &str) -> String {
    format!("{}/inflight{IN_FLIGHT}", case_name(rival, SMALL))
}

/// One run with [`IN_FLIGHT`] requests under way. The clock is looked at once in [`TIMED_OF`] requests, so that reading
/// it is no part of the figure.
fn pump<P>(
    clock: &Clock,
    run_time: Duration,
    sequence: &mut u64,
    start: &mut impl FnMut(u64) -> anyhow::Result<P>,
    end: &mut impl FnMut(P, u64) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    let mut pending = VecDeque::with_capacity(IN_FLIGHT);
    let (mut latencies, mut not_counted, mut over) = (Recorder::new(), 0, false);
    let started = Instant::now();
    loop {
        if !over && pending.len() < IN_FLIGHT {
            *sequence += 1;
            let mut asked = None;
            if sequence.is_multiple_of(TIMED_OF) {
                over = started.elapsed() >= run_time;
                asked = Some(clock.now());
            }
            pending.push_back((*sequence, asked, start(*sequence)?));
            continue;
        }
        let Some((number, asked, request)) = pending.pop_front() else { break };
        end(request, number)?;
        not_counted += 1;
        if let Some(asked) = asked {
            latencies.record_many(clock.since(asked), std::mem::take(&mut not_counted));
        }
    }
    // A run ends with a request that is timed, so every one of it is counted.
    Ok(Run { latencies, elapsed: started.elapsed() })
}

/// The callee's process; asked to leave when dropped, and ended if it does not.
pub(crate) struct Callee {
    child: Child,
    said: String,
}

impl Callee {
    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it said when it was ready.
    #[cfg_attr(
        not(feature = "aeron"),
        expect(dead_code, reason = "only Aeron's driver says more than `ready`")
    )]
    pub(crate) fn said(&self) -> &str {
        &self.said
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Prepares this process to be a callee: pinned, and gone when its parent dies.
pub(crate) fn become_callee(cpu: &str, spin: &str) -> anyhow::Result<()> {
    poll_with_pause(spin == "pause");
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    match cpu.parse() {
        Ok(cpu) => Ok(pin_current_thread(cpu)?),
        Err(_) => spread(),
    }
}

/// Lets the calling thread run on every processor, whatever its parent was pinned to.
fn spread() -> anyhow::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in 0..allowed_cpus().iter().max().map_or(1, |last| last + 1).max(processors()) {
        set.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn processors() -> usize {
    let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    listed.lines().filter(|line| line.starts_with("processor")).count()
}

/// Tells the parent that this callee is ready.
pub(crate) fn ready(said: &str) {
    println!("ready {said}");
}

/// Returns a flag that is set when the parent wants this callee to leave. One that is asleep in its transport then is
/// ended a second later.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    std::thread::spawn(move || {
        // The end of input, or any error, means the same.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        raised.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        std::process::exit(0);
    });
    flag
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use ringway_bench::stats::Clock;

    use super::{IN_FLIGHT, LARGE, SMALL, TIMED_OF, answer, check, poll, pump, stamp};

    #[test]
    fn a_pump_keeps_so_many_under_way_and_counts_each() {
        let (under_way, most, ended) = (Cell::new(0), Cell::new(0), RefCell::new(Vec::new()));
        let mut sequence = 0;
        let mut start = |number| {
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            Ok(number)
        };
        let mut end = |request: u64, number| {
            assert_eq!(request, number);
            under_way.set(under_way.get() - 1);
            ended.borrow_mut().push(number);
            Ok(())
        };
        let run =
            pump(&Clock::calibrate(), Duration::from_millis(1), &mut sequence, &mut start, &mut end).unwrap();
        let ended = ended.into_inner();
        assert_eq!((under_way.get(), most.get()), (0, IN_FLIGHT));
        assert_eq!(ended, (1..=sequence).collect::<Vec<_>>());
        assert!(sequence.is_multiple_of(TIMED_OF) && run.latencies.count() == sequence, "{sequence}");
    }

    #[test]
    fn an_answer_proves_that_both_ends_were_read() {
        for bytes in [SMALL, LARGE] {
            let mut request = vec![0; bytes];
            stamp(&mut request, 7);
            check(&answer(&request), 7).unwrap();
            assert!(check(&answer(&request), 8).is_err());
            request[bytes - 8] ^= 1;
            assert!(check(&answer(&request), 7).is_err());
        }
        assert!(check(&[0; 8], 0).is_err());
    }

    #[test]
    fn polling_hands_on_values_and_errors() {
        let mut polls = 0;
        let found = poll(|| {
            polls += 1;
            Ok((polls == 3).then_some(polls))
        });
        assert_eq!(found.unwrap(), 3);
        assert!(poll(|| Err::<Option<()>, _>(anyhow::anyhow!("broken"))).is_err());
    }
}
