//! A worker that calls another's functions until it is killed, or kills itself at a named point. It must not know whom it
//! calls.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ringway::{CallOptions, Encoding, Function, Message, Worker};
use ringway_ipc::clock::now_ns;
use ringway_tests::dice::Dice;
use ringway_tests::load;
use ringway_tests::service::{BLOB_BYTES, die, tell};

use super::Played;

/// Attaches, warms up, says `ready`, and goes to its point. `connect` dies somewhere between start and `ready`.
pub(super) fn play(address: &str, target: &str, point: &str, orders: &Receiver<String>) -> Played {
    if point == "connect" {
        die_within(Duration::from_millis(12));
    }
    let worker = Worker::builder("caller").address(address).threads(4).connect()?;
    worker.wait_for(&format!("{target}::inline"), Duration::from_secs(60))?;
    let mut ended = Vec::new();
    for (number, shape) in load::SHAPES.iter().enumerate() {
        load::call(&worker, target, shape, number as u64 * 16, &mut ended);
    }
    if let Some(error) = ended.into_iter().find_map(|end| end.outcome.err()) {
        return Err(error.into());
    }
    tell("ready");
    match point {
        "between" => between(&worker, target),
        "loans" => loans(&worker, target),
        "view" => view(&worker, target),
        "stream" => stream(&worker, target),
        "register" => register(&worker),
        // Waits to be killed, with one call of each shape made.
        "rest" => return orders.iter().try_for_each(|_| Ok(())),
        _ => Ok(()),
    }?;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (worker, first) = (&worker, 1_000_000 * (thread + 1));
            scope.spawn(move || {
                for end in load::until_gone(worker, target, first, &AtomicBool::new(false)) {
                    if let Err(error) = end.outcome {
                        tell(&format!("failed {}: {error}", end.shape));
                    }
                }
            });
        }
    });
    while orders.recv().is_ok() {}
    Ok(())
}

/// Sends so often, odd numbers with more bytes than a slot holds, says `sent`, and ends at once: by leaving, by ending the
/// process, or by being killed.
#[expect(clippy::exit, reason = "ending without destructors is what is tested")]
pub(super) fn play_sender(address: &str, function: &str, sends: u64, end: &str) -> Played {
    let worker = Worker::builder("sender").address(address).connect()?;
    worker.wait_for(function, Duration::from_secs(60))?;
    let handle = worker.handle(function);
    for number in 0..sends {
        let mut body = vec![u8::try_from(number % 251)?; if number % 2 == 0 { 16 } else { 1000 }];
        body[..8].copy_from_slice(&number.to_le_bytes());
        handle.send(&Message::bytes(&body), &CallOptions::new())?;
    }
    tell("sent");
    match end {
        "leave" => drop((handle, worker)),
        "die" => die(),
        _ => {}
    }
    // No destructor of what is left runs here.
    std::process::exit(0)
}

fn die_within(limit: Duration) {
    let time = Dice::new(now_ns()).time(limit);
    std::thread::spawn(move || {
        std::thread::sleep(time);
        die()
    });
}

fn numbered() -> Message {
    Message::bytes(&7u64.to_le_bytes())
}

/// Dies with calls published and nobody waiting for them.
fn between(worker: &Worker, target: &str) -> Played {
    let handle = worker.handle(&format!("{target}::slow"));
    let pending: Result<Vec<_>, _> =
        (0..20).map(|_| handle.start(&numbered(), &CallOptions::new())).collect();
    let _held = pending?;
    die()
}

/// Dies with loans that nobody has seen, and one that the callee reads.
fn loans(worker: &Worker, target: &str) -> Played {
    let _unused = (worker.loan(BLOB_BYTES)?, worker.loan(BLOB_BYTES)?);
    let mut loan = worker.loan(BLOB_BYTES)?;
    loan.fill(1);
    let message = Message::from_loan(Encoding::Bytes, loan);
    let _pending = worker.handle(&format!("{target}::blob")).start(&message, &CallOptions::new())?;
    die()
}

/// Dies with a reply's payload in hand.
fn view(worker: &Worker, target: &str) -> Played {
    let mut loan = worker.loan(BLOB_BYTES)?;
    loan.fill(1);
    let _reply =
        worker.handle(&format!("{target}::blob")).call(&Message::from_loan(Encoding::Bytes, loan))?;
    die()
}

/// Dies while it streams in both directions.
fn stream(worker: &Worker, target: &str) -> Played {
    let call = worker.handle(&format!("{target}::stream")).stream(&numbered(), &CallOptions::new())?;
    for _ in 0..10 {
        call.send(numbered())?;
    }
    call.recv()?;
    die()
}

/// Dies while it registers.
fn register(worker: &Worker) -> Played {
    die_within(Duration::from_millis(5));
    for round in 0.. {
        let some = |index| Function::raw(&format!("late::r{round}-{index}"), |_, _| Ok(Message::empty()));
        worker.register_all((0..20).map(some).collect())?;
    }
    Ok(())
}
