//! Much at a time: threads, workers, bytes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway::{CallOptions, Encoding, Function, Message};
use ringway_access::Grant;
use ringway_link::driver::Path;
use serde_json::json;

use crate::stage::{PATHS, Stage, Until, until, wait_for};

#[test]
fn sixty_four_threads_call_through_one_link() {
    for stage in Stage::all(&Grant::everything()) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        let echo = |id: &str| Function::raw(id, |_, request| Ok(Message::bytes(request.body())));
        remote.register(echo("far::echo")).unwrap();
        local.register(echo("near::echo")).unwrap();
        wait_for(&local, "far::echo");
        wait_for(&remote, "near::echo");
        std::thread::scope(|scope| {
            for thread in 0..64u32 {
                let (caller, id) =
                    if thread % 2 == 0 { (&local, "far::echo") } else { (&remote, "near::echo") };
                scope.spawn(move || {
                    let handle = caller.handle(id);
                    for round in 0..60u32 {
                        // Of each thread's calls one in ten goes as a transfer.
                        let len = if round % 10 == 9 { 40_000 } else { 64 };
                        let value = u8::try_from((thread * 60 + round) % 251).unwrap();
                        let body = vec![value; len];
                        let told = handle.call(&Message::from_vec(Encoding::Bytes, body.clone())).unwrap();
                        assert!(told.body() == body, "thread {thread}, call {round}");
                    }
                });
            }
        });
    }
}

#[test]
fn small_calls_go_on_while_a_gibibyte_does() {
    for path in PATHS {
        let stage = Stage::open(path, Grant::everything());
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        remote
            .register_all(vec![
                Function::raw("far::sum", |_, request| {
                    let body = request.body();
                    let ones = vec![1; 1 << 20];
                    let good = body.chunks(ones.len()).filter(|part| *part == ones).count();
                    Message::json(&(body.len(), good))
                })
                .pooled(),
                Function::json("far::next", |_, number: u64| Ok(number + 1)),
            ])
            .unwrap();
        local.register(Function::json("near::next", |_, number: u64| Ok(number + 1))).unwrap();
        wait_for(&local, "far::sum");
        wait_for(&remote, "near::next");
        let over = AtomicBool::new(false);
        let calls = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let _until = Until(&over);
            for (caller, id) in [(&local, "far::next"), (&local, "far::next"), (&remote, "near::next")] {
                let (over, calls) = (&over, &calls);
                scope.spawn(move || {
                    let mut number = 0u64;
                    while !over.load(Ordering::Acquire) {
                        assert_eq!(caller.trigger_json(id, &json!(number)).unwrap(), json!(number + 1));
                        number += 1;
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let mut loan = local.loan(1 << 30).unwrap();
            loan.fill(1);
            let before = calls.load(Ordering::Relaxed);
            let options = CallOptions::new().timeout(Duration::from_secs(600));
            let request = Message::from_loan(Encoding::Bytes, loan);
            let told = local.handle("far::sum").call_with(&request, &options).unwrap();
            let told: (u64, u64) = serde_json::from_slice(told.body()).unwrap();
            assert_eq!(told, (1 << 30, 1 << 10), "{path:?}");
            assert!(calls.load(Ordering::Relaxed) > before, "{path:?}: none went meanwhile");
        });
    }
}

#[test]
fn two_hundred_remote_workers_at_once() {
    // All of them in one process hear of each other: what takes long is that, and it grows with the square of their number.
    for (path, count) in [(Path::Epoll, 50), (Path::Uring, 200)] {
        let stage = Stage::open(path, Grant::everything());
        let local = stage.local("local");
        local.register(Function::json("near::next", |_, number: u64| Ok(number + 1))).unwrap();
        let workers: Vec<_> = (0..count)
            .map(|number| {
                let name = format!("remote-{number}");
                let builder = ringway::Worker::builder(&name).address(stage.address());
                let builder = builder.credentials(stage.credentials(&name)).threads(1);
                let worker = builder.connect().unwrap();
                let id = format!("far::at_{number}");
                worker.register(Function::json(&id, move |_, add: u64| Ok(number + add))).unwrap();
                worker
            })
            .collect();
        assert_eq!(stage.links.status().len(), workers.len());
        for (number, worker) in workers.iter().enumerate() {
            let id = format!("far::at_{number}");
            wait_for(&local, &id);
            assert_eq!(local.trigger_json(&id, &json!(1000)).unwrap(), json!(1000 + number), "{path:?}");
            wait_for(worker, "near::next");
            assert_eq!(worker.trigger_json("near::next", &json!(number)).unwrap(), json!(number + 1));
        }
        // From one remote worker to another, by way of the engine's host.
        for (at, worker) in workers.iter().enumerate().step_by(20) {
            let id = format!("far::at_{}", (at + 7) % workers.len());
            wait_for(worker, &id);
            assert_eq!(worker.trigger_json(&id, &json!(0)).unwrap(), json!((at + 7) % workers.len()));
        }
        drop(workers);
        until("all links are gone", || stage.links.status().is_empty());
        until("all workers are gone", || {
            local.catalog().workers.iter().all(|worker| !worker.name.starts_with("remote-"))
        });
    }
}
