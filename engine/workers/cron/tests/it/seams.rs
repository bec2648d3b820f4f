//! The nights in which clocks are changed, over five years and fourteen zones, against a second opinion in another language:
//! `seams.py` plays Vixie's daemon over Python's time zones.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use ringway_worker_cron::schedule::Schedule;
use serde::Deserialize;
use serde_json::json;

/// Zones with shifts of a half, one and two hours, north and south, some at midnight, some for Ramadan.
const ZONES: &[&str] = &[
    "America/New_York",
    "America/Santiago",
    "America/Havana",
    "America/St_Johns",
    "Europe/Berlin",
    "Europe/London",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Pacific/Chatham",
    "Antarctica/Troll",
];

const EXPRESSIONS: &[&str] = &[
    "* * * * *",
    "*/15 * * * *",
    "30 * * * *",
    "0 */2 * * *",
    "*/20 2 * * *",
    "30 2 * * *",
    "15 1 * * *",
    "45 1 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "15 3 * * *",
    "0,30 1-3 * * *",
    "5 0-23 * * *",
    "30 2 * * 0",
    "0 0 1 * 0",
    "59 23 * * *",
];

#[derive(Debug, Deserialize)]
struct Opinion {
    zone: String,
    expression: String,
    first: i64,
    last: i64,
    minutes: Vec<i64>,
}

#[test]
fn five_years_of_nights_are_as_another_program_says() {
    let opinions = opinions();
    let mut nights: BTreeMap<&str, usize> = BTreeMap::new();
    for opinion in &opinions {
        *nights.entry(&opinion.zone).or_default() += 1;
        assert_eq!(
            minutes(opinion),
            opinion.minutes,
            "{} {} from {}",
            opinion.zone,
            opinion.expression,
            opinion.first
        );
    }
    assert_eq!(nights.len(), ZONES.len());
    assert!(nights.values().all(|found| *found >= 8 * EXPRESSIONS.len()), "{nights:?}");
}

fn minutes(opinion: &Opinion) -> Vec<i64> {
    let schedule = Schedule::new(&opinion.expression, &opinion.zone).unwrap();
    let mut at = Timestamp::from_second(opinion.first * 60 - 1).unwrap();
    let mut found = Vec::new();
    while let Some(next) = schedule.next_after(at).filter(|next| next.as_second() < opinion.last * 60) {
        assert_eq!(next.as_second() % 60, 0, "{opinion:?}");
        found.push(next.as_second() / 60);
        at = next;
    }
    found
}

fn opinions() -> Vec<Opinion> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/seams.py");
    let mut python = Command::new("python3");
    let mut child =
        python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is there");
    let request = json!({"zones": ZONES, "expressions": EXPRESSIONS, "year": 2024, "years": 5});
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
