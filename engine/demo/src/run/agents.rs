//! The first job: has every question answered, and times the same loop over rings and over Unix sockets in turn.

use std::time::{Duration, Instant};

use ringway::{CallError, Failure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Demo, DemoError, tell};
use crate::calls::{Calls, RingCalls, ask};
use crate::report::{AgentReport, AgentRun};
use crate::researcher::Stage;
use crate::socket::SocketCalls;
use crate::workers::{REPORT, RESEARCHER, socket_servers};

const DURING: &str = "the agent loop";

/// One way of carrying the loop's calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// Time of each question's loop as its caller saw it, in nanoseconds: the median over the repeats.
    pub loops_ns: Vec<u64>,
    /// Time in each kind of step, all questions together, in nanoseconds: sums of medians.
    pub steps_ns: Vec<(Stage, u64)>,
    /// Tool calls in one second of looping.
    pub calls_per_s: f64,
}

/// The same loops over rings and over Unix sockets: same processes, same handlers, same JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// How often each loop was timed on each side.
    pub repeats: usize,
    /// Tool calls of all questions together.
    pub calls: u64,
    /// Over rings.
    pub ring: Side,
    /// Over Unix sockets.
    pub socket: Side,
}

/// A loop with its time as the caller saw it.
struct Timed {
    run: AgentRun,
    elapsed: Duration,
}

fn research(calls: &dyn Calls, question: &str) -> Result<Timed, CallError> {
    let began = Instant::now();
    let run = ask(calls, RESEARCHER, &question).map_err(Failure::into_error)?;
    Ok(Timed { run, elapsed: began.elapsed() })
}

impl Demo<'_> {
    pub(super) fn answer_questions(&self) -> Result<(AgentReport, Comparison), DemoError> {
        let ring = RingCalls::new(&self.untraced);
        let socket = SocketCalls::new(socket_servers(&self.setup));
        let mut report: AgentReport =
            ask(&ring, REPORT, &()).map_err(|error| self.explain(DURING, error.into_error()))?;
        let repeats = self.options.repeats.max(1);
        let mut comparison = Comparison { repeats, ..Comparison::default() };
        for (number, question) in (1..).zip(&self.questions) {
            tell(&format!("question {number} of {}: {question}", self.questions.len()));
            // The first loop on each side opens channels and connections and is not timed.
            let (mut over_ring, mut over_socket) = (Vec::new(), Vec::new());
            for round in 0..=repeats {
                self.check(DURING)?;
                let explain = |error| self.explain(DURING, error);
                // Whoever goes second finds warm caches, so they take turns in going first.
                let (a, b) = if round % 2 == 0 {
                    let a = research(&ring, question).map_err(explain)?;
                    (a, research(&socket, question).map_err(explain)?)
                } else {
                    let b = research(&socket, question).map_err(explain)?;
                    (research(&ring, question).map_err(explain)?, b)
                };
                if round > 0 {
                    over_ring.push(a);
                    over_socket.push(b);
                }
            }
            comparison.calls += over_ring.first().map_or(0, |timed| timed.run.calls());
            comparison.ring.add(&over_ring);
            comparison.socket.add(&over_socket);
            over_ring.sort_by_key(|timed| timed.elapsed);
            let middle = over_ring.len() / 2;
            report.runs.extend(over_ring.into_iter().nth(middle).map(|timed| timed.run));
        }
        comparison.ring.finish(comparison.calls);
        comparison.socket.finish(comparison.calls);
        Ok((report, comparison))
    }
}

impl Demo<'_> {
    /// Has the last question answered over rings with every call traced. The first of the two loops opens channels.
    pub(super) fn trace_a_loop(&self) -> Result<(), DemoError> {
        let ring = RingCalls::new(&self.worker);
        for question in self.questions.iter().rev().take(1).cycle().take(2) {
            self.check(DURING)?;
            research(&ring, question).map_err(|error| self.explain(DURING, error))?;
        }
        Ok(())
    }
}

impl Side {
    /// Adds the repeats of one question.
    fn add(&mut self, repeats: &[Timed]) {
        let elapsed = repeats.iter().map(|timed| timed.elapsed).map(nanoseconds).collect();
        self.loops_ns.push(ringway_bench::stats::median(elapsed).unwrap_or(0));
        for stage in [Stage::Searching, Stage::Reading, Stage::Summarizing, Stage::Judging] {
            let of_stage = |timed: &Timed| {
                let steps = timed.run.steps.iter().filter(|step| step.stage == stage);
                steps.map(|step| step.elapsed_ns).sum::<u64>()
            };
            let median = ringway_bench::stats::median(repeats.iter().map(of_stage).collect()).unwrap_or(0);
            match self.steps_ns.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, sum)) => *sum += median,
                None => self.steps_ns.push((stage, median)),
            }
        }
    }

    fn finish(&mut self, calls: u64) {
        let elapsed = Duration::from_nanos(self.loops_ns.iter().sum());
        self.calls_per_s = calls as f64 / elapsed.as_secs_f64().max(1e-9);
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
