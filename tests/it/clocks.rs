//! The clock of an engine's process is set by an hour, forward and back, while it runs: cron fires nothing twice, and goes
//! on. The clock is `libfaketime`'s, which reads from a file how far it is off; the monotonic one is left alone, as the
//! kernel does. It must not know how the worker keeps count.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{Function, Worker};
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::{Value, json};

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

const HOUR: i64 = 3600;

/// Slots that were fired, in seconds since 1970, in the order in which they came.
#[derive(Debug, Default)]
struct Ticks {
    slots: Mutex<Vec<i64>>,
    came: Condvar,
}

impl Ticks {
    fn add(&self, event: &Value) {
        let slot = event["scheduled_time"].as_str().unwrap().parse::<Time>().unwrap();
        self.slots.lock().unwrap().push(slot.0);
        self.came.notify_all();
    }

    /// Waits until some of those that came after the first `from` are within bounds; gives all that came.
    fn wait(&self, from: usize, count: usize, within: std::ops::Range<i64>) -> Vec<i64> {
        let until = Instant::now() + PATIENCE;
        let mut slots = self.slots.lock().unwrap();
        while slots[from..].iter().filter(|slot| within.contains(slot)).count() < count {
            let left = until.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("wanted {count} in {within:?}, found {slots:?}"));
            slots = self.came.wait_timeout(slots, left).unwrap().0;
        }
        slots.clone()
    }
}

/// Seconds since 1970, from a text such as `2026-01-01T00:00:00Z`.
struct Time(i64);

impl std::str::FromStr for Time {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |from: usize, to: usize| text[from..to].parse::<i64>();
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        // Days of a calendar whose year begins in March, so that leap days come last.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days =
            365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        Ok(Self(days * 86_400 + number(11, 13)? * HOUR + number(14, 16)? * 60 + number(17, 19)?))
    }
}

fn library() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib").expect("a folder of libraries").filter_map(Result::ok);
    let mut places = found.map(|place| place.path().join("faketime/libfaketime.so.1"));
    places.find(|path| path.exists()).expect("libfaketime is there (Debian: apt-get install libfaketime)")
}

/// Sets the clock: how many seconds it is off from now on.
fn set(file: &Path, seconds: i64) {
    // In one piece, since the file is read at any time.
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn a_clock_that_is_set_by_an_hour_fires_nothing_twice_and_goes_on() {
    let (address, folder) = (local::address(), tempfile::tempdir().unwrap());
    let offset = folder.path().join("offset");
    set(&offset, 0);
    let store = folder.path().join("store");
    let (library, offset_text) = (library(), offset.to_string_lossy().into_owned());
    let engine = Member::spawn(
        &["durable", &address, &store.to_string_lossy(), ""],
        &[
            ("LD_PRELOAD", &library.to_string_lossy()),
            ("FAKETIME_TIMESTAMP_FILE", &offset_text),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    engine.hear("ready");
    let worker = Worker::builder("clocks").address(&address).connect().unwrap();
    let ticks = Arc::new(Ticks::default());
    let own = Arc::clone(&ticks);
    let tick = Function::json("clocks::tick", move |_, event: Value| {
        own.add(&event);
        Ok(Value::Null)
    });
    worker.register(tick).unwrap();
    worker.wait_for("cron::list", PATIENCE).unwrap();
    let mut trigger = TriggerSpec::new("clocks", "cron", FunctionId::new("clocks::tick").unwrap());
    trigger.config = json!({ "expression": "* * * * * *" });
    worker.register_trigger(trigger).unwrap();

    // Half an hour to either side is near; that no machine stops for so long is assumed.
    let near = |off: i64| now() + off - HOUR / 2..now() + off + HOUR / 2;
    let mut slots = ticks.wait(0, 2, near(0));
    // To and fro: each hour is entered twice, and three seconds of it that had passed pass once more.
    for off in [HOUR, -3, HOUR - 3, 0, -HOUR, 0, -HOUR - 3, -3] {
        // Between two slots, when nothing else wakes the worker.
        std::thread::sleep(Duration::from_millis(400));
        set(&offset, off);
        slots = ticks.wait(slots.len(), 2, near(off));
    }
    let distinct: BTreeSet<i64> = slots.iter().copied().collect();
    assert_eq!(distinct.len(), slots.len(), "fired twice: {slots:?}");
    let job = worker.trigger_json("cron::list", &json!({})).unwrap()["jobs"][0].clone();
    assert_eq!((&job["problem"], &job["last_error"]), (&Value::Null, &Value::Null), "{job}");
}
