//! A store that refuses or takes its time: slots wait until they can be written down, and what was refused has not happened.

use std::sync::mpsc;
use std::time::Duration;

use ringway_worker_cron::Config;
use serde_json::{Value, json};

use crate::doctored::{Doctor, Mode};
use crate::stage::{START, Stage, slot};

#[test]
fn a_slot_that_cannot_be_written_down_is_fired_when_it_can() {
    for mode in [Mode::Full, Mode::FullLate] {
        let (doctor, stage) = Doctor::stage();
        stage.bind("patient", json!({"expression": "* * * * *"})).unwrap();
        doctor.order(mode);
        stage.set(60);
        let job = stage.until(|job| job["problem"] != Value::Null && job["running"] == 0, "a complaint");
        assert!(job["problem"].as_str().unwrap().contains("the disk of /data is full"), "{job}");
        assert_eq!((&job["waiting"], stage.diary.payloads().len()), (&json!(1), 0));
        doctor.order(Mode::Well);
        stage.clock.set(START + 61_001);
        assert_eq!(stage.diary.slots(1), [slot(60)]);
        assert_eq!(stage.settled("patient")["problem"], Value::Null);
    }
}

#[test]
fn a_pause_or_resumption_that_was_refused_has_not_happened() {
    for mode in [Mode::Full, Mode::FullLate] {
        let (doctor, stage) = Doctor::stage();
        stage.bind("steady", json!({"expression": "* * * * *"})).unwrap();
        doctor.order(mode);
        let refused = stage.call("cron::pause", &json!({"id": "steady"})).unwrap_err();
        assert!(refused.message.contains("full"), "{refused}");
        assert_eq!(stage.job("steady")["paused"], false, "{mode:?}");
        doctor.order(Mode::Well);
        stage.set(60);
        assert_eq!(stage.diary.slots(1), [slot(60)]);
        stage.settled("steady");
        stage.call("cron::pause", &json!({"id": "steady"})).unwrap();
        doctor.order(mode);
        stage.call("cron::resume", &json!({"id": "steady"})).unwrap_err();
        assert_eq!(stage.job("steady")["paused"], true, "{mode:?}");
        stage.set(120);
        assert_eq!(stage.settled("steady")["fired"], 1);
        doctor.order(Mode::Well);
        stage.call("cron::resume", &json!({"id": "steady"})).unwrap();
        stage.set(180);
        assert_eq!(stage.diary.slots(2), [slot(60), slot(180)]);
    }
}

#[test]
fn a_slot_that_waits_for_the_store_outlives_a_refused_pause() {
    let (doctor, stage) = Doctor::stage();
    stage.bind("waits", json!({"expression": "* * * * *"})).unwrap();
    doctor.order(Mode::Full);
    stage.set(60);
    stage.until(|job| job["waiting"] == 1 && job["running"] == 0, "a waiting slot");
    stage.call("cron::pause", &json!({"id": "waits"})).unwrap_err();
    assert_eq!(stage.job("waits")["waiting"], 1);
    doctor.order(Mode::Well);
    stage.clock.set(START + 61_001);
    assert_eq!(stage.diary.slots(1), [slot(60)]);
}

#[test]
fn a_slot_that_waited_for_the_store_and_is_passed_over_keeps_no_other_back() {
    let (doctor, stage) = Doctor::stage();
    stage.bind("moved", json!({"expression": "* * * * *"})).unwrap();
    doctor.order(Mode::Full);
    stage.set(60);
    stage.until(|job| job["waiting"] == 1 && job["running"] == 0, "a waiting slot");
    // By another schedule the slot is none, so that nobody will ever claim it.
    stage.bind("moved", json!({"expression": "*/2 * * * *"})).unwrap();
    stage.until(|job| job["expression"] == "*/2 * * * *" && job["waiting"] == 0, "the new schedule");
    doctor.order(Mode::Well);
    stage.set(120);
    assert_eq!(stage.diary.slots(1), [slot(120)]);
}

#[test]
fn a_slot_that_was_refused_during_a_resumption_that_changes_nothing_is_fired() {
    let (doctor, stage) = Doctor::stage();
    let inner = stage.inner.clone().unwrap();
    stage.bind("awake", json!({"expression": "* * * * *"})).unwrap();
    doctor.order(Mode::Keep);
    stage.set(60);
    stage.until(|job| job["running"] == 1, "a claim under way");
    let worker = stage.worker.clone();
    let resuming = std::thread::spawn(move || worker.trigger_json("cron::resume", &json!({"id": "awake"})));
    while doctor.kept() < 2 {
        std::thread::yield_now();
    }
    doctor.refuse_first();
    stage.until(|job| job["problem"] != Value::Null && job["running"] == 0, "a refused claim");
    doctor.let_go(&inner);
    assert_eq!(resuming.join().unwrap().unwrap()["paused"], false);
    stage.clock.set(START + 61_001);
    assert_eq!(stage.diary.slots(1), [slot(60)]);
}

#[test]
fn nothing_is_decided_while_a_pause_is_on_its_way_to_the_disk() {
    let (doctor, stage) = Doctor::stage();
    let inner = stage.inner.clone().unwrap();
    stage.bind("held", json!({"expression": "* * * * *"})).unwrap();
    doctor.order(Mode::Keep);
    let worker = stage.worker.clone();
    let pausing = std::thread::spawn(move || worker.trigger_json("cron::pause", &json!({"id": "held"})));
    while doctor.kept() == 0 {
        std::thread::yield_now();
    }
    stage.set(60);
    assert_eq!(stage.job("held")["fired"], 0);
    let busy = stage.call("cron::resume", &json!({"id": "held"})).unwrap_err();
    assert_eq!(busy.code, ringway::ErrorCode::Busy, "{busy}");
    doctor.let_go(&inner);
    assert_eq!(pausing.join().unwrap().unwrap()["paused"], true);
    let job = stage.settled("held");
    assert_eq!((&job["paused"], &job["fired"]), (&json!(true), &json!(0)));
}

#[test]
fn what_still_waits_to_be_written_counts_when_a_trigger_is_bound_anew() {
    for mode in [Mode::Keep, Mode::Full] {
        let (doctor, stage) = Doctor::stage();
        let inner = stage.inner.clone().unwrap();
        let config = json!({"expression": "* * * * *", "if_interrupted": "repeat"});
        stage.bind("again", config.clone()).unwrap();
        stage.diary.hold(true);
        stage.set(60);
        stage.diary.slots(1);
        // The function ends, but that cannot be written yet.
        doctor.order(mode);
        stage.diary.hold(false);
        stage.settled("again");
        stage.unbind("again");
        stage.bind("again", config).unwrap();
        stage.job("again");
        doctor.let_go(&inner);
        stage.set(62);
        stage.settled("again");
        stage.set(120);
        stage.until(|job| job["last"] == slot(120) && job["running"] == 0, "the next slot");
        assert_eq!(stage.diary.slots(2), [slot(60), slot(120)], "{mode:?}");
    }
}

#[test]
fn a_slot_that_was_never_written_down_is_a_missed_one_after_a_restart() {
    for (catch_up, expected, missed) in
        [("all", vec![60, 120, 180, 240], 0), ("last", vec![60, 240], 2), ("none", vec![60], 3)]
    {
        let (doctor, mut stage) = Doctor::stage();
        let config = json!({"expression": "* * * * *", "overlap": "allow", "catch_up": catch_up});
        stage.bind("unlucky", config).unwrap();
        stage.diary.hold(true);
        stage.set(60);
        stage.diary.slots(1);
        doctor.order(Mode::Full);
        stage.set(120);
        stage.until(|job| job["waiting"] == 1 && job["problem"] != Value::Null, "a refused slot");
        doctor.order(Mode::Well);
        // The end of the first is written; the second was not even tried.
        stage.diary.hold(false);
        stage.until(|job| job["running"] == 0, "the end of the first");
        stage.stop();
        stage.set(270);
        stage.start();
        let job = stage.settled("unlucky");
        assert_eq!((&job["missed"], &job["interrupted"]), (&json!(missed), &json!(0)), "{catch_up}");
        let expected: Vec<String> = expected.into_iter().map(slot).collect();
        let mut found = stage.diary.slots(expected.len());
        // With `overlap: allow` they run side by side.
        found.sort();
        assert_eq!(found, expected, "{catch_up}");
    }
}

#[test]
fn a_claim_that_is_refused_ends_the_wait_of_whoever_shuts_down() {
    let doctor = Doctor::default();
    let config = Config { shutdown_ms_max: 3_600_000, ..Config::default() };
    let mut stage = Stage::with(config, |inner| doctor.around(inner));
    stage.bind("last", json!({"expression": "* * * * *"})).unwrap();
    doctor.order(Mode::Keep);
    stage.set(60);
    stage.until(|job| job["running"] == 1, "a claim under way");
    let cron = stage.cron.take().unwrap();
    let (told, tells) = mpsc::channel();
    let ending = std::thread::spawn(move || {
        cron.shut_down();
        told.send(()).unwrap();
    });
    // Whether it waits already does not matter to what is asserted.
    std::thread::sleep(Duration::from_millis(100));
    doctor.refuse_kept();
    tells.recv_timeout(Duration::from_secs(30)).expect("it ends when nothing runs any more");
    ending.join().unwrap();
}
