//! Frames of 64 bytes with a fixed number of them under way: what the asking side sends, checks and times, and the loop
//! of both sides over any [`Link`] that blocks. It must not know how bytes travel.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;

/// Bytes of a frame.
pub(crate) const FRAME: usize = 64;
/// Bytes that one read may bring.
pub(crate) const READ: usize = 64 << 10;

/// A stream that two threads of different processes talk over, one turn at a time.
pub(crate) trait Link {
    /// Sends `out`, which may be empty, waits until something has arrived and shows it to `take`. Returns whether the
    /// stream is still open.
    fn turn(&mut self, out: &[u8], take: &mut dyn FnMut(&[u8])) -> io::Result<bool>;
}

/// What the asking side does in one run.
pub(crate) trait Asking {
    /// Keeps `window` frames under way for so long, then waits for the last of them.
    fn run(&mut self, window: usize, time: Duration) -> anyhow::Result<Sample>;
}

/// What came of one run.
pub(crate) struct Sample {
    /// Round trips, in nanoseconds.
    pub(crate) times: Histogram<u64>,
    /// From the first frame's leaving to the last one's return.
    pub(crate) elapsed: Duration,
}

impl Sample {
    /// Puts together what ran at the same time.
    pub(crate) fn together(samples: Vec<Self>) -> anyhow::Result<Self> {
        let mut all = Self { times: histogram()?, elapsed: Duration::ZERO };
        for sample in samples {
            all.times.add(&sample.times)?;
            all.elapsed = all.elapsed.max(sample.elapsed);
        }
        Ok(all)
    }
}

/// Returns a histogram for round trips of up to a minute, in nanoseconds.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// The frames under way, in order.
pub(crate) struct Window {
    next: u64,
    under_way: VecDeque<(u64, Instant)>,
    part: Vec<u8>,
    times: Histogram<u64>,
    started: Instant,
    until: Instant,
    wrong: Option<u64>,
}

impl Window {
    /// Starts the clock.
    pub(crate) fn new(time: Duration) -> anyhow::Result<Self> {
        let started = Instant::now();
        let (under_way, part) = (VecDeque::new(), Vec::with_capacity(FRAME));
        Ok(Self {
            next: 0,
            under_way,
            part,
            times: histogram()?,
            started,
            until: started + time,
            wrong: None,
        })
    }

    /// Appends `count` new frames to what is to be sent.
    pub(crate) fn ask(&mut self, count: usize, now: Instant, out: &mut Vec<u8>) {
        for _ in 0..count {
            let mut frame = [0; FRAME];
            frame[..8].copy_from_slice(&self.next.to_le_bytes());
            out.extend_from_slice(&frame);
            self.under_way.push_back((self.next, now));
            self.next += 1;
        }
    }

    /// Takes what came back, and appends a new frame for each that is complete, until the time is over. The clock is
    /// looked at once for all of them.
    pub(crate) fn arrived(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let now = Instant::now();
        let mut complete = 0;
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(FRAME - self.part.len()));
            self.part.extend_from_slice(taken);
            bytes = rest;
            if self.part.len() == FRAME {
                self.check(now);
                self.part.clear();
                complete += 1;
            }
        }
        if now < self.until {
            self.ask(complete, now, out);
        }
    }

    fn check(&mut self, now: Instant) {
        let found = self.part.first_chunk().map_or(u64::MAX, |word| u64::from_le_bytes(*word));
        match self.under_way.pop_front() {
            Some((wanted, left)) if wanted == found => {
                self.times.saturating_record((now - left).as_nanos().try_into().unwrap_or(u64::MAX));
            }
            _ => self.wrong = Some(found),
        }
    }

    /// Returns whether nothing is under way.
    pub(crate) fn is_done(&self) -> bool {
        self.under_way.is_empty() || self.wrong.is_some()
    }

    /// Ends the run.
    pub(crate) fn finish(self) -> anyhow::Result<Sample> {
        if let Some(wrong) = self.wrong {
            bail!("frame {wrong} came out of order");
        }
        Ok(Sample { times: self.times, elapsed: self.started.elapsed() })
    }
}

/// The asking side over a link that blocks.
pub(crate) struct Turns<L>(pub(crate) L);

impl<L: Link> Asking for Turns<L> {
    fn run(&mut self, window: usize, time: Duration) -> anyhow::Result<Sample> {
        let mut frames = Window::new(time)?;
        let (mut out, mut next) = (Vec::with_capacity(READ), Vec::with_capacity(READ));
        frames.ask(window, Instant::now(), &mut out);
        while !frames.is_done() {
            ensure!(
                self.0.turn(&out, &mut |bytes| frames.arrived(bytes, &mut next))?,
                "the answering side left"
            );
            out.clear();
            std::mem::swap(&mut out, &mut next);
        }
        frames.finish()
    }
}

/// The answering side: sends back whatever a turn brought, until the stream ends.
pub(crate) fn echo(mut link: impl Link) -> io::Result<()> {
    let (mut out, mut next) = (Vec::with_capacity(READ), Vec::with_capacity(READ));
    while link.turn(&out, &mut |bytes| next.extend_from_slice(bytes))? {
        out.clear();
        std::mem::swap(&mut out, &mut next);
    }
    Ok(())
}
