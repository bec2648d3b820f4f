//! Steps outlive `kill -9`: of the worker in the middle of the second of three, and of the engine meanwhile. The first is not
//! run again, and what an attempt returns that is over counts for nothing.

use std::time::Duration;

use ringway::{Enqueue, MessageStatus, Worker};
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// The processes, and the folder that outlives them.
struct Scene {
    address: String,
    folder: tempfile::TempDir,
    client: Worker,
    engine: Member,
}

impl Scene {
    fn new() -> Self {
        let (address, folder) = (local::address(), tempfile::tempdir().unwrap());
        let engine = start_engine(&address, &folder);
        let client = Worker::builder("sender").address(&address).connect().unwrap();
        client.wait_for("queue::enqueue", PATIENCE).unwrap();
        Self { address, folder, client, engine }
    }

    fn stepper(&self, first: &str) -> Member {
        Member::start(&["stepper", &self.address, &self.path("journal"), first])
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn journal(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("journal")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn start_engine(address: &str, folder: &tempfile::TempDir) -> Member {
    Member::start(&["durable", address, &folder.path().join("store").to_string_lossy(), ""])
}

const EXPECTED: [&str; 4] = ["one", "two", "two", "three after first result, second result"];

#[test]
fn a_worker_that_is_killed_in_a_step_goes_on_with_that_step() {
    let scene = Scene::new();
    let stepper = scene.stepper("die");
    let receipt = scene.client.enqueue("steps::run", &Value::Null, &Enqueue::to("steps")).unwrap();
    stepper.rest();
    assert_eq!(scene.journal(), EXPECTED[..2], "it died in the second step");
    let _again = scene.stepper("die");
    let ended = receipt.wait(PATIENCE).unwrap();
    assert_eq!((ended.status, ended.attempts), (MessageStatus::Done, 2));
    assert_eq!(scene.journal(), EXPECTED);
}

#[test]
fn an_engine_that_is_killed_during_a_step_gives_the_message_to_an_attempt_that_goes_on() {
    let mut scene = Scene::new();
    let stepper = scene.stepper("linger");
    let receipt = scene.client.enqueue("steps::run", &Value::Null, &Enqueue::to("steps")).unwrap();
    stepper.hear("inside");
    scene.engine.kill_and_wait();
    scene.engine = start_engine(&scene.address, &scene.folder);
    let ended = receipt.wait(PATIENCE).unwrap();
    assert_eq!(ended.status, MessageStatus::Done);
    assert_eq!(scene.journal(), EXPECTED);
}
