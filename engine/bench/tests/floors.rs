//! The floors between two real processes. Not a libtest binary: it starts itself again as the other process, whose
//! standard output is then an event counter that no test harness may write to.
//!
//! No figure is judged here: a test machine is busy. What is checked is that each floor is measured, that its figures
//! are in order, and that nothing is left running.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test that is its own harness")]

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use ringway_bench::floors::{Floor, FloorOptions, measure, run_floor_child};
use ringway_bench::stats::Clock;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "floor-child") {
        return if run_floor_child(&arguments[1..]).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // What test runners ask of a binary: to list its tests, or only those that are ignored by default.
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if asked("--ignored") {
        return ExitCode::SUCCESS;
    }
    if asked("--list") {
        println!("floors_between_two_processes: test");
        return ExitCode::SUCCESS;
    }
    floors_between_two_processes();
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

fn floors_between_two_processes() {
    let options = FloorOptions {
        runs: 2,
        run_time: Duration::from_millis(10),
        child_args: vec!["floor-child".into()],
        ..FloorOptions::new()
    };
    let floors = measure(&options, &Clock::calibrate()).unwrap();
    for (name, floor) in [
        ("cache_line", &floors.cache_line),
        ("stamp_ring", &floors.stamp_ring),
        ("eventfd", &floors.eventfd),
        ("unix_socket", &floors.unix_socket),
    ] {
        in_order(name, floor);
    }
    assert!(floors.cache_line.spin.is_some() && floors.eventfd.spin.is_none());
    assert!(floors.stamp_ring.round_trips_per_s.unwrap() > 1000.0, "{:?}", floors.stamp_ring);
    assert!(floors.memcpy.iter().all(|speed| speed.bytes_per_s > 1e6), "{:?}", floors.memcpy);
    nothing_left_running();
    a_wrong_child_is_an_error(options);
}

fn in_order(name: &str, floor: &Floor) {
    let of = floor.summary;
    let figures = [of.min_ns, of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.max_ns];
    assert!(of.count > 0 && figures.is_sorted(), "{name}: {of:?}");
    assert!(floor.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {:?}", floor.curve);
}

fn nothing_left_running() {
    let own = format!("/proc/self/task/{}/children", std::process::id());
    let children = std::fs::read_to_string(own).unwrap_or_default();
    assert_eq!(children.trim(), "", "children are left");
}

/// A child that does not know the floor leaves at once; nobody may then wait for its answers for ever.
fn a_wrong_child_is_an_error(options: FloorOptions) {
    let wrong = FloorOptions {
        child_args: vec!["floor-child".into(), "extra".into()],
        patience: Duration::from_millis(100),
        ..options
    };
    assert!(measure(&wrong, &Clock::calibrate()).is_err());
}
