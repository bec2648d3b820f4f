//! Sends of a process that ends at once: what it had published before it left or died is acted on, at most once.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use parking_lot::Mutex;
use ringway::{Function, Message, Worker};
use ringway_tests::local::engine_at;
use ringway_tests::member::Member;

const SENDS: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A worker that takes a while over each send, so that the sender's ring is full when it ends.
fn slow_listener(address: &str) -> (Worker, Receiver<u64>) {
    let (sender, heard) = channel();
    let sender = Mutex::new(sender);
    let worker = Worker::builder("listener").address(address).connect().unwrap();
    let note = Function::raw("late::note", move |_, request| {
        let number = u64::from_le_bytes(*request.body().first_chunk().expect("a number"));
        let rest = &request.body()[8..];
        assert!(
            rest.iter().all(|byte| u64::from(*byte) == number % 251),
            "send {number} is not what was sent"
        );
        std::thread::sleep(Duration::from_micros(200));
        sender.lock().send(number).expect("the test listens");
        Ok(Message::empty())
    });
    worker.register(note.inline()).unwrap();
    (worker, heard)
}

fn check(end: &str) {
    let engine = engine_at();
    let (_listener, heard) = slow_listener(engine.address());
    let member = Member::spawn(&["sender", engine.address(), "late::note", &SENDS.to_string(), end], &[]);
    member.hear("sent");
    let mut numbers = Vec::new();
    while numbers.len() < usize::try_from(SENDS).unwrap() {
        match heard.recv_timeout(PATIENCE) {
            Ok(number) => numbers.push(number),
            Err(error) => panic!("{end}: {} of {SENDS} sends came: {error}", numbers.len()),
        }
    }
    // An inline function of one caller runs in the order in which it was sent to, to the last.
    assert_eq!(numbers, (0..SENDS).collect::<Vec<_>>(), "{end}");
    assert!(heard.recv_timeout(Duration::from_millis(100)).is_err(), "{end}: none comes twice");
}

#[test]
fn of_a_worker_that_leaves() {
    check("leave");
}

#[test]
fn of_a_process_that_exits() {
    check("exit");
}

#[test]
fn of_a_process_that_is_killed() {
    check("die");
}
