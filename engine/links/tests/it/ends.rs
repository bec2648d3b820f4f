//! Replicas that come and go, processes that are killed, and what is left of all that afterwards: nothing.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringway::{CallOptions, Credentials, Encoding, ErrorCode, Function, Message, Worker};
use ringway_access::Grant;
use ringway_link::driver::Path;
use serde_json::{Value, json};

use crate::stage::{PATHS, PATIENCE, Stage, until, wait_for};

fn who(worker: &Worker, text: &'static str) {
    worker.register(Function::json("who::am_i", move |_, _: Value| Ok(text))).unwrap();
}

#[test]
fn a_remote_replica_serves_when_the_local_one_is_gone() {
    for stage in Stage::all(&Grant::everything()) {
        let (near, far) = (stage.local("near"), stage.remote("far"));
        who(&near, "near");
        who(&far, "far");
        for caller in [stage.local("caller"), stage.remote("other")] {
            until("both are known", || caller.handle("who::am_i").replicas() == 2);
            for _ in 0..50 {
                let told = caller.trigger_json("who::am_i", &json!(0)).unwrap();
                assert!(told == json!("near") || told == json!("far"));
            }
        }
        let caller = stage.local("caller");
        drop(near);
        until("the far one serves", || {
            caller.trigger_json("who::am_i", &json!(0)).is_ok_and(|told| told == json!("far"))
        });
    }
}

/// The process of the tests below: a remote worker that serves until it is killed.
#[test]
fn the_victim() {
    let Ok(address) = std::env::var("RINGWAY_LINKS_VICTIM") else { return };
    let credentials = Credentials::default();
    let worker = Worker::builder("victim").address(&address).credentials(credentials).connect().unwrap();
    let wait = |id: &str| {
        Function::raw(id, |_, _| {
            std::thread::sleep(Duration::from_secs(600));
            Ok(Message::empty())
        })
    };
    worker
        .register_all(vec![
            wait("victim::wait").pooled(),
            Function::raw("victim::echo", |_, request| Ok(Message::bytes(request.body()))),
            Function::stream("victim::flood", |_, _, _, output| {
                loop {
                    output.send(Message::from_vec(Encoding::Bytes, vec![1; 100_000]))?;
                }
            }),
        ])
        .unwrap();
    // And it calls, so that calls from it are cut too.
    loop {
        drop(worker.handle("local::echo").call(&Message::from_vec(Encoding::Bytes, vec![1; 500_000])));
    }
}

/// A process that is killed when a test is over.
struct Victim(Child);

impl Victim {
    fn start(stage: &Stage) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ends::the_victim", "--nocapture"])
            .env("RINGWAY_LINKS_VICTIM", stage.address())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

#[test]
fn calls_to_a_process_that_is_killed_end() {
    for path in PATHS {
        let stage = Stage::open(path, Grant::everything());
        let local = stage.local("local");
        local
            .register(Function::raw("local::echo", |_, request| Ok(Message::bytes(request.body()))))
            .unwrap();
        for round in 0..5 {
            let mut victim = Victim::start(&stage);
            wait_for(&local, "victim::flood");
            let options = CallOptions::new().timeout(PATIENCE * 10);
            let large = Message::from_vec(Encoding::Bytes, vec![7; 20_000_000]);
            let (wait, echo) = (local.handle("victim::wait"), local.handle("victim::echo"));
            // It is there, and the way to it is open.
            assert_eq!(echo.call(&Message::bytes(b"x")).unwrap().body(), b"x");
            let pending: Vec<_> = (0..20).map(|_| wait.start(&Message::empty(), &options).unwrap()).collect();
            let flood = local.handle("victim::flood").stream(&Message::empty(), &options).unwrap();
            assert!(flood.recv().unwrap().is_some());
            let transfers: Vec<_> = (0..4).map(|_| echo.start(&large, &options).unwrap()).collect();
            std::thread::sleep(Duration::from_millis(round * 3));
            victim.kill();
            for call in pending {
                assert_eq!(call.wait().unwrap_err().code, ErrorCode::WorkerGone, "{path:?}");
            }
            for call in transfers {
                if let Err(error) = call.wait() {
                    assert_eq!(error.code, ErrorCode::WorkerGone, "{path:?}: {error}");
                }
            }
            let end = std::iter::from_fn(|| flood.recv().transpose()).find_map(Result::err);
            assert_eq!(end.map(|error| error.code), Some(ErrorCode::WorkerGone), "{path:?}");
            until("the catalog has shrunk", || {
                let catalog = local.catalog();
                catalog.workers.iter().all(|worker| worker.name != "victim")
                    && catalog.functions.iter().all(|function| !function.id.as_str().starts_with("victim::"))
            });
            until("its link is gone", || stage.links.status().is_empty());
        }
    }
}

/// What this process has open, by kind.
fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let kind = target.to_string_lossy();
        let kind = kind.split(['[', ' ']).next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

#[test]
fn nothing_is_left_of_those_who_came_and_went() {
    for stage in Stage::all(&Grant::everything()) {
        let local = stage.local("local");
        local
            .register(Function::raw("local::echo", |_, request| Ok(Message::bytes(request.body()))))
            .unwrap();
        // The driver of this process's remote workers lives as long as one of them does.
        let stays = stage.remote("stays");
        let visit = |round: usize| {
            let guest = stage.remote("guest");
            guest
                .register(Function::raw("guest::echo", |_, request| Ok(Message::bytes(request.body()))))
                .unwrap();
            wait_for(&local, "guest::echo");
            let body = vec![3; if round.is_multiple_of(2) { 100 } else { 200_000 }];
            for (caller, function) in [(&local, "guest::echo"), (&guest, "local::echo")] {
                let told = caller.handle(function).call(&Message::bytes(&body)).unwrap();
                assert_eq!(told.body(), body);
            }
            drop(guest);
            until("the guest is gone", || {
                local.catalog().workers.iter().all(|worker| worker.name != "guest")
            });
        };
        (0..10).for_each(visit);
        until("links are gone", || stage.links.status().len() == 1);
        let before = descriptors();
        (0..100).for_each(visit);
        until("links are gone", || stage.links.status().len() == 1);
        let sum = |kinds: &BTreeMap<String, usize>| kinds.values().sum::<usize>();
        let mut after = descriptors();
        let mut tries = 0;
        while sum(&after) > sum(&before) + 4 && tries < 1000 {
            std::thread::sleep(Duration::from_millis(10));
            (after, tries) = (descriptors(), tries + 1);
        }
        assert!(sum(&after) <= sum(&before) + 4, "before {before:?}, after 100 visits {after:?}");
        assert!(stays.is_attached());
    }
}

/// A remote worker that goes in peace takes nothing with it: what it was answered stays readable.
#[test]
fn replies_outlive_the_link_they_came_over() {
    let stage = Stage::open(Path::Uring, Grant::everything());
    let local = stage.local("local");
    let remote = stage.remote("remote");
    remote.register(Function::raw("far::echo", |_, request| Ok(Message::bytes(request.body())))).unwrap();
    wait_for(&local, "far::echo");
    let body = vec![9; 3_000_000];
    let reply = local.handle("far::echo").call(&Message::bytes(&body)).unwrap();
    drop(remote);
    until("the link is gone", || stage.links.status().is_empty());
    assert!(reply.body() == body);
}
