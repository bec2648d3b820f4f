//! Tests of the report: names, ratios, the promised JSON, the table. The sample is used by the page's tests too.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    Address, Case, CaseResult, ClockFacts, Cost, Encoding, FloorName, Load, Report, Variant, Verdict, Wait,
    claims, count_text, rate_text, size_text, time_text,
};
use crate::floors::{CopySpeed, Floor, Floors, SpinName};
use crate::machine::{CpuPair, Machine, Regime};
use crate::stats::{Recorder, Run, Runs};

/// Runs whose latencies form a plausible tail above `p50_ns`; made up, for tests of layout only.
fn shaped(p50_ns: u64, per_second: f64) -> Runs {
    let mut runs = Runs::default();
    for run in 0..5 {
        let mut latencies = Recorder::new();
        for index in 1..=20_000_u64 {
            let tail = if index.is_multiple_of(5_000) { 40 } else { 1 + index % 1000 / 985 };
            latencies.record((p50_ns * (90 + index % 20 + run) / 100).max(1) * tail);
        }
        runs.add(&Run { latencies, elapsed: Duration::from_secs_f64(20_000.0 / per_second) });
    }
    runs
}

fn floor(p50_ns: u64) -> Floor {
    let runs = shaped(p50_ns, 1e9 / 130.0);
    Floor { summary: runs.summary(), runs: 5, curve: runs.curve(), ..Floor::default() }
}

/// A whole report with made-up figures.
pub(crate) fn sample() -> Report {
    let floors = Floors {
        cache_line: Floor { spin: Some(SpinName::Bare), ..floor(124) },
        stamp_ring: Floor {
            spin: Some(SpinName::Bare),
            round_trips_per_s: Some(45.2e6),
            in_flight: Some(64),
            ..floor(131)
        },
        eventfd: floor(24_000),
        unix_socket: floor(29_000),
        memcpy: vec![
            CopySpeed { bytes: 4096, p50_ns: 48, bytes_per_s: 85.3e9 },
            CopySpeed { bytes: 16 << 20, p50_ns: 1_677_000, bytes_per_s: 10.0e9 },
        ],
    };
    let mut report = Report {
        machine: Machine { cpu_model: "Example <CPU> & Co".to_owned(), ..machine() },
        regime: Regime::Near,
        floors,
        cases: Vec::new(),
        claims: Vec::new(),
        cpus: CpuPair { caller: 1, callee: 0 },
        clock: ClockFacts { source: "time-stamp counter".to_owned(), empty_ns: 9 },
        version: "0.1.0".to_owned(),
        commit: Some("0123456789ab".to_owned()),
        ended_unix_s: 1_700_000_000,
        command: "ringway bench --json report.json".to_owned(),
        debug_build: false,
    };
    for (name, p50_ns, per_second) in [
        ("call/typed/handle/spin/64", 205, 4.9e6),
        ("call/typed/name/spin/64", 241, 4.1e6),
        ("call/typed/handle/spin/64/traced", 296, 3.3e6),
        ("call/typed/handle/adaptive/64", 219, 4.5e6),
        ("call/typed/handle/park/64", 26_100, 38e3),
        ("call/json/name/spin/64", 812, 1.2e6),
        ("call/bytes/handle/spin/64", 198, 5.0e6),
        ("call/bytes/handle/spin/1024", 240, 4.2e6),
        ("call/bytes/handle/spin/65536", 262, 3.8e6),
        ("call/bytes/handle/spin/16777216", 291, 3.4e6),
        ("call/bytes/handle/spin/1073741824", 297, 3.4e6),
        ("call/typed/handle/spin/64/inflight64", 3_600, 17.4e6),
        ("call/json/name/spin/64/inflight64", 19_000, 2.9e6),
    ] {
        let case: Case = name.parse().unwrap();
        let cost = Cost { cpu_s: 0.05, bytes_copied: Some(0) };
        report.cases.push(CaseResult::of_case(&case, &shaped(p50_ns, per_second), cost, &report.floors));
    }
    report
}

fn machine() -> Machine {
    Machine {
        cpu_model: String::new(),
        cpus_allowed: 2,
        cpus_online: 2,
        memory_bytes: 24 << 30,
        kernel: "6.18.5".to_owned(),
        architecture: "x86_64".to_owned(),
        clocksource: Some("kvm-clock".to_owned()),
        governor: None,
        virtual_machine: true,
        huge_pages: Some("madvise".to_owned()),
        huge_pages_shared: Some("never".to_owned()),
        cgroup_cpus: None,
        mitigations: BTreeMap::from([("spectre_v2".to_owned(), "Mitigation: Enhanced IBRS".to_owned())]),
        load_1m: Some(0.08),
    }
}

#[test]
fn every_case_name_reads_back() {
    for encoding in Encoding::ALL {
        for address in Address::ALL {
            for wait in Wait::ALL {
                for variant in [None, Some(Variant::Traced), Some(Variant::InFlight64)] {
                    let case =
                        Case { encoding: *encoding, address: *address, wait: *wait, bytes: 64, variant };
                    assert_eq!(case.to_string().parse(), Ok(case));
                }
            }
        }
    }
}

#[test]
fn case_names_are_the_promised_ones() {
    let case = |variant| Case {
        encoding: Encoding::Typed,
        address: Address::Handle,
        wait: Wait::Spin,
        bytes: 64,
        variant,
    };
    assert_eq!(case(None).to_string(), "call/typed/handle/spin/64");
    assert_eq!(case(Some(Variant::Traced)).to_string(), "call/typed/handle/spin/64/traced");
    assert_eq!(case(Some(Variant::InFlight64)).to_string(), "call/typed/handle/spin/64/inflight64");
    for wrong in
        ["", "call", "call/typed/handle/spin/-1", "call/typed/handle/spin/64/", "peer/typed/handle/spin/64"]
    {
        assert!(wrong.parse::<Case>().is_err(), "{wrong}");
    }
}

#[test]
fn ratios_are_held_against_the_right_floor() {
    let report = sample();
    let check = |name: &str, floor, low: f64, high: f64| {
        let case = report.cases.iter().find(|case| case.name == name).unwrap();
        assert_eq!(case.floor, Some(floor), "{name}");
        assert!((low..high).contains(&case.ratio_to_floor), "{name}: {}", case.ratio_to_floor);
    };
    check("call/typed/handle/spin/64", FloorName::CacheLine, 1.6, 1.7);
    check("call/typed/handle/park/64", FloorName::Eventfd, 1.05, 1.15);
    check("call/typed/handle/spin/64/inflight64", FloorName::StampRing, 0.37, 0.40);
}

#[test]
fn json_has_the_promised_keys() {
    let json: serde_json::Value = serde_json::from_str(&sample().to_json().unwrap()).unwrap();
    assert_eq!(json["regime"], "near");
    assert!(json["machine"].is_object());
    for floor in ["cache_line", "stamp_ring", "eventfd", "unix_socket"] {
        for key in ["p50_ns", "p99_ns"] {
            assert!(json["floors"][floor][key].is_u64(), "floors.{floor}.{key}");
        }
    }
    let case = &json["cases"][0];
    assert_eq!(case["name"], "call/typed/handle/spin/64");
    for key in ["p50_ns", "p99_ns", "p999_ns", "max_ns", "bytes_copied"] {
        assert!(case[key].is_u64(), "cases[0].{key}");
    }
    for key in ["calls_per_s", "cpu_s_per_mcall", "ratio_to_floor"] {
        assert!(case[key].is_f64(), "cases[0].{key}");
    }
}

#[test]
fn json_reads_back() {
    let report = sample();
    let read: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert!(read == report, "{}", read.to_json().unwrap());
}

#[test]
fn numbers_as_people_read_them() {
    let times = [
        (0, "0 ns"),
        (124, "124 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (24_050, "24.1 µs"),
        (9_999, "10.0 µs"),
    ];
    for (ns, expected) in times {
        assert_eq!(time_text(ns), expected);
    }
    assert_eq!([64, 1 << 10, 1536, 1 << 30].map(size_text), ["64 B", "1 KiB", "1.50 KiB", "1 GiB"]);
    assert_eq!([12.4, 38e3, 17.4e6].map(rate_text), ["12 /s", "38.0 k/s", "17.4 M/s"]);
    assert_eq!([7, 1234, 1_234_567].map(count_text), ["7", "1,234", "1,234,567"]);
}

#[test]
fn table_names_floors_cases_and_their_ratio() {
    let table = sample().to_table();
    for expected in [
        "Example <CPU> & Co · 2 of 2 cpus · Linux 6.18.5 · virtual machine",
        "cpus 1 and 0 are near",
        "polling bare; rate with 64 in flight",
        "% of stamp_ring",
        "× eventfd",
    ] {
        assert!(table.contains(expected), "wanted {expected:?} in\n{table}");
    }
    let lines: Vec<&str> = table.lines().filter(|line| line.starts_with("call/")).collect();
    let columns: Vec<usize> =
        lines.iter().filter_map(|line| line.find(" ns").or_else(|| line.find(" µs"))).collect();
    assert_eq!(columns.len(), 13);
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "columns do not line up:\n{table}");
}

#[test]
fn empty_runs_divide_by_nothing() {
    let case = CaseResult::new("peer/none/64", 64, Load::Closed, &Runs::default(), Cost::default());
    let case = case.against(FloorName::CacheLine, &Floors::default());
    assert_eq!((case.ratio_to_floor, case.cpu_s_per_mcall, case.calls_per_s), (0.0, 0.0, 0.0));
}

#[test]
fn promises_are_judged_by_what_was_measured() {
    let mut report = sample();
    let verdict = |report: &Report, part: &str| {
        let claims = claims(report);
        let found = claims.iter().find(|claim| claim.what.contains(part));
        found.unwrap_or_else(|| panic!("no promise about {part:?}")).verdict
    };
    assert_eq!(verdict(&report, "p50 of call/typed/handle/spin/64 to cache_line"), Verdict::Ok);
    assert_eq!(verdict(&report, "p50 of call/bytes/handle/spin/16777216"), Verdict::Ok);
    assert_eq!(verdict(&report, "unix_socket to p50"), Verdict::Ok);
    assert_eq!(verdict(&report, "payload bytes copied"), Verdict::Ok);
    assert_eq!(verdict(&report, "rate of"), Verdict::Ok);
    assert_eq!(verdict(&report, "catalog/10000/name"), Verdict::NotMeasured);
    assert_eq!(verdict(&report, "idle/"), Verdict::NotMeasured);
    report.floors.cache_line.summary.p50_ns = 60;
    report.floors.stamp_ring.round_trips_per_s = Some(400e6);
    let case = |name: &str| report.cases.iter().position(|case| case.name == name).unwrap();
    let (large, flying) =
        (case("call/bytes/handle/spin/16777216"), case("call/typed/handle/spin/64/inflight64"));
    report.cases[large].bytes_copied = Some(1);
    report.cases[large].latency.p50_ns = 1_000_000;
    report.cases[flying].ratio_to_floor = 0.2;
    for part in
        ["p50 of call/typed/handle/spin/64 to cache_line", "16777216", "payload bytes copied", "rate of"]
    {
        assert_eq!(verdict(&report, part), Verdict::Short, "{part}");
    }
}

#[test]
fn promises_stand_below_the_table() {
    let mut report = sample();
    assert!(!report.to_table().contains("promise"));
    report.claims = claims(&report);
    let table = report.to_table();
    for claim in &report.claims {
        assert!(table.contains(&claim.what) && table.contains(&claim.found), "{claim:?}");
    }
    let page = crate::html::render(&report);
    assert_eq!(page.matches("<h2>Promises").count(), 1);
}
