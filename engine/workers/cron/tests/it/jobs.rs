//! What a job does while its engine runs, and the functions that show and steer it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_worker_cron::{Clock, Cron};
use serde_json::{Value, json};

use crate::stage::{START, Stage, slot};

#[test]
fn a_function_is_called_at_its_time_with_iiis_payload() {
    let stage = Stage::new();
    stage.bind("each-minute", json!({"expression": "* * * * *"})).unwrap();
    stage.set(59);
    assert_eq!(stage.settled("each-minute")["next"], slot(60));
    stage.set(61);
    assert_eq!(stage.diary.slots(1), [slot(60)]);
    let expected = json!({
        "trigger": "cron", "job_id": "each-minute", "scheduled_time": slot(60), "actual_time": slot(61),
    });
    assert_eq!(stage.diary.payloads(), [expected]);
    let job = stage.settled("each-minute");
    assert_eq!((&job["last"], &job["next"], &job["fired"]), (&json!(slot(60)), &json!(slot(120)), &json!(1)));
}

#[test]
fn a_slot_is_written_down_before_its_function_is_called() {
    let stage = Stage::new();
    stage.bind("written", json!({"expression": "* * * * *"})).unwrap();
    stage.diary.hold(true);
    stage.set(60);
    stage.diary.slots(1);
    let record = stage.store.as_ref().unwrap().get("cron", b"written").unwrap().unwrap();
    stage.diary.hold(false);
    assert_eq!(record.bytes[0], 1);
    let record: Value = serde_json::from_slice(&record.bytes[1..]).unwrap();
    let second = START / 1000 + 60;
    assert_eq!((&record["last"], &record["started"]), (&json!(second), &json!([second])));
    assert_eq!(record["decided"].as_array().unwrap().last().unwrap()[1], second);
}

#[test]
fn a_slot_is_skipped_while_the_function_runs_or_waits_for_it() {
    let stage = Stage::new();
    stage.bind("skips", json!({"expression": "* * * * *"})).unwrap();
    stage.diary.hold(true);
    stage.set(60);
    stage.diary.slots(1);
    stage.set(120);
    stage.until(|job| job["skipped"] == 1, "a skipped slot");
    stage.diary.hold(false);
    stage.settled("skips");
    stage.set(180);
    assert_eq!(stage.diary.slots(2), [slot(60), slot(180)]);

    let stage = Stage::new();
    stage.bind("queues", json!({"expression": "* * * * *", "overlap": "queue"})).unwrap();
    stage.diary.hold(true);
    stage.set(60);
    stage.diary.slots(1);
    stage.set(120);
    stage.until(|job| job["waiting"] == 1, "a waiting slot");
    stage.diary.hold(false);
    assert_eq!(stage.diary.slots(2), [slot(60), slot(120)]);
}

#[test]
fn a_clock_that_is_set_by_an_hour_fires_nothing_twice() {
    let stage = Stage::new();
    stage.bind("steps", json!({"expression": "* * * * *"})).unwrap();
    stage.set(60);
    stage.diary.slots(1);
    stage.settled("steps");
    stage.set(3660);
    stage.diary.slots(2);
    let job = stage.settled("steps");
    assert_eq!((&job["missed"], &job["next"]), (&json!(59), &json!(slot(3720))));
    // Back: what was passed over comes at its time, what has fired does not.
    stage.set(60);
    stage.until(|job| job["next"] == slot(120), "the passed-over slot");
    stage.set(120);
    stage.diary.slots(3);
    stage.settled("steps");
    stage.set(3659);
    stage.settled("steps");
    stage.set(3661);
    stage.until(|job| job["next"] == slot(3720), "the slot after");
    stage.set(3720);
    assert_eq!(stage.diary.slots(4), [slot(60), slot(3660), slot(120), slot(3720)]);
}

#[test]
fn a_job_is_paused_resumed_and_run_by_hand() {
    let mut stage = Stage::new();
    stage.bind("steered", json!({"expression": "* * * * *", "condition": "job_id == 'steered'"})).unwrap();
    let paused = stage.call("cron::pause", &json!({"id": "steered"})).unwrap();
    assert_eq!(paused, json!({"id": "steered", "paused": true}));
    stage.set(120);
    let job = stage.settled("steered");
    assert_eq!((&job["paused"], &job["next"], &job["fired"]), (&json!(true), &Value::Null, &json!(0)));
    let ran = stage.call("cron::run_now", &json!({"id": "steered"})).unwrap();
    assert_eq!(ran, json!({"id": "steered", "called": true, "result": null}));
    assert_eq!(stage.diary.slots(1), [slot(120)]);
    stage.restart();
    assert_eq!(stage.job("steered")["paused"], true);
    stage.worker.wait_for("cron::resume", std::time::Duration::from_secs(30)).unwrap();
    stage.call("cron::resume", &json!({"id": "steered"})).unwrap();
    assert_eq!(stage.job("steered")["next"], slot(180));
    stage.set(180);
    assert_eq!(stage.diary.slots(2), [slot(120), slot(180)]);
    let unknown = stage.call("cron::pause", &json!({"id": "nobody"})).unwrap_err();
    assert!(unknown.message.contains("`nobody`"), "{unknown}");
}

#[test]
fn a_wrong_trigger_is_refused_with_the_place_of_the_mistake() {
    let stage = Stage::new();
    let refused = stage.bind("wrong", json!({"expression": "0 9 * * MON-FUN"})).unwrap_err();
    assert!(refused.message.contains("at column 9") && refused.message.contains("MON-FUN"), "{refused}");
    let refused = stage.bind("wrong", json!({"expression": "@daily", "timezone": "Nowhere"})).unwrap_err();
    assert!(refused.message.contains("`Nowhere`"), "{refused}");
    assert_eq!(stage.call("cron::list", &json!({})).unwrap(), json!({"jobs": []}));
}

#[test]
fn a_condition_is_asked_and_a_failure_is_shown() {
    let stage = Stage::new();
    stage.bind("never", json!({"expression": "* * * * *", "condition": "job_id == 'another'"})).unwrap();
    stage.set(60);
    stage.until(|job| job["fired"] == 1 && job["running"] == 0, "a slot");
    let ran = stage.call("cron::run_now", &json!({"id": "never"})).unwrap();
    assert_eq!((ran["called"].as_bool(), stage.diary.payloads().len()), (Some(false), 0));
    stage.bind("fails", json!({"expression": "* * * * *"})).unwrap();
    stage.diary.fails.store(true, Ordering::Relaxed);
    stage.set(120);
    let job = stage.until(
        |job| job["id"] == "fails" && job["last_error"] != Value::Null && job["running"] == 0,
        "a failure",
    );
    assert!(job["last_error"].as_str().unwrap().contains("as wished"), "{job}");
    stage.diary.fails.store(false, Ordering::Relaxed);
    stage.set(180);
    stage.diary.slots(2);
    assert_eq!(stage.settled("fails")["last_error"], Value::Null);
}

#[test]
fn a_preview_crosses_the_night_in_which_clocks_are_changed() {
    let stage = Stage::new();
    let request = json!({
        "expression": "30 2 * * *", "timezone": "Europe/Berlin", "count": 2, "from": "2026-03-28T12:00:00Z",
    });
    let expected = json!({
        "times": ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        "local": ["2026-03-29T03:00:00+02:00[Europe/Berlin]", "2026-03-30T02:30:00+02:00[Europe/Berlin]"],
    });
    assert_eq!(stage.call("cron::preview", &request).unwrap(), expected);
    let refused = stage.call("cron::preview", &json!({"expression": "@daily", "count": 101})).unwrap_err();
    assert!(refused.message.contains("at most 100"), "{refused}");
    let refused = stage.call("cron::preview", &json!({"expression": "@daily", "from": "soon"})).unwrap_err();
    assert!(refused.message.contains("`soon`"), "{refused}");
}

#[test]
fn the_machines_clock_wakes_it() {
    let mut stage = Stage::new();
    stage.cron = None;
    let store = Arc::clone(stage.store.as_ref().unwrap());
    let clock = Clock::machine().unwrap();
    stage.cron = Some(Cron::start_with(&stage.address, store, stage.config.clone(), clock).unwrap());
    stage.bind("each-second", json!({"expression": "* * * * * *"})).unwrap();
    let slots = stage.diary.slots(2);
    assert_ne!(slots[0], slots[1]);
    for payload in stage.diary.payloads() {
        let at = |name: &str| payload[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(at("actual_time") >= at("scheduled_time"), "{payload}");
    }
}

#[test]
fn a_run_by_hand_that_nobody_waits_for_shows_in_the_list() {
    let stage = Stage::new();
    stage.bind("long", json!({"expression": "@yearly"})).unwrap();
    stage.diary.hold(true);
    let request = json!({"id": "long", "wait": false});
    let started = stage.call("cron::run_now", &request).unwrap();
    assert_eq!(started, json!({"id": "long", "called": null, "result": null}));
    stage.diary.slots(1);
    assert_eq!(stage.job("long")["running"], 1);
    stage.diary.fails.store(true, Ordering::Relaxed);
    stage.diary.hold(false);
    let job = stage.until(|job| job["running"] == 0 && job["last_error"] != Value::Null, "its end");
    assert!(job["last_error"].as_str().unwrap().contains("as wished"), "{job}");
    let unknown = stage.call("cron::run_now", &json!({"id": "nobody", "wait": false})).unwrap_err();
    assert!(unknown.message.contains("`nobody`"), "{unknown}");
}
