//! What is promised of calls, held against one run. Used by `ringway bench`, whose report ends with it. Every target is a
//! ratio within the run or a share of a processor, so that it means the same on every machine; nothing here fails a run.

use serde::{Deserialize, Serialize};

use super::{CaseResult, FloorName, Report, time_text};

/// One promise and what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The line of the list of promises that it belongs to.
    pub line: char,
    /// What is compared.
    pub what: String,
    /// What is promised.
    pub target: String,
    /// What this run found.
    pub found: String,
    /// Whether that is enough.
    pub verdict: Verdict,
}

/// How a promise fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Kept.
    Ok,
    /// Not kept.
    Short,
    /// Nothing was measured.
    NotMeasured,
}

impl Verdict {
    /// Returns the words used in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Short => "short",
            Self::NotMeasured => "not measured",
        }
    }

    fn of(kept: bool) -> Self {
        if kept { Self::Ok } else { Self::Short }
    }
}

/// The call that most promises are about.
const SPINNING: &str = "call/typed/handle/spin/64";

/// Holds a report against what is promised. What was not measured, such as cases left out by a filter, is said to be so.
#[must_use]
pub fn claims(report: &Report) -> Vec<Claim> {
    let see = Judge { report };
    vec![
        see.floor_ratio('b', SPINNING, FloorName::CacheLine, "p50", 2.0),
        see.floor_ratio('b', SPINNING, FloorName::CacheLine, "p99", 3.0),
        see.floor_ratio('b', "call/typed/name/spin/64", FloorName::CacheLine, "p50", 2.5),
        see.floor_ratio('b', "call/typed/handle/spin/64/traced", FloorName::CacheLine, "p50", 3.5),
        see.faster_than_socket('c', 100.0),
        see.rate_share('d', "call/typed/handle/spin/64/inflight64", 0.25),
        see.case_ratio('e', "call/bytes/handle/spin/16777216", "call/bytes/handle/spin/64", 2.0),
        see.case_ratio('e', "call/bytes/handle/spin/1073741824", "call/bytes/handle/spin/64", 2.0),
        see.nothing_copied('e'),
        see.floor_ratio('f', "call/typed/handle/park/64", FloorName::Eventfd, "p50", 1.15),
        see.case_ratio('f', "call/typed/handle/adaptive/64/work20us", SPINNING, 2.0),
        see.share('f', "call/typed/handle/adaptive/64/pause10ms", 0.02),
        see.share('f', "idle/engine+8workers", 0.01),
        see.case_ratio('g', "catalog/10000/name/spin/64", "catalog/1/name/spin/64", 1.10),
        see.slowest_below('g', "catalog/10000/register_to_callable", 10_000_000),
    ]
}

struct Judge<'a> {
    report: &'a Report,
}

impl Judge<'_> {
    fn case(&self, name: &str) -> Option<&CaseResult> {
        self.report.cases.iter().find(|case| case.name == name)
    }

    fn floor_ratio(&self, line: char, name: &str, floor: FloorName, percentile: &str, most: f64) -> Claim {
        let bare = self.report.floors.get(floor).summary;
        let pair = self.case(name).map(|case| match percentile {
            "p99" => (case.latency.p99_ns, bare.p99_ns),
            _ => (case.latency.p50_ns, bare.p50_ns),
        });
        ratio(line, format!("{percentile} of {name} to {}", floor.key()), pair, most)
    }

    fn case_ratio(&self, line: char, name: &str, to: &str, most: f64) -> Claim {
        let pair = self.case(name).zip(self.case(to)).map(|(a, b)| (a.latency.p50_ns, b.latency.p50_ns));
        ratio(line, format!("p50 of {name} to {to}"), pair, most)
    }

    fn faster_than_socket(&self, line: char, least: f64) -> Claim {
        let socket = self.report.floors.unix_socket.summary.p50_ns;
        let found = self.case(SPINNING).and_then(|case| quotient(socket, case.latency.p50_ns));
        claim(
            line,
            format!("unix_socket to p50 of {SPINNING}"),
            format!("≥ {least:.0} ×"),
            found.map(|times| (format!("{times:.0} ×"), times >= least)),
        )
    }

    fn rate_share(&self, line: char, name: &str, least: f64) -> Claim {
        let found = self.case(name).map(|case| case.ratio_to_floor);
        claim(
            line,
            format!("rate of {name} to the bare ring's"),
            format!("≥ {:.0} %", least * 100.0),
            found.map(|share| (format!("{:.1} %", share * 100.0), share >= least)),
        )
    }

    fn nothing_copied(&self, line: char) -> Claim {
        let large = self.report.cases.iter().filter(|case| case.payload_bytes >= 4096);
        let counted: Vec<u64> = large.filter_map(|case| case.bytes_copied).collect();
        let sum: u64 = counted.iter().sum();
        let what = "payload bytes copied by all cases of 4 KiB and more, both processes".to_owned();
        let found = (!counted.is_empty()).then(|| (format!("{sum} B in {} cases", counted.len()), sum == 0));
        claim(line, what, "0 B".to_owned(), found)
    }

    fn share(&self, line: char, name: &str, most: f64) -> Claim {
        let found = self.case(name).and_then(|case| case.cpu_share);
        claim(
            line,
            format!("{name}, of one processor"),
            format!("≤ {:.0} %", most * 100.0),
            found.map(|share| (format!("{:.2} %", share * 100.0), share <= most)),
        )
    }

    fn slowest_below(&self, line: char, name: &str, limit_ns: u64) -> Claim {
        let found = self.case(name).map(|case| case.latency.max_ns);
        claim(
            line,
            format!("slowest worker of {name}"),
            format!("< {}", time_text(limit_ns)),
            found.map(|slowest| (time_text(slowest), slowest < limit_ns)),
        )
    }
}

fn ratio(line: char, what: String, pair: Option<(u64, u64)>, most: f64) -> Claim {
    let found = pair.and_then(|(case, bare)| Some((quotient(case, bare)?, case, bare)));
    let found = found.map(|(times, case, bare)| {
        (format!("{times:.2} × ({} to {})", time_text(case), time_text(bare)), times <= most)
    });
    claim(line, what, format!("≤ {most:.2} ×"), found)
}

fn claim(line: char, what: String, target: String, found: Option<(String, bool)>) -> Claim {
    let (found, verdict) = found
        .map_or_else(|| ("–".to_owned(), Verdict::NotMeasured), |(text, kept)| (text, Verdict::of(kept)));
    Claim { line, what, target, found, verdict }
}

/// Divides; `None` where there is nothing to divide by.
fn quotient(dividend: u64, divisor: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    let (dividend, divisor) = (dividend as f64, divisor as f64);
    (divisor > 0.0).then(|| dividend / divisor)
}
