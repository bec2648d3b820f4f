//! The processes of the test, their store, and the journal that outlives them. Also used by the test of power cuts, whose
//! store lies on a disk of its own. It must not know what is sent, nor why a process is killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringway::Worker;
use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::{Value, json};

use super::judge::Journal;
use super::load::{self, Sent};

/// How long what is left may take once nobody is killed any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// An engine with its built-in workers that is killed and started, one worker that does jobs, likewise, and a client that
/// lives on.
pub(crate) struct Scene {
    address: String,
    folder: tempfile::TempDir,
    engine: Member,
    laborer: Member,
    client: Worker,
}

/// Starts the engine on a folder, which must not have been damaged by whatever ended the engine before.
fn engine(address: &str, store: &Path, settings: &str) -> Member {
    let engine = Member::spawn(&["durable", address, &store.to_string_lossy(), settings], &[]);
    assert_eq!(engine.hear("damage"), "[]", "found when the store was opened");
    engine.hear("ready");
    engine
}

/// Asks until somebody answers: whoever was killed may not be back yet.
pub(crate) fn answered(client: &Worker, id: &str, request: &Value) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.trigger_json(id, request) {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < until, "wanted an answer of `{id}`, found: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Scene {
    /// With the store in a folder, or in one that goes with this, and settings as `ringway.yaml` has them.
    pub(crate) fn new(store: Option<&Path>, settings: &str) -> Self {
        let (address, folder) = (local::address(), tempfile::tempdir().expect("a folder"));
        let own = folder.path().join("store");
        let engine = engine(&address, store.unwrap_or(&own), settings);
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

    /// The worker that sends and asks.
    pub(crate) fn client(&self) -> Worker {
        self.client.clone()
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Kills the engine and starts it on its own store.
    pub(crate) fn kill_and_start_engine(&mut self) {
        self.kill_engine();
        self.start_engine(&self.folder.path().join("store"), "");
    }

    pub(crate) fn kill_engine(&mut self) {
        self.engine.kill_and_wait();
    }

    /// Starts an engine that was killed.
    pub(crate) fn start_engine(&mut self, store: &Path, settings: &str) {
        self.engine = engine(&self.address, store, settings);
    }

    pub(crate) fn kill_laborer(&mut self) {
        self.laborer.kill_and_wait();
    }

    /// Starts the worker, once it was killed; there must be an engine.
    pub(crate) fn start_laborer(&mut self) {
        let journal = self.journal();
        self.laborer = Member::start(&["laborer", &self.address, &journal.to_string_lossy()]);
    }

    /// Waits until all that was acknowledged is done, and judges.
    pub(crate) fn judge(&self, sent: &Sent) -> Journal {
        let until = Instant::now() + PATIENCE;
        loop {
            let journal = Journal::read(&self.journal());
            let missing = journal.missing(sent);
            if missing.is_empty() || Instant::now() >= until {
                assert!(missing.is_empty(), "acknowledged, and never done: {missing:?}");
                journal.assert_right(sent);
                sent.assert_values(&self.client);
                let verified = answered(&self.client, "store::verify", &json!({}));
                assert_eq!(verified["damage"], json!([]), "found by looking at the whole store");
                return journal;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
