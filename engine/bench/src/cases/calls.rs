//! One round of one call case: the loops that are timed. Each way to call has a loop of its own, compiled for it, so that
//! nothing but the call stands between the two readings of the clock. It must not know rounds, floors or reports.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ringway::{Encoding as BodyEncoding, Failure, Message, Pipeline, Worker};

use super::Copies;
use crate::callee::Process;
use crate::floors::IN_FLIGHT;
use crate::payload::{
    BYTES, JSON, JSON_SEQUENCE_FIRST, SMALL, TYPED, Text, Words, check, check_words, stamp,
};
use crate::report::{Address, Case, Cost, Encoding, Variant, Wait};
use crate::stats::{Clock, CpuMeter, Recorder, Run, paced_loop};

/// What the caller does before each call of `work20us`, in nanoseconds.
const WORK_NS: u64 = 20_000;
/// What the caller sleeps before each call of `pause10ms`.
const PAUSE: Duration = Duration::from_millis(10);
/// Largest body that travels inside the slot.
const INLINE_BYTES: usize = 192;
/// Of so many calls in flight one is timed: reading the clock costs a good part of such a call.
const TIMED_OF: u64 = 64;

/// What one round yielded.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) run: Run,
    pub(super) cost: Cost,
    /// The time that the cost was spent in.
    pub(super) wall: Duration,
    /// All calls, those before the time included.
    pub(super) calls: u64,
}

/// Runs one round of a case from the calling thread.
pub(super) fn round(
    worker: &Worker,
    callee: &Process,
    clock: &Clock,
    case: &Case,
    run_time: Duration,
) -> anyhow::Result<Round> {
    let of = Measuring { worker, callee, clock, case, run_time, copies: Copies::of(worker) };
    let bytes = usize::try_from(case.bytes)?;
    if case.variant == Some(Variant::InFlight64) {
        return of.in_flight(bytes);
    }
    match (case.encoding, case.address) {
        (Encoding::Typed, _) if bytes != SMALL => bail!("typed cases have {SMALL} bytes, not {bytes}"),
        (Encoding::Typed, Address::Handle) => of.typed_by_handle(),
        (Encoding::Typed, Address::Name) => of.typed_by_name(),
        (Encoding::Json, Address::Handle) => {
            let handle = worker.handle(JSON);
            of.json(bytes, |message| Ok(handle.call(message)?))
        }
        (Encoding::Json, Address::Name) => of.json(bytes, |message| Ok(worker.handle(JSON).call(message)?)),
        (Encoding::Bytes, Address::Handle) => {
            let handle = worker.handle(BYTES);
            of.bytes(bytes, |message| Ok(handle.call(message)?))
        }
        (Encoding::Bytes, Address::Name) => {
            of.bytes(bytes, |message| Ok(worker.handle(BYTES).call(message)?))
        }
    }
}

struct Measuring<'a> {
    worker: &'a Worker,
    callee: &'a Process,
    clock: &'a Clock,
    case: &'a Case,
    run_time: Duration,
    copies: Copies,
}

impl Measuring<'_> {
    fn typed_by_handle(&self) -> anyhow::Result<Round> {
        let function = self.worker.function::<Words, Words>(TYPED);
        self.closed(|sequence| {
            let reply = function.call(&Words::request(sequence))?;
            let words = reply.archived().context("the answer is no archive")?.words;
            check_words(words[0].to_native(), words[7].to_native(), sequence)
        })
    }

    fn typed_by_name(&self) -> anyhow::Result<Round> {
        self.closed(|sequence| {
            let reply: Words = self.worker.trigger(TYPED, &Words::request(sequence))?;
            check_words(reply.words[0], reply.words[7], sequence)
        })
    }

    fn json(
        &self,
        bytes: usize,
        call: impl Fn(&Message) -> anyhow::Result<Message>,
    ) -> anyhow::Result<Round> {
        let mut text = Text::with_bytes(bytes)?;
        self.closed(|sequence| {
            text.sequence = JSON_SEQUENCE_FIRST + sequence;
            let message = Message::json(&text).map_err(Failure::into_error)?;
            let reply: Text = serde_json::from_slice(call(&message)?.body())?;
            ensure!(reply.sequence == text.sequence, "the answer is not the one to call {sequence}");
            Ok(())
        })
    }

    /// Small requests travel in the slot; large ones are written into a loan and read where they lie. Loans come back
    /// with the answer and are used again, so after the warm-up no page is touched for the first time.
    fn bytes(
        &self,
        bytes: usize,
        call: impl Fn(&Message) -> anyhow::Result<Message>,
    ) -> anyhow::Result<Round> {
        if bytes <= INLINE_BYTES {
            let mut request = vec![0; bytes];
            return self.closed(|sequence| {
                stamp(&mut request, sequence);
                check(call(&Message::bytes(&request))?.body(), sequence)
            });
        }
        self.closed(|sequence| {
            let mut loan = self.worker.loan(bytes)?;
            stamp(&mut loan, sequence);
            let reply = call(&Message::from_loan(BodyEncoding::Bytes, loan))?;
            check(reply.body(), sequence)
        })
    }

    /// Calls back to back, or with work or a pause before each, which is not timed.
    fn closed(&self, mut call: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Round> {
        let mut sequence = 0;
        let mut next = || {
            sequence += 1;
            call(sequence)
        };
        let warm_up = self.warm_up();
        for _ in 0..warm_up {
            self.before_a_call();
            next()?;
        }
        let round = self.metered(|| paced_loop(self.clock, self.run_time, || self.before_a_call(), next))?;
        Ok(Round { calls: round.calls + warm_up, ..round })
    }

    #[inline]
    fn before_a_call(&self) {
        match self.case.variant {
            Some(Variant::Work20us) => {
                let start = self.clock.now();
                while self.clock.since(start) < WORK_NS {
                    std::hint::spin_loop();
                }
            }
            Some(Variant::Pause10ms) => std::thread::sleep(PAUSE),
            _ => {}
        }
    }

    fn warm_up(&self) -> u64 {
        match (self.case.variant, self.case.wait) {
            (Some(Variant::Pause10ms), _) => 5,
            _ if self.case.bytes > 1 << 20 => 4,
            (_, Wait::Park) => 100,
            _ => 2000,
        }
    }

    /// Keeps calls under way; answers are taken in the order of the calls.
    fn in_flight(&self, bytes: usize) -> anyhow::Result<Round> {
        ensure!(
            self.case.address == Address::Handle && bytes == SMALL,
            "in flight: {SMALL} bytes, by handle"
        );
        match self.case.encoding {
            Encoding::Typed => {
                let function = self.worker.function::<Words, Words>(TYPED);
                self.pumped(
                    function.pipeline(),
                    |pipeline, sequence| Ok(pipeline.submit(&Words::request(sequence))?),
                    |pipeline, sequence| {
                        let reply = pipeline.recv().context("nothing is in flight")??;
                        let words = reply.archived().context("the answer is no archive")?.words;
                        check_words(words[0].to_native(), words[7].to_native(), sequence)
                    },
                )
            }
            Encoding::Json => {
                let mut text = Text::with_bytes(bytes)?;
                let handle = self.worker.handle(JSON);
                self.pumped(
                    handle.pipeline(),
                    |pipeline, sequence| {
                        text.sequence = JSON_SEQUENCE_FIRST + sequence;
                        Ok(pipeline.submit(&Message::json(&text).map_err(Failure::into_error)?)?)
                    },
                    |pipeline, sequence| {
                        let reply: Text = serde_json::from_slice(received(pipeline)?.body())?;
                        ensure!(reply.sequence == JSON_SEQUENCE_FIRST + sequence, "answers are out of order");
                        Ok(())
                    },
                )
            }
            Encoding::Bytes => {
                let mut request = [0; SMALL];
                let handle = self.worker.handle(BYTES);
                self.pumped(
                    handle.pipeline(),
                    |pipeline, sequence| {
                        stamp(&mut request, sequence);
                        Ok(pipeline.submit(&Message::bytes(&request))?)
                    },
                    |pipeline, sequence| check(received(pipeline)?.body(), sequence),
                )
            }
        }
    }

    fn pumped<P>(
        &self,
        mut pipeline: P,
        mut submit: impl FnMut(&mut P, u64) -> anyhow::Result<()>,
        mut receive: impl FnMut(&mut P, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<Round> {
        let mut run = |run_time| pump(self.clock, run_time, &mut pipeline, &mut submit, &mut receive);
        run(self.run_time / 10)?;
        self.metered(|| run(self.run_time))
    }

    /// Counts what a round costs beside its time.
    fn metered(&self, measured: impl FnOnce() -> anyhow::Result<Run>) -> anyhow::Result<Round> {
        let copied = self.copies.read()?;
        let meter = CpuMeter::start(&[self.callee.pid()])?;
        let started = Instant::now();
        let run = measured()?;
        let (cpu_s, wall) = (meter.used()?.as_secs_f64(), started.elapsed());
        let copied = self.copies.read()? - copied;
        let calls = run.latencies.count();
        Ok(Round { run, cost: Cost { cpu_s, bytes_copied: Some(copied) }, wall, calls })
    }
}

fn received(pipeline: &mut Pipeline<'_>) -> anyhow::Result<Message> {
    Ok(pipeline.recv().context("nothing is in flight")??)
}

/// One run with [`IN_FLIGHT`] calls under way.
fn pump<P>(
    clock: &Clock,
    run_time: Duration,
    pipeline: &mut P,
    submit: &mut impl FnMut(&mut P, u64) -> anyhow::Result<()>,
    receive: &mut impl FnMut(&mut P, u64) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    let mut pending = VecDeque::with_capacity(IN_FLIGHT);
    let mut latencies = Recorder::new();
    let (mut sequence, mut not_counted, mut over) = (0_u64, 0, false);
    let started = Instant::now();
    loop {
        if !over && pending.len() < IN_FLIGHT {
            sequence += 1;
            let mut asked = None;
            if sequence.is_multiple_of(TIMED_OF) {
                over = started.elapsed() >= run_time;
                asked = Some(clock.now());
            }
            submit(pipeline, sequence)?;
            pending.push_back((sequence, asked));
            continue;
        }
        let Some((number, asked)) = pending.pop_front() else { break };
        receive(pipeline, number)?;
        not_counted += 1;
        if let Some(asked) = asked {
            latencies.record_many(clock.since(asked), std::mem::take(&mut not_counted));
        }
    }
    // The clock is only looked at when a call is timed, so the last call is one that was.
    Ok(Run { latencies, elapsed: started.elapsed() })
}
