//! Seams of the clock, one by one. The same over years and zones is in `tests/it/seams.rs`.

use super::*;

fn due(expression: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::new(expression, zone).unwrap();
    let mut at: Timestamp = from.parse().unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        let Some(next) = schedule.next_after(at) else { break };
        found.push(next.to_string());
        at = next;
    }
    found
}

#[test]
fn a_fixed_time_in_the_gap_is_due_right_after_it() {
    // 02:00 becomes 03:00 at 01:00 UTC.
    let found = due("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
    assert_eq!(found, ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    // Two of them, and a third right after it: one run.
    let found = due("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2);
    assert_eq!(found, ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]);
}

#[test]
fn a_fixed_time_in_the_doubled_hour_is_due_once() {
    // 03:00 becomes 02:00 at 01:00 UTC.
    let found = due("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // Asked in the middle of the second pass.
    let found = due("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1);
    assert_eq!(found, ["2026-10-26T01:30:00Z"]);
}

#[test]
fn a_wildcard_follows_the_wall_clock() {
    let found = due("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3);
    assert_eq!(found, ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"]);
    let found = due("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3);
    assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]);
    let found = due("*/20 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 1);
    assert_eq!(found, ["2026-03-30T00:00:00Z"]);
}

#[test]
fn a_shift_of_half_an_hour_is_a_shift() {
    // Lord Howe: 02:00 becomes 02:30, and 02:00 becomes 01:30.
    let found = due("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 1);
    assert_eq!(found, ["2026-10-03T15:30:00Z"]);
    let found = due("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 2);
    assert_eq!(found, ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
}

#[test]
fn a_day_that_was_left_out_is_not_made_up_for() {
    // Samoa had no 30 December 2011.
    let found = due("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 2);
    assert_eq!(found, ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z"]);
}

#[test]
fn seconds_years_and_names() {
    assert_eq!(
        due("*/20 * * * * *", "UTC", "2026-01-01T00:00:01.5Z", 2),
        ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]
    );
    assert_eq!(due("0 0 0 1 1 * 2030", "UTC", "2026-01-01T00:00:00Z", 3), ["2030-01-01T00:00:00Z"]);
    assert_eq!(due("@monthly", "Asia/Tokyo", "2026-01-15T00:00:00Z", 1), ["2026-01-31T15:00:00Z"]);
    assert_eq!(due("0 0 29 2 *", "UTC", "2026-01-15T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
    assert!(due("0 0 30 2 *", "Europe/Berlin", "2026-01-15T00:00:00Z", 1).is_empty());
    // Both restricted: either will do, as everywhere.
    assert_eq!(
        due("0 0 13 * 5", "UTC", "2026-02-06T12:00:00Z", 2),
        ["2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"]
    );
}

#[test]
fn an_unknown_zone_is_named() {
    let error = Schedule::new("@daily", "Europe/Atlantis").unwrap_err();
    assert!(error.to_string().contains("Europe/Atlantis"), "{error}");
}
