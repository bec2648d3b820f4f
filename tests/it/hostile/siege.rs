//! A worker that another one lies to, and a third that calls it meanwhile and must not notice: every call of the third is
//! answered right. After the liar has left, the victim holds no more than before. The victim lives in this process, where a
//! sanitizer watches it, or in one of its own, where the kernel counts what it holds. It must not know what the lies are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway::protocol::naming::MEMORY_LIST;
use ringway::{CallError, ErrorCode, Sampler, Worker, WorkerId};
use ringway_engine::Engine;
use ringway_tests::census::Census;
use ringway_tests::member::Member;
use ringway_tests::victim::{self, Calls};
use ringway_tests::{load, local};
use serde_json::Value;

use super::choices::Choices;
use super::worker::LyingWorker;

/// Names of the victim's functions begin with it.
const VICTIM: &str = "victim";
/// Names of the liar's functions begin with it.
const LIAR: &str = "liar";
/// How long what is given back may be on its way, and pools may keep threads.
const PATIENCE: Duration = Duration::from_secs(25);
/// Private memory that the victim may have more after the second half of the lies than after the first, KiB. Allocators
/// keep what they had at their peak.
const GROWTH_KIB: u64 = 96 << 10;
/// Threads that a pool may have more than before.
const THREADS_SPARE: u64 = 16;

/// Segments that its arena may have more than before: it grows for a while and keeps some memory warm.
const SEGMENTS_SPARE: u64 = 4;
/// Steps after which the liar leaves, and another one comes: a victim that has seen the end of a channel without a goodbye
/// takes the worker for dead, and calls it no more.
const STEPS_PER_LIAR: u64 = 1500;
/// As many payloads as the victim's handlers keep: after so many honest calls it keeps none of the liar's, and so none of
/// its channels.
const BLOBS_KEPT: u64 = 3;

/// Where the victim lives.
enum Place {
    Here(Worker),
    Elsewhere(Mutex<Member>),
}

pub(super) struct Siege {
    engine: Engine,
    honest: Worker,
    place: Place,
    victim: WorkerId,
}

impl Siege {
    /// A victim in this process.
    pub(super) fn here() -> Self {
        let engine = local::engine_at();
        let worker = Worker::builder(VICTIM).address(engine.address()).threads(8).connect().unwrap();
        worker.register_all(victim::functions(VICTIM)).unwrap();
        let victim = worker.id();
        Self::new(engine, Place::Here(worker), victim)
    }

    /// A victim in a process of its own.
    pub(super) fn elsewhere() -> Self {
        let engine = local::engine_at();
        let member = Member::spawn(&["victim", engine.address(), VICTIM, LIAR], &[]);
        let victim = member.hear("ready").parse().expect("it tells its id");
        Self::new(engine, Place::Elsewhere(Mutex::new(member)), victim)
    }

    fn new(engine: Engine, place: Place, victim: WorkerId) -> Self {
        let builder = Worker::builder("honest").address(engine.address()).sampler(Sampler::never());
        let honest = builder.threads(2).connect().unwrap();
        honest.wait_for(&format!("{VICTIM}::typed"), PATIENCE).unwrap();
        Self { engine, honest, place, victim }
    }

    /// Lets a liar take so many steps, in two halves, and looks at the victim after each.
    pub(super) fn stand(self, steps: u64, seed: u64) {
        let mut choices = Choices::Seeded(seed);
        let base = self.settle(None);
        let first = self.half(steps / 2, &mut choices);
        let settled = self.settle(base);
        let second = self.half(steps - steps / 2, &mut choices);
        let again = self.settle(base);
        if let Some((settled, again)) = settled.zip(again) {
            println!("before {base:?}, after the first half {settled:?}, after the second {again:?}");
            let growth = again.private_kib.saturating_sub(settled.private_kib);
            assert!(growth <= GROWTH_KIB, "the victim grew by {growth} KiB in {} steps", steps / 2);
        }
        let answered = first.answered + second.answered;
        assert!(first.ended > 0 && second.ended > 0, "the victim called nobody");
        if steps >= 10_000 {
            assert!(
                answered > 0,
                "no call of the victim was ever answered, so nothing but refusals was tested"
            );
        }
    }

    /// Has a caller pile up more calls than a correct one may have in flight, and looks at what the victim makes of them.
    pub(super) fn pile_up(&self, shape: &str, calls: u64, allowed: u64) {
        let mut choices = Choices::Seeded(1);
        let begun = Instant::now();
        let mut liar = LyingWorker::attach(self.engine.address(), LIAR, self.victim, &mut choices);
        let refused = usize::try_from(calls - allowed).expect("fewer are allowed");
        let heard = liar.flood(&format!("{VICTIM}::{shape}"), calls, refused, &mut choices);
        let busy = heard.iter().filter(|header| header.function == ErrorCode::Busy.status()).count();
        let refused_after = begun.elapsed();
        assert_eq!((busy, heard.len()), (refused, refused), "refused, and heard in all, of {calls} calls");
        let wrong = call_rightly(&self.honest, 1);
        assert!(wrong.is_empty(), "an honest caller noticed: {wrong:#?}");
        let called_after = begun.elapsed();
        drop(liar);
        self.settle(None);
        println!(
            "{calls} calls of {shape}: refused after {refused_after:?}, an honest call done after {called_after:?}, all given back after {:?}",
            begun.elapsed()
        );
    }

    /// Lies, calls rightly and is called, all at once. Returns what the victim's own calls came to.
    fn half(&self, steps: u64, choices: &mut Choices<'_>) -> Calls {
        let mut liar = LyingWorker::attach(self.engine.address(), LIAR, self.victim, choices);
        let (stop, right, seed) = (AtomicBool::new(false), AtomicU64::new(0), choices.word());
        let honest = &self.honest;
        let (calls, wrong) = std::thread::scope(|scope| {
            let calling = match &self.place {
                Place::Here(worker) => {
                    let stop = &stop;
                    Some(scope.spawn(move || victim::keep_calling(worker, LIAR, seed, stop)))
                }
                Place::Elsewhere(member) => {
                    member.lock().say(&format!("call {seed}"));
                    None
                }
            };
            let honestly = scope.spawn(|| {
                let mut wrong = Vec::new();
                for number in 1.. {
                    wrong.extend(call_rightly(honest, number * 64));
                    right.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) || !wrong.is_empty() {
                        return wrong;
                    }
                }
                wrong
            });
            let mut until = STEPS_PER_LIAR;
            while liar.deeds.steps < steps && !honestly.is_finished() {
                liar.step(choices);
                if liar.deeds.steps >= until {
                    until += STEPS_PER_LIAR;
                    let deeds = std::mem::take(&mut liar.deeds);
                    liar = LyingWorker::attach(self.engine.address(), LIAR, self.victim, choices);
                    liar.deeds = deeds;
                }
            }
            stop.store(true, Ordering::Relaxed);
            let calls = match (&self.place, calling) {
                (Place::Elsewhere(member), _) => told(&member.lock().ask("rest", "calls")),
                (Place::Here(_), calling) => {
                    calling.map(|calling| calling.join().expect("the victim calls on"))
                }
            };
            (calls.unwrap_or_default(), honestly.join().expect("an honest caller does not panic"))
        });
        println!("{:#?}\n{calls:#?}; honest rounds: {}", liar.deeds, right.load(Ordering::Relaxed));
        assert!(wrong.is_empty(), "an honest caller noticed: {wrong:#?}");
        assert!(liar.deeds.as_caller > 0 && liar.deeds.as_callee > 0, "there was nobody to lie to");
        calls
    }

    /// Waits until the victim has given back all that it held for the liar, and counts what it still holds: no more than
    /// `base`.
    fn settle(&self, base: Option<Census>) -> Option<Census> {
        let begun = Instant::now();
        let mut left = self.held();
        while !left.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "the victim still holds {left:?}");
            std::thread::sleep(Duration::from_millis(20));
            left = self.held();
        }
        for number in 0..BLOBS_KEPT {
            let wrong = call_rightly(&self.honest, number);
            assert!(wrong.is_empty(), "with no liar about: {wrong:?}");
        }
        let Place::Elsewhere(member) = &self.place else { return None };
        let Some(base) = base else {
            return Some(Census::of(member.lock().pid()).expect("the victim lives"));
        };
        let allowed = Census {
            fds: base.fds + SEGMENTS_SPARE,
            shared: base.shared + SEGMENTS_SPARE,
            threads: base.threads + THREADS_SPARE,
            ..base
        };
        let pid = member.lock().pid();
        let after = Census::settle(pid, &allowed, PATIENCE).expect("the victim lives");
        assert!(after.fits(&allowed), "{after:?}, {base:?} before: {:#?}", Census::descriptors(pid));
        Some(after)
    }

    /// What the victim holds that nobody honest has, as it tells itself.
    fn held(&self) -> Vec<String> {
        let all = self.honest.trigger_json(MEMORY_LIST, &Value::Null).expect("the engine asks for us");
        let wanted = serde_json::json!(self.victim);
        let victim = all["workers"].as_array().into_iter().flatten().find(|worker| worker["id"] == wanted);
        let report = &victim.expect("the victim is attached")["memory"];
        assert!(report.is_object(), "the victim does not answer: {victim:?}");
        assert_eq!(report["panics"], 0, "a handler panicked");
        let honest = format!("{:016x}", self.honest.id().get());
        let engine =
            self.honest.catalog().workers.iter().find(|worker| worker.name == "engine").map(|it| it.id);
        let engine = engine.map_or_else(String::new, |id| format!("{:016x}", id.get()));
        let mut held = Vec::new();
        for channel in report["channels"].as_array().into_iter().flatten() {
            if channel["peer"] != honest.as_str() && channel["peer"] != engine.as_str() {
                held.push(format!("a channel: {channel}"));
            } else if channel["leases"] != 0 {
                held.push(format!("leases: {channel}"));
            }
        }
        for (what, count) in [
            ("blocks", &report["arena"]["live_blocks"]),
            ("threads that wait", &report["threads"]["blocked"]),
        ] {
            if count.as_u64() != Some(0) {
                held.push(format!("{count} {what}"));
            }
        }
        held
    }
}

/// Makes a call of every shape and returns those that were not answered right.
fn call_rightly(honest: &Worker, number: u64) -> Vec<CallError> {
    let mut ended = Vec::new();
    for (at, shape) in load::SHAPES.iter().enumerate() {
        load::call(honest, VICTIM, shape, number + at as u64 * 16, &mut ended);
    }
    let mut wrong: Vec<CallError> = ended.into_iter().filter_map(|end| end.outcome.err()).collect();
    wrong.extend(victim::call_typed(honest, VICTIM, number).err());
    wrong
}

fn told(line: &str) -> Option<Calls> {
    serde_json::from_str(line).ok()
}
