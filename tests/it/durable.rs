//! What was acknowledged outlives `kill -9`: of the engine with its built-in workers, and of the worker that does the jobs,
//! in random order, under load. Every acknowledged job is done, in order within its group; every acknowledged value is
//! there; every change is told in order; no hour strikes twice. Run in full with `cargo durable 1000`.

pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod scene;

mod rot;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ringway_tests::dice::Dice;
use ringway_tests::effort;

use load::{Sent, Stop};
use scene::Scene;

/// The longest time between two deaths.
const LIFE_MAX: Duration = Duration::from_millis(150);

#[test]
fn what_was_acknowledged_outlives_kills() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (mut dice, rounds) = (Dice::new(seed), effort::rounds(12));
    let mut scene = Scene::new(None, "");
    let (stop, sent, client) = (AtomicBool::new(false), Sent::default(), scene.client());
    let (mut engines, mut laborers) = (0, 0);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        load::start(scope, &client, &sent, &stop, seed);
        for _ in 0..rounds {
            std::thread::sleep(dice.time(LIFE_MAX));
            if dice.below(5) < 3 {
                scene.kill_and_start_engine();
                engines += 1;
            } else {
                scene.kill_laborer();
                scene.start_laborer();
                laborers += 1;
            }
        }
    });
    let journal = scene.judge(&sent);
    println!("{engines} engines and {laborers} workers killed; {}\n{}", sent.told(), journal.told());
}
