//! A job under every clock: running on, stepping, stopping and starting again. The model is a set of slots.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LATE: u64 = 5000;

const NONE: [i64; 0] = [];

/// 2026-01-01T00:00:00Z.
const START: Second = 1_767_225_600;

fn bound(config: Value) -> Bound {
    let mut fields = json!({"expression": "* * * * *"});
    fields.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    Bound::parse(&fields, "UTC").unwrap()
}

fn at(seconds: i64) -> Millis {
    (START + seconds) * 1000
}

/// Slots as seconds after the start.
fn fired(job: &mut Job, bound: &Bound, seconds: i64, running: bool) -> Vec<i64> {
    job.look(bound, at(seconds), LATE, running);
    job.take(bound.config.overlap, running).into_iter().map(|slot| slot - START).collect()
}

/// What is taken until nothing waits any more, as if each function ended at once.
fn all_fired(job: &mut Job, bound: &Bound, seconds: i64) -> Vec<i64> {
    let mut all = Vec::new();
    loop {
        let slots = fired(job, bound, seconds, false);
        if slots.is_empty() {
            return all;
        }
        all.extend(slots);
    }
}

#[test]
fn each_slot_fires_once_and_at_its_time() {
    let bound = bound(json!({}));
    let mut job = Job::new("a", at(10));
    assert_eq!(job.next_due(&bound), Some(at(60)));
    assert_eq!(fired(&mut job, &bound, 59, false), NONE);
    assert_eq!(fired(&mut job, &bound, 60, false), [60]);
    assert_eq!(fired(&mut job, &bound, 60, false), NONE);
    assert_eq!(job.next_due(&bound), Some(at(120)));
    assert_eq!(fired(&mut job, &bound, 122, false), [120]);
    assert_eq!(job.ledger().spans(), [(START + 9, START + 120)]);
}

#[test]
fn overlap_is_skipped_allowed_or_queued() {
    for (overlap, during, after) in [("skip", vec![], vec![240]), ("allow", vec![120], vec![240])] {
        let bound = bound(json!({ "overlap": overlap }));
        let mut job = Job::new("a", at(0));
        assert_eq!(fired(&mut job, &bound, 60, false), [60]);
        assert_eq!(fired(&mut job, &bound, 120, true), during, "{overlap}");
        let _either = fired(&mut job, &bound, 180, true);
        assert_eq!(all_fired(&mut job, &bound, 240), after, "{overlap}");
    }
    let bound = bound(json!({"overlap": "queue", "catch_up_max": 2}));
    let mut job = Job::new("a", at(0));
    for minute in 1..=5 {
        assert_eq!(fired(&mut job, &bound, minute * 60, true), NONE);
    }
    assert_eq!((job.waiting(), job.left_out.skipped), (2, 3));
    assert_eq!(all_fired(&mut job, &bound, 301), [240, 300]);
}

#[test]
fn missed_slots_are_left_out_or_made_up_for() {
    let check = |config: Value, seconds: i64, expected: &[i64], missed: u64| {
        let bound = bound(config.clone());
        let mut job = Job::new("a", at(0));
        assert_eq!(all_fired(&mut job, &bound, seconds), expected, "{config}");
        assert_eq!(job.left_out.missed, missed, "{config}");
    };
    check(json!({}), 630, &[], 10);
    check(json!({"catch_up": "last"}), 630, &[600], 9);
    check(json!({"catch_up": "all"}), 630, &[60, 120, 180, 240, 300, 360, 420, 480, 540, 600], 0);
    check(json!({"catch_up": "all", "catch_up_max": 3}), 630, &[480, 540, 600], 7);
    // One is on time: it fires whatever the policy, and is enough for `last`.
    check(json!({}), 603, &[600], 9);
    check(json!({"catch_up": "last"}), 603, &[600], 9);
    check(json!({"catch_up": "all"}), 183, &[60, 120, 180], 0);
}

#[test]
fn a_year_of_missed_seconds_is_quickly_passed_over() {
    for (catch_up, count) in [("none", 5), ("last", 5), ("all", 100)] {
        let bound = bound(json!({"expression": "* * * * * *", "catch_up": catch_up, "overlap": "allow"}));
        let mut job = Job::new("a", at(0));
        let slots = fired(&mut job, &bound, 365 * 86_400, false);
        assert_eq!(slots.len(), count, "{catch_up}");
    }
}

#[test]
fn a_clock_that_steps_back_fires_nothing_twice_and_what_was_passed_over_once() {
    let bound = bound(json!({}));
    let mut job = Job::new("a", at(0));
    assert_eq!(all_fired(&mut job, &bound, 60), [60]);
    // An hour forward: 59 slots are passed over.
    assert_eq!(all_fired(&mut job, &bound, 3660), [3660]);
    // And back: they come once more, those that had fired do not.
    assert_eq!(all_fired(&mut job, &bound, 61), NONE);
    assert_eq!(job.next_due(&bound), Some(at(120)));
    let mut slots = Vec::new();
    for second in 61..3800 {
        slots.extend(all_fired(&mut job, &bound, second));
    }
    let expected: Vec<i64> = (2..=60).chain([62, 63]).map(|minute| minute * 60).collect();
    assert_eq!(slots, expected);
}

#[test]
fn jitter_delays_each_slot_by_a_time_of_its_own() {
    let bound = bound(json!({"jitter_ms": 30_000}));
    let job = Job::new("a", at(0));
    let delays: BTreeSet<i64> =
        (1..50).map(|minute| job.due(&bound.config, START + minute * 60) - at(minute * 60)).collect();
    assert!(delays.iter().all(|delay| (0..=30_000).contains(delay)), "{delays:?}");
    assert!(delays.len() > 40, "{delays:?}");
    let mut job = Job::new("a", at(0));
    let due = job.next_due(&bound).unwrap();
    job.look(&bound, due - 1, LATE, false);
    assert_eq!(job.waiting(), 0);
    job.look(&bound, due, LATE, false);
    assert_eq!(job.waiting(), 1);
}

/// What happens to a job.
#[derive(Debug, Clone)]
enum Event {
    /// Time passes, in seconds.
    Passes(i64),
    /// The clock is set, by seconds.
    Steps(i64),
    /// The engine stops, and starts again so much later.
    Restarts(i64),
    /// The function takes until the next such event.
    Holds,
    Ends,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_i64..200).prop_map(Event::Passes),
        2 => (-4000_i64..4000).prop_map(Event::Steps),
        2 => (0_i64..4000).prop_map(Event::Restarts),
        1 => Just(Event::Holds),
        2 => Just(Event::Ends),
    ]
}

/// A world with one job: the clock, whether the function runs, and what fired.
struct World {
    bound: Bound,
    job: Job,
    now: i64,
    holding: bool,
    running: bool,
    fired: Vec<i64>,
}

impl World {
    fn turn(&mut self) {
        loop {
            let slots = fired(&mut self.job, &self.bound, self.now, self.running);
            let idle = slots.is_empty();
            self.fired.extend(slots);
            self.running = self.holding && (self.running || !idle);
            if idle {
                return;
            }
        }
    }

    fn meets(&mut self, event: &Event) {
        match event {
            Event::Passes(seconds) => {
                for _ in 0..*seconds {
                    self.now += 1;
                    self.turn();
                }
            }
            Event::Steps(seconds) => self.now += seconds,
            Event::Restarts(seconds) => {
                let record = crate::record::Record::of(&self.job, &self.bound);
                let read = crate::record::Record::decode(&record.encode()).unwrap();
                self.job = read.job("a");
                self.now += seconds;
                self.running = false;
            }
            Event::Holds => self.holding = true,
            Event::Ends => (self.holding, self.running) = (false, false),
        }
        self.turn();
    }
}

proptest! {
    #[test]
    fn no_slot_fires_twice_whatever_happens(
        events in prop::collection::vec(event(), 1..30),
        catch_up in prop_oneof![Just("none"), Just("last"), Just("all")],
        overlap in prop_oneof![Just("skip"), Just("allow"), Just("queue")],
        expression in prop_oneof![Just("* * * * *"), Just("*/20 * * * * *"), Just("7 * * * *")],
        jitter in prop_oneof![Just(0), Just(45_000)],
    ) {
        let bound = bound(json!({
            "expression": expression, "catch_up": catch_up, "overlap": overlap, "catch_up_max": 20, "jitter_ms": jitter,
        }));
        let job = Job::new("a", at(5000));
        let mut world = World { bound, job, now: 5000, holding: false, running: false, fired: Vec::new() };
        for event in &events {
            world.meets(event);
        }
        let distinct: BTreeSet<i64> = world.fired.iter().copied().collect();
        prop_assert_eq!(distinct.len(), world.fired.len(), "{:?}", world.fired);
    }

    #[test]
    fn none_is_lost_where_all_are_made_up_for(events in prop::collection::vec(event(), 1..25)) {
        let config = json!({"expression": "*/20 * * * * *", "catch_up": "all", "overlap": "queue", "catch_up_max": 10_000});
        let bound = bound(config);
        let mut world = World {
            bound, job: Job::new("a", at(5000)), now: 5000, holding: false, running: false, fired: Vec::new(),
        };
        let mut latest = 5000;
        for event in &events {
            world.meets(event);
            latest = latest.max(world.now);
        }
        world.meets(&Event::Ends);
        // What waited when the clock was put back and the engine stopped comes when the clock is there again.
        world.meets(&Event::Passes(latest - world.now));
        // Slots from before the job was bound may come as well, if the clock went there.
        let fired: BTreeSet<i64> = world.fired.iter().copied().filter(|slot| *slot > 5000).collect();
        let expected: BTreeSet<i64> = (5001..=latest).filter(|second| (START + second) % 20 == 0).collect();
        prop_assert_eq!(fired, expected);
    }
}
