//! Sends: what a process had published before it left or died is acted on, at most once; and more of them than a callee
//! takes at a time make their sender wait, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ringway::{CallOptions, Context, ErrorCode, Function, Message, Worker};
use ringway_engine::Engine;
use ringway_tests::census::Census;
use ringway_tests::local::engine_at;
use ringway_tests::member::Member;

const SENDS: u64 = 1000;
/// Three times what a callee would take of one caller if it took half of its queue.
const BURST: usize = 100_000;
/// What a callee takes of the sends of one caller before it leaves its ring alone, with a turn of the reader.
const SHARE: usize = 8192 + 64;
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

/// How often each send ran, and a gate that the handlers wait at.
struct Gated {
    ran: Vec<AtomicU8>,
    count: AtomicU64,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    /// A worker with one pooled function that waits at the gate, and an inline one that does not.
    fn serve(engine: &Engine, numbers: usize) -> (Arc<Self>, Worker) {
        let gated = Arc::new(Self {
            ran: (0..numbers).map(|_| AtomicU8::new(0)).collect(),
            count: AtomicU64::new(0),
            open: Mutex::new(false),
            opened: Condvar::new(),
        });
        let worker = Worker::builder("listener").address(engine.address()).threads(2).connect().unwrap();
        let place = Arc::clone(&gated);
        let note = Function::raw("gated::note", move |_, request| {
            place.pass(u64::from_le_bytes(*request.body().first_chunk().expect("a number")));
            Ok(Message::empty())
        });
        let quick = Function::raw("gated::quick", |_, request| Ok(Message::bytes(request.body())));
        worker.register_all(vec![note.pooled(), quick.inline()]).unwrap();
        (gated, worker)
    }

    fn pass(&self, number: u64) {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        drop(open);
        self.ran[usize::try_from(number).unwrap()].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    fn each_ran_once(&self) {
        let until = Instant::now() + PATIENCE;
        while self.count.load(Ordering::Relaxed) < self.ran.len() as u64 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        // One that ran twice would show a little later.
        std::thread::sleep(Duration::from_millis(50));
        let runs = |times: u8| self.ran.iter().filter(|ran| ran.load(Ordering::Relaxed) == times).count();
        assert_eq!(
            (runs(0), runs(1)),
            (0, self.ran.len()),
            "of the sends, so many never ran, and so many once"
        );
    }
}

fn sender(engine: &Engine, id: &str) -> Worker {
    let builder = Worker::builder("sender").address(engine.address());
    let worker = builder.default_timeout(Some(PATIENCE)).connect().unwrap();
    worker.wait_for(id, PATIENCE).unwrap();
    worker
}

#[test]
fn more_than_the_callee_takes_make_the_sender_wait() {
    let engine = engine_at();
    let (gated, _listener) = Gated::serve(&engine, BURST);
    let (flooding, other) = (sender(&engine, "gated::note"), sender(&engine, "gated::quick"));
    let published = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let handle = flooding.handle("gated::note");
            for number in 0..BURST as u64 {
                handle.send(&Message::bytes(&number.to_le_bytes()), &CallOptions::new()).unwrap();
                published.store(number + 1, Ordering::Relaxed);
            }
        });
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = published.load(Ordering::Relaxed);
            if now == before && now > 0 {
                break;
            }
            before = now;
        }
        assert!(before < BURST as u64, "nothing held the sender back");
        // Others are not held back, neither calls nor their own sends.
        let quick = other.handle("gated::quick");
        for number in 0..1000u64 {
            assert_eq!(
                quick.call(&Message::bytes(&number.to_le_bytes())).unwrap().body(),
                number.to_le_bytes()
            );
        }
        let options = CallOptions::new().timeout(Duration::from_millis(50));
        let refused = flooding.handle("gated::note").send(&Message::bytes(&[0; 8]), &options).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Busy, "who has no time is told: {refused}");
        gated.open();
    });
    gated.each_ran_once();
}

#[test]
fn of_a_sender_that_dies_while_it_is_held_back() {
    // The last of them lie in the ring when the sender dies.
    let sends = SHARE + 100;
    let engine = engine_at();
    let (gated, listener) = Gated::serve(&engine, sends);
    let words = ["sender", engine.address(), "gated::note", &sends.to_string(), "die"];
    drop(Member::spawn(&words, &[]).rest());
    let gone = |catalog: &ringway::protocol::control::Catalog| {
        !catalog.workers.iter().any(|worker| worker.name == "sender")
    };
    assert!(listener.wait_until(PATIENCE, gone), "the sender is still attached");
    gated.open();
    gated.each_ran_once();
}

/// Handlers call the sender back, whose only reading thread is the one that waits for room.
#[test]
fn a_sender_that_waits_for_room_still_serves() {
    const SENDS: u64 = 3 * SHARE as u64;
    let engine = engine_at();
    let listener = Worker::builder("listener").address(engine.address()).threads(2).connect().unwrap();
    let back = Function::raw("circle::work", |context: &Context, request| {
        Ok(context.worker().handle("circle::note").call(&Message::bytes(request.body()))?)
    });
    listener.register(back.pooled()).unwrap();
    let sender = sender(&engine, "circle::work");
    let noted = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&noted);
    let note = Function::raw("circle::note", move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Message::empty())
    });
    let burst = Function::raw("circle::burst", |context: &Context, _| {
        let handle = context.worker().handle("circle::work");
        for number in 0..SENDS {
            handle.send(&Message::bytes(&number.to_le_bytes()), &CallOptions::new())?;
        }
        Ok(Message::empty())
    });
    sender.register_all(vec![note.inline(), burst.inline()]).unwrap();
    listener.wait_for("circle::note", PATIENCE).unwrap();
    listener.wait_for("circle::burst", PATIENCE).unwrap();
    // Setting a channel up hands the role over; here the wait for room has to.
    sender.handle("circle::work").bind().unwrap();
    listener.handle("circle::burst").call(&Message::empty()).unwrap();
    let until = Instant::now() + PATIENCE;
    while noted.load(Ordering::Relaxed) < SENDS && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(noted.load(Ordering::Relaxed), SENDS);
}

/// A send outlives its sender; the sender's memory and descriptors do not wait for it. And a future that nothing is left
/// to wake is dropped, not kept for ever.
#[test]
fn what_a_send_began_does_not_hold_its_sender() {
    let engine = engine_at();
    let (gated, listener) = Gated::serve(&engine, 1);
    let (inside, was_dropped) = channel::<()>();
    let inside = Mutex::new(Some(inside));
    let never = Function::raw_async("gated::never", move |_, _| {
        let inside = inside.lock().take();
        async move {
            std::future::pending::<()>().await;
            drop(inside);
            Ok(Message::empty())
        }
    });
    listener.register(never).unwrap();
    let own = std::process::id();
    // Pools keep their threads a while; what counts is what a channel is made of.
    let count = || Census { threads: u64::MAX, ..Census::of(own).unwrap() };
    let base = count();
    let send = |id: &str| {
        let sender = sender(&engine, id);
        sender.handle(id).send(&Message::bytes(&0u64.to_le_bytes()), &CallOptions::new()).unwrap();
        drop(sender);
    };
    send("gated::note");
    send("gated::never");
    let dropped = was_dropped.recv_timeout(PATIENCE);
    assert_eq!(dropped, Err(RecvTimeoutError::Disconnected), "the future is kept");
    let now = Census::settle(own, &base, PATIENCE).unwrap();
    assert!(
        now.fits(&base),
        "{now:?} with a send that runs, {base:?} before: {:#?}",
        Census::descriptors(own)
    );
    assert_eq!(gated.count.load(Ordering::Relaxed), 0, "it has not run yet");
    gated.open();
    gated.each_ran_once();
}
