//! The callee dies: the caller's calls end, and each is said to have run only if it may have.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ringway::{CallError, CallOptions, Encoding, ErrorCode, Function, Message, Pending, Started};
use ringway_ipc::clock::now_ns;
use ringway_tests::dice::Dice;
use ringway_tests::effort;
use ringway_tests::load::{self, Ended};
use ringway_tests::member::Member;
use ringway_tests::service::{BLOB_BYTES, DEATHS};

use super::{CALL_TIMEOUT, Scene, Tally, last_words};

/// Calls in flight around the one that kills, in three shapes, started before and after it.
const AROUND: u64 = 6;

type InFlight = Vec<(u64, &'static str, u64, Result<Pending, CallError>)>;

fn start_some(scene: &Scene, first: u64, pending: &mut InFlight) {
    for call in first..first + AROUND {
        let shape = ["inline", "pooled", "slow"][usize::try_from(call % 3).unwrap()];
        let handle = scene.survivor.handle(&format!("doomed::{shape}"));
        let begun = now_ns();
        let started = handle.start(&Message::bytes(&call.to_le_bytes()), &CallOptions::new());
        pending.push((call, shape, begun, started));
    }
}

/// The call that kills, by a thread of its own: it blocks.
fn pull_the_trigger(scene: &Scene, point: &str) -> Result<(), CallError> {
    let handle = scene.survivor.handle(&format!("doomed::die-{point}"));
    match point {
        "view" | "reply" => load::blob(&scene.survivor, &format!("doomed::die-{point}"), 1),
        "nested" => {
            let body = [&1u64.to_le_bytes()[..], b"survivor::back"].concat();
            handle.call(&Message::bytes(&body)).map(drop)
        }
        "stream-out" | "stream-in" => {
            let mut call = handle.stream(&Message::bytes(&[0; 8]), &CallOptions::new())?;
            for item in 0..64u64 {
                call.send(Message::bytes(&item.to_le_bytes()))?;
            }
            while call.recv()?.is_some() {}
            call.finish();
            call.end().map(drop)
        }
        _ => handle.call(&Message::bytes(&[0; 8])).map(drop),
    }
}

fn die_at(scene: &Scene, point: &'static str, tally: &mut Tally) {
    let member = scene.callee();
    let mut ended = Vec::new();
    for (number, shape) in load::SHAPES.iter().enumerate() {
        load::call(&scene.survivor, "doomed", shape, 1000 + number as u64 * 16, &mut ended);
    }
    let mut pending = Vec::new();
    start_some(scene, 2000, &mut pending);
    let trigger = std::thread::scope(|scope| {
        let trigger = scope.spawn(|| (now_ns(), pull_the_trigger(scene, point), now_ns()));
        if point == "queue" {
            std::thread::sleep(Duration::from_millis(10));
        }
        start_some(scene, 3000, &mut pending);
        for (call, shape, begun_ns, started) in pending {
            let outcome = started.and_then(Pending::wait).map(drop);
            ended.push(Ended { call, shape, begun_ns, ended_ns: now_ns(), outcome });
        }
        trigger.join().unwrap()
    });
    let (death, mut ran) = last_words(member);
    let death = death.expect("it killed itself");
    // The call that kills is not told by its handler; it ran, or there would be no death.
    ran.insert(1);
    let (begun_ns, outcome, ended_ns) = trigger;
    assert!(outcome.is_err() || point == "reply", "{point}: the call that kills was answered");
    ended.push(Ended { call: 1, shape: "stream", begun_ns, ended_ns, outcome });
    tally.judge(death, &ran, &ended);
}

#[test]
fn killed_at_named_points() {
    let scene = Scene::new();
    scene.survivor.register(Function::raw("survivor::back", |_, _| Ok(Message::empty()))).unwrap();
    for point in DEATHS {
        die_at(&scene, point, &mut Tally::default());
    }
    let base = scene.base();
    let rounds = effort::rounds(44).div_ceil(DEATHS.len() as u64);
    for point in DEATHS {
        let mut tally = Tally::default();
        for _ in 0..rounds {
            die_at(&scene, point, &mut tally);
        }
        tally.tell(point);
    }
    scene.nothing_leaked(&base);
}

#[test]
fn killed_at_random() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (scene, mut dice, mut tally) = (Scene::new(), Dice::new(seed), Tally::default());
    let round = |dice: &mut Dice, tally: &mut Tally| {
        let mut member = scene.callee();
        let stop = AtomicBool::new(false);
        let first = 1_000_000 + dice.below(1 << 40);
        let (death, ended) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3u64)
                .map(|thread| {
                    let (scene, stop) = (&scene, &stop);
                    let first = first + (thread << 48);
                    scope.spawn(move || load::until_gone(&scene.survivor, "doomed", first, stop))
                })
                .collect();
            std::thread::sleep(dice.time(Duration::from_millis(60)));
            let death = member.kill();
            (death, threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
        });
        let (_, ran) = last_words(member);
        tally.judge(death, &ran, &ended);
    };
    (0..3).for_each(|_| round(&mut dice, &mut Tally::default()));
    let base = scene.base();
    (0..effort::rounds(60)).for_each(|_| round(&mut dice, &mut tally));
    tally.tell("callee killed at random");
    scene.nothing_leaked(&base);
}

/// Calls that are waited for later, or by a task, go to another replica as well where they were certainly not started: here
/// they lie in the ring of one whose reading thread is held up until it dies.
#[test]
fn what_was_published_and_not_started_goes_to_the_other_replica() {
    const CALLS: u64 = 200;
    let scene = Scene::new();
    for round in 0..effort::rounds(6) {
        let members = [scene.callee(), scene.callee()];
        let handle = scene.survivor.handle("doomed::inline");
        let both = |_: &ringway::protocol::control::Catalog| handle.replicas() == members.len();
        assert!(scene.survivor.wait_until(super::PATIENCE, both));
        handle.bind().unwrap();
        let killer = scene.survivor.handle("doomed::die-queue");
        let death = killer.start(&Message::bytes(&[0; 8]), &CallOptions::new()).unwrap();
        // Taken by now, so that it is not tried elsewhere itself.
        std::thread::sleep(Duration::from_millis(5));
        let body = |number: u64| match number % 3 {
            // In the slot, in a block of its own, and in one that the caller wrote.
            0 => Message::bytes(&number.to_le_bytes()),
            1 => Message::bytes(&[&number.to_le_bytes()[..], &[7; 1000]].concat()),
            _ => {
                let mut loan = scene.survivor.loan(5000).unwrap();
                loan[..8].copy_from_slice(&number.to_le_bytes());
                Message::from_loan(Encoding::Bytes, loan)
            }
        };
        let begun: Vec<_> = (0..CALLS)
            .map(|number| (number, handle.start(&body(number), &CallOptions::new()).unwrap()))
            .collect();
        for (number, pending) in begun {
            let outcome =
                if number % 2 == 0 { pending.wait() } else { futures_lite::future::block_on(pending) };
            let reply = outcome.unwrap_or_else(|error| panic!("round {round}, call {number}: {error}"));
            assert_eq!(reply.body(), number.to_le_bytes());
        }
        let error = death.wait().unwrap_err();
        assert_eq!((error.code, error.started), (ErrorCode::WorkerGone, Some(Started::Maybe)), "{error}");
        drop(members);
        scene.wait_until_alone();
    }
}

/// With a second replica, a call that was not started goes there by itself, and one that says it is idempotent always does.
#[test]
fn idempotent_calls_go_to_the_other_replica() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (scene, mut dice) = (Scene::new(), Dice::new(seed));
    let steady = Member::start(&["callee", &scene.address, "doomed"]);
    let (mut calls, mut gone) = (0u64, 0u64);
    for _ in 0..effort::rounds(30) {
        let mut doomed = Member::start(&["callee", &scene.address, "doomed"]);
        let two = |catalog: &ringway::protocol::control::Catalog| {
            catalog.functions.iter().filter(|function| function.id.as_str() == "doomed::pooled").count() == 2
        };
        assert!(scene.survivor.wait_until(CALL_TIMEOUT, two));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (scene, over) = (&scene, &over);
                scope.spawn(move || {
                    let mut number: u64 = thread << 48;
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        number += 1;
                        let shape = ["inline", "pooled", "slow"][usize::try_from(number % 3).unwrap()];
                        let options = CallOptions::new().idempotent();
                        let handle = scene.survivor.handle(&format!("doomed::{shape}"));
                        let reply = handle.call_with(&Message::bytes(&number.to_le_bytes()), &options);
                        assert_eq!(reply.expect("another replica lives").body(), number.to_le_bytes());
                    }
                });
            }
            std::thread::sleep(dice.time(Duration::from_millis(40)));
            doomed.kill();
            std::thread::sleep(Duration::from_millis(20));
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        calls += 1;
        gone += u64::from(!last_words(doomed).1.is_empty());
    }
    println!("{calls} replicas killed, {gone} of them in the middle of work; every call was answered");
    drop(steady);
}

/// A payload that the dead process lent is gone with it, and one that it held comes back; what was read stays readable
/// while it is held.
#[test]
fn a_view_outlives_its_owner() {
    let scene = Scene::new();
    let member = scene.callee();
    let mut loan = scene.survivor.loan(BLOB_BYTES).unwrap();
    loan.fill(7);
    let request = Message::from_loan(Encoding::Bytes, loan);
    let reply = scene.survivor.handle("doomed::blob").call(&request).unwrap();
    drop(member);
    scene.wait_until_alone();
    assert!(
        reply.body().iter().all(|byte| *byte == 7),
        "a mapping of a dead process's memory stays as it was"
    );
    assert!(request.body().iter().all(|byte| *byte == 7));
    drop((reply, request));
    assert_eq!(scene.live_bytes(), 0);
}
