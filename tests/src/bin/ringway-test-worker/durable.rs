//! An engine with its built-in workers on a folder, and a worker that does jobs and writes down each. It must not know what
//! is sent.

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use parking_lot::Mutex;
use ringway::{Failure, Function, Worker, WorkerId};
use ringway_config::{Settings, Variables};
use ringway_engine::Engine;
use ringway_tests::service::tell;
use ringway_workers::{Workers, sections};
use serde_json::Value;

use super::Played;

/// Runs an engine with every built-in worker until it is killed. Tells what was damaged in the store. The settings are as
/// `ringway.yaml` has them.
pub(super) fn play(address: &str, folder: &str, settings: &str, orders: &Receiver<String>) -> Played {
    let _engine = Engine::builder().address(address).start()?;
    let settings = Settings::parse("settings", settings, &sections(), &Variables::default())?;
    let workers = Workers::start(address, Path::new(folder), &settings)?;
    tell(&format!("damage {:?}", workers.report().damage));
    tell("ready");
    orders.iter().for_each(drop);
    Ok(())
}

/// A job of a group, by its number, and the queue that gave it out.
type Lease = (String, Option<u64>, WorkerId);

/// Takes a job from those that are under way when it is dropped.
struct Ended<'a>(&'a Mutex<HashSet<Lease>>, Lease);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Does jobs: writes `run` before and `end` after each, one line in one piece.
pub(super) fn play_laborer(address: &str, journal: &str, orders: &Receiver<String>) -> Played {
    let journal: Arc<File> = Arc::new(File::options().create(true).append(true).open(journal)?);
    let worker = Worker::builder("laborer").address(address).threads(8).connect()?;
    let write = move |line: String| drop((&*journal).write_all(format!("{line}\n").as_bytes()));
    let under_way: Mutex<HashSet<Lease>> = Mutex::default();
    let (job, change, tick) = (write.clone(), write.clone(), write);
    let job = Function::json("oracle::job", move |context, data: Value| {
        let (group, number) = (data["group"].as_str().unwrap_or("?"), &data["number"]);
        let meta = context.metadata().cloned().unwrap_or_default();
        let token = &meta["fencing_token"];
        job(format!("run {group} {number} {token}"));
        // The queue is another worker after each start of its engine; by one and the same nothing is given out twice at once.
        let lease = (group.to_owned(), number.as_u64(), context.caller());
        if !under_way.lock().insert(lease.clone()) {
            job(format!("double {group} {number}"));
        }
        let _ended = Ended(&under_way, lease);
        std::thread::sleep(Duration::from_micros(500));
        if data["fails"] == true && meta["attempt"].as_u64() < Some(3) {
            return Err(Failure::with_code("UNLUCKY", "as the test wants"));
        }
        job(format!("end {group} {number}"));
        Ok(Value::Null)
    });
    let change = Function::json("oracle::change", move |_, event: Value| {
        change(format!("change {} {}", event["key"].as_str().unwrap_or("?"), event["new_value"]));
        Ok(Value::Null)
    });
    let tick = Function::json("oracle::tick", move |_, event: Value| {
        tick(format!("tick {}", event["scheduled_time"].as_str().unwrap_or("?")));
        Ok(Value::Null)
    });
    worker.register_all(vec![job.pooled(), change.pooled(), tick.pooled()])?;
    tell("ready");
    orders.iter().for_each(drop);
    Ok::<(), Box<dyn Error>>(())
}
