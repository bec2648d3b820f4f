//! `kill -9` of a callee, a caller and the engine, at named points and at random times. Whoever lives on must see every
//! call in flight end, with the right outcome, and must hold nothing afterwards that it did not hold before. How long an
//! end took is printed, not asserted; a call that only its own time limit ended fails the test.

mod callee;
mod caller;
mod engine;

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ringway::protocol::naming;
use ringway::{CallError, ErrorCode, Started, Worker};
use ringway_tests::census::Census;
use ringway_tests::figures::Times;
use ringway_tests::load::Ended;
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::{Value, json};

/// Longer than any end by a death can take, so that an end by this is told apart.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what was held may take to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the promise allows between a death and the end of the calls.
const PROMISED_NS: u64 = 100_000_000;
/// Threads that a worker may have more than at the base: pools grow and shrink with the load.
const THREADS_SPARE: u64 = 24;

/// Segments that the survivor's arena may grow by: each is twice as large as the one before.
const SEGMENTS_SPARE: u64 = 4;

/// One at a time: these tests count what their process holds.
static ALONE: Mutex<()> = Mutex::new(());

/// An engine in a process of its own, and the worker that must survive, in this one.
struct Scene {
    address: String,
    engine: Member,
    survivor: Worker,
    auditor: Worker,
    _alone: MutexGuard<'static, ()>,
}

/// What everybody held before the killing began.
#[derive(Debug)]
struct Base {
    own: Census,
    engine: Census,
    live_bytes: u64,
    segments: u64,
}

impl Scene {
    fn new() -> Self {
        let alone = ALONE.lock();
        let address = local::address();
        let engine = Member::start(&["engine", &address]);
        let connect = |name: &str| {
            let builder = Worker::builder(name).address(&address).threads(8);
            builder.default_timeout(Some(CALL_TIMEOUT)).connect().unwrap()
        };
        let (survivor, auditor) = (connect("survivor"), connect("auditor"));
        // A name that has gone is asked of the engine, by a channel that stays: it is counted from the beginning.
        survivor.trigger_json(naming::WORKERS_LIST, &json!({})).unwrap();
        Self { address, engine, survivor, auditor, _alone: alone }
    }

    fn callee(&self) -> Member {
        let member = Member::start(&["callee", &self.address, "doomed"]);
        self.survivor.wait_for("doomed::die-register", PATIENCE).unwrap();
        member
    }

    /// What each worker holds, as the engine is told by it.
    fn inspections(&self) -> Vec<Value> {
        let mut answer = self.auditor.trigger_json(naming::MEMORY_LIST, &json!({})).unwrap();
        answer["workers"].as_array_mut().map(std::mem::take).expect("a list of workers")
    }

    /// What the survivor holds.
    fn inspection(&self) -> Value {
        let mut workers = self.inspections().into_iter();
        let own = workers.find(|worker| worker["id"] == self.survivor.id().to_string());
        own.expect("it is attached")["memory"].take()
    }

    /// Segments of all arenas: of the survivor, of the engine that is told, of the auditor that asks. They stay warm, and
    /// how many there are follows from the peak of the load; whoever is sent something from a segment maps it.
    fn segments(&self) -> u64 {
        let arenas = self.inspections().into_iter();
        arenas
            .map(|worker| worker["memory"]["arena"]["segments"].as_array().map_or(0, |all| all.len() as u64))
            .sum()
    }

    fn live_bytes(&self) -> u64 {
        self.inspection()["arena"]["live_bytes"].as_u64().unwrap()
    }

    /// How many channels the survivor has with others than those who look at it.
    fn channels(&self) -> usize {
        let catalog = self.auditor.catalog();
        let lookers =
            catalog.workers.iter().filter(|worker| ["engine", "auditor"].contains(&worker.name.as_str()));
        let lookers: Vec<String> = lookers.map(|worker| worker.id.to_string()).collect();
        let inspection = self.inspection();
        let channels = inspection["channels"].as_array().unwrap().iter();
        channels.filter(|channel| lookers.iter().all(|looker| channel["peer"] != *looker)).count()
    }

    /// Waits until nobody else is attached, and counts.
    fn base(&self) -> Base {
        self.wait_until_alone();
        // What is being given back by the warm-up comes back first.
        std::thread::sleep(Duration::from_millis(300));
        let (live_bytes, segments) = (self.live_bytes(), self.segments());
        let own = Census::of(std::process::id()).unwrap();
        let engine = Census::of(self.engine.pid()).unwrap();
        Base { own, engine, live_bytes, segments }
    }

    fn wait_until_alone(&self) {
        let alone = |catalog: &ringway::protocol::control::Catalog| {
            catalog.functions.iter().all(|function| {
                !["doomed", "late"].iter().any(|prefix| function.id.as_str().starts_with(prefix))
            })
        };
        for worker in [&self.survivor, &self.auditor] {
            assert!(
                worker.wait_until(PATIENCE, alone),
                "the catalog still has functions of the dead: {:?}",
                worker.catalog()
            );
        }
    }

    /// Asserts that nothing is held beyond `base`.
    fn nothing_leaked(&self, base: &Base) {
        self.wait_until_alone();
        let grown = self.segments().saturating_sub(base.segments);
        assert!(grown <= SEGMENTS_SPARE, "the arena grows: {:#}", self.inspection());
        let members = [
            ("survivor", std::process::id(), base.own, grown),
            ("engine", self.engine.pid(), base.engine, grown),
        ];
        for (who, pid, base, grown) in members {
            let (fds, shared) = (base.fds + grown, base.shared + grown);
            let allowed = Census { threads: base.threads + THREADS_SPARE, fds, shared, ..base };
            let now = Census::settle(pid, &allowed, PATIENCE).unwrap();
            println!("{who}: before {base:?}, after {now:?}");
            assert!(
                now.fits(&allowed),
                "{who} holds more than before: {:#?}\n{:#}",
                Census::descriptors(pid),
                self.inspection()
            );
        }
        let until = std::time::Instant::now() + PATIENCE;
        while self.live_bytes() > base.live_bytes && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let inspection = self.inspection();
        assert!(self.live_bytes() <= base.live_bytes, "payloads are still on loan: {inspection:#}");
        assert_eq!(channels_with_leases(&inspection), 0, "{inspection:#}");
    }
}

fn channels_with_leases(inspection: &Value) -> usize {
    let channels = inspection["channels"].as_array().map_or(&[][..], Vec::as_slice);
    channels.iter().filter(|channel| channel["leases"].as_u64() != Some(0)).count()
}

/// What became of the calls of many rounds.
#[derive(Debug, Default)]
struct Tally {
    replied: usize,
    not_started: usize,
    maybe_and_ran: usize,
    maybe_and_did_not: usize,
    stream_cut: usize,
    after: usize,
    /// From the death to the end of each call that was in flight.
    ends: Times,
}

impl Tally {
    /// Judges the calls of one round against what the dead process said it ran.
    fn judge(&mut self, death_ns: u64, ran: &HashSet<u64>, ended: &[Ended]) {
        for end in ended {
            let in_flight = end.begun_ns <= death_ns && death_ns < end.ended_ns;
            match &end.outcome {
                Ok(()) => {
                    assert!(ran.contains(&end.call), "a call was answered that nobody ran: {end:?}");
                    self.replied += 1;
                }
                Err(error) => {
                    self.judge_error(error, end, ran.contains(&end.call));
                    if in_flight {
                        self.ends.add(end.ended_ns - death_ns);
                    }
                }
            }
        }
    }

    fn judge_error(&mut self, error: &CallError, end: &Ended, ran: bool) {
        match (error.code, error.started) {
            (ErrorCode::WorkerGone, Some(Started::No)) => {
                assert!(!ran, "a call is said not to have been started, and ran: {end:?}");
                self.not_started += 1;
            }
            (ErrorCode::WorkerGone, Some(Started::Maybe)) if ran => self.maybe_and_ran += 1,
            (ErrorCode::WorkerGone, Some(Started::Maybe)) => self.maybe_and_did_not += 1,
            (ErrorCode::NotFound, None) => {
                assert!(!ran, "a call that found no function ran: {end:?}");
                self.after += 1;
            }
            (ErrorCode::StreamClosed, None) if end.shape == "stream" => self.stream_cut += 1,
            _ => panic!("a call ended in another way than by the death: {end:?}"),
        }
    }

    fn tell(&self, what: &str) {
        let late = self.ends.above(PROMISED_NS);
        println!(
            "{what}: from the death to the end of the calls in flight: {}; over 100 ms: {late}",
            self.ends
        );
        println!(
            "{what}: replied {}, not started {}, maybe started {} (of these ran {}), stream cut {}, found nobody {}",
            self.replied,
            self.not_started,
            self.maybe_and_ran + self.maybe_and_did_not,
            self.maybe_and_ran,
            self.stream_cut,
            self.after,
        );
    }
}

/// What a dead process had to say: when it killed itself, if it did, and what it ran.
fn last_words(member: Member) -> (Option<u64>, HashSet<u64>) {
    let lines = member.rest();
    let number = |line: &str, word: &str| line.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
    let death = lines.iter().find_map(|line| number(line, "dying"));
    (death, lines.iter().filter_map(|line| number(line, "ran")).collect())
}
