//! A peer that scribbles on everything it may write, between any two steps of its victim: of a channel, and of a whole
//! worker that others call meanwhile. The victim is the code that ships. Run in full with `cargo hostile 10000000`, under
//! `AddressSanitizer`; every failure prints the seed that repeats it.

mod attacker;
mod choices;
mod end;

mod aim;
mod siege;
mod worker;

use ringway_ipc::channel::Role;
use ringway_tests::effort;

use choices::Choices;
use end::Tally;

#[test]
fn a_channel_survives_a_lying_peer() {
    let (steps, seed) = (effort::rounds(300_000), effort::seed());
    println!("seed {seed}");
    let mut tally = Tally::default();
    let mut choices = Choices::Seeded(seed);
    while tally.steps < steps {
        let role = if choices.once_in(2) { Role::Caller } else { Role::Callee };
        let lie_once_in = choices.pick(&[8, 32, 128, 1024]).unwrap_or(8);
        tally.opened += 1;
        let Ok((mut victim, mut attacker)) = end::open(role, lie_once_in, &mut choices) else {
            tally.refused += 1;
            continue;
        };
        let reason = loop {
            attacker.act(&mut choices);
            if let Some(reason) = victim.step(&mut choices, &mut tally) {
                break reason;
            }
        };
        victim.over(reason, &mut tally);
    }
    println!("{tally:#?}");
    assert!(tally.refused > 0 && tally.frames > 0 && tally.payloads > 0);
    if steps >= 100_000 {
        assert!(tally.closed.len() >= 5, "not every kind of lie was found out");
    }
}

/// The same with the attacker on a thread of its own: what it writes lands in the middle of a step.
#[test]
fn a_channel_survives_a_peer_that_never_stops() {
    let (steps, seed) = (effort::rounds(300_000) / 8, effort::seed());
    println!("seed {seed}");
    let mut tally = Tally::default();
    let mut choices = Choices::Seeded(seed);
    while tally.steps < steps {
        let lie_once_in = choices.pick(&[32, 128, 1024]).unwrap_or(32);
        tally.opened += 1;
        let Ok((mut victim, mut attacker)) = end::open(Role::Callee, lie_once_in, &mut choices) else {
            tally.refused += 1;
            continue;
        };
        attacker.concurrent = true;
        let over = std::sync::atomic::AtomicBool::new(false);
        let mut theirs = Choices::Seeded(choices.word());
        let reason = std::thread::scope(|scope| {
            let over = &over;
            scope.spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    attacker.act(&mut theirs);
                }
            });
            let reason = loop {
                if let Some(reason) = victim.step(&mut choices, &mut tally) {
                    break reason;
                }
            };
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            reason
        });
        victim.over(reason, &mut tally);
    }
    println!("{tally:#?}");
}

/// Steps of a lying worker for each of the channel tests' steps: every one of them costs its victim a call.
const STEPS_PER_CALL: u64 = 8;

#[test]
fn a_worker_survives_a_lying_worker() {
    let (steps, seed) = (effort::rounds(300_000) / STEPS_PER_CALL, effort::seed());
    println!("seed {seed}");
    siege::Siege::here().stand(steps, seed);
}

#[test]
fn a_workers_process_survives_a_lying_worker() {
    let (steps, seed) = (effort::rounds(300_000) / STEPS_PER_CALL, effort::seed());
    println!("seed {seed}");
    siege::Siege::elsewhere().stand(steps, seed);
}

/// A correct caller has 4,096 calls in flight at most. What a caller piles up beyond that is refused, and others notice
/// nothing; of streams, which hold a thread each, one caller may have half.
#[test]
fn a_caller_cannot_pile_up_calls() {
    let siege = siege::Siege::here();
    siege.pile_up("never", 6000, 4096);
    siege.pile_up("stream", 1100, 1024);
}
