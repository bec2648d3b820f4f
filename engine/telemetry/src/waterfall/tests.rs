//! Snapshots: a trace and how it looks.

use std::sync::Arc;

use proptest::prelude::*;
use ringway_protocol::ErrorCode;

use super::*;
use crate::record::{Span, SpanKind::*};
use crate::store::TraceRecord;
use crate::testing::{log, span, trace_id, worker};
use crate::trace::assemble;

const ANCHOR: ClockAnchor = ClockAnchor { monotonic_ns: 0, unix_ns: 1_700_000_000_123_000_000 };

/// A researcher asks three others; one call fails, one worker died, one call still runs.
fn record() -> TraceRecord {
    let (agent, docs, text) = (worker(1, "agent"), worker(2, "docs"), worker(3, "text"));
    let us = |start: u64, end: u64| (start * 1_000, end * 1_000);
    let woken = |woke_us: u64, span: Span| Span { woke_ns: Some(woke_us * 1_000), ..span };
    let failed = |span: Span| Span { status: ErrorCode::HandlerError.status(), ..span };
    let lost = Span {
        status: ErrorCode::WorkerGone.status(),
        lost: true,
        ..span(&text, (9, 8), Server, "text::rank", us(810, 900))
    };
    let spans = vec![
        span(&agent, (1, 0), Server, "agents::researcher", us(0, 1_000)),
        span(&agent, (2, 1), Client, "docs::search", us(20, 320)),
        woken(60, span(&docs, (3, 2), Server, "docs::search", us(80, 300))),
        span(&docs, (4, 3), Internal, "open index", us(90, 150)),
        failed(span(&agent, (5, 1), Client, "text::summarize", us(330, 700))),
        failed(span(&text, (6, 5), Server, "text::summarize", us(331, 690))),
        span(&text, (7, 77), Internal, "stray step", us(400, 420)),
        span(&agent, (8, 1), Client, "text::rank", us(800, 901)),
        lost,
        Span { end_ns: None, ..span(&agent, (10, 1), Client, "agents::critic", us(905, 905)) },
    ];
    let mut found = log(&docs, 3, 120_000, Level::Info, "found documents\n\x1b[31mred");
    found.fields = vec![
        ("count".to_owned(), FieldValue::U64(12)),
        ("best".to_owned(), FieldValue::Text("a b".to_owned())),
    ];
    let logs = vec![
        found,
        log(&text, 6, 650_000, Level::Error, "no sentences"),
        log(&agent, 0, 990_000, Level::Debug, "loose end"),
    ];
    TraceRecord { trace_id: trace_id(1), spans, logs, spans_dropped: 2 }
}

fn check(style: Style, expected: &str) {
    let found = render(&assemble(record()), ANCHOR, style);
    assert_eq!(found, expected, "found:\n{found}");
}

#[test]
fn wide_unicode() {
    check(Style { width: 120, ..Style::default() }, include_str!("snapshots/wide.txt"));
}

#[test]
fn wide_ascii() {
    check(Style { width: 120, ascii: true, ..Style::default() }, include_str!("snapshots/ascii.txt"));
}

#[test]
fn medium() {
    check(Style { width: 80, ..Style::default() }, include_str!("snapshots/medium.txt"));
}

#[test]
fn narrow() {
    check(Style { width: 40, ..Style::default() }, include_str!("snapshots/narrow.txt"));
}

#[test]
fn colour_only_adds_escapes() {
    let trace = assemble(record());
    let plain = render(&trace, ANCHOR, Style::default());
    let painted = render(&trace, ANCHOR, Style { colour: true, ..Style::default() });
    assert!(painted.contains("\x1b[31m✗ \x1b[0m"));
    let mut stripped = painted;
    for paint in [Paint::Dim, Paint::Bold, Paint::Red, Paint::Yellow, Paint::Green] {
        stripped = stripped.replace(&format!("\x1b[{}m", paint.code()), "");
    }
    assert_eq!(stripped.replace("\x1b[0m", ""), plain);
}

#[test]
fn json_has_the_promised_shape() {
    let trace = assemble(record());
    let found = serde_json::to_string_pretty(&json::TraceJson::new(&trace, ANCHOR)).unwrap();
    assert_eq!(found + "\n", include_str!("snapshots/trace.json"));
}

#[test]
fn an_empty_trace_has_a_heading() {
    let record = TraceRecord { trace_id: trace_id(1), spans: Vec::new(), logs: Vec::new(), spans_dropped: 0 };
    let found = render(&assemble(record), ANCHOR, Style { width: 80, ..Style::default() });
    assert!(
        found.starts_with("trace 00000000000000000000000000000001\n0 ns, 0 spans, 0 workers, "),
        "{found}"
    );
}

#[test]
fn durations_have_three_digits() {
    let check = |ns: u64, expected: &str| assert_eq!(duration(ns, &UNICODE), expected, "{ns}");
    check(0, "0 ns");
    check(999, "999 ns");
    check(1_000, "1.00 µs");
    check(9_994, "9.99 µs");
    check(9_995, "10.0 µs");
    check(99_950, "100 µs");
    check(999_499, "999 µs");
    check(999_500, "1.00 ms");
    check(1_234_567_890, "1.23 s");
    check(u64::MAX, "18446744074 s");
}

#[test]
fn times_are_utc() {
    let check = |seconds: u64, expected: &str| assert_eq!(utc_time(seconds * 1_000_000_000), expected);
    check(0, "1970-01-01T00:00:00.000Z");
    check(951_782_399, "2000-02-28T23:59:59.000Z");
    check(951_782_400, "2000-02-29T00:00:00.000Z");
    check(4_102_444_799, "2099-12-31T23:59:59.000Z");
    assert_eq!(utc_time(u64::MAX), "2554-07-21T23:34:33.709Z");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_trace_can_be_drawn(
        spans in prop::collection::vec((any::<[u8; 3]>(), any::<u64>(), any::<Option<u64>>(), any::<u64>(), ".*"), 0..20),
        width in 0..200_usize,
        ascii in any::<bool>(),
    ) {
        let by = worker(1, "wörker\u{1b}[2J");
        let spans = spans.into_iter().enumerate().map(|(place, ([parent, kind, flags], start, end, woke, name))| {
            let id = u8::try_from(place + 1).unwrap();
            let kind = crate::record::SpanKind::try_from(kind % 5).unwrap();
            let made = span(&by, (id, parent % 24), kind, &name, (start, start));
            Span { end_ns: end, woke_ns: Some(woke), flags, worker: Arc::clone(&by), ..made }
        });
        let logs = vec![log(&by, 1, 5, Level::Warn, "a\u{1b}]0;title\u{7}\u{202e}b")];
        let record = TraceRecord { trace_id: trace_id(1), spans: spans.collect(), logs, spans_dropped: 0 };
        let trace = assemble(record);
        let found = render(&trace, ANCHOR, Style { width, colour: false, ascii });
        prop_assert!(found.chars().all(|c| c == '\n' || !c.is_control()));
        prop_assert_eq!(found.lines().filter(|line| line.ends_with(' ')).count(), 0);
        prop_assert!(serde_json::to_string(&json::TraceJson::new(&trace, ANCHOR)).is_ok());
    }
}
