//! Tests of the counting: percentiles, medians, schedules, processor time.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::{Clock, CpuMeter, Recorder, Schedule, Summary, closed_loop, median, open_loop};

#[test]
fn percentiles_of_a_known_ramp() {
    let mut recorder = Recorder::new();
    for value in 1..=10_000 {
        recorder.record(value);
    }
    let summary = recorder.summary();
    let check = |found: u64, expected: u64| {
        assert!(found.abs_diff(expected) * 1000 <= expected, "{found}, wanted {expected} within 0.1 %");
    };
    check(summary.p50_ns, 5_000);
    check(summary.p90_ns, 9_000);
    check(summary.p99_ns, 9_900);
    check(summary.p999_ns, 9_990);
    check(summary.p9999_ns, 9_999);
    check(summary.max_ns, 10_000);
    assert_eq!((summary.min_ns, summary.count), (1, 10_000));
}

#[test]
fn curve_stops_where_the_count_does() {
    let mut recorder = Recorder::new();
    assert!(recorder.curve().is_empty());
    for value in 1..=150 {
        recorder.record(value);
    }
    let percentiles: Vec<f64> = recorder.curve().iter().map(|point| point.0).collect();
    assert_eq!(percentiles, [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 100.0]);
}

#[test]
fn too_long_counts_as_a_minute() {
    let mut recorder = Recorder::new();
    recorder.record(u64::MAX);
    assert!(recorder.summary().max_ns >= 59_000_000_000);
    assert_eq!(recorder.count(), 1);
}

#[test]
fn median_takes_the_middle_of_each_field() {
    assert_eq!(median(vec![3, 1, 2]), Some(2));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
    assert_eq!(median::<u8>(vec![]), None);
    let run = |p50_ns, max_ns| Summary { count: 10, p50_ns, max_ns, ..Summary::default() };
    let middle = Summary::median_of(&[run(1, 900), run(3, 100), run(2, 500)]);
    assert_eq!((middle.count, middle.p50_ns, middle.max_ns), (30, 2, 500));
}

/// A busy machine may interrupt between two readings, so one good comparison of several is enough.
#[test]
fn clock_agrees_with_the_system() {
    let clock = Clock::calibrate();
    let ratios: Vec<u128> = (0..5)
        .map(|_| {
            let (start, system) = (clock.now(), Instant::now());
            std::thread::sleep(Duration::from_millis(20));
            let (ours, theirs) = (clock.since(start), system.elapsed().as_nanos());
            u128::from(ours) * 1000 / theirs
        })
        .collect();
    assert!(ratios.iter().any(|ratio| (990..=1010).contains(ratio)), "{}: {ratios:?} ‰", clock.name());
}

#[test]
fn closed_loop_counts_what_it_timed() {
    let mut calls = 0;
    let run = closed_loop(&Clock::calibrate(), 5, Duration::from_millis(5), || {
        calls += 1;
        std::thread::sleep(Duration::from_millis(1));
        Ok::<(), Infallible>(())
    });
    let run = run.unwrap();
    assert_eq!(run.latencies.count() + 5, calls);
    assert!(run.latencies.summary().min_ns >= 900_000);
}

/// One stall of 20 ms under one call a millisecond: a closed loop would show one slow call, here about twenty are late.
#[test]
fn open_loop_charges_a_stall_to_the_calls_behind_it() {
    let schedule = Schedule { rate_per_s: 1000.0, count: 60 };
    let run = open_loop(&Clock::calibrate(), schedule, |index| {
        if index == 10 {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok::<(), Infallible>(())
    });
    let curve = run.unwrap().latencies;
    let late = curve.histogram.iter_recorded().filter(|bucket| bucket.value_iterated_to() > 1_000_000);
    let late: u64 = late.map(|bucket| bucket.count_at_value()).sum();
    assert!(late >= 15, "{late} calls were late");
}

#[test]
fn schedule_is_evenly_spaced() {
    let schedule = Schedule { rate_per_s: 4.0, count: 8 };
    assert_eq!([0, 1, 4].map(|index| schedule.intended_ns(index)), [0, 250_000_000, 1_000_000_000]);
}

#[test]
fn processor_time_counts_a_busy_child_and_not_a_sleeping_one() {
    let spawn = |script: &str| std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
    let used_by = |script: &str| {
        let mut child = spawn(script);
        let meter = CpuMeter::start(&[child.id()]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let used = meter.used().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        used
    };
    let (busy, idle) = (used_by("while :; do :; done"), used_by("exec sleep 10"));
    assert!(busy > Duration::from_millis(5), "a busy child used {busy:?}");
    assert!(idle < busy / 2, "an idle child used {idle:?}, a busy one {busy:?}");
}
