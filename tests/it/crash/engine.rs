//! The engine dies: calls go on over the channels that are there, and everything is as before when the next one runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway::protocol::control::Catalog;
use ringway::protocol::naming;
use ringway::{Function, Message, Worker};
use ringway_tests::dice::Dice;
use ringway_tests::effort;
use ringway_tests::local;
use ringway_tests::member::Member;
use ringway_tests::service;

use super::{ALONE, CALL_TIMEOUT, PATIENCE, Scene};

/// How often each function of a worker is in the catalog; the engine's own are not counted.
fn registrations(worker: &Worker) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for function in
        worker.catalog().functions.into_iter().filter(|function| !naming::is_reserved(function.id.as_str()))
    {
        *counts.entry(function.id.to_string()).or_default() += 1;
    }
    counts
}

fn has(catalog: &Catalog, id: &str) -> bool {
    catalog.functions.iter().any(|function| function.id.as_str() == id)
}

/// Calls until told to stop; none may fail, whoever of the engines lives.
fn call_on(worker: &Worker, id: &str, stop: &AtomicBool, made: &AtomicU64) {
    let handle = worker.handle(id);
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let reply = handle.call(&Message::bytes(&number.to_le_bytes()));
        assert_eq!(reply.expect("the channel outlives the engine").body(), number.to_le_bytes());
        made.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn channels_outlive_it_and_everybody_comes_back() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (mut scene, mut dice) = (Scene::new(), Dice::new(seed));
    let callee = Member::start(&["callee", &scene.address, "steady"]);
    for worker in [&scene.survivor, &scene.auditor] {
        worker.wait_for("steady::pooled", PATIENCE).unwrap();
    }
    scene.survivor.register_all(service::functions("survivor", |_| {})).unwrap();
    scene.auditor.wait_for("survivor::inline", PATIENCE).unwrap();
    let before = registrations(&scene.survivor);
    let engine_calls = AtomicU64::new(0);
    let mut absent = 0;
    for round in 0..effort::rounds(20) {
        let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
        let (survivor, auditor) = (scene.survivor.clone(), scene.auditor.clone());
        std::thread::scope(|scope| {
            scope.spawn(|| call_on(&survivor, "steady::pooled", &stop, &made));
            scope.spawn(|| call_on(&auditor, "survivor::inline", &stop, &engine_calls));
            std::thread::sleep(dice.time(Duration::from_millis(30)));
            scene.engine.kill_and_wait();
            let at_death = made.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20) + dice.time(Duration::from_millis(60)));
            absent += made.load(Ordering::Relaxed) - at_death;
            scene.engine = Member::start(&["engine", &scene.address]);
            // Everybody is back when a worker that is new can call them all.
            let fresh = Worker::builder("fresh")
                .address(&scene.address)
                .default_timeout(Some(CALL_TIMEOUT))
                .connect()
                .unwrap();
            for id in ["steady::pooled", "survivor::inline"] {
                fresh.wait_for(id, PATIENCE).unwrap();
                assert_eq!(fresh.handle(id).call(&Message::bytes(&[1; 8])).unwrap().body(), [1; 8]);
            }
            // And what it registers reaches those that came back.
            let id = format!("fresh::r{round}");
            fresh.register(Function::raw(&id, |_, _| Ok(Message::empty()))).unwrap();
            for worker in [&survivor, &auditor] {
                worker.wait_for(&id, PATIENCE).unwrap();
                worker.handle(&id).call(&Message::empty()).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            drop(fresh);
            assert!(survivor.wait_until(PATIENCE, |catalog| !has(catalog, &id)));
        });
        let complete = |catalog: &Catalog| before.keys().all(|id| has(catalog, id));
        assert!(scene.survivor.wait_until(PATIENCE, complete));
        assert_eq!(registrations(&scene.survivor), before, "each function exactly once");
    }
    println!("calls made while there was no engine: {absent}");
    assert!(absent > 0, "calls went on without an engine");
    drop(callee);
}

/// A registration that the engine's death cut short is either refused or there exactly once afterwards.
#[test]
fn killed_while_workers_register() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (mut scene, mut dice) = (Scene::new(), Dice::new(seed));
    let witness = scene.auditor.clone();
    let mut number = 0u64;
    for _ in 0..effort::rounds(20) {
        let survivor = scene.survivor.clone();
        let stop = AtomicBool::new(false);
        let registered = std::thread::scope(|scope| {
            let registering = scope.spawn(|| {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let id = format!("survivor::n{number}");
                    if survivor.register(Function::raw(&id, |_, _| Ok(Message::empty()))).is_ok() {
                        done.push(id);
                    }
                }
                done
            });
            std::thread::sleep(dice.time(Duration::from_millis(20)));
            scene.engine.kill_and_wait();
            std::thread::sleep(dice.time(Duration::from_millis(20)));
            scene.engine = Member::start(&["engine", &scene.address]);
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
            registering.join().unwrap()
        });
        let complete = |catalog: &Catalog| registered.iter().all(|id| has(catalog, id));
        assert!(witness.wait_until(PATIENCE, complete), "a registration that succeeded is lost");
        let twice: Vec<_> = registrations(&witness).into_iter().filter(|(_, count)| *count > 1).collect();
        assert_eq!(twice, Vec::new(), "registered more than once");
        for id in &registered {
            witness.handle(id).call(&Message::empty()).unwrap();
        }
        // The next round starts from nothing, or it would only tell of long lists.
        for id in registrations(&survivor).into_keys() {
            survivor.unregister(&id).unwrap();
        }
    }
}

/// A socket that a killed engine left in the file system is no obstacle to the next, and nothing else is left.
#[test]
fn a_socket_file_is_taken_over() {
    let _alone = ALONE.lock();
    let folder = std::env::temp_dir().join(local::address().trim_start_matches('@'));
    std::fs::create_dir_all(&folder).unwrap();
    let address = folder.join("engine.sock").to_string_lossy().into_owned();
    let shared_before = std::fs::read_dir("/dev/shm").map(Iterator::count).unwrap_or(0);
    let mut engine = Member::start(&["engine", &address]);
    let worker = Worker::builder("survivor").address(&address).connect().unwrap();
    for _ in 0..3 {
        engine.kill_and_wait();
        drop(engine.rest());
        engine = Member::start(&["engine", &address]);
        let fresh = Worker::builder("fresh").address(&address).connect().unwrap();
        fresh.register(Function::raw("fresh::here", |_, _| Ok(Message::empty()))).unwrap();
        worker.wait_for("fresh::here", PATIENCE).unwrap();
        worker.handle("fresh::here").call(&Message::empty()).unwrap();
        drop(fresh);
        assert!(worker.wait_until(PATIENCE, |catalog| !has(catalog, "fresh::here")));
    }
    engine.ask("stop", "stopped");
    drop(worker);
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new(), "an engine that was told to stop leaves no file");
    let shared_after = std::fs::read_dir("/dev/shm").map(Iterator::count).unwrap_or(0);
    assert_eq!(shared_after, shared_before, "no names in /dev/shm");
    std::fs::remove_dir_all(&folder).unwrap();
}
