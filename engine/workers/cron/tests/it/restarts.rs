//! What a job remembers: nothing fires twice, and what was missed is made up for as its trigger says.

use serde_json::{Value, json};

use crate::stage::{Stage, slot};

#[test]
fn a_slot_that_has_fired_does_not_fire_again_after_a_restart() {
    let mut stage = Stage::new();
    stage.bind("once", json!({"expression": "* * * * *"})).unwrap();
    stage.set(60);
    stage.diary.slots(1);
    stage.settled("once");
    stage.restart();
    let job = stage.settled("once");
    assert_eq!((&job["last"], &job["next"]), (&json!(slot(60)), &json!(slot(120))));
    // Also where the clock was put back meanwhile.
    stage.stop();
    stage.set(30);
    stage.start();
    assert_eq!(stage.settled("once")["next"], slot(120));
    stage.set(120);
    assert_eq!(stage.diary.slots(2), [slot(60), slot(120)]);
}

#[test]
fn what_was_missed_while_it_was_down_is_made_up_for_as_wished() {
    let mut stage = Stage::new();
    for (id, catch_up) in [("a-none", "none"), ("b-last", "last"), ("c-all", "all")] {
        stage.bind(id, json!({"expression": "*/5 * * * *", "catch_up": catch_up})).unwrap();
    }
    stage.stop();
    stage.set(1230);
    stage.start();
    let made_up = stage.diary.slots(5);
    for (id, fired, missed) in [("a-none", 0, 4), ("b-last", 1, 3), ("c-all", 4, 0)] {
        let job = stage.settled(id);
        assert_eq!((&job["fired"], &job["missed"]), (&json!(fired), &json!(missed)), "{id}");
    }
    assert_eq!(stage.diary.payloads().len(), 5);
    let of = |id: &str| -> Vec<String> {
        let payloads = stage.diary.payloads();
        payloads
            .iter()
            .zip(&made_up)
            .filter(|(payload, _)| payload["job_id"] == id)
            .map(|(_, slot)| slot.clone())
            .collect()
    };
    assert_eq!(of("b-last"), [slot(1200)]);
    assert_eq!(of("c-all"), [slot(300), slot(600), slot(900), slot(1200)]);
}

#[test]
fn an_interrupted_slot_is_repeated_only_if_that_was_asked_for() {
    for (choice, again) in [("skip", 0), ("repeat", 1)] {
        let mut stage = Stage::new();
        stage.bind("broken-off", json!({"expression": "* * * * *", "if_interrupted": choice})).unwrap();
        stage.diary.hold(true);
        stage.set(60);
        stage.diary.slots(1);
        stage.restart();
        stage.diary.hold(false);
        let job = stage.settled("broken-off");
        assert_eq!(job["interrupted"], json!(1 - again), "{choice}");
        stage.set(120);
        let expected: Vec<String> =
            [60].into_iter().chain((0..again).map(|_| 60)).chain([120]).map(slot).collect();
        assert_eq!(stage.diary.slots(expected.len()), expected, "{choice}");
    }
}

#[test]
fn another_schedule_begins_when_it_is_bound() {
    let mut stage = Stage::new();
    stage.bind("changes", json!({"expression": "* * * * *", "catch_up": "all"})).unwrap();
    stage.set(60);
    stage.diary.slots(1);
    stage.settled("changes");
    stage.unbind("changes");
    stage.stop();
    stage.set(630);
    stage.start();
    stage.worker.wait_for("cron::list", std::time::Duration::from_secs(30)).unwrap();
    stage.bind("changes", json!({"expression": "*/2 * * * *", "catch_up": "all"})).unwrap();
    let job = stage.settled("changes");
    assert_eq!((&job["fired"], &job["next"]), (&json!(0), &json!(slot(720))));
}

#[test]
fn a_record_that_cannot_be_read_is_reported_and_set_aside() {
    let mut stage = Stage::new();
    let damaged = ringway_store::Batch::new().put("cron", b"odd", b"\x07?".to_vec());
    stage.store.as_ref().unwrap().commit(damaged, ringway_store::Durability::Durable).unwrap();
    stage.bind("odd", json!({"expression": "* * * * *"})).unwrap();
    let job = stage.job("odd");
    assert!(job["problem"].as_str().unwrap().contains("format 7"), "{job}");
    stage.stop();
    stage.start();
    let job = stage.job("odd");
    assert_eq!(job["problem"], Value::Null);
    let aside = stage.store.as_ref().unwrap().scan(&ringway_store::Scan::table("cron.aside")).unwrap();
    assert_eq!((aside.len(), &*aside[0].value.bytes), (1, &b"\x07?"[..]));
}

#[test]
fn a_job_that_nobody_binds_is_forgotten_after_a_time() {
    let mut stage = Stage::new();
    stage.bind("old", json!({"expression": "@daily"})).unwrap();
    stage.unbind("old");
    stage.set(91 * 86_400);
    stage.bind("new", json!({"expression": "@daily"})).unwrap();
    let keys = |stage: &Stage| -> Vec<Vec<u8>> {
        let found = stage.store.as_ref().unwrap().scan(&ringway_store::Scan::table("cron")).unwrap();
        found.into_iter().map(|entry| entry.key).collect()
    };
    // An empty commit comes after everything that was submitted before.
    let empty = ringway_store::Batch::new();
    stage.store.as_ref().unwrap().commit(empty, ringway_store::Durability::Ephemeral).unwrap();
    assert_eq!(keys(&stage).len(), 2);
    stage.restart();
    assert_eq!(keys(&stage), [b"new".to_vec()]);
}

#[test]
fn what_a_person_said_is_not_forgotten() {
    let mut stage = Stage::new();
    stage.bind("old", json!({"expression": "@daily"})).unwrap();
    stage.call("cron::pause", &json!({"id": "old"})).unwrap();
    stage.unbind("old");
    stage.set(91 * 86_400);
    stage.bind("new", json!({"expression": "@daily"})).unwrap();
    stage.restart();
    stage.worker.wait_for("cron::list", std::time::Duration::from_secs(30)).unwrap();
    stage.bind("old", json!({"expression": "@daily"})).unwrap();
    assert_eq!(stage.job("old")["paused"], true);
}

#[test]
fn a_job_that_is_rarely_due_is_remembered_while_it_is_bound() {
    let mut stage = Stage::new();
    stage.bind("rare", json!({"expression": "@yearly", "catch_up": "last"})).unwrap();
    stage.set(91 * 86_400);
    stage.bind("new", json!({"expression": "@daily"})).unwrap();
    stage.settled("rare");
    stage.stop();
    stage.set(370 * 86_400 + 3600);
    stage.start();
    assert_eq!(stage.diary.slots(1), [slot(365 * 86_400)]);
    assert_eq!(stage.settled("rare")["missed"], 0);
}

#[test]
fn what_came_while_a_trigger_was_paused_is_not_made_up_for() {
    let config = |paused: bool| json!({"expression": "* * * * *", "catch_up": "all", "paused": paused});
    for restart in [false, true] {
        let mut stage = Stage::new();
        stage.bind("sleeper", config(true)).unwrap();
        assert_eq!(stage.job("sleeper")["next"], Value::Null);
        if restart {
            stage.unbind("sleeper");
            stage.stop();
            stage.set(330);
            stage.start();
            stage.worker.wait_for("cron::list", std::time::Duration::from_secs(30)).unwrap();
        } else {
            stage.set(330);
        }
        stage.bind("sleeper", config(false)).unwrap();
        let job = stage.until(|job| job["paused"] == false && job["running"] == 0, "a job that is awake");
        assert_eq!((&job["fired"], &job["missed"], &job["next"]), (&json!(0), &json!(0), &json!(slot(360))));
        // What a person said is stronger than any registration.
        stage.call("cron::pause", &json!({"id": "sleeper"})).unwrap();
        stage.bind("sleeper", json!({"expression": "* * * * *", "paused": false, "jitter_ms": 1})).unwrap();
        stage.set(700);
        assert_eq!(stage.settled("sleeper")["paused"], true, "restart: {restart}");
        assert_eq!(stage.diary.payloads(), Vec::<Value>::new());
    }
}

#[test]
fn an_interrupted_slot_is_not_repeated_after_a_pause() {
    let mut stage = Stage::new();
    stage.bind("cut", json!({"expression": "* * * * *", "if_interrupted": "repeat"})).unwrap();
    stage.diary.hold(true);
    stage.set(60);
    stage.diary.slots(1);
    stage.call("cron::pause", &json!({"id": "cut"})).unwrap();
    stage.restart();
    stage.diary.hold(false);
    stage.worker.wait_for("cron::resume", std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(stage.job("cut")["interrupted"], 1);
    stage.set(600);
    stage.call("cron::resume", &json!({"id": "cut"})).unwrap();
    stage.set(660);
    stage.until(|job| job["last"] == slot(660) && job["running"] == 0, "the slot after");
    assert_eq!(stage.diary.slots(2), [slot(60), slot(660)]);
}

#[test]
fn a_slot_that_was_left_is_not_repeated_later() {
    let mut stage = Stage::new();
    stage.bind("left", json!({"expression": "* * * * *"})).unwrap();
    stage.diary.hold(true);
    stage.set(60);
    stage.diary.slots(1);
    stage.restart();
    stage.diary.hold(false);
    assert_eq!(stage.settled("left")["interrupted"], 1);
    stage.unbind("left");
    stage.bind("left", json!({"expression": "* * * * *", "if_interrupted": "repeat"})).unwrap();
    stage.set(120);
    stage.until(|job| job["last"] == slot(120) && job["running"] == 0, "the slot after");
    assert_eq!(stage.diary.slots(2), [slot(60), slot(120)]);
}
