//! Cables are pulled and processes killed, at random, while everybody calls everybody and functions come and go. After each
//! time: every call has ended, all catalogs are the same again, and nothing is in them twice. What the queue acknowledged is
//! done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::net::{CUTS, Cut};
use crate::part::{CALL_MAX, Calls, Dice, Offer};
use crate::scene::{ENGINES, OUTSIDE, PATIENCE, Scene};

/// Within which all catalogs are to be the same again, as promised.
const PROMISED: Duration = Duration::from_secs(2);
/// After which they are taken to differ for good.
const FOR_GOOD: Duration = Duration::from_secs(30);
/// From so many rounds on, the promise is held against the median.
const MANY_ROUNDS: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Harm {
    Cut(usize, Cut),
    Engine(usize),
    Worker(usize),
}

impl Harm {
    /// `only`: what all names begin with that are drawn.
    fn draw(dice: &mut Dice, only: &str) -> Self {
        loop {
            let drawn = Self::draw_any(dice);
            if drawn.name().starts_with(only) {
                return drawn;
            }
        }
    }

    fn draw_any(dice: &mut Dice) -> Self {
        let mut below = |limit: usize| usize::try_from(dice.next() % limit as u64).unwrap();
        match below(10) {
            0..7 => Self::Cut(below(OUTSIDE + 1), CUTS[below(CUTS.len())]),
            7 => Self::Engine(below(ENGINES)),
            _ => Self::Worker(below(OUTSIDE + 2)),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cut(_, Cut::Interface) => "interface down",
            Self::Cut(_, Cut::Cable) => "cable pulled",
            Self::Cut(_, Cut::Silence) => "silence",
            Self::Cut(_, Cut::Slow) => "slow",
            Self::Engine(_) => "engine killed",
            Self::Worker(_) => "worker killed",
        }
    }

    fn do_it(self, scene: &mut Scene) {
        match self {
            Self::Cut(host, cut) => scene.net.cut(host, cut),
            Self::Engine(at) => scene.engines[at].kill(),
            Self::Worker(at) => scene.workers[at].kill(),
        }
    }

    fn undo_it(self, scene: &mut Scene) {
        match self {
            Self::Cut(host, cut) => scene.net.heal(host, cut),
            Self::Engine(at) => {
                scene.engines[at].restart(&scene.net);
                let _path: String = scene.engines[at].hear("ready");
            }
            Self::Worker(at) => {
                scene.workers[at].restart(&scene.net);
                let _id: String = scene.workers[at].hear("ready");
            }
        }
    }
}

/// Mostly shorter than anybody notices, sometimes longer than anybody waits.
fn draw_time(dice: &mut Dice) -> Duration {
    let most = [100, 300, 300, 1_000, 1_000, 2_500, 5_000][usize::try_from(dice.next() % 7).unwrap()];
    Duration::from_millis(dice.next() % most)
}

/// Waits until the catalog of every worker is what all serve together; says how long that took, and who was last.
fn converge(scene: &mut Scene, since: Instant, wanted: &BTreeSet<Offer>, what: &str) -> (Duration, String) {
    let mut last = String::new();
    loop {
        let mut differs = String::new();
        for worker in &mut scene.workers {
            let found: Vec<Offer> = worker.ask("catalog");
            let set: BTreeSet<Offer> = found.iter().cloned().collect();
            assert_eq!(
                set.len(),
                found.len(),
                "something is twice in the catalog of {}: {found:?}",
                worker.name()
            );
            if set != *wanted {
                let missing: Vec<Offer> = wanted.difference(&set).cloned().collect();
                let too_many: Vec<Offer> = set.difference(wanted).cloned().collect();
                differs += &format!("\n{} lacks {missing:?}, and has {too_many:?}", worker.name());
            }
        }
        if differs.is_empty() {
            return (since.elapsed(), last);
        }
        assert!(since.elapsed() < FOR_GOOD, "catalogs differ for good after {what}:{differs}");
        last = differs;
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn told(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_millis();
    let late = times.iter().filter(|time| **time > PROMISED).count();
    format!(
        "n {}  p50 {} ms  p90 {} ms  p99 {} ms  max {} ms  over 2 s: {late}",
        times.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    )
}

#[test]
fn hosts_cut_off_and_killed_come_together_again() {
    let rounds = std::env::var("RINGWAY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let seed = std::env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let only = std::env::var("RINGWAY_HARM").unwrap_or_default();
    println!("{rounds} rounds with seed {seed} {only}");
    let mut dice = Dice(seed);
    let mut scene = Scene::new();
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut all = Vec::new();
    let mut sum = Calls::default();
    // What those that were killed had counted goes with them; the others count on.
    let mut counted: Vec<Calls> = vec![Calls::default(); scene.workers.len()];
    for round in 0..rounds {
        scene.workers.iter_mut().for_each(|worker| worker.say("go"));
        std::thread::sleep(Duration::from_millis(50 + dice.next() % 200));
        let harm = Harm::draw(&mut dice, &only);
        let for_long = draw_time(&mut dice);
        let dead = if let Harm::Worker(at) = harm { Some(at) } else { None };
        acknowledged.extend(scene.worker("clerk").ask::<BTreeSet<u64>>("jobs"));
        let begun = Instant::now();
        harm.do_it(&mut scene);
        std::thread::sleep(for_long);
        let lasted = begun.elapsed();
        let others = |at: &usize| Some(*at) != dead;
        for at in (0..scene.workers.len()).filter(others) {
            scene.workers[at].say("still");
        }
        let healed = Instant::now();
        harm.undo_it(&mut scene);
        let restarted = healed.elapsed();
        if let Some(at) = dead {
            scene.workers[at].say("still");
            counted[at] = Calls::default();
        }
        let mut wanted = BTreeSet::new();
        for worker in &scene.workers {
            wanted.extend(worker.hear::<Vec<Offer>>("still"));
        }
        // A process that starts takes its time, which is not the links'.
        let since = if matches!(harm, Harm::Cut(..)) { healed } else { healed + restarted };
        let what = format!("round {round}, {harm:?} for {} ms", lasted.as_millis());
        let (took, last) = converge(&mut scene, since, &wanted, &what);
        times.entry(harm.name()).or_default().push(took);
        all.push(took);
        if took > PROMISED {
            // With the time of day, which the logs of the hosts have too.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            println!(
                "{what}: the same again after {} ms, at {}.{:03} s of the day; at last{last}",
                took.as_millis(),
                now.as_secs() % 86_400,
                now.subsec_millis()
            );
        }
        for (at, worker) in scene.workers.iter_mut().enumerate() {
            let calls: Calls = worker.ask("hold");
            assert_eq!(calls.begun, calls.ended, "calls of {} that never end after {what}", worker.name());
            assert!(
                calls.wrong.is_empty(),
                "{} was given wrong answers after {what}: {:?}",
                worker.name(),
                calls.wrong
            );
            let before = std::mem::replace(&mut counted[at], calls.clone());
            sum.begun += calls.begun - before.begun;
            sum.answered += calls.answered - before.answered;
            sum.longest_ms = sum.longest_ms.max(calls.longest_ms);
            for (code, count) in calls.failed {
                let known = before.failed.get(&code).copied().unwrap_or_default();
                *sum.failed.entry(code).or_default() += count - known;
            }
        }
        if round % 25 == 24 {
            println!("round {round}: {}", told(&mut all));
        }
    }
    acknowledged.extend(scene.worker("clerk").ask::<BTreeSet<u64>>("jobs"));
    let until = Instant::now() + PATIENCE;
    let done = loop {
        let done = scene.journal();
        let missing = acknowledged.iter().filter(|job| !done.contains(job)).count();
        if missing == 0 {
            break done;
        }
        assert!(Instant::now() < until, "{missing} acknowledged jobs were never done");
        std::thread::sleep(Duration::from_millis(100));
    };
    let once = done.iter().collect::<BTreeSet<_>>().len();
    for (name, times) in &mut times {
        println!("{name:>15}: {}", told(times));
    }
    println!("summary: {rounds} rounds, all catalogs the same again: {}", told(&mut all));
    println!(
        "summary: {} calls, all of them ended, {} answered; the longest took {} ms of at most {}; failed: {:?}",
        sum.begun,
        sum.answered,
        sum.longest_ms,
        CALL_MAX.as_millis(),
        sum.failed
    );
    println!(
        "summary: {} jobs acknowledged, all of them done; {} done in all, {} of them again",
        acknowledged.len(),
        once,
        done.len() - once
    );
    if rounds >= MANY_ROUNDS {
        let median = all[all.len() / 2];
        assert!(median <= PROMISED, "half of all times it took longer than {median:?}");
    }
}
