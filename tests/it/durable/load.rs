//! Jobs that are put in queues, values that are set, and what was acknowledged of them. It must not know who is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use parking_lot::Mutex;
use ringway::Worker;
use ringway_tests::dice::Dice;
use serde_json::{Value, json};

/// Where the values are.
pub(super) const SCOPE: &str = "oracle";
/// Threads that set a value each.
const WRITERS: u64 = 3;
/// Groups of the queue that keeps an order, each with a thread that fills it.
const GROUPS: u64 = 2;
/// Threads that fill the queue that keeps none.
const CROWD: u64 = 2;
/// Between two calls of a thread, so that the jobs are done about as fast as they come.
const PAUSE: Duration = Duration::from_millis(2);

/// Names a job: its group, and its number there.
pub(super) type Job = (String, u64);

/// What was sent, and what was acknowledged of it.
#[derive(Debug, Default)]
pub(super) struct Sent {
    jobs: Mutex<BTreeSet<Job>>,
    values: Mutex<BTreeMap<String, Bounds>>,
}

/// What a value must lie between: a set that was not acknowledged may have been made all the same.
#[derive(Debug, Default, Clone, Copy)]
struct Bounds {
    acknowledged: u64,
    tried: u64,
}

impl Sent {
    /// Jobs that were acknowledged.
    pub(super) fn jobs(&self) -> BTreeSet<Job> {
        self.jobs.lock().clone()
    }

    /// For each key, the last value that was acknowledged.
    pub(super) fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.values.lock().iter().map(|(key, bounds)| (key.clone(), bounds.acknowledged)).collect()
    }

    pub(super) fn told(&self) -> String {
        let values = self.acknowledged();
        format!("{} jobs acknowledged, values {values:?}", self.jobs.lock().len())
    }

    /// Reads every value and compares.
    pub(super) fn assert_values(&self, client: &Worker) {
        for (key, bounds) in self.values.lock().iter() {
            let found = client.trigger_json("state::get", &json!({ "scope": SCOPE, "key": key })).unwrap();
            let found = found.as_u64().unwrap_or_default();
            assert!(
                (bounds.acknowledged..=bounds.tried).contains(&found),
                "`{key}` is {found}, and must lie in {bounds:?}"
            );
        }
    }
}

/// Starts the threads; they end when `stop` is set.
pub(super) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    client: &'env Worker,
    sent: &'env Sent,
    stop: &'env AtomicBool,
    seed: u64,
) {
    for writer in 0..WRITERS {
        scope.spawn(move || until(stop, |number| set(client, sent, &format!("key-{writer}"), number)));
    }
    for thread in 0..GROUPS + CROWD {
        scope.spawn(move || {
            let mut dice = Dice::new(seed ^ thread);
            until(stop, |number| enqueue(client, sent, thread, number, &mut dice));
        });
    }
}

fn until(stop: &AtomicBool, mut step: impl FnMut(u64)) {
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        step(number);
        std::thread::sleep(PAUSE);
    }
}

fn set(client: &Worker, sent: &Sent, key: &str, number: u64) {
    sent.values.lock().entry(key.to_owned()).or_default().tried = number;
    let request = json!({ "scope": SCOPE, "key": key, "value": number });
    if client.trigger_json("state::set", &request).is_ok() {
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
    if client.trigger_json("queue::enqueue", &request).is_ok() {
        sent.jobs.lock().insert((group, number));
    }
}
