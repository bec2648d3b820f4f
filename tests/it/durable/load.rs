//! Jobs that are put in queues, values that are set, and what was acknowledged of them. It must not know who is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use ringway::{CallOptions, Worker};
use ringway_tests::dice::Dice;
use serde_json::{Value, json};

use super::scene::answered;

/// Where the values are.
pub(crate) const SCOPE: &str = "oracle";
/// Threads that set a value each.
const WRITERS: u64 = 3;
/// Groups of the queue that keeps an order, each with a thread that fills it.
const GROUPS: u64 = 2;
/// Threads that fill the queue that keeps none.
const CROWD: u64 = 2;
/// Between two calls of a thread, so that the jobs are done about as fast as they come.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a call may take. One that meets a death may wait for the next engine; so would whoever holds the senders.
const CALL_MAX: Duration = Duration::from_millis(500);

/// Names a job: its group, and its number there.
pub(crate) type Job = (String, u64);

/// What was sent, and what was acknowledged of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    jobs: Mutex<BTreeSet<Job>>,
    values: Mutex<BTreeMap<String, Bounds>>,
    /// Read by whoever sends.
    held: RwLock<()>,
}

/// Lets the threads end when it is dropped, so that a test that fails does not wait for them without end.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a value must lie between: a set that was not acknowledged may have been made all the same.
#[derive(Debug, Default, Clone, Copy)]
struct Bounds {
    acknowledged: u64,
    tried: u64,
}

impl Sent {
    /// Waits for the calls that are under way; until this is dropped, nothing is sent.
    pub(crate) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.held.write()
    }

    /// Jobs that were acknowledged.
    pub(crate) fn jobs(&self) -> BTreeSet<Job> {
        self.jobs.lock().clone()
    }

    /// For each key, the last value that was acknowledged.
    pub(crate) fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.values.lock().iter().map(|(key, bounds)| (key.clone(), bounds.acknowledged)).collect()
    }

    pub(crate) fn told(&self) -> String {
        let values = self.acknowledged();
        format!("{} jobs acknowledged, values {values:?}", self.jobs.lock().len())
    }

    /// Reads every value and compares.
    pub(crate) fn assert_values(&self, client: &Worker) {
        for (key, bounds) in self.values.lock().iter() {
            let found = answered(client, "state::get", &json!({ "scope": SCOPE, "key": key }));
            let found = found.as_u64().unwrap_or_default();
            assert!(
                (bounds.acknowledged..=bounds.tried).contains(&found),
                "`{key}` is {found}, and must lie in {bounds:?}"
            );
        }
    }
}

/// Starts the threads; they end when `stop` is set.
pub(crate) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    client: &'env Worker,
    sent: &'env Sent,
    stop: &'env AtomicBool,
    seed: u64,
) {
    for writer in 0..WRITERS {
        scope.spawn(move || until(stop, sent, |number| set(client, sent, &format!("key-{writer}"), number)));
    }
    for thread in 0..GROUPS + CROWD {
        scope.spawn(move || {
            let mut dice = Dice::new(seed ^ thread);
            until(stop, sent, |number| enqueue(client, sent, thread, number, &mut dice));
        });
    }
}

fn until(stop: &AtomicBool, sent: &Sent, mut step: impl FnMut(u64)) {
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let sending = sent.held.read();
        step(number);
        drop(sending);
        std::thread::sleep(PAUSE);
    }
}

/// Whether it was acknowledged in time.
fn ask(client: &Worker, id: &str, request: &Value) -> bool {
    client.trigger_json_with(id, request, &CallOptions::new().timeout(CALL_MAX)).is_ok()
}

fn set(client: &Worker, sent: &Sent, key: &str, number: u64) {
    sent.values.lock().entry(key.to_owned()).or_default().tried = number;
    let request = json!({ "scope": SCOPE, "key": key, "value": number });
    if ask(client, "state::set", &request) {
        sent.values.lock().entry(key.to_owned()).or_default().acknowledged = number;
    }
}

fn enqueue(client: &Worker, sent: &Sent, thread: u64, number: u64, dice: &mut Dice) {
    let (queue, group) = if thread < GROUPS {
        ("ordered", format!("group-{thread}"))
    } else {
        ("crowd", format!("crowd-{thread}"))
    };
    let fails = dice.below(12) == 0;
    let data = json!({ "group": group, "number": number, "fails": fails });
    let mut request = json!({ "queue": queue, "function_id": "oracle::job", "data": data });
    if thread < GROUPS {
        request["group"] = Value::String(group.clone());
    }
    if ask(client, "queue::enqueue", &request) {
        sent.jobs.lock().insert((group, number));
    }
}
