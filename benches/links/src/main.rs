//! How may a TCP link do its input and output? Each way moves the same frames between two processes over loopback, and
//! stands in a table beside blocking system calls in the same round. The executable starts itself again as the peer.

mod bulk;
mod frames;
mod many;
mod peer;
mod raw;
mod rows;
mod runtimes;
mod sockets;
mod table;
mod uring;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use peer::Peer;
use rows::{BULK, FRAMES, MANY, Work};
use table::{Reading, Row};

/// The processors that this process and the peer are pinned to.
pub(crate) type Cpus = (Option<usize>, Option<usize>);

/// Frames under way in `stream`.
const WINDOW: usize = 64;

const USAGE: &str =
    "usage: ringway-links [pingpong|stream|many|bulk|all] [--seconds N] [--runs N] [--only TEXT]
                     [--no-pin|--one-cpu] [--refuse EPERM|ENOSYS]
--seconds  length of one run, 0.5 unless said otherwise     --runs    runs of each row, 5; medians count
--only     rows whose name contains TEXT, and the floor     --no-pin  leave both processes unpinned
--one-cpu  pin both to one processor: what a way costs, without a wake-up across (spinning rows are left out)
--refuse   let io_uring_setup fail, as container runtimes do";

/// Where the two processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pins {
    /// Anywhere.
    None,
    /// Both on one processor.
    One,
    /// On one each.
    Two,
}

/// What was asked for.
struct Options {
    works: Vec<Work>,
    time: Duration,
    runs: usize,
    only: Option<String>,
    pins: Pins,
    refuse: Option<u32>,
}

impl Options {
    fn parse(words: Vec<String>) -> anyhow::Result<Self> {
        let (works, time) = (Work::ALL.to_vec(), Duration::from_millis(500));
        let mut options = Self { works, time, runs: 5, only: None, pins: Pins::Two, refuse: None };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} wants a value"));
            match word.as_str() {
                "--seconds" => options.time = Duration::try_from_secs_f64(value()?.parse()?)?,
                "--runs" => options.runs = value()?.parse::<usize>()?.max(1),
                "--only" => options.only = Some(value()?),
                "--no-pin" => options.pins = Pins::None,
                "--one-cpu" => options.pins = Pins::One,
                "--refuse" => options.refuse = Some(error_number(&value()?)?),
                "all" => options.works = Work::ALL.to_vec(),
                name => match Work::ALL.into_iter().find(|work| work.name() == name) {
                    Some(work) => options.works = vec![work],
                    None => bail!("{USAGE}"),
                },
            }
        }
        Ok(options)
    }

    fn wants(&self, row: usize, name: &str) -> bool {
        row == 0 || self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

fn error_number(name: &str) -> anyhow::Result<u32> {
    let number = match name {
        "EPERM" => libc::EPERM,
        "ENOSYS" => libc::ENOSYS,
        _ => bail!("--refuse wants EPERM or ENOSYS"),
    };
    Ok(number.try_into()?)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((first, rest)) if first == "peer" => peer::run(rest),
        _ => Options::parse(words).and_then(|options| run(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(error) = options.refuse {
        raw::refuse_io_uring(error).context("the filter could not be installed")?;
    }
    let refused = raw::probe().err();
    let (first, last) = peer::processors()?;
    let pins = match options.pins {
        Pins::None => (None, None),
        Pins::One => (Some(first), Some(first)),
        Pins::Two => (Some(first), Some(last)),
    };
    table::print_machine(pins, refused.as_ref());
    for work in &options.works {
        measure(*work, options, pins, refused.is_some())?;
    }
    Ok(())
}

/// Measures all rows of one table, in rounds, so that what else happens on the machine meets all of them.
fn measure(work: Work, options: &Options, pins: Cpus, refused: bool) -> anyhow::Result<()> {
    let mut rows: Vec<Row> = work.rows().into_iter().map(Row::new).collect();
    for round in 0..options.runs {
        for (index, row) in rows.iter_mut().enumerate() {
            let hopeless = options.pins == Pins::One && work.spins(index);
            if !options.wants(index, row.name) || row.failed.is_some() || hopeless {
                continue;
            }
            if refused && work.needs_io_uring(index) {
                row.failed = Some("needs io_uring, which is refused here".to_owned());
                continue;
            }
            eprintln!("{} {}/{}: {}", work.name(), round + 1, options.runs, row.name);
            // A thread of its own: pinning, thread-locals and a ring's one submitter end with it.
            let reading =
                std::thread::scope(|scope| scope.spawn(|| one_run(work, index, options.time, pins)).join());
            match reading {
                Ok(Ok(reading)) => row.readings.push(reading),
                Ok(Err(error)) => row.failed = Some(format!("{error:#}")),
                Err(_) => row.failed = Some("panicked".to_owned()),
            }
        }
    }
    table::print(work, &rows)
}

/// One row, one run: a short warm-up, then the measurement, with both processes' processor time around it.
fn one_run(work: Work, row: usize, time: Duration, pins: Cpus) -> anyhow::Result<Reading> {
    peer::pin(pins.0)?;
    let (mut peer, mut streams) = Peer::start(work, row, pins.1, Duration::from_secs(20) + 4 * time)?;
    let warm_up = time / 10;
    match work {
        Work::PingPong | Work::Stream | Work::Many => {
            let window = if work == Work::Stream { WINDOW } else { 1 };
            let mut asking = match work {
                Work::Many => MANY[row].1.asking(streams)?,
                _ => FRAMES[row].1.asking(streams.remove(0))?,
            };
            asking.run(window, warm_up)?;
            let (sample, cpu) = with_cpu_time(&mut peer, || asking.run(window, time))?;
            Ok(Reading::of_frames(&sample, cpu))
        }
        Work::Bulk => {
            let stream = streams.remove(0);
            let acks = stream.try_clone()?;
            let mut sender = bulk::sender(BULK[row].1, stream)?;
            bulk::fill(sender.as_mut());
            bulk::push(sender.as_mut(), &acks, warm_up)?;
            let (sample, cpu) = with_cpu_time(&mut peer, || bulk::push(sender.as_mut(), &acks, time))?;
            Ok(Reading::of_payloads(&sample, cpu))
        }
    }
}

/// Runs something and returns, too, the processor time that this process and the peer used for it.
fn with_cpu_time<T>(
    peer: &mut Peer,
    run: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, [Duration; 2])> {
    let before = [peer::cpu_time(), peer.cpu_time()?];
    let done = run()?;
    let after = [peer::cpu_time(), peer.cpu_time()?];
    Ok((done, [after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1])]))
}
