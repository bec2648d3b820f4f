//! The machine against a model: any order of events, and a crash after any of them. The disk is a map of what was committed;
//! a crash forgets the machine, some commits that were under way, and every attempt; the machine is read back from the map.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use serde_json::value::to_raw_value;

use super::*;
use crate::config::{BackoffType, Fairness, QueueType};

type Records = BTreeMap<(&'static str, Vec<u8>), Arc<[u8]>>;

struct Disk(Records);

impl Tables for Disk {
    fn each(
        &self,
        table: &'static str,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), record::Unreadable> {
        for ((of, key), value) in &self.0 {
            if *of == table {
                each(key, value);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Queue, group, priority, delay.
    Enqueue(usize, u8, u8, u64),
    /// The oldest commit under way ends; `false`: there was no room.
    Commit(bool),
    /// An attempt ends; by number among those under way.
    End(usize, Ending),
    Wait(u64),
    Pause(usize, bool),
    Cancel(usize),
    Redrive,
    /// A crash; so many of the commits under way had come to the disk.
    Crash(usize),
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Success,
    Failure,
    NotStarted,
    Absent,
}

const QUEUES: [&str; 3] = ["plain", "fifo", "fair"];

fn config() -> Config {
    let base = QueueSettings {
        max_retries: 2,
        concurrency: 3,
        backoff_ms: 10,
        backoff_type: BackoffType::Exponential,
        ..QueueSettings::default()
    };
    let fairness = Fairness {
        key_field: "k".into(),
        concurrency: 1,
        rate_per_second: 0.0,
        weights: [("1".to_owned(), 2.0)].into(),
    };
    let all = [
        ("plain", QueueSettings { rate_per_second: 500.0, ..base.clone() }),
        ("fifo", QueueSettings { kind: QueueType::Fifo, ..base.clone() }),
        ("fair", QueueSettings { fairness: Some(fairness), ..base }),
    ];
    let queue_configs = all.map(|(name, settings)| (name.to_owned(), settings)).into();
    Config { queue_configs, ..Config::default() }
}

/// What the world knows: what was acknowledged, what runs, what happened.
struct World {
    machine: Machine,
    disk: Records,
    under_way: Vec<(Ticket, Writes)>,
    running: BTreeMap<Token, Place>,
    /// Places by the ticket of their arrival.
    arriving: HashMap<Ticket, Place>,
    /// Somebody asked for their end, which may come at any time from then on.
    cancelled: BTreeSet<Place>,
    lanes: HashMap<Place, String>,
    /// Acknowledged and not ended.
    owed: BTreeSet<Place>,
    /// Ended, so far as anybody was told: done, dead or cancelled.
    succeeded: BTreeSet<Place>,
    starts: Vec<u64>,
    highest: Token,
    now_ms: u64,
    epoch: u64,
}

impl World {
    fn new() -> Self {
        Self {
            machine: Machine::new(config(), 1, 7),
            disk: BTreeMap::new(),
            under_way: Vec::new(),
            running: BTreeMap::new(),
            arriving: HashMap::new(),
            cancelled: BTreeSet::new(),
            lanes: HashMap::new(),
            owed: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            starts: Vec::new(),
            highest: 0,
            now_ms: 1_000_000,
            epoch: 1,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Enqueue(queue, group, priority, delay) => self.enqueue(*queue, *group, *priority, *delay),
            Step::Commit(room) => self.commit(*room),
            Step::End(number, ending) => self.end(*number, *ending),
            Step::Wait(ms) => self.now_ms += ms,
            Step::Pause(queue, pause) => {
                let mode = if *pause { Mode::Paused } else { Mode::Active };
                let record = record::SettingsRecord { mode, ..Default::default() };
                self.machine.configure(self.now_ms, QUEUES[*queue], &record);
            }
            Step::Cancel(number) => {
                let Some(place) = pick(self.owed.iter(), *number).cloned() else { return };
                if self.machine.cancel(self.now_ms, &place).is_some() {
                    self.cancelled.insert(place);
                }
            }
            Step::Redrive => self.redrive(),
            Step::Crash(came) => self.crash(*came),
        }
        self.machine.tick(self.now_ms);
        self.take();
    }

    fn enqueue(&mut self, queue: usize, group: u8, priority: u8, delay_ms: u64) {
        let lane = if queue == 0 { String::new() } else { group.to_string() };
        let head = record::Head {
            blob: None,
            function: Some(format!("f::{group}")),
            enqueued_ms: self.now_ms,
            due_ms: if delay_ms == 0 { 0 } else { self.now_ms + delay_ms },
            expires_ms: 0,
            priority,
            lane: lane.clone(),
            receipt: None,
            trace: None,
            baggage: None,
            data: None,
        };
        let data = to_raw_value(&group).unwrap();
        let new = New { queue: QUEUES[queue].to_owned(), head, data, idempotency: None };
        let (ticket, places) = self.machine.enqueue(vec![new]).unwrap();
        self.lanes.insert(places[0].clone(), lane);
        self.arriving.insert(ticket, places[0].clone());
    }

    fn commit(&mut self, room: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let (ticket, writes) = self.under_way.remove(0);
        if !room {
            self.arriving.remove(&ticket);
            return self.machine.not_committed(self.now_ms, ticket, true);
        }
        self.apply(writes);
        // From here on the sender knows that it is taken.
        if let Some(place) = self.arriving.remove(&ticket) {
            self.owed.insert(place);
        }
        self.machine.committed(self.now_ms, ticket);
    }

    fn apply(&mut self, writes: Writes) {
        for write in writes.0 {
            match write.value {
                Some(value) => self.disk.insert((write.table, write.key), value),
                None => self.disk.remove(&(write.table, write.key)),
            };
        }
    }

    fn end(&mut self, number: usize, ending: Ending) {
        let Some(token) = pick(self.running.keys(), number).copied() else { return };
        let place = self.running.remove(&token).unwrap();
        let outcome = match ending {
            Ending::Success => {
                self.succeeded.insert(place);
                Outcome::Succeeded
            }
            Ending::Failure => Outcome::Failed(Failed {
                code: "E".into(),
                message: "no".into(),
                retry_after_ms: None,
                fatal: false,
            }),
            Ending::NotStarted => Outcome::NotStarted { after_ms: 5 },
            Ending::Absent => Outcome::Absent,
        };
        self.machine.ended(self.now_ms, token, outcome);
    }

    fn redrive(&mut self) {
        let dead: Vec<_> = self
            .disk
            .iter()
            .filter(|((table, _), _)| *table == record::DEAD)
            .map(|((table, key), value)| {
                let (place, _) = Place::parse(table, key).unwrap();
                let head = record::decode(record::MESSAGE, key, &self.disk[&(record::MESSAGE, key.clone())]);
                (place, head.unwrap(), record::decode(table, key, value).unwrap())
            })
            .collect();
        let (_, count) = self.machine.revive(self.now_ms, dead, 3);
        assert!(count <= self.disk.len());
    }

    fn crash(&mut self, came: usize) {
        let count = came.min(self.under_way.len());
        for (_, writes) in std::mem::take(&mut self.under_way).into_iter().take(count) {
            // On disk, but nobody was told.
            self.apply(writes);
        }
        self.arriving.clear();
        self.running.clear();
        // The pace is kept in memory: it begins anew.
        self.starts.clear();
        self.epoch += 1;
        self.machine = Machine::new(config(), self.epoch, self.epoch);
        let unreadable = self.machine.recover(self.now_ms, &Disk(self.disk.clone())).unwrap();
        assert!(unreadable.is_empty(), "{unreadable:?}");
        self.machine.start_all(self.now_ms);
    }

    /// Takes what the machine says, and holds it against what must always be true.
    fn take(&mut self) {
        let output = self.machine.take_output();
        self.under_way.extend(output.commits);
        for token in output.aborts {
            self.running.remove(&token);
        }
        for delivery in output.deliveries {
            let Delivery { token, place, attempt, .. } = delivery;
            assert!(token > self.highest, "tokens only grow, over crashes too");
            self.highest = token;
            assert!((1..=3).contains(&attempt), "attempt {attempt}");
            let on_disk = self.disk.contains_key(&(record::MESSAGE, place.key()));
            assert!(on_disk, "only what is on disk is delivered");
            let twice = self.running.values().any(|other| *other == place);
            assert!(!twice, "two leases of {place:?}");
            if &*place.queue == "plain" {
                let last = self.starts.last().copied();
                assert!(last.is_none_or(|last| last + 2 <= self.now_ms), "500 a second are 2 ms apart");
                self.starts.push(self.now_ms);
            }
            self.check_order(&place);
            self.running.insert(token, place);
        }
        for queue in QUEUES {
            let count = self.running.values().filter(|place| &*place.queue == queue).count();
            assert!(count <= 3, "{count} under way in {queue}");
            assert_eq!(self.machine.counts(queue).running, count);
        }
    }

    /// Nothing may start in a lane of the fifo queue while an older message of it is on disk and alive, and nothing of a
    /// key of the fair queue while another runs.
    fn check_order(&self, place: &Place) {
        let same = |other: &Place| other.queue == place.queue && self.lanes[other] == self.lanes[place];
        if &*place.queue == "fair" {
            assert!(!self.running.values().any(same), "two at once of one key");
        }
        if &*place.queue != "fifo" {
            return;
        }
        let older = self.disk.keys().filter(|(table, _)| *table == record::MESSAGE);
        for (table, key) in older {
            let (other, _) = Place::parse(table, key).unwrap();
            let dead = self.disk.contains_key(&(record::DEAD, key.clone()));
            // A message that is being redriven comes back when it is on disk as alive.
            if same(&other) && other.seq < place.seq && !dead && self.machine.standing(&other).is_some() {
                panic!("{place:?} overtook {other:?}");
            }
        }
    }

    /// Lets everything come to its end, and checks that nothing is missing.
    fn finish(&mut self) {
        for queue in 0..QUEUES.len() {
            self.step(&Step::Pause(queue, false));
        }
        for _ in 0..20_000 {
            for function in self.machine.missing() {
                self.machine.found(self.now_ms, &function);
            }
            // What starts now is judged by the disk as it is now.
            self.take();
            self.step(&Step::Commit(true));
            self.step(&Step::End(0, Ending::Success));
            self.step(&Step::Wait(if self.under_way.is_empty() { 20 } else { 0 }));
            let empty = QUEUES.iter().all(|queue| self.machine.is_empty(queue));
            if empty && self.under_way.is_empty() && self.running.is_empty() {
                break;
            }
        }
        for place in self.owed.difference(&self.cancelled) {
            let dead = self.disk.contains_key(&(record::DEAD, place.key()));
            assert!(dead || self.succeeded.contains(place), "{place:?} was acknowledged and is lost");
        }
        let left = self.disk.keys().filter(|(table, key)| {
            matches!(*table, record::MESSAGE | record::ATTEMPT)
                && !self.disk.keys().any(|(of, dead)| *of == record::DEAD && key.starts_with(dead))
        });
        assert_eq!(left.count(), 0, "records are left behind");
        for queue in QUEUES {
            let dead = self.disk.keys().filter(|(table, key)| {
                *table == record::DEAD && key.starts_with(&record::queue_prefix(queue))
            });
            assert_eq!(self.machine.counts(queue).dead, dead.count());
        }
    }
}

fn pick<T>(mut all: impl Iterator<Item = T> + Clone, number: usize) -> Option<T> {
    let count = all.clone().count();
    all.nth(number.checked_rem(count)?)
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Success),
        4 => Just(Ending::Failure),
        1 => Just(Ending::NotStarted),
        1 => Just(Ending::Absent),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, 0..3u8, 0..10u8, prop_oneof![3 => Just(0), 1 => 1..40u64])
            .prop_map(|(queue, group, priority, delay)| Step::Enqueue(queue, group, priority, delay)),
        12 => prop::bool::weighted(0.9).prop_map(Step::Commit),
        10 => (any::<usize>(), ending()).prop_map(|(number, ending)| Step::End(number, ending)),
        4 => (0..50u64).prop_map(Step::Wait),
        1 => (0..3usize, any::<bool>()).prop_map(|(queue, pause)| Step::Pause(queue, pause)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => Just(Step::Redrive),
        1 => (0..6usize).prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_order_holds(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

/// Drives a world until it has nothing under way but attempts.
fn settle(world: &mut World) {
    while !world.under_way.is_empty() {
        world.step(&Step::Commit(true));
    }
}

#[test]
fn a_fifo_group_waits_for_its_first_and_others_do_not() {
    let mut world = World::new();
    for group in [1, 1, 2] {
        world.step(&Step::Enqueue(1, group, 0, 0));
    }
    settle(&mut world);
    assert_eq!(world.running.len(), 2, "the first of each group");
    world.step(&Step::End(0, Ending::Failure));
    settle(&mut world);
    assert_eq!(world.running.len(), 1, "the second of group 1 does not overtake");
    world.step(&Step::Wait(10));
    assert_eq!(world.running.len(), 2, "its first is tried again");
    world.step(&Step::End(1, Ending::Success));
    assert_eq!(world.running.len(), 1, "its end is not on disk yet");
    settle(&mut world);
    assert_eq!(world.running.len(), 2, "now the second may start");
}

#[test]
fn shares_follow_weights() {
    let mut world = World::new();
    // More than three, so that turns decide; one at a time.
    for _ in 0..30 {
        for group in 0..3 {
            world.step(&Step::Enqueue(2, group, 0, 0));
        }
    }
    let mut settings = world.machine.settings("fair").0;
    settings.concurrency = 1;
    world.machine.apply(world.now_ms, "fair", settings);
    settle(&mut world);
    let mut served: HashMap<String, u32> = HashMap::new();
    for _ in 0..24 {
        let place = world.running.values().next().unwrap().clone();
        *served.entry(world.lanes[&place].clone()).or_default() += 1;
        world.step(&Step::End(0, Ending::Success));
        settle(&mut world);
    }
    let of = |lane: &str| served[lane];
    assert!(of("1").abs_diff(12) <= 1 && of("0").abs_diff(6) <= 1 && of("2").abs_diff(6) <= 1, "{served:?}");
}

#[test]
fn an_absent_function_costs_no_attempt_and_holds_nobody_up() {
    let mut world = World::new();
    world.step(&Step::Enqueue(0, 1, 9, 0));
    world.step(&Step::Enqueue(0, 2, 0, 0));
    settle(&mut world);
    world.step(&Step::End(0, Ending::Absent));
    world.step(&Step::Wait(10));
    assert_eq!(world.machine.counts("plain").parked, 1);
    assert_eq!(world.running.len(), 1, "the other one runs");
    world.step(&Step::End(0, Ending::Success));
    settle(&mut world);
    world.step(&Step::Wait(1000));
    assert!(world.running.is_empty(), "it is not looked for by trying");
    assert_eq!(world.machine.missing(), ["f::1"]);
    world.machine.found(world.now_ms, "f::1");
    world.take();
    assert_eq!(world.running.len(), 1);
}
