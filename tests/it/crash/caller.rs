//! The caller dies: the callee's handlers are told, its memory comes back, and it serves the next.

use std::time::Duration;

use ringway_tests::census::Census;
use ringway_tests::dice::Dice;
use ringway_tests::effort;
use ringway_tests::load;
use ringway_tests::member::Member;
use ringway_tests::service;

use super::{PATIENCE, Scene, THREADS_SPARE};

/// Points at which the caller kills itself; `connect` before it is ready.
const POINTS: &[&str] = &["between", "loans", "view", "stream", "register", "connect"];

fn scene() -> Scene {
    let scene = Scene::new();
    scene.survivor.register_all(service::functions("survivor", |_| {})).unwrap();
    scene
}

/// Waits until the channels of the dead are gone, and with them their calls.
fn nothing_runs(scene: &Scene) {
    let until = std::time::Instant::now() + PATIENCE;
    while scene.channels() > 0 {
        assert!(
            std::time::Instant::now() < until,
            "channels of the dead are still there: {:#}",
            scene.inspection()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has `survivor::blob`, which keeps the last three payloads that it saw, keep those of one that lives. How many of the
/// dead it kept would differ from count to count.
fn keep_nothing_of_the_dead(scene: &Scene) {
    for number in 0..3 {
        load::blob(&scene.auditor, "survivor::blob", number).unwrap();
    }
}

/// A handler may keep a payload for as long as it likes. That of a caller which died holds the memory it lies in: one
/// descriptor and one mapping, and nothing else of the channel.
#[test]
fn what_is_kept_of_the_dead_is_memory_alone() {
    let scene = scene();
    let die = || {
        // Each keeps at it for a moment before it says that it is ready: one payload of each is kept.
        let mut member = Member::start(&["caller", &scene.address, "survivor", "rest"]);
        member.kill();
        drop(member.rest());
    };
    die();
    nothing_runs(&scene);
    keep_nothing_of_the_dead(&scene);
    let base = scene.base();
    (0..3).for_each(|_| die());
    nothing_runs(&scene);
    let grown = scene.segments().saturating_sub(base.segments);
    let (fds, shared) = (base.own.fds + 3 + grown, base.own.shared + 3 + grown);
    let allowed = Census { threads: base.own.threads + THREADS_SPARE, fds, shared, ..base.own };
    let now = Census::settle(std::process::id(), &allowed, PATIENCE).unwrap();
    println!("before {:?}, after {now:?}", base.own);
    assert!(now.fits(&allowed), "{:#?}", Census::descriptors(std::process::id()));
    keep_nothing_of_the_dead(&scene);
    scene.nothing_leaked(&base);
}

#[test]
fn killed_at_named_points() {
    let scene = scene();
    let die_at = |point: &str| {
        let member = Member::spawn(&["caller", &scene.address, "survivor", point], &[]);
        member.hear("dying");
        drop(member.rest());
    };
    POINTS.iter().for_each(|point| die_at(point));
    nothing_runs(&scene);
    keep_nothing_of_the_dead(&scene);
    let base = scene.base();
    let rounds = effort::rounds(36).div_ceil(POINTS.len() as u64);
    for point in POINTS {
        (0..rounds).for_each(|_| die_at(point));
        nothing_runs(&scene);
        println!("{point}: {rounds} callers died, {:?}", Census::of(std::process::id()).unwrap());
    }
    keep_nothing_of_the_dead(&scene);
    scene.nothing_leaked(&base);
    let still: Vec<u64> = (0..10).collect();
    for number in still {
        let handle = scene.auditor.handle("survivor::pooled");
        assert_eq!(
            handle.call(&ringway::Message::bytes(&number.to_le_bytes())).unwrap().body(),
            number.to_le_bytes()
        );
    }
}

#[test]
fn killed_at_random() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (scene, mut dice) = (scene(), Dice::new(seed));
    let round = |dice: &mut Dice| {
        let mut member = Member::start(&["caller", &scene.address, "survivor", "loop"]);
        std::thread::sleep(dice.time(Duration::from_millis(60)));
        member.kill();
        let failed: Vec<String> =
            member.rest().into_iter().filter(|line| line.starts_with("failed")).collect();
        assert_eq!(failed, Vec::<String>::new(), "a caller's calls failed while everybody lived");
    };
    (0..4).for_each(|_| round(&mut dice));
    nothing_runs(&scene);
    keep_nothing_of_the_dead(&scene);
    let base = scene.base();
    (0..effort::rounds(60)).for_each(|_| round(&mut dice));
    nothing_runs(&scene);
    keep_nothing_of_the_dead(&scene);
    scene.nothing_leaked(&base);
}
