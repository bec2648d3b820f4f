//! What hosts do together while nothing is wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scene::{AHEAD_S, ENGINES, PATIENCE, Scene};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "clerk"];

fn wait_for_all(scene: &mut Scene) {
    for worker in &mut scene.workers {
        for name in NAMES {
            assert!(
                worker.ask::<bool>(&format!("wait {name}::hop")),
                "{} does not see {name}",
                worker.name()
            );
        }
    }
}

fn check_replicas(scene: &mut Scene) {
    for worker in &mut scene.workers {
        let until = Instant::now() + PATIENCE;
        while worker.ask::<usize>("replicas who::am_i") < NAMES.len() {
            assert!(Instant::now() < until, "{} does not see every replica", worker.name());
        }
    }
    for name in ["a", "b", "c"] {
        for _ in 0..20 {
            let answer: Value = scene.worker(name).ask("call who::am_i");
            assert_eq!(answer, json!(name), "the replica of the own host is called first");
        }
    }
}

fn check_big(scene: &mut Scene) {
    let bytes = 1u64 << 30;
    for (from, to) in [("a", "c"), ("d", "b")] {
        let outcome: Value = scene.worker(from).ask(&format!("big {to} {bytes}"));
        assert_eq!(outcome["right"], true, "{from} to {to}");
        println!("1 GiB from {from} to {to}, and another back: {outcome}");
    }
}

/// A call from `a` by `b` and `c` to `d`, which is on the host without an engine.
fn check_trace(scene: &mut Scene) {
    let told: Value = scene.worker("a").ask("trace b::hop c::hop d::hop a::hop");
    assert_eq!(told["passed"], json!(["b", "c", "d", "a"]));
    let until = Instant::now() + PATIENCE;
    let spans = loop {
        let mut spans: Vec<(usize, Value)> = Vec::new();
        for (host, engine) in scene.engines.iter_mut().enumerate() {
            let order = format!("trace {}", told["trace"].as_str().unwrap());
            let found: Vec<Value> = engine.ask(&order);
            spans.extend(found.into_iter().map(|span| (host, span)));
        }
        let whole = spans.iter().filter(|(_, span)| !span["end_ns"].is_null()).count();
        if whole == 8 {
            break spans;
        }
        assert!(Instant::now() < until, "wanted four calls with two sides each, found {spans:#?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let by_id: BTreeMap<&str, &(usize, Value)> =
        spans.iter().map(|span| (span.1["span"].as_str().unwrap(), span)).collect();
    assert_eq!(by_id.len(), 8, "no span is in two engines: {spans:#?}");
    // From the innermost handler up: each server's span below the client's that called it.
    let last = spans.iter().find(|(_, span)| span["name"] == "a::hop" && span["worker"] == "a");
    let mut way = Vec::new();
    let mut at = last.map(|(_, span)| span);
    while let Some(span) = at {
        way.push(format!("{} in {}", span["name"].as_str().unwrap(), span["worker"].as_str().unwrap()));
        at = span["parent"].as_str().and_then(|id| by_id.get(id)).map(|(_, span)| span);
    }
    let expected = [
        "a::hop in a",
        "a::hop in d",
        "d::hop in d",
        "d::hop in c",
        "c::hop in c",
        "c::hop in b",
        "b::hop in b",
        "b::hop in a",
    ];
    assert_eq!(way, expected, "{spans:#?}");
    // Those of the host without an engine were brought to the clock of the engine that keeps them.
    let of = |name: &str, worker: &str| {
        let found = spans.iter().find(|(_, span)| span["name"] == name && span["worker"] == worker);
        let (host, span) = found.unwrap();
        (*host, span["start_ns"].as_u64().unwrap(), span["end_ns"].as_u64().unwrap())
    };
    let ((outer_host, outer_start, outer_end), (host, start, end)) = (of("d::hop", "c"), of("d::hop", "d"));
    assert_eq!(outer_host, host);
    let slack = 5_000_000;
    println!(
        "the span of the remote worker lies {} us after the beginning of its caller's and {} us before its end",
        (i128::from(start) - i128::from(outer_start)) / 1000,
        (i128::from(outer_end) - i128::from(end)) / 1000,
    );
    assert!(outer_start <= start + slack && end <= outer_end + slack, "{spans:#?}");
}

fn check_clocks(scene: &mut Scene) {
    for (host, ahead_here) in AHEAD_S.into_iter().enumerate().take(ENGINES) {
        let until = Instant::now() + PATIENCE;
        loop {
            let status: Vec<Value> = scene.engines[host].ask("status");
            let mut right = 0;
            for link in status.iter().filter(|link| link["is_engine"] == true) {
                let other: usize =
                    link["name"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
                let ahead = i128::from(AHEAD_S[other]) - i128::from(ahead_here);
                let found = i128::from(link["offset_ns"].as_i64().unwrap());
                let round_trip = i128::from(link["round_trip_ns"].as_u64().unwrap());
                let wrong = found - ahead * 1_000_000_000;
                if round_trip > 0 && wrong.abs() <= round_trip {
                    right += 1;
                    println!(
                        "engine-{host} to engine-{other}: {ahead} s ahead, estimated within {} us; round trip {} us",
                        wrong.abs() / 1000,
                        round_trip / 1000
                    );
                }
            }
            if right == ENGINES - 1 {
                break;
            }
            assert!(Instant::now() < until, "engine-{host} has {status:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn hosts_call_each_other_and_see_each_other_once() {
    let mut scene = Scene::new();
    wait_for_all(&mut scene);
    check_replicas(&mut scene);
    check_clocks(&mut scene);
    check_big(&mut scene);
    check_trace(&mut scene);
}
