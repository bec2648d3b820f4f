//! The report as a terminal shows it, and numbers as people read them.

use std::fmt::Write;

use super::{CaseResult, Load, Report};
use crate::floors::Floor;

/// Returns a time with three digits and its unit: `124 ns`, `3.21 µs`, `12.0 ms`.
#[must_use]
pub fn time_text(ns: u64) -> String {
    scaled(ns, &[(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")])
        .unwrap_or_else(|| format!("{ns} ns"))
}

/// Returns a size in binary units: `64 B`, `16 MiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    scaled(bytes, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")])
        .unwrap_or_else(|| format!("{bytes} B"))
}

/// Returns a rate in calls: `18.3 M/s`.
#[must_use]
pub fn rate_text(per_second: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate; the cast saturates")]
    let whole = per_second.round() as u64;
    scaled(whole, &[(1_000_000_000, "G/s"), (1_000_000, "M/s"), (1_000, "k/s")])
        .unwrap_or_else(|| format!("{whole} /s"))
}

/// Returns a count with its digits in groups of three: `1,234,567`.
#[must_use]
pub fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes a value in the largest unit it reaches, with three digits.
fn scaled(value: u64, units: &[(u64, &str)]) -> Option<String> {
    let (unit, name) = units.iter().find(|(unit, _)| value >= *unit)?;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let scaled = value as f64 / *unit as f64;
    let decimals = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    Some(format!("{scaled:.decimals$} {name}"))
}

/// Lays the whole report out.
pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    write_report(&mut out, report).expect("writing to a string cannot fail");
    out
}

fn write_report(out: &mut String, report: &Report) -> std::fmt::Result {
    let machine = &report.machine;
    writeln!(
        out,
        "{} · {} of {} cpus · Linux {} · {}",
        machine.cpu_model,
        machine.cpus_allowed,
        machine.cpus_online,
        machine.kernel,
        if machine.virtual_machine { "virtual machine" } else { "bare metal" },
    )?;
    writeln!(
        out,
        "cpus {} and {} are {} · clock: {}, {} ns subtracted",
        report.cpus.caller,
        report.cpus.callee,
        report.regime.name(),
        report.clock.source,
        report.clock.empty_ns
    )?;
    if report.debug_build {
        writeln!(out, "built without optimisation: these figures mean nothing")?;
    }
    writeln!(out)?;
    let width = report.cases.iter().map(|case| case.name.chars().count()).max().unwrap_or(0).max(16);
    heading(out, width, "floor")?;
    let floors = &report.floors;
    for (name, floor) in [
        ("cache_line", &floors.cache_line),
        ("stamp_ring", &floors.stamp_ring),
        ("eventfd", &floors.eventfd),
        ("unix_socket", &floors.unix_socket),
    ] {
        write_floor(out, width, name, floor)?;
    }
    if report.cases.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    heading(out, width, "case")?;
    report.cases.iter().try_for_each(|case| write_case(out, width, case))?;
    write_claims(out, report)
}

fn write_claims(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.claims.is_empty() {
        return Ok(());
    }
    let width = report.claims.iter().map(|claim| claim.what.chars().count()).max().unwrap_or(0);
    writeln!(out, "\n  {:<width$} {:>9}  {:<12}  found", "promise", "target", "")?;
    report.claims.iter().try_for_each(|claim| {
        let (line, what, target) = (claim.line, &claim.what, &claim.target);
        writeln!(out, "{line} {what:<width$} {target:>9}  {:<12}  {}", claim.verdict.name(), claim.found)
    })
}

fn heading(out: &mut String, width: usize, first: &str) -> std::fmt::Result {
    writeln!(
        out,
        "{first:<width$} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}  ratio to floor",
        "p50", "p99", "p99.9", "max", "rate", "cpu/Mcall"
    )
}

fn write_floor(out: &mut String, width: usize, name: &str, floor: &Floor) -> std::fmt::Result {
    let rate = floor.round_trips_per_s.map_or_else(String::new, rate_text);
    let note = match (floor.in_flight, floor.spin) {
        (Some(in_flight), Some(spin)) => format!("polling {}; rate with {in_flight} in flight", spin.name()),
        (None, Some(spin)) => format!("polling {}", spin.name()),
        _ => "asleep in between".to_owned(),
    };
    let of = &floor.summary;
    let [p50, p99, p999, max] = [of.p50_ns, of.p99_ns, of.p999_ns, of.max_ns].map(time_text);
    writeln!(out, "{name:<width$} {p50:>9} {p99:>9} {p999:>9} {max:>9} {rate:>10} {:>10}  {note}", "")
}

fn write_case(out: &mut String, width: usize, case: &CaseResult) -> std::fmt::Result {
    let of = &case.latency;
    let [p50, p99, p999, max] = [of.p50_ns, of.p99_ns, of.p999_ns, of.max_ns].map(time_text);
    let cpu = format!("{:.2} s", case.cpu_s_per_mcall);
    let ratio = case.floor.map_or_else(String::new, |floor| match case.load {
        Load::InFlight { .. } => format!("{:.0} % of {}", case.ratio_to_floor * 100.0, floor.key()),
        _ => format!("{:.2} × {}", case.ratio_to_floor, floor.key()),
    });
    let (name, rate) = (&case.name, rate_text(case.calls_per_s));
    let share = case.cpu_share.map(|share| format!("{:.2} % of a processor", share * 100.0));
    let remarks: Vec<String> = [Some(ratio), share, case.note.clone()]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    let remarks = remarks.join("; ");
    writeln!(out, "{name:<width$} {p50:>9} {p99:>9} {p999:>9} {max:>9} {rate:>10} {cpu:>10}  {remarks}")
}
