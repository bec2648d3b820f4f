//! Which plots the page has: every case at a glance, percentile curves, latency by payload, throughput.

use super::plot::{Anchor, Area, Drawing, LogScale, WIDTH};
use super::push;
use crate::report::{CaseResult, FloorName, Load, Report, rate_text, size_text, time_text};
use crate::stats::{CurvePoint, Summary};

/// Colours of lines that stand side by side; more would not be told apart.
const COLOURS: usize = 6;
/// Percentiles named along the axis of the curves.
const PERCENTILES: [f64; 7] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
/// Height of one row of a plot that has rows.
const ROW: f64 = 24.0;
/// Left edge of the drawing area where names stand beside it.
const NAMES: f64 = 400.0;
/// Floors that stand in every plot of latencies, as dashed lines.
const REFERENCES: [FloorName; 3] = [FloorName::CacheLine, FloorName::Eventfd, FloorName::UnixSocket];

/// One line of a plot.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Returns all plots that the report has figures for.
pub(super) fn all(report: &Report) -> String {
    let mut out = String::new();
    let plots = [
        (
            "Every case at a glance",
            "The dot is the median, the line reaches to p99, the tick is p99.9. Dashed: the floors.",
            glance(report),
        ),
        (
            "How the tail grows",
            "Each step to the right is ten times rarer. Dashed: the floors.",
            curves(report),
        ),
        (
            "Latency by payload",
            "Medians. A payload that is read where it lies costs the same at any size; one that is copied cannot get \
             below the memcpy line.",
            payloads(report),
        ),
        (
            "Throughput with calls in flight",
            "One thread calls, one answers. Dashed: the bare ring with as many in flight.",
            throughput(report),
        ),
    ];
    for (title, note, plot) in plots {
        if let Some(plot) = plot {
            push(&mut out, format_args!("<section>\n<h2>{title}</h2>\n<p>{note}</p>\n{plot}</section>\n"));
        }
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
fn row(index: usize) -> f64 {
    index as f64
}

fn time(ns: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a tick of a scale from 1 ns up"
    )]
    let whole = ns.round() as u64;
    // Ticks are round numbers: "10 µs", not "10.0 µs".
    time_text(whole).replace(".00 ", " ").replace(".0 ", " ")
}

fn size(bytes: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "was a whole size before")]
    let whole = bytes as u64;
    size_text(whole)
}

/// Whether a case is one of round trips of a caller, and no count, share or crowd.
pub(super) fn is_call(case: &CaseResult) -> bool {
    case.name.starts_with("call/")
}

fn is_queued(case: &CaseResult) -> bool {
    matches!(case.load, Load::InFlight { .. })
}

/// A row per floor and per case: p50 to p99, and p99.9.
fn glance(report: &Report) -> Option<String> {
    let floors = [FloorName::CacheLine, FloorName::StampRing, FloorName::Eventfd, FloorName::UnixSocket];
    let floors = floors.iter().map(|name| (name.key(), &report.floors.get(*name).summary, "floor"));
    // What took no time, as the idle case, is no round trip.
    let cases = report.cases.iter().filter(|case| !is_queued(case) && case.latency.p50_ns > 1);
    let rows: Vec<(&str, &Summary, &str)> =
        floors.chain(cases.map(|case| (case.name.as_str(), &case.latency, "c0"))).collect();
    let area = Area { left: NAMES, top: 26.0, right: WIDTH - 20.0, bottom: 26.0 + ROW * row(rows.len()) };
    let values = rows.iter().flat_map(|(_, of, _)| [of.p50_ns, of.p99_ns, of.p999_ns]).map(float);
    let scale = LogScale::over(values, area.left, area.right);
    let mut drawing = Drawing::new(area.bottom + 50.0);
    let ticks: Vec<(f64, String)> = scale.ticks().into_iter().map(|ns| (scale.at(ns), time(ns))).collect();
    drawing.bottom_axis(area, &ticks, "round trip");
    for name in [FloorName::CacheLine, FloorName::Eventfd] {
        let x = scale.at(float(report.floors.get(name).summary.p50_ns));
        drawing.line("reference", (x, area.top - 6.0), (x, area.bottom));
        drawing.text("reference", (x, area.top - 12.0), Anchor::Middle, name.key());
    }
    for (index, (name, of, class)) in rows.iter().enumerate() {
        let y = area.top + ROW * (row(index) + 0.5);
        let [p50, p99, p999] = [of.p50_ns, of.p99_ns, of.p999_ns].map(|ns| scale.at(float(ns)));
        let [p50_text, p99_text, p999_text] = [of.p50_ns, of.p99_ns, of.p999_ns].map(time_text);
        let note = format!("{name}: p50 {p50_text}, p99 {p99_text}, p99.9 {p999_text}");
        drawing.text("name", (area.left - 66.0, y + 4.0), Anchor::End, name);
        drawing.text("figure", (area.left - 8.0, y + 4.0), Anchor::End, &p50_text);
        drawing.line(&format!("thin {class}"), (p99, y), (p999, y));
        drawing.line(&format!("range {class}"), (p50, y), (p99, y));
        drawing.line(&format!("range {class}"), (p999, y - 5.0), (p999, y + 5.0));
        drawing.dot(class, (p50, y), &note);
    }
    Some(drawing.finish("Median, p99 and p99.9 of every floor and case"))
}

/// Where a percentile stands: each nine takes as much room as the one before.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// Percentile curves of the smallest payload, beside those of the floors.
fn curves(report: &Report) -> Option<String> {
    let plotted = |curve: &[CurvePoint]| -> Vec<(f64, f64)> {
        let below_max = curve.iter().filter(|(percentile, _)| *percentile < 100.0);
        below_max.map(|(percentile, ns)| (nines(*percentile), float(*ns))).collect()
    };
    let closed =
        || report.cases.iter().filter(|case| !is_queued(case) && is_call(case) && case.curve.len() > 1);
    let smallest = closed().map(|case| case.payload_bytes).min()?;
    // The fastest ones, if there are more than can be told apart: they are what the page is about.
    let mut chosen: Vec<&CaseResult> = closed().filter(|case| case.payload_bytes == smallest).collect();
    chosen.sort_by_key(|case| case.latency.p50_ns);
    chosen.truncate(COLOURS);
    let series: Vec<Series> =
        chosen.iter().map(|case| Series { name: case.name.clone(), points: plotted(&case.curve) }).collect();
    let floors: Vec<Series> = REFERENCES
        .iter()
        .map(|name| Series { name: name.key().to_owned(), points: plotted(&report.floors.get(*name).curve) })
        .collect();
    let all = || series.iter().chain(&floors).flat_map(|series| series.points.iter());
    let furthest = all().map(|point| point.0).fold(2.0, f64::max);
    let area = Area { left: 70.0, top: 16.0, right: WIDTH - 110.0, bottom: 396.0 };
    let across = |place: f64| area.left + place / furthest * (area.right - area.left);
    let scale = LogScale::over(all().map(|point| point.1), area.bottom, area.top);
    let mut drawing = Drawing::new(area.bottom + 50.0);
    drawing.left_axis(area, &scale, time);
    let named = PERCENTILES.iter().filter(|percentile| nines(**percentile) <= furthest + 0.01);
    let ticks: Vec<(f64, String)> = named
        .map(|percentile| {
            let label = if *percentile == 0.0 { "min".to_owned() } else { format!("p{percentile}") };
            (across(nines(*percentile)), label)
        })
        .collect();
    drawing.bottom_axis(area, &ticks, "percentile");
    let place = |series: &Series| -> Vec<(f64, f64)> {
        series.points.iter().map(|(x, y)| (across(*x), scale.at(*y))).collect()
    };
    let mut ends = Vec::new();
    for floor in &floors {
        let points = place(floor);
        drawing.polyline("reference", &points, &floor.name);
        ends.extend(points.last().map(|end| (end.1, floor.name.as_str())));
    }
    for (y, name) in apart(ends) {
        drawing.text("reference", (area.right + 6.0, y + 4.0), Anchor::Start, name);
    }
    for (index, one) in series.iter().enumerate() {
        drawing.polyline(&format!("line c{index}"), &place(one), &one.name);
    }
    Some(legend(&series) + &drawing.finish("Percentile curves of the smallest payload"))
}

/// Moves labels apart that would stand on each other.
fn apart(mut labels: Vec<(f64, &str)>) -> Vec<(f64, &str)> {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free_from = f64::MIN;
    for label in &mut labels {
        label.0 = label.0.max(free_from);
        free_from = label.0 + 14.0;
    }
    labels
}

/// Medians over payload sizes, one line for each way of calling that was measured at more than one size.
fn payloads(report: &Report) -> Option<String> {
    let series: Vec<Series> = by_size(report).into_iter().take(COLOURS).collect();
    let sizes: Vec<f64> =
        series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    let copies: Vec<(f64, f64)> =
        report.floors.memcpy.iter().map(|speed| (float(speed.bytes as u64), float(speed.p50_ns))).collect();
    let (smallest, largest) =
        (sizes.iter().copied().reduce(f64::min)?, sizes.iter().copied().reduce(f64::max)?);
    let area = Area { left: 70.0, top: 16.0, right: WIDTH - 110.0, bottom: 396.0 };
    let across = LogScale::over([smallest, largest], area.left, area.right);
    let inside: Vec<(f64, f64)> =
        copies.into_iter().filter(|(bytes, _)| (smallest..=largest).contains(bytes)).collect();
    let floors = REFERENCES.map(|name| (float(report.floors.get(name).summary.p50_ns), name.key()));
    let heights = series.iter().flat_map(|series| &series.points).chain(&inside).map(|point| point.1);
    let scale = LogScale::over(heights.chain(floors.iter().map(|floor| floor.0)), area.bottom, area.top);
    let mut drawing = Drawing::new(area.bottom + 50.0);
    drawing.left_axis(area, &scale, time);
    let mut marks = sizes;
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    let ticks: Vec<(f64, String)> = marks.iter().map(|bytes| (across.at(*bytes), size(*bytes))).collect();
    drawing.bottom_axis(area, &ticks, "payload");
    for (ns, _) in floors {
        drawing.line("reference", (area.left, scale.at(ns)), (area.right, scale.at(ns)));
    }
    let mut ends: Vec<(f64, &str)> = floors.iter().map(|(ns, name)| (scale.at(*ns), *name)).collect();
    let copied: Vec<(f64, f64)> = inside.iter().map(|(x, y)| (across.at(*x), scale.at(*y))).collect();
    if let (true, Some(end)) = (copied.len() > 1, copied.last()) {
        drawing.polyline("reference", &copied, "one core copying warm memory");
        if end.0 > area.right - 60.0 {
            ends.push((end.1, "memcpy"));
        } else {
            drawing.text("reference", (end.0 + 6.0, end.1 + 4.0), Anchor::Start, "memcpy");
        }
    }
    for (y, name) in apart(ends) {
        drawing.text("reference", (area.right + 6.0, y + 4.0), Anchor::Start, name);
    }
    for (index, one) in series.iter().enumerate() {
        let points: Vec<(f64, f64)> = one.points.iter().map(|(x, y)| (across.at(*x), scale.at(*y))).collect();
        drawing.polyline(&format!("line c{index}"), &points, &one.name);
        for (at, (bytes, ns)) in points.iter().zip(&one.points) {
            let note = format!("{}, {}: {}", one.name, size(*bytes), time(*ns));
            drawing.dot(&format!("c{index}"), *at, &note);
        }
    }
    Some(legend(&series) + &drawing.finish("Median latency by payload size"))
}

/// Groups cases whose names differ only in the payload.
fn by_size(report: &Report) -> Vec<Series> {
    let mut groups: Vec<Series> = Vec::new();
    for case in report.cases.iter().filter(|case| !is_queued(case)) {
        let bytes = case.payload_bytes.to_string();
        let parts = case.name.split('/').map(|part| if part == bytes { "*" } else { part });
        let name = parts.collect::<Vec<&str>>().join("/");
        let point = (float(case.payload_bytes), float(case.latency.p50_ns));
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.points.push(point),
            None => groups.push(Series { name, points: vec![point] }),
        }
    }
    groups.retain(|group| group.points.len() > 1);
    for group in &mut groups {
        group.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    groups
}

/// A bar per case with calls in flight, from zero.
fn throughput(report: &Report) -> Option<String> {
    let cases: Vec<&CaseResult> = report.cases.iter().filter(|case| is_queued(case)).collect();
    let bare = report.floors.stamp_ring.round_trips_per_s;
    let fastest = cases.iter().map(|case| case.calls_per_s).reduce(f64::max)?.max(bare.unwrap_or(0.0));
    let area = Area { left: NAMES, top: 26.0, right: WIDTH - 90.0, bottom: 26.0 + ROW * row(cases.len()) };
    let across = |rate: f64| area.left + rate / fastest * (area.right - area.left);
    let mut drawing = Drawing::new(area.bottom + 16.0);
    for (index, case) in cases.iter().enumerate() {
        let y = area.top + ROW * row(index);
        let (end, rate) = (across(case.calls_per_s), rate_text(case.calls_per_s));
        drawing.text("name", (area.left - 10.0, y + 16.0), Anchor::End, &case.name);
        let note = format!("{}: {rate}", case.name);
        drawing.bar("c0", (area.left, y + 4.0), (end - area.left, ROW - 8.0), &note);
        drawing.text("figure", (end + 6.0, y + 16.0), Anchor::Start, &rate);
    }
    drawing.line("axis", (area.left, area.top), (area.left, area.bottom));
    if let Some(bare) = bare {
        let x = across(bare);
        drawing.line("reference", (x, area.top - 6.0), (x, area.bottom));
        let label = format!("stamp_ring {}", rate_text(bare));
        drawing.text("reference", (x, area.top - 12.0), Anchor::Middle, &label);
    }
    Some(drawing.finish("Calls per second with calls in flight"))
}

/// Names the colours of a plot.
fn legend(series: &[Series]) -> String {
    let mut out = String::from("<ul class=\"legend\">");
    for (index, one) in series.iter().enumerate() {
        let name = super::escaped(&one.name);
        push(&mut out, format_args!("<li><span class=\"swatch s{index}\"></span>{name}</li>"));
    }
    out.push_str("</ul>\n");
    out
}
