//! The report as one page: plots, tables, machine, how to repeat. Used by `ringway bench --html`. Everything is inside
//! the file (drawings are inline SVG, no script runs, nothing is fetched), so it can be mailed or attached to an issue.
//! It only shows what the report says and works nothing out anew.

mod charts;
mod plot;

use std::fmt::Write;

use crate::floors::Floor;
use crate::report::{CaseResult, FloorName, Load, Report, count_text, rate_text, size_text, time_text};

/// Load average above which the page warns that something else was running.
const LOAD_QUIET_MAX: f64 = 0.5;

/// Writes the page.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = String::with_capacity(64 << 10);
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<title>Ringway benchmark</title>\n<style>\n");
    page.push_str(include_str!("html/style.css"));
    page.push_str("</style>\n</head>\n<body>\n<main>\n");
    for part in [
        heading(report),
        promises(report),
        charts::all(report),
        floors(report),
        cases(report),
        machine(report),
        method(report),
    ] {
        page.push_str(&part);
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Makes text safe inside elements and quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn heading(report: &Report) -> String {
    let mut out = String::from("<header>\n<h1>Ringway benchmark</h1>\n");
    let place = format!(
        "{} · Linux {} · cpus {} and {}, {} · {} cases",
        report.machine.cpu_model,
        report.machine.kernel,
        report.cpus.caller,
        report.cpus.callee,
        report.regime.name(),
        report.cases.len()
    );
    push(&mut out, format_args!("<p class=\"lead\">{}</p>\n", escaped(&place)));
    if report.debug_build {
        out.push_str("<p class=\"warning\">Built without optimisation: these figures mean nothing.</p>\n");
    }
    if let Some(load) = report.machine.load_1m.filter(|load| *load > LOAD_QUIET_MAX) {
        let text = "when the run began: other work shared the machine, so trust medians more than tails.";
        push(&mut out, format_args!("<p class=\"warning\">The load average was {load:.2} {text}</p>\n"));
    }
    out.push_str(&tiles(report));
    out.push_str("</header>\n");
    out
}

/// The three figures that most readers came for.
fn tiles(report: &Report) -> String {
    let mut out = String::from("<div class=\"tiles\">\n");
    let mut tile = |title: &str, figure: &str, note: &str| {
        let (title, figure, note) = (escaped(title), escaped(figure), escaped(note));
        push(
            &mut out,
            format_args!("<div><span>{title}</span><strong>{figure}</strong><span>{note}</span></div>\n"),
        );
    };
    let floor = &report.floors.cache_line.summary;
    tile(
        "bare cache line, round trip",
        &time_text(floor.p50_ns),
        &format!("p99 {}", time_text(floor.p99_ns)),
    );
    let closed = report.cases.iter().filter(|case| case.load == Load::Closed && charts::is_call(case));
    if let Some(best) = closed.min_by_key(|case| case.latency.p50_ns) {
        let note = format!("{} · p99 {}", ratio_text(best), time_text(best.latency.p99_ns));
        tile(&best.name, &time_text(best.latency.p50_ns), &note);
    }
    let flying = report.cases.iter().filter(|case| matches!(case.load, Load::InFlight { .. }));
    if let Some(best) = flying.max_by(|a, b| a.calls_per_s.total_cmp(&b.calls_per_s)) {
        tile(&best.name, &rate_text(best.calls_per_s), &ratio_text(best));
    }
    out.push_str("</div>\n");
    out
}

/// What is promised, and what this run found.
fn promises(report: &Report) -> String {
    if report.claims.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section>\n<h2>Promises</h2>\n<div class=\"scroll\"><table>\n<thead><tr>");
    out.push_str(
        "<th></th><th class=\"text\">what</th><th>target</th><th class=\"text\">found</th><th></th>",
    );
    out.push_str("</tr></thead>\n<tbody>\n");
    for claim in &report.claims {
        let [what, target, found] = [&claim.what, &claim.target, &claim.found].map(|text| escaped(text));
        let (line, verdict) = (claim.line, claim.verdict.name());
        push(&mut out, format_args!("<tr><th>{line}</th><td class=\"text\">{what}</td><td>{target}</td>"));
        push(&mut out, format_args!("<td class=\"text\">{found}</td><td>{verdict}</td></tr>\n"));
    }
    out.push_str("</tbody></table></div>\n</section>\n");
    out
}

/// Says how a case compares with its floor.
fn ratio_text(case: &CaseResult) -> String {
    match (case.floor, case.load) {
        (None, _) => "–".to_owned(),
        (Some(floor), Load::InFlight { .. }) => {
            format!("{:.0} % of {}", case.ratio_to_floor * 100.0, floor.key())
        }
        (Some(floor), _) => format!("{:.2} × {}", case.ratio_to_floor, floor.key()),
    }
}

fn floors(report: &Report) -> String {
    let mut out =
        String::from("<section>\n<h2>Floors</h2>\n<p>What this machine costs without Ringway: two ");
    out.push_str(
        "processes, the same two cores, the same run.</p>\n<div class=\"scroll\"><table>\n<thead><tr>",
    );
    out.push_str(
        "<th>floor</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th>",
    );
    out.push_str("<th>rate</th><th class=\"text\">how</th></tr></thead>\n<tbody>\n");
    for name in [FloorName::CacheLine, FloorName::StampRing, FloorName::Eventfd, FloorName::UnixSocket] {
        let floor = report.floors.get(name);
        push(&mut out, format_args!("<tr><th>{}</th>", name.key()));
        latency_cells(&mut out, &floor.summary);
        let rate = floor.round_trips_per_s.map_or_else(|| "–".to_owned(), rate_text);
        push(
            &mut out,
            format_args!("<td>{rate}</td><td class=\"text\">{}</td></tr>\n", escaped(&how(floor))),
        );
    }
    out.push_str("</tbody></table></div>\n");
    let copies = report.floors.memcpy.iter();
    let copies = copies
        .map(|speed| format!("{} at {:.1} GB/s", size_text(speed.bytes as u64), speed.bytes_per_s / 1e9));
    let copies: Vec<String> = copies.collect();
    if !copies.is_empty() {
        push(
            &mut out,
            format_args!("<p>One core copies warm memory: {}.</p>\n", escaped(&copies.join(", "))),
        );
    }
    out.push_str("</section>\n");
    out
}

fn how(floor: &Floor) -> String {
    let waiting =
        floor.spin.map_or_else(|| "asleep in between".to_owned(), |spin| format!("polling {}", spin.name()));
    match floor.in_flight {
        Some(in_flight) => format!("{waiting}; rate with {in_flight} in flight"),
        None => waiting,
    }
}

fn latency_cells(out: &mut String, of: &crate::stats::Summary) {
    for ns in [of.p50_ns, of.p90_ns, of.p99_ns, of.p999_ns, of.p9999_ns, of.max_ns] {
        push(out, format_args!("<td>{}</td>", time_text(ns)));
    }
}

fn cases(report: &Report) -> String {
    if report.cases.is_empty() {
        return String::new();
    }
    let mut out = String::from("<section>\n<h2>Every case</h2>\n<div class=\"scroll\"><table>\n<thead><tr>");
    out.push_str(
        "<th>case</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th>",
    );
    out.push_str("<th>calls</th><th>rate</th><th>cpu per<br>Mcall</th><th>bytes<br>copied</th>");
    out.push_str("<th class=\"text\">to its floor</th></tr></thead>\n<tbody>\n");
    for case in &report.cases {
        push(&mut out, format_args!("<tr><th>{}</th>", escaped(&case.name)));
        latency_cells(&mut out, &case.latency);
        let (count, rate) = (count_text(case.latency.count), rate_text(case.calls_per_s));
        push(&mut out, format_args!("<td>{count}</td><td>{rate}</td><td>{:.2} s</td>", case.cpu_s_per_mcall));
        let copied = case.bytes_copied.map_or_else(|| "–".to_owned(), count_text);
        let share = case.cpu_share.map(|share| format!("{:.2} % of a processor", share * 100.0));
        let remarks: Vec<String> =
            [Some(ratio_text(case)), share, case.note.clone()].into_iter().flatten().collect();
        let ratio = escaped(&remarks.join("; "));
        push(&mut out, format_args!("<td>{copied}</td><td class=\"text\">{ratio}</td></tr>\n"));
    }
    out.push_str("</tbody></table></div>\n</section>\n");
    out
}

fn machine(report: &Report) -> String {
    let of = &report.machine;
    let unknown = || "not told".to_owned();
    let mut facts = vec![
        ("processor", of.cpu_model.clone()),
        ("processors", format!("{} allowed, {} online", of.cpus_allowed, of.cpus_online)),
        ("memory", size_text(of.memory_bytes)),
        ("kernel", format!("Linux {}, {}", of.kernel, of.architecture)),
        ("virtual machine", if of.virtual_machine { "yes" } else { "no" }.to_owned()),
        ("clock source", of.clocksource.clone().unwrap_or_else(unknown)),
        ("governor", of.governor.clone().unwrap_or_else(unknown)),
        ("huge pages", of.huge_pages.clone().unwrap_or_else(unknown)),
        ("huge pages, shared", of.huge_pages_shared.clone().unwrap_or_else(unknown)),
        ("quota", of.cgroup_cpus.map_or_else(|| "none".to_owned(), |cpus| format!("{cpus:.2} processors"))),
        ("load at the start", of.load_1m.map_or_else(unknown, |load| format!("{load:.2}"))),
        ("measured with", format!("{}, {} ns subtracted", report.clock.source, report.clock.empty_ns)),
        ("version", version(report)),
        ("ended", format!("{} s after 1970-01-01 UTC", report.ended_unix_s)),
    ];
    facts.extend(of.mitigations.iter().map(|(name, said)| (name.as_str(), said.clone())));
    let mut out = String::from("<section>\n<h2>Machine</h2>\n<dl>\n");
    for (name, value) in facts {
        push(&mut out, format_args!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(&value)));
    }
    out.push_str("</dl>\n</section>\n");
    out
}

fn version(report: &Report) -> String {
    report
        .commit
        .as_ref()
        .map_or_else(|| report.version.clone(), |commit| format!("{} at {commit}", report.version))
}

fn method(report: &Report) -> String {
    let mut out = String::from("<section>\n<h2>How to repeat and read this</h2>\n");
    push(&mut out, format_args!("<pre>{}</pre>\n", escaped(&report.command)));
    out.push_str(concat!(
        "<ul>\n<li>Both sides are pinned, one processor each. A percentile is the median of that percentile over the ",
        "runs; a maximum too. Curves show all runs together.</li>\n",
        "<li>A closed loop sends when the last answer is in. Cases at a rate count from the intended send time, so a ",
        "stall is charged to every call it delays. With calls in flight the rate is the figure, and a latency ",
        "includes waiting in the queue.</li>\n",
        "<li><i>near</i>: the two cores pass a cache line there and back in under 0.25 µs; <i>far</i>: they do not. ",
        "Compare ratios across machines, never nanoseconds.</li>\n",
        "<li>Processor time is that of all processes involved: a polling wait buys its latency with it.</li>\n",
        "</ul>\n</section>\n"
    ));
    out
}

/// Appends formatted text.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests;
