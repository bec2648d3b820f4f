//! Each rival against Ringway: how many times as long a round trip takes, what share of the rate many in flight reach,
//! and which promises hold in this run. It must not know how anything was measured.

use std::fmt::Write;

use ringway_bench::report::{CaseResult, Claim, Report, Verdict, rate_text, time_text};

use crate::harness::{IN_FLIGHT, LARGE, SMALL, case_name, in_flight_name};

/// Ringway's own name among the rivals.
const OURS: &str = "ringway";

/// What is promised of Ringway beside others (lines c and d of the list of promises), with what this run found.
pub(crate) fn claims(report: &Report) -> Vec<Claim> {
    let time = |rival: &str| median_ns(find(report, &case_name(rival, SMALL))?);
    let rate = |rival: &str| Some(find(report, &in_flight_name(rival))?.calls_per_s);
    let ours = time(OURS);
    vec![
        at_least('c', "p50 of iceoryx2 to Ringway's", quotient(time("iceoryx2"), ours), 3.0),
        at_most('c', "p50 of Ringway to Aeron's", quotient(ours, time("aeron")), 2.5),
        at_least('c', "p50 of a Unix socket to Ringway's", quotient(time("unix_socket"), ours), 100.0),
        at_least(
            'd',
            "rate of Ringway, 64 in flight, to the bare ring's",
            quotient(rate(OURS), report.floors.stamp_ring.round_trips_per_s),
            0.25,
        ),
        at_least(
            'd',
            "rate of Ringway, 64 in flight, to iceoryx2's",
            quotient(rate(OURS), rate("iceoryx2")),
            10.0,
        ),
    ]
}

/// The tables of ratios, one for each kind of work; a kind that Ringway was not measured at is left out.
pub(crate) fn table(report: &Report) -> String {
    let mut out = String::new();
    let written = [SMALL, LARGE]
        .into_iter()
        .try_for_each(|bytes| round_trips(&mut out, report, bytes))
        .and_then(|()| rates(&mut out, report));
    written.expect("writing to a string cannot fail");
    out
}

fn round_trips(out: &mut String, report: &Report, bytes: usize) -> std::fmt::Result {
    let Some(ours) = find(report, &case_name(OURS, bytes)) else { return Ok(()) };
    writeln!(out, "{:<32} {:>10} {:>14}", format!("round trip of {bytes} B"), "p50", "to Ringway's")?;
    let ending = format!("/{bytes}");
    for case in report.cases.iter().filter(|case| case.name.ends_with(&ending)) {
        row(out, &case.name, &time_text(case.latency.p50_ns), quotient(median_ns(case), median_ns(ours)))?;
    }
    writeln!(out)
}

fn rates(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(ours) = find(report, &in_flight_name(OURS)) else { return Ok(()) };
    let heading = format!("round trips/s, {IN_FLIGHT} in flight");
    writeln!(out, "{heading:<32} {:>10} {:>14}", "rate", "to Ringway's")?;
    if let Some(rate) = report.floors.stamp_ring.round_trips_per_s {
        row(out, "floor/stamp_ring", &rate_text(rate), quotient(Some(rate), Some(ours.calls_per_s)))?;
    }
    let ending = format!("/inflight{IN_FLIGHT}");
    for case in report.cases.iter().filter(|case| case.name.ends_with(&ending)) {
        let ratio = quotient(Some(case.calls_per_s), Some(ours.calls_per_s));
        row(out, &case.name, &rate_text(case.calls_per_s), ratio)?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, figure: &str, ratio: Option<f64>) -> std::fmt::Result {
    let ratio = ratio.map_or_else(|| "–".to_owned(), times);
    writeln!(out, "{name:<32} {figure:>10} {ratio:>14}")
}

fn find<'a>(report: &'a Report, name: &str) -> Option<&'a CaseResult> {
    report.cases.iter().find(|case| case.name == name)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
fn median_ns(case: &CaseResult) -> Option<f64> {
    (case.latency.p50_ns > 0).then_some(case.latency.p50_ns as f64)
}

fn quotient(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    let (dividend, divisor) = dividend.zip(divisor)?;
    (divisor > 0.0).then(|| dividend / divisor)
}

fn times(ratio: f64) -> String {
    if ratio < 100.0 { format!("{ratio:.2} ×") } else { format!("{ratio:.0} ×") }
}

fn at_least(line: char, what: &str, found: Option<f64>, least: f64) -> Claim {
    claim(line, what, format!("≥ {}", times(least)), found, |found| found >= least)
}

fn at_most(line: char, what: &str, found: Option<f64>, most: f64) -> Claim {
    claim(line, what, format!("≤ {}", times(most)), found, |found| found <= most)
}

fn claim(line: char, what: &str, target: String, found: Option<f64>, kept: impl Fn(f64) -> bool) -> Claim {
    let verdict = match found {
        Some(found) if kept(found) => Verdict::Ok,
        Some(_) => Verdict::Short,
        None => Verdict::NotMeasured,
    };
    let found = found.map_or_else(|| "–".to_owned(), times);
    Claim { line, what: what.to_owned(), target, found, verdict }
}

#[cfg(test)]
mod tests {
    use ringway_bench::floors::Floors;
    use ringway_bench::machine::cpu_pair;
    use ringway_bench::report::{CaseResult, Report, Verdict};
    use ringway_bench::stats::Clock;

    use super::{claims, table};
    use crate::harness::{SMALL, case_name, in_flight_name};

    fn report(times: &[(&str, u64)], rates: &[(&str, f64)], ring: f64) -> Report {
        let mut floors = Floors::default();
        floors.stamp_ring.round_trips_per_s = Some(ring);
        let mut report = Report::new(floors, cpu_pair(), &Clock::calibrate(), "test");
        for (rival, ns) in times {
            let mut case = CaseResult { name: case_name(rival, SMALL), ..CaseResult::default() };
            case.latency.p50_ns = *ns;
            report.cases.push(case);
        }
        for (rival, rate) in rates {
            let name = in_flight_name(rival);
            report.cases.push(CaseResult { name, calls_per_s: *rate, ..CaseResult::default() });
        }
        report
    }

    #[test]
    fn promises_hold_or_fall_short_by_their_ratio() {
        let check = |times: &[(&str, u64)], rates: &[(&str, f64)], expected: [Verdict; 5]| {
            let found = claims(&report(times, rates, 40e6)).into_iter().map(|claim| claim.verdict);
            assert_eq!(found.collect::<Vec<_>>(), expected);
        };
        let (kept, short, none) = (Verdict::Ok, Verdict::Short, Verdict::NotMeasured);
        let times = [("iceoryx2", 600), ("aeron", 80), ("unix_socket", 20_000), ("ringway", 200)];
        check(&times, &[("iceoryx2", 1e6), ("ringway", 10e6)], [kept; 5]);
        let times = [("iceoryx2", 599), ("aeron", 79), ("unix_socket", 19_999), ("ringway", 200)];
        check(&times, &[("iceoryx2", 1e6), ("ringway", 9.9e6)], [short; 5]);
        check(&[("ringway", 200)], &[("ringway", 10e6)], [none, none, none, kept, none]);
    }

    #[test]
    fn every_row_is_held_against_ringways() {
        let report =
            report(&[("iceoryx2", 600), ("ringway", 200)], &[("iceoryx2", 1e6), ("ringway", 10e6)], 40e6);
        let text = table(&report);
        let ratio = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.trim_end_matches(" ×").split(' ').next_back().unwrap().to_owned()
        };
        assert_eq!(ratio("peer/iceoryx2/64"), "3.00");
        assert_eq!(ratio("peer/ringway/64"), "1.00");
        assert_eq!(ratio("floor/stamp_ring"), "4.00");
        assert_eq!(ratio("peer/iceoryx2/64/inflight64"), "0.10");
        assert!(!table(&Report { cases: Vec::new(), ..report }).contains("peer/"));
    }
}
