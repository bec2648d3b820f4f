//! The engine dies: calls go on over the channels that are there, and everything is as before when the next one runs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway::protocol::control::Catalog;
use ringway::protocol::naming;
use ringway::{Function, Message, Worker};
use ringway_tests::dice::Dice;
use ringway_tests::effort;
use ringway_tests::local;
use ringway_tests::member::Member;
use ringway_tests::service;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

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
    // It is open channels that outlive the engine, which has to be there while they are opened.
    for (worker, id) in [(&scene.survivor, "steady::pooled"), (&scene.auditor, "survivor::inline")] {
        worker.handle(id).call(&Message::bytes(&0u64.to_le_bytes())).unwrap();
    }
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

/// This process's ends of connections to an abstract address.
fn connections_to(address: &str) -> Vec<(i32, OwnedFd)> {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    let copies = numbers.filter_map(|fd| Some((fd, pidfd_getfd(&own, fd, PidfdGetfdFlags::empty()).ok()?)));
    let there = |fd: &OwnedFd| {
        let peer = rustix::net::getpeername(fd).ok().flatten();
        let peer = peer.and_then(|peer| rustix::net::SocketAddrUnix::try_from(peer).ok());
        peer.is_some_and(|peer| peer.abstract_name() == address.strip_prefix('@').map(str::as_bytes))
    };
    copies.filter(|(_, fd)| there(fd)).collect()
}

/// Waits until so many calls were made in all.
fn wait_for_calls(made: &AtomicU64, wanted: u64) {
    let begun = Instant::now();
    while made.load(Ordering::Relaxed) < wanted {
        assert!(begun.elapsed() < PATIENCE, "no more calls than {}", made.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The engine is well and loses sight of a worker that is well too: its control connection breaks.
#[test]
fn a_broken_control_connection_loses_no_call() {
    let scene = Scene::new();
    let before: Vec<i32> = connections_to(&scene.address).into_iter().map(|(fd, _)| fd).collect();
    let callee = Worker::builder("callee").address(&scene.address).connect().unwrap();
    callee.register(Function::raw("cut::f", |_, request| Ok(Message::bytes(request.body())))).unwrap();
    let (_, connection) =
        connections_to(&scene.address).into_iter().find(|(fd, _)| !before.contains(fd)).expect("one more");
    scene.survivor.wait_for("cut::f", PATIENCE).unwrap();
    // One without a channel there tells how far the engine's news have come.
    let watcher = &scene.auditor;
    watcher.wait_for("cut::f", PATIENCE).unwrap();
    let revision = watcher.catalog().revision;
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| call_on(&scene.survivor, "cut::f", &stop, &made));
        wait_for_calls(&made, 10);
        rustix::net::shutdown(&connection, rustix::net::Shutdown::Both).unwrap();
        // It is lost, is back, and has its function again.
        let is_back = |catalog: &Catalog| catalog.revision >= revision + 3 && has(catalog, "cut::f");
        assert!(watcher.wait_until(PATIENCE, is_back), "{:?}", watcher.catalog().revision);
        wait_for_calls(&made, made.load(Ordering::Relaxed) + 10);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(registrations(&scene.survivor).get("cut::f"), Some(&1), "once");
    callee.shut_down();
    assert!(scene.survivor.wait_until(PATIENCE, |catalog| !has(catalog, "cut::f")));
}

/// A peer that dies while there is no engine is forgotten with its channel; one that lives is not.
#[test]
fn without_an_engine_the_channels_tell_who_is_there() {
    let mut scene = Scene::new();
    let mut members = ["steady", "doomed"].map(|name| Member::start(&["callee", &scene.address, name]));
    for id in ["steady::pooled", "doomed::pooled"] {
        scene.survivor.wait_for(id, PATIENCE).unwrap();
        scene.survivor.handle(id).call(&Message::bytes(&[1; 8])).unwrap();
    }
    let before = registrations(&scene.survivor);
    scene.engine.kill_and_wait();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(registrations(&scene.survivor), before, "nothing is forgotten with the engine");
    members[1].kill_and_wait();
    assert!(scene.survivor.wait_until(PATIENCE, |catalog| !has(catalog, "doomed::pooled")));
    assert!(has(&scene.survivor.catalog(), "steady::pooled"));
    scene.survivor.handle("steady::pooled").call(&Message::bytes(&[1; 8])).unwrap();
}
