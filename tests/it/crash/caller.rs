//! The caller dies: the callee's handlers are told, its memory comes back, and it serves the next.

use std::time::Duration;

use ringway_tests::census::Census;
use ringway_tests::dice::Dice;
use ringway_tests::effort;
use ringway_tests::member::Member;
use ringway_tests::service;

use super::{PATIENCE, Scene};

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
    let base = scene.base();
    let rounds = effort::rounds(36).div_ceil(POINTS.len() as u64);
    for point in POINTS {
        (0..rounds).for_each(|_| die_at(point));
        nothing_runs(&scene);
        println!("{point}: {rounds} callers died, {:?}", Census::of(std::process::id()).unwrap());
    }
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
    let base = scene.base();
    (0..effort::rounds(60)).for_each(|_| round(&mut dice));
    nothing_runs(&scene);
    scene.nothing_leaked(&base);
}
