//! What was acknowledged outlives a cut of power: of the whole engine, on a file system that forgets what was not synced,
//! tears what was being written and loses names. The oracle is that of `durable`: every acknowledged job is done, in order
//! within its group, every acknowledged value is there after every cut, every change is told in order, no hour strikes
//! twice, and nothing is found damaged. Run in full with `cargo power 200`. It needs FUSE; `cargo verify` says so where that
//! is refused.

mod finding;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ringway_power::{Disk, Lost, Mode, Mounted};
use ringway_tests::dice::Dice;
use ringway_tests::member::Member;
use ringway_tests::{effort, local};

use crate::durable::load::{self, Sent, Stop};
use crate::durable::scene::Scene;

/// Cuts that one store lives through.
const CUTS_OF_A_STORE: u64 = 25;
/// The longest time between two cuts, if the operation that was chosen does not come before.
const LIFE_MAX: Duration = Duration::from_millis(700);
/// Commits move to the index every few hundred, so that cuts meet that too.
const SETTINGS: &str = "engine: {store: {memory_bytes: 65536, cache_bytes: 1048576}}";
/// How long an engine may take to make its store, when the power is not to go before.
const MAKING: Duration = Duration::from_secs(5);

/// The rules that a disk may keep.
const MODES: [Mode; 2] = [Mode::Journalled, Mode::Strict];

/// A disk and where it is.
struct Machine {
    mode: Mode,
    disk: Disk,
    /// None only while it is mounted anew.
    mounted: Option<Mounted>,
}

impl Machine {
    fn new(mode: Mode) -> Self {
        let mut machine = Self { mode, disk: Disk::new(mode), mounted: None };
        machine.mount();
        machine
    }

    fn mount(&mut self) {
        self.mounted = Some(Mounted::new(&self.disk).unwrap_or_else(|refused| panic!("{refused}")));
    }

    /// Where the engine keeps its store: folders of which none is there in the beginning.
    fn store(&self) -> PathBuf {
        self.mounted.as_ref().map_or_else(PathBuf::new, |mounted| mounted.folder().join("data/store"))
    }

    /// The power is back: nothing is left but what was on disk.
    fn start_again(&mut self, dice: &mut Dice) -> Lost {
        let (disk, lost) = self.disk.after_cut(self.mode, &mut |limit| dice.below(limit));
        self.disk = disk;
        self.mounted = None;
        self.mount();
        lost
    }
}

/// What came of all cuts.
#[derive(Debug, Default)]
struct Told {
    cuts: u64,
    /// Of these, on a disk that keeps nothing else than what was synced.
    strict: u64,
    /// Of these, with an operation that was chosen.
    chosen: u64,
    operations: u64,
    lost: Lost,
    jobs: usize,
    values: u64,
}

impl Told {
    fn count(&mut self, machine: &Machine, chosen: bool, lost: Lost, operations: u64) {
        self.cuts += 1;
        self.strict += u64::from(machine.mode == Mode::Strict);
        self.chosen += u64::from(chosen);
        self.operations += operations;
        self.lost.sectors += lost.sectors;
        self.lost.names += lost.names;
    }

    fn say(&self) {
        let Self { cuts, strict, chosen, operations, lost, jobs, values } = self;
        println!(
            "summary: {cuts} cuts ({strict} of them strict, {chosen} at a chosen operation) in {operations} operations, \
             which took {} sectors and {} names that were not synced; {jobs} jobs and {values} values acknowledged, \
             0 violations",
            lost.sectors, lost.names
        );
    }
}

#[test]
fn what_was_acknowledged_outlives_cut_power() {
    let seed = effort::seed();
    println!("RINGWAY_SEED={seed}");
    let (mut dice, cuts) = (Dice::new(seed), effort::rounds(12));
    let mut told = Told::default();
    let mut modes = MODES.into_iter().cycle();
    while told.cuts < cuts {
        let mode = modes.next().unwrap_or(Mode::Strict);
        // Both modes have their turn in a short run too.
        let share = CUTS_OF_A_STORE.min(cuts.div_ceil(2)).min(cuts - told.cuts);
        one_store(mode, share, &mut dice, &mut told);
    }
    told.say();
    assert!(told.lost.sectors > 0, "no cut ever took anything");
}

/// A store under load that lives through so many cuts.
fn one_store(mode: Mode, cuts: u64, dice: &mut Dice, told: &mut Told) {
    let mut machine = Machine::new(mode);
    let mut scene = Scene::new(Some(&machine.store()), SETTINGS);
    let (stop, sent, client) = (AtomicBool::new(false), Sent::default(), scene.client());
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        load::start(scope, &client, &sent, &stop, dice.bits());
        for _ in 0..cuts {
            // Often while the engine starts and mends its store, mostly later.
            let operations = if dice.below(3) == 0 { dice.below(60) } else { dice.below(2000) };
            let before = machine.disk.operations();
            machine.disk.arm(1 + operations);
            let chosen = machine.disk.wait_until_off(dice.time(LIFE_MAX));
            machine.disk.power_off();
            let operations = machine.disk.operations() - before;
            scene.kill_engine();
            let held = sent.hold();
            let lost = machine.start_again(dice);
            let everything = dice.below(3) == 0;
            if everything {
                scene.kill_laborer();
            }
            scene.start_engine(&machine.store(), SETTINGS);
            if everything {
                scene.start_laborer();
            }
            // Before the next ones are set, so that none that was lost is covered up.
            sent.assert_values(&client);
            drop(held);
            told.count(&machine, chosen, lost, operations);
        }
    });
    let journal = scene.judge(&sent);
    println!("{mode:?}, {cuts} cuts: {}\n{}", sent.told(), journal.told());
    told.jobs += sent.jobs().len();
    told.values += sent.acknowledged().values().sum::<u64>();
}

#[test]
fn a_store_that_was_being_made_when_the_power_went_is_made_again() {
    let mut dice = Dice::new(effort::seed());
    let rounds = effort::rounds(12).div_ceil(4);
    let (mut chosen, mut names) = (0, 0);
    for mode in MODES {
        for _ in 0..rounds {
            let mut machine = Machine::new(mode);
            let address = local::address();
            let start = |machine: &Machine| {
                Member::spawn(&["durable", &address, &machine.store().to_string_lossy(), SETTINGS], &[])
            };
            machine.disk.arm(1 + dice.below(60));
            let mut engine = start(&machine);
            chosen += u64::from(machine.disk.wait_until_off(MAKING));
            machine.disk.power_off();
            engine.kill_and_wait();
            names += machine.start_again(&mut dice).names;
            let engine = start(&machine);
            assert_eq!(engine.hear("damage"), "[]", "{mode:?}: nothing was ever acknowledged here");
            engine.hear("ready");
        }
    }
    println!(
        "summary: {} stores cut while they were made, {chosen} at a chosen operation, which took {names} names",
        2 * rounds
    );
    assert!(chosen > 0, "the power never went before the store was made");
}
