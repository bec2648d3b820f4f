//! The machine against a model: any order of events, and a crash after any of them. The disk is a map of what was committed;
//! a crash forgets the machine, some commits that were under way, and every attempt; the machine is read back from the map.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use serde_json::value::to_raw_value;

use super::*;
use crate::config::{BackoffType, CodeSettings, Fairness, QueueSettings, QueueType};

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
    /// The last commit was refused.
    full: bool,
}

impl World {
    fn new() -> Self {
        let mut disk = BTreeMap::new();
        Self {
            machine: Machine::new(config(), reserve(&mut disk), 7),
            disk,
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
            full: false,
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
        let data = to_raw_value(&group).unwrap().into();
        let new = New { queue: QUEUES[queue].to_owned(), head, data, idempotency: None };
        let (ticket, places) = match self.machine.enqueue(vec![new]) {
            Ok(taken) => taken,
            Err(refused) => return assert_eq!(refused, Refused::Behind),
        };
        self.lanes.insert(places[0].clone(), lane);
        self.arriving.insert(ticket, places[0].clone());
    }

    fn commit(&mut self, room: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let (ticket, writes) = self.under_way.remove(0);
        self.full = !room;
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
        for write in writes.changes {
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
            Ending::Absent => {
                let key = (record::MESSAGE, place.key());
                let head: record::Head = record::decode(key.0, &key.1, &self.disk[&key]).unwrap();
                Outcome::Absent(head.function.into_iter().collect())
            }
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
                let head = &self.disk[&(record::MESSAGE, key.clone())];
                let head: record::Head = record::decode(record::MESSAGE, key, head).unwrap();
                let record = Some(record::decode(table, key, value).unwrap());
                let blob = head.blob.map(|blob| blob.id);
                Dead { place, record, head: Some(head), last_attempt: 0, blob, revisions: Vec::new() }
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
        self.full = false;
        let first = reserve(&mut self.disk);
        self.machine = Machine::new(config(), first, first.token);
        let unreadable = self.machine.recover(self.now_ms, &Disk(self.disk.clone())).unwrap();
        assert!(unreadable.is_empty(), "{unreadable:?}");
        self.machine.start_all(self.now_ms);
    }

    /// Takes what the machine says, and holds it against what must always be true.
    fn take(&mut self) {
        let output = self.machine.take_output();
        assert!(!self.full || output.deliveries.is_empty(), "nothing starts while the store takes nothing");
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

/// The first numbers of a start, with the next block noted on the disk.
fn reserve(disk: &mut Records) -> Numbers {
    let key = (record::META, record::NUMBERS.to_vec());
    let first = match disk.get(&key) {
        Some(bytes) => record::decode(record::META, record::NUMBERS, bytes).unwrap(),
        None => Numbers { seq: 1, token: 1 },
    };
    disk.insert(key, record::encode(&first.after_block()));
    first
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
    world.step(&Step::Pause(2, true));
    for _ in 0..30 {
        for group in 0..3 {
            world.step(&Step::Enqueue(2, group, 0, 0));
        }
        settle(&mut world);
    }
    let mut settings = world.machine.settings("fair").0;
    settings.concurrency = 1;
    let record = record::SettingsRecord { mode: Mode::Active, settings: Some(settings) };
    world.machine.configure(world.now_ms, "fair", &record);
    world.take();
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

/// A message that names no function.
fn unnamed(queue: &str) -> New {
    let head = record::Head {
        function: None,
        enqueued_ms: 1,
        due_ms: 0,
        expires_ms: 0,
        priority: 0,
        lane: String::new(),
        receipt: None,
        trace: None,
        baggage: None,
        data: None,
        blob: None,
    };
    New { queue: queue.to_owned(), head, data: to_raw_value(&1).unwrap().into(), idempotency: None }
}

#[test]
fn what_is_bound_and_not_there_is_waited_for() {
    let mut world = World::new();
    let (ticket, places) = world.machine.enqueue(vec![unnamed("other")]).unwrap();
    world.arriving.insert(ticket, places[0].clone());
    world.lanes.insert(places[0].clone(), String::new());
    let needs = |id: &str| vec![id.to_owned()];
    let bindings = [vec!["a::a".to_owned(), "decides".to_owned()], needs("b::b")];
    world.machine.set_bound(world.now_ms, "other", &bindings);
    world.take();
    settle(&mut world);
    let token = *world.running.keys().next().unwrap();
    world.running.clear();
    let missing = vec!["decides".to_owned(), "b::b".to_owned()];
    world.machine.ended(world.now_ms, token, Outcome::Absent(missing));
    let output = world.machine.take_output();
    assert_eq!((output.deliveries.len(), output.missing.len()), (0, 2), "it is not started again by trying");
    assert_eq!(world.machine.counts("other").parked, 1);
    world.machine.found(world.now_ms, "nobody");
    assert!(world.machine.take_output().deliveries.is_empty());
    world.machine.found(world.now_ms, "decides");
    let output = world.machine.take_output();
    assert_eq!(output.deliveries.len(), 1, "one binding has all that it needs");
    assert_eq!(output.deliveries[0].attempt, 1, "no attempt is used up");
}

#[test]
fn who_could_not_be_looked_for_is_looked_for_again() {
    let mut world = World::new();
    world.step(&Step::Enqueue(2, 1, 0, 0));
    settle(&mut world);
    world.step(&Step::End(0, Ending::Absent));
    world.machine.not_looked_for(world.now_ms, "f::1");
    assert_eq!(world.machine.next_alarm(), Some(world.now_ms + 1000));
    world.machine.tick(world.now_ms + 1000);
    assert_eq!(world.machine.take_output().missing, ["f::1"]);
}

#[test]
fn nothing_more_is_started_while_the_store_takes_nothing() {
    let mut world = World::new();
    for _ in 0..12 {
        world.step(&Step::Enqueue(1, 0, 0, 0));
        world.step(&Step::Enqueue(2, 0, 0, 0));
    }
    settle(&mut world);
    // Two ends come, and are refused.
    world.step(&Step::End(0, Ending::Success));
    world.step(&Step::End(0, Ending::Success));
    while !world.under_way.is_empty() {
        world.step(&Step::Commit(false));
    }
    // What was begun before that was known ends too.
    while !world.running.is_empty() {
        world.step(&Step::End(0, Ending::Success));
    }
    while !world.under_way.is_empty() {
        world.step(&Step::Commit(false));
    }
    let ran = world.highest;
    for _ in 0..5 {
        world.step(&Step::Wait(1000));
        assert_eq!(world.under_way.len(), 1, "one write shows whether the store takes some again");
        world.step(&Step::Commit(false));
    }
    assert_eq!((world.highest, world.running.len()), (ran, 0));
    assert!(world.machine.is_stalled());
    world.step(&Step::Wait(1000));
    settle(&mut world);
    assert!(!world.machine.is_stalled());
    assert!(world.highest > ran, "it goes on by itself");
    world.finish();
}

#[test]
fn a_cancelled_message_that_was_just_to_be_started_is_not_started() {
    let mut world = World::new();
    let (ticket, places) = world.machine.enqueue(vec![unnamed("plain")]).unwrap();
    world.machine.set_bound(world.now_ms, "plain", &[vec!["a::a".to_owned()]]);
    drop(world.machine.take_output());
    world.machine.committed(world.now_ms, ticket);
    // The delivery is in the output, and nobody has taken it yet.
    assert!(world.machine.cancel(world.now_ms, &places[0]).is_some());
    let output = world.machine.take_output();
    assert!(output.deliveries.is_empty(), "{output:?}");
    assert_eq!(output.commits.len(), 1);
}

#[test]
fn numbers_rise_over_starts_and_never_begin_again() {
    let mut disk = Records::new();
    let mut highest = Numbers { seq: 0, token: 0 };
    for _ in 0..200 {
        let mut numbers = Reserve::new(reserve(&mut disk));
        for _ in 0..record::BLOCK {
            let (seq, token) = (numbers.seq().unwrap(), numbers.token().unwrap());
            assert!(seq > highest.seq && token > highest.token);
            highest = Numbers { seq, token };
        }
        assert_eq!((numbers.seq(), numbers.token()), (None, None), "the disk knows of no more");
    }
    // What an earlier version gave out: the start above, 32 or 40 bits below.
    assert!(Numbers::after_epoch(7).token > (7 << 32) + (1 << 38));
    assert!(Numbers::after_epoch(7).seq > (8 << 40) - 1);
    assert!(Numbers::after_epoch(1 << 24).token > Numbers::after_epoch((1 << 24) - 3).token);
    let last = Numbers { seq: u64::MAX - 2, token: u64::MAX - 2 };
    let mut machine = Machine::new(config(), last, 1);
    for _ in 0..2 {
        machine.enqueue(vec![unnamed("plain")]).unwrap();
        drop(machine.take_output());
    }
    assert_eq!(machine.enqueue(vec![unnamed("plain")]).unwrap_err(), Refused::Behind, "no number twice");
}

#[test]
fn a_subscription_that_ends_takes_its_copies_along_and_the_next_gets_its_own() {
    let mut world = World::new();
    let enqueue = |world: &mut World| {
        let (ticket, places) = world.machine.enqueue(vec![unnamed("topic/t")]).unwrap();
        world.arriving.insert(ticket, places[0].clone());
        world.lanes.insert(places[0].clone(), String::new());
        places[0].clone()
    };
    let before = enqueue(&mut world);
    world.take();
    settle(&mut world);
    let coming = enqueue(&mut world);
    world.machine.end_subscription("topic/t", Writes::default());
    let after = enqueue(&mut world);
    world.take();
    // The copy that was still being written comes to the disk, and the end of the subscription; then a crash.
    let mut crashed = World { disk: world.disk.clone(), under_way: world.under_way.clone(), ..World::new() };
    crashed.lanes = world.lanes.clone();
    crashed.crash(3);
    for world in [&mut world, &mut crashed] {
        world.machine.set_bound(world.now_ms, "topic/t", &[vec!["a::a".to_owned()]]);
        world.take();
        settle(world);
        let running: Vec<&Place> = world.running.values().collect();
        assert_eq!(running, [&after], "not {before:?}, not {coming:?}");
        assert_eq!(world.machine.counts("topic/t").waiting, 0);
    }
}

#[test]
fn what_is_set_while_the_store_takes_nothing_comes_to_the_disk_as_it_was_set_last() {
    let mut world = World::new();
    let record = |mode| record::SettingsRecord { mode, ..Default::default() };
    let refuse = |world: &mut World| {
        world.take();
        while !world.under_way.is_empty() {
            world.step(&Step::Commit(false));
        }
    };
    world.machine.configure(world.now_ms, "plain", &record(Mode::Paused));
    refuse(&mut world);
    world.machine.configure(world.now_ms, "plain", &record(Mode::Draining));
    world.take();
    settle(&mut world);
    world.step(&Step::Wait(2000));
    settle(&mut world);
    let key = (record::SETTINGS, b"plain".to_vec());
    let read: record::SettingsRecord = record::decode(key.0, &key.1, &world.disk[&key]).unwrap();
    assert_eq!(read.mode, Mode::Draining, "the older one does not come back");
}

proptest! {
    #[test]
    fn no_number_that_a_user_gives_is_too_large(
        times in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()], 9),
        rate in prop_oneof![Just(1e-300), Just(f64::MIN_POSITIVE), 0.0..1e6],
        jitter in 0.0..=1.0f64,
        retries in any::<u32>(),
    ) {
        let special = CodeSettings { max_retries: Some(retries), ..Default::default() };
        let settings = QueueSettings {
            backoff_ms: times[0],
            backoff_ms_max: times[1],
            backoff_jitter: jitter,
            max_retries: u32::MAX,
            rate_per_second: rate,
            timeout_ms: times[2],
            fairness: Some(Fairness {
                key_field: "k".into(),
                concurrency: usize::MAX,
                rate_per_second: rate,
                weights: [(String::new(), 1e-3)].into(),
            }),
            by_code: [("F".to_owned(), special)].into(),
            concurrency: usize::MAX,
            max_messages: usize::MAX,
            ..QueueSettings::default()
        };
        settings.check().unwrap();
        let mut world = World::new();
        world.machine.apply(world.now_ms, "q", settings);
        for number in 0..4 {
            let mut new = unnamed("q");
            (new.head.due_ms, new.head.expires_ms) = (times[3 + number], times[4 + number]);
            new.head.function = Some("f::f".into());
            new.idempotency = Some((number.to_string(), times[number]));
            let (ticket, places) = world.machine.enqueue(vec![new]).unwrap();
            world.lanes.insert(places[0].clone(), String::new());
            world.arriving.insert(ticket, places[0].clone());
            world.now_ms = world.now_ms.max(times[number].min(1 << 50));
            world.machine.tick(world.now_ms);
            // Without the checks of `take`, which know the retries of the other queues.
            let mut tokens = Vec::new();
            for _ in 0..6 {
                let output = world.machine.take_output();
                tokens.extend(output.deliveries.iter().map(|delivery| delivery.token));
                for (ticket, _) in output.commits {
                    world.machine.committed(world.now_ms, ticket);
                }
                for token in std::mem::take(&mut tokens) {
                    let code = if number % 2 == 0 { "E" } else { "F" };
                    let retry_after_ms = (number == 3).then_some(times[8]);
                    let failed = Failed { code: code.into(), message: "m".repeat(20_000), retry_after_ms, fatal: false };
                    world.machine.ended(world.now_ms, token, Outcome::Failed(failed));
                }
                let _alarm = world.machine.next_alarm();
            }
        }
        let dead = |seq: u64| Dead {
            place: Place::new("q", seq),
            record: None,
            head: Some(unnamed("q").head),
            last_attempt: 0,
            blob: None,
            revisions: Vec::new(),
        };
        let (_, count) = world.machine.revive(times[7], (1000..1003).map(dead).collect(), times[8]);
        prop_assert_eq!(count, 3);
    }
}
