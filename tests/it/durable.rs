//! What was acknowledged outlives `kill -9`: of the engine with its built-in workers, and of the worker that does the jobs,
//! in random order, under load. Every acknowledged job is done, in order within its group; every acknowledged value is
//! there; every change is told in order; no hour strikes twice. Run in full with `cargo durable 1000`.

mod judge;
mod load;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ringway::Worker;
use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway_tests::dice::Dice;
use ringway_tests::member::Member;
use ringway_tests::{effort, local};
use serde_json::json;

use judge::Journal;
use load::Sent;

/// How long what is left may take once nobody is killed any more.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest time between two deaths.
const LIFE_MAX: Duration = Duration::from_millis(150);

/// The processes, and the folder that outlives them.
struct Scene {
    address: String,
    folder: tempfile::TempDir,
    engine: Member,
    laborer: Member,
    client: Worker,
}

impl Scene {
    fn new() -> Self {
        let (address, folder) = (local::address(), tempfile::tempdir().expect("a folder"));
        let store = folder.path().join("store");
        let engine = Member::start(&["durable", &address, &store.to_string_lossy()]);
        let journal = folder.path().join("journal");
        let laborer = Member::start(&["laborer", &address, &journal.to_string_lossy()]);
        let client =
            Worker::builder("oracle").address(&address).default_timeout(Some(Duration::from_secs(10)));
        let client = client.connect().unwrap();
        for id in ["state::set", "queue::enqueue", "oracle::job", "oracle::tick", "oracle::change"] {
            client.wait_for(id, PATIENCE).unwrap();
        }
        let ordered = json!({ "queue": "ordered", "settings": { "type": "fifo", "backoff_ms": 20, "max_retries": 1000 } });
        client.trigger_json("queue::configure", &ordered).unwrap();
        let crowd = json!({ "queue": "crowd", "settings": { "backoff_ms": 20, "max_retries": 1000 } });
        client.trigger_json("queue::configure", &crowd).unwrap();
        for (id, trigger_type, function, config) in [
            ("oracle-tick", "cron", "oracle::tick", json!({ "expression": "* * * * * *" })),
            ("oracle-change", "state", "oracle::change", json!({ "scope": load::SCOPE })),
        ] {
            let mut trigger = TriggerSpec::new(id, trigger_type, FunctionId::new(function).unwrap());
            trigger.config = config;
            client.register_trigger(trigger).unwrap();
        }
        Self { address, folder, engine, laborer, client }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    fn kill_engine(&mut self) {
        self.engine.kill_and_wait();
        let store = self.folder.path().join("store");
        self.engine = Member::start(&["durable", &self.address, &store.to_string_lossy()]);
    }

    fn kill_laborer(&mut self) {
        self.laborer.kill_and_wait();
        let journal = self.journal();
        self.laborer = Member::start(&["laborer", &self.address, &journal.to_string_lossy()]);
    }

    /// Waits until all that was acknowledged is done, and judges.
    fn judge(&self, sent: &Sent) -> Journal {
        let until = Instant::now() + PATIENCE;
        loop {
            let journal = Journal::read(&self.journal());
            let missing = journal.missing(sent);
            if missing.is_empty() || Instant::now() >= until {
                assert!(missing.is_empty(), "acknowledged, and never done: {missing:?}");
                return journal;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_kills() {
    let seed = effort::seed();
    println!("seed {seed}");
    let (mut dice, rounds) = (Dice::new(seed), effort::rounds(12));
    let mut scene = Scene::new();
    let (stop, sent, client) = (AtomicBool::new(false), Sent::default(), scene.client.clone());
    let (mut engines, mut laborers) = (0, 0);
    std::thread::scope(|scope| {
        load::start(scope, &client, &sent, &stop, seed);
        for _ in 0..rounds {
            std::thread::sleep(dice.time(LIFE_MAX));
            if dice.below(5) < 3 {
                scene.kill_engine();
                engines += 1;
            } else {
                scene.kill_laborer();
                laborers += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let journal = scene.judge(&sent);
    println!("{engines} engines and {laborers} workers killed; {}\n{}", sent.told(), journal.told());
    journal.assert_right(&sent);
    sent.assert_values(&scene.client);
}
