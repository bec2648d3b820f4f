//! Traces in small notation, and the tree and the hops they make.

use proptest::prelude::*;
use ringway_protocol::SpanId;

use super::*;
use crate::record::{Level, SpanKind::*};
use crate::testing::{log, span, trace_id, worker};

fn record(spans: Vec<Span>, logs: Vec<Log>) -> TraceRecord {
    TraceRecord { trace_id: trace_id(1), spans, logs, spans_dropped: 0 }
}

/// Spells a tree: indentation for depth, `a+b` for a hop, `?` for an orphan, `.` for a last sibling.
fn outline(trace: &Trace) -> String {
    let id = |span: &Span| span.span_id.to_bytes()[7].to_string();
    let row = |row: &Row| {
        let ids = match &row.work {
            Work::Hop { client, server } => format!("{}+{}", id(client), id(server)),
            Work::Single(span) => id(span),
        };
        let marks = format!("{}{}", if row.orphan { "?" } else { "" }, if row.last { "." } else { "" });
        let logs: String = row.logs.iter().map(|log| format!(" {}", log.message)).collect();
        format!("{}{ids}{marks}{logs}", " ".repeat(row.depth))
    };
    trace.rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Checks the tree made of `(id, parent, kind, start, end)`, whatever the order in which the spans came.
fn check(spans: &[(u8, u8, SpanKind, u64, u64)], expected: &str) {
    let by = worker(1, "w");
    let make = |&(id, parent, kind, start, end): &_| span(&by, (id, parent), kind, "f", (start, end));
    let spans: Vec<Span> = spans.iter().map(make).collect();
    let backwards = spans.iter().rev().cloned().collect();
    assert_eq!(outline(&assemble(record(spans, Vec::new()))), expected);
    assert_eq!(outline(&assemble(record(backwards, Vec::new()))), expected, "in reverse order of arrival");
}

#[test]
fn spans_become_a_tree() {
    check(&[], "");
    check(&[(1, 0, Internal, 0, 9)], "1.");
    check(
        &[(1, 0, Internal, 0, 9), (3, 1, Internal, 5, 6), (2, 1, Internal, 1, 2), (4, 2, Internal, 1, 2)],
        "1.\n 2\n  4.\n 3.",
    );
}

#[test]
fn two_sides_become_a_hop() {
    check(
        &[(1, 0, Client, 0, 9), (2, 1, Server, 1, 8), (3, 2, Client, 2, 7), (4, 3, Server, 3, 6)],
        "1+2.\n 3+4.",
    );
    check(&[(1, 0, Producer, 0, 1), (2, 1, Consumer, 3, 8)], "1+2.");
    check(&[(1, 0, Client, 0, 9), (2, 1, Internal, 1, 8)], "1.\n 2.");
}

#[test]
fn a_call_that_was_given_to_another_replica_shows_both() {
    check(
        &[(1, 0, Client, 0, 9), (2, 1, Server, 1, 3), (3, 1, Server, 4, 8), (4, 2, Internal, 2, 3)],
        "1+3.\n 2.\n  4.",
    );
}

#[test]
fn orphans_and_rings_stand_at_the_top() {
    check(&[(1, 0, Internal, 5, 9), (2, 77, Server, 1, 2), (3, 2, Internal, 1, 2)], "2?\n 3.\n1.");
    check(&[(1, 1, Internal, 0, 9), (2, 1, Internal, 1, 2)], "1?.\n 2.");
    check(&[(1, 2, Client, 0, 9), (2, 1, Server, 1, 2), (3, 2, Internal, 1, 2)], "1+2?.\n 3.");
    check(&[(1, 2, Internal, 3, 9), (2, 1, Internal, 1, 2)], "2?.\n 1.");
}

#[test]
fn logs_are_put_in_place() {
    let by = worker(1, "w");
    let spans = vec![span(&by, (1, 0), Client, "f", (0, 9)), span(&by, (2, 1), Server, "f", (1, 8))];
    let logs = vec![
        log(&by, 2, 5, Level::Info, "late"),
        log(&by, 1, 1, Level::Info, "early"),
        log(&by, 0, 2, Level::Info, "loose"),
        log(&by, 9, 1, Level::Info, "strange"),
    ];
    let trace = assemble(record(spans, logs));
    assert_eq!(outline(&trace), "1+2. early late");
    let homeless: Vec<_> = trace.logs.iter().map(|log| log.message.as_str()).collect();
    assert_eq!(homeless, ["strange", "loose"]);
}

/// Checks waiting, wake-up, run, reply and reply's wake-up of a call.
fn check_hop(client: (u64, u64, u64), server: (u64, u64, u64), expected: [u64; 5]) {
    let by = worker(1, "w");
    let some = |woke: u64| (woke != 0).then_some(woke);
    let client = Span { woke_ns: some(client.2), ..span(&by, (1, 0), Client, "f", (client.0, client.1)) };
    let server = Span { woke_ns: some(server.2), ..span(&by, (2, 1), Server, "f", (server.0, server.1)) };
    let found = Work::Hop { client, server }.breakdown();
    let found = [found.waiting_ns, found.wake_ns, found.run_ns, found.reply_ns, found.reply_wake_ns];
    assert_eq!(found, expected.map(Some));
}

#[test]
fn a_hop_says_where_its_time_went() {
    check_hop((100, 200, 0), (110, 180, 0), [10, 0, 70, 20, 0]);
    check_hop((100, 200, 0), (150, 180, 140), [10, 40, 30, 20, 0]);
    check_hop((100, 200, 195), (150, 180, 140), [10, 40, 30, 20, 15]);
    // Woken by an earlier frame, or for a later reply.
    check_hop((100, 200, 170), (150, 180, 90), [50, 0, 30, 20, 0]);
}

#[test]
fn contradicting_times_count_as_nothing() {
    check_hop((100, 200, 0), (90, 210, 0), [0, 0, 120, 0, 0]);
    check_hop((100, 50, u64::MAX), (300, 20, u64::MAX), [0, 200, 0, 30, 30]);
    check_hop((u64::MAX, 0, 1), (0, u64::MAX, 1), [0, 0, u64::MAX, 0, 0]);
}

#[test]
fn gaps_stay_gaps() {
    let by = worker(1, "w");
    let client = span(&by, (1, 0), Client, "f", (100, 200));
    let server = span(&by, (2, 1), Server, "f", (120, 150));
    let check = |work: Work, run: Option<u64>, reply: Option<u64>, duration: Option<u64>| {
        let found = work.breakdown();
        assert_eq!((found.run_ns, found.reply_ns, work.duration_ns()), (run, reply, duration), "{work:?}");
    };
    let live = |span: &Span| Span { end_ns: None, ..span.clone() };
    check(Work::Single(client.clone()), None, None, Some(100));
    check(Work::Single(server.clone()), Some(30), None, Some(30));
    check(Work::Hop { client: client.clone(), server: live(&server) }, None, None, Some(100));
    check(Work::Hop { client: live(&client), server: server.clone() }, Some(30), None, None);
    let lost = Span { lost: true, ..server.clone() };
    check(Work::Hop { client: client.clone(), server: lost }, Some(30), None, Some(100));
    let sent = Span { kind: Producer, end_ns: Some(101), ..client };
    check(Work::Hop { client: sent, server }, Some(30), None, Some(50));
}

#[test]
fn depth_has_no_limit() {
    let by = worker(1, "w");
    let id = |number: u64| SpanId::from_bytes(number.to_be_bytes());
    let deep = (1..=50_000_u64).map(|number| Span {
        span_id: id(number),
        parent_id: (number > 1).then(|| id(number - 1)),
        ..span(&by, (1, 0), Internal, "f", (number, 100_000 - number))
    });
    let trace = assemble(record(deep.collect(), Vec::new()));
    assert_eq!((trace.rows.len(), trace.rows[49_999].depth), (50_000, 49_999));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_span_is_shown_once(
        spans in prop::collection::btree_map(1..30_u8, (0..32_u8, 0..5_u8, any::<u8>(), any::<u8>()), 0..30),
    ) {
        let by = worker(1, "w");
        let made: Vec<Span> = spans
            .iter()
            .map(|(&id, &(parent, kind, start, end))| {
                let kind = SpanKind::try_from(kind).unwrap();
                span(&by, (id, parent), kind, "f", (start.into(), end.into()))
            })
            .collect();
        let trace = assemble(record(made, Vec::new()));
        let mut shown: Vec<u8> = Vec::new();
        for row in &trace.rows {
            shown.push(row.work.outer().span_id.to_bytes()[7]);
            if let Work::Hop { server, .. } = &row.work {
                shown.push(server.span_id.to_bytes()[7]);
            }
        }
        shown.sort_unstable();
        prop_assert_eq!(shown, spans.keys().copied().collect::<Vec<_>>());
        prop_assert!(trace.rows.iter().zip(trace.rows.iter().skip(1)).all(|(a, b)| b.depth <= a.depth + 1));
        prop_assert_eq!(trace.rows.iter().filter(|row| row.depth == 0 && row.last).count(), usize::from(!spans.is_empty()));
    }
}
