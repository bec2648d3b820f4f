//! Engines that are linked to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringway::{ErrorCode, Function, Message, Worker};
use ringway_access::{Doorkeeper, Grant, LinkAddress};
use ringway_engine::{Engine, Otlp};
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, PeerSettings, Settings};
use serde_json::json;

use crate::stage::{PATHS, until};

/// An engine and its links.
struct Host {
    links: Option<Links>,
    engine: Engine,
    path: Path,
}

impl Host {
    fn new(path: Path, dial: &[&Self]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-engines-{}-{number}", std::process::id());
        let engine = Engine::builder().address(address).otlp(Otlp::Off).start().unwrap();
        let mut host = Self { links: None, engine, path };
        host.link(dial, 0);
        host
    }

    fn link(&mut self, dial: &[&Self], port: u16) {
        let all = || vec!["*".to_owned()];
        let peers = dial.iter().map(|peer| PeerSettings {
            address: LinkAddress::from(peer.links.as_ref().unwrap().address().unwrap()),
            credentials: None,
            offer: all(),
            call: all(),
        });
        let settings = Settings {
            name: "host".to_owned(),
            listen: Some(([127, 0, 0, 1], port).into()),
            doorkeeper: Arc::new(Doorkeeper::default().with_open_loopback(Grant::everything())),
            driver: DriverConfig { path: self.path, ..DriverConfig::default() },
            peers: peers.collect(),
            offer: all(),
            ..Settings::default()
        };
        self.links = Some(Links::start(self.engine.address(), settings).unwrap());
    }

    fn worker(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.engine.address()).connect().unwrap()
    }
}

fn wait_for(worker: &Worker, function: &str) {
    worker.wait_for(function, Duration::from_secs(20)).unwrap();
}

#[test]
fn workers_of_linked_engines_call_each_other() {
    for path in PATHS {
        let first = Host::new(path, &[]);
        let second = Host::new(path, &[&first]);
        let (a, b) = (first.worker("a"), second.worker("b"));
        a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
        b.register(Function::json("b::triple", |_, number: u64| Ok(number * 3))).unwrap();
        b.register(Function::raw("b::echo", |_, request| Ok(Message::bytes(request.body())))).unwrap();
        wait_for(&a, "b::triple");
        wait_for(&b, "a::double");
        for number in 0..200u64 {
            assert_eq!(a.trigger_json("b::triple", &json!(number)).unwrap(), json!(number * 3), "{path:?}");
            assert_eq!(b.trigger_json("a::double", &json!(number)).unwrap(), json!(number * 2));
        }
        // Worker to worker through two engines, of which neither serves it.
        let caller = first.worker("caller");
        wait_for(&caller, "b::echo");
        let bytes = vec![7; 5_000_000];
        assert_eq!(caller.handle("b::echo").call(&Message::bytes(&bytes)).unwrap().body(), bytes);
        // The catalog is live in both directions.
        b.unregister("b::triple").unwrap();
        until("an unregistered function is gone everywhere", || {
            a.trigger_json("b::triple", &json!(1)).is_err_and(|error| error.code == ErrorCode::NotFound)
        });
        drop(b);
        until("a worker that left is gone everywhere", || {
            a.catalog().workers.iter().all(|worker| worker.name != "b")
        });
    }
}

#[test]
fn local_replicas_are_called_before_far_ones_and_far_ones_when_there_is_no_other() {
    for path in PATHS {
        let first = Host::new(path, &[]);
        let second = Host::new(path, &[&first]);
        let serve = |worker: &Worker, text: &'static str| {
            worker.register(Function::json("who::am_i", move |_, _: serde_json::Value| Ok(text))).unwrap();
        };
        let (near, far, caller) = (first.worker("near"), second.worker("far"), first.worker("caller"));
        serve(&far, "far");
        wait_for(&caller, "who::am_i");
        assert_eq!(caller.trigger_json("who::am_i", &json!(0)).unwrap(), json!("far"));
        serve(&near, "near");
        until("the near replica is known", || caller.handle("who::am_i").replicas() == 2);
        for _ in 0..50 {
            assert_eq!(caller.trigger_json("who::am_i", &json!(0)).unwrap(), json!("near"), "{path:?}");
        }
        drop(near);
        until("the far one serves again", || {
            caller.trigger_json("who::am_i", &json!(0)).is_ok_and(|answer| answer == json!("far"))
        });
    }
}

#[test]
fn three_engines_in_a_ring_see_everything_once() {
    for path in PATHS {
        let first = Host::new(path, &[]);
        let second = Host::new(path, &[&first]);
        let third = Host::new(path, &[&first, &second]);
        let hosts = [&first, &second, &third];
        let workers: Vec<Worker> = hosts.iter().map(|host| host.worker("worker")).collect();
        for (number, worker) in workers.iter().enumerate() {
            let id = format!("at::host_{number}");
            worker.register(Function::json(&id, move |_, _: serde_json::Value| Ok(number))).unwrap();
        }
        for worker in &workers {
            for number in 0..3 {
                let id = format!("at::host_{number}");
                wait_for(worker, &id);
                assert_eq!(worker.handle(&id).replicas(), 1, "{path:?}");
                assert_eq!(worker.trigger_json(&id, &json!(0)).unwrap(), json!(number));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
        for worker in &workers {
            let functions = worker.catalog().functions;
            let at = functions.iter().filter(|function| function.id.as_str().starts_with("at::")).count();
            assert_eq!(at, 3, "nothing goes round in circles: {path:?}");
        }
    }
}

#[test]
fn a_cut_link_heals_and_both_catalogs_are_whole_again() {
    for path in PATHS {
        let mut first = Host::new(path, &[]);
        let second = Host::new(path, &[&first]);
        let (a, b) = (first.worker("a"), second.worker("b"));
        a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
        b.register(Function::json("b::triple", |_, number: u64| Ok(number * 3))).unwrap();
        wait_for(&a, "b::triple");
        wait_for(&b, "a::double");
        let port = first.links.as_ref().unwrap().address().unwrap().port();
        for round in 0..5 {
            first.links = None;
            until("what was behind the link is gone", || {
                b.trigger_json("a::double", &json!(1)).is_err_and(|error| error.code == ErrorCode::NotFound)
            });
            first.link(&[], port);
            wait_for(&a, "b::triple");
            wait_for(&b, "a::double");
            assert_eq!(b.trigger_json("a::double", &json!(round)).unwrap(), json!(round * 2), "{path:?}");
            assert_eq!(a.trigger_json("b::triple", &json!(round)).unwrap(), json!(round * 3));
        }
    }
}
