//! Checks that records survive, that no bytes can harm a reader, and that incomplete logs stay bounded.

use proptest::prelude::*;

use super::*;

fn span(name: &str) -> SpanRecord {
    SpanRecord {
        trace_id: TraceId::from_bytes([1; 16]),
        span_id: SpanId::from_bytes([2; 8]),
        parent_id: SpanId::from_bytes([3; 8]),
        start_ns: 4,
        end_ns: u64::MAX,
        kind: SpanKind::Server,
        status: 6,
        function: FunctionRef { worker: WorkerId::new(7), index: 8 },
        peer: WorkerId::new(9),
        woke_ns: 10,
        bytes_in: 11,
        bytes_out: 12,
        flags: SPAN_FLAG_IN_PLACE,
        name: SpanName::new(name),
    }
}

fn encode_log(log: &LogRecord, sequence: u32) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    assert!(log.encode(sequence, |bytes, len| {
        records.push(bytes[..len].to_vec());
        true
    }));
    records
}

fn assemble(assembler: &mut LogAssembler, record: &[u8]) -> Option<LogRecord> {
    match Record::decode(record).unwrap() {
        Record::Log(chunk) => assembler.push(&chunk).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn log(message: &str) -> LogRecord {
    LogRecord { time_ns: 1, level: Level::Warn, message: message.into(), ..LogRecord::default() }
}

#[test]
fn spans_survive_and_fit() {
    for name in ["", "step", &"é".repeat(40)] {
        let (mut out, record) = ([0; limits::TELEMETRY_BYTES], span(name));
        let len = record.encode(&mut out);
        assert_eq!(Record::decode(&out[..len]), Ok(Record::Span(record)));
        assert_eq!(SpanRecord::decode(&out), Ok(record), "trailing bytes of a slot do no harm");
    }
    let odd = format!("x{}", "é".repeat(40));
    assert_eq!(SpanName::new(&odd).as_str(), format!("x{}", "é".repeat(31)), "cut at a character's end");
}

#[test]
fn starts_and_losses_survive() {
    let mut out = [0; limits::TELEMETRY_BYTES];
    let record = span("long");
    let start = SpanStart {
        trace_id: record.trace_id,
        span_id: record.span_id,
        parent_id: record.parent_id,
        start_ns: 4,
        kind: SpanKind::Client,
        function: FunctionRef::NONE,
        peer: record.peer,
        name: record.name,
    };
    let len = start.encode(&mut out);
    assert_eq!(Record::decode(&out[..len]), Ok(Record::SpanStart(start)));
    let dropped = Dropped { spans: 5, logs: 6 };
    let len = dropped.encode(&mut out);
    assert_eq!(Record::decode(&out[..len]), Ok(Record::Dropped(dropped)));
}

#[test]
fn a_span_cut_anywhere_is_an_error() {
    let mut out = [0; limits::TELEMETRY_BYTES];
    let len = span("step").encode(&mut out);
    for cut in 0..len {
        assert!(Record::decode(&out[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_log_over_the_limit_is_cut_not_lost() {
    let mut assembler = LogAssembler::new();
    let mut long = log(&"ö".repeat(40_000));
    long.fields.push(("late".into(), FieldValue::Bool(true)));
    assert!(long.to_bytes().len() <= limits::LOG_BYTES_MAX);
    let whole =
        encode_log(&long, 1).iter().filter_map(|record| assemble(&mut assembler, record)).last().unwrap();
    assert!(long.message.starts_with(&whole.message) && whole.message.len() > 30_000);
    assert_eq!(whole.level, Level::Warn);
}

#[test]
fn interleaved_logs_are_told_apart() {
    let mut assembler = LogAssembler::new();
    let (first, second) = (log(&"a".repeat(500)), log(&"b".repeat(500)));
    let (records_a, records_b) = (encode_log(&first, 1), encode_log(&second, 2));
    let mixed = records_a.iter().zip(&records_b).flat_map(|(a, b)| [a, b]);
    let whole: Vec<_> = mixed.filter_map(|record| assemble(&mut assembler, record)).collect();
    assert_eq!(whole, [first, second]);
}

#[test]
fn missing_parts_are_counted_and_memory_is_bounded() {
    let mut assembler = LogAssembler::new();
    for sequence in 0..100 {
        assert_eq!(assemble(&mut assembler, &encode_log(&log(&"x".repeat(500)), sequence)[0]), None);
    }
    assert_eq!(assembler.lost(), 100 - LogAssembler::OPEN_MAX as u64);
    let records = encode_log(&log(&"x".repeat(500)), 500);
    assemble(&mut assembler, &records[0]);
    assert_eq!(assemble(&mut assembler, &records[2]), None, "part 1 is missing");
    assert_eq!(assemble(&mut assembler, &records[1]), None);
}

#[test]
fn a_full_ring_stops_the_rest() {
    let mut put = 0;
    let all = log(&"x".repeat(1000)).encode(1, |_, _| {
        put += 1;
        put < 3
    });
    assert!(!all && put == 3);
}

fn field() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i64>().prop_map(FieldValue::I64),
        any::<u64>().prop_map(FieldValue::U64),
        (-1e9..1e9).prop_map(FieldValue::F64),
        "\\PC{0,30}".prop_map(FieldValue::Text),
    ]
}

proptest! {
    #[test]
    fn any_log_survives(
        target in "\\PC{0,30}",
        message in "\\PC{0,400}",
        fields in prop::collection::vec(("[a-z.]{1,12}", field()), 0..8),
        time_ns in any::<u64>(),
        sequence in 0u32..1 << 24,
    ) {
        let log = LogRecord { time_ns, target, message, fields, ..LogRecord::default() };
        let mut assembler = LogAssembler::new();
        let whole: Vec<_> = encode_log(&log, sequence).iter().filter_map(|r| assemble(&mut assembler, r)).collect();
        prop_assert_eq!(whole, [log]);
    }

    #[test]
    fn any_bytes_are_safe(tag in 0u8..6, mut bytes in prop::collection::vec(any::<u8>(), 0..260)) {
        if let Some(first) = bytes.first_mut() {
            *first = tag;
        }
        let mut assembler = LogAssembler::new();
        match Record::decode(&bytes) {
            Ok(Record::Log(chunk)) => { let _ = assembler.push(&chunk).is_ok(); }
            Ok(Record::Span(record)) => {
                let mut out = [0; limits::TELEMETRY_BYTES];
                let len = record.encode(&mut out);
                prop_assert_eq!(SpanRecord::decode(&out[..len]), Ok(record));
            }
            Ok(_) | Err(_) => {}
        }
        let _ = LogRecord::from_bytes(&bytes).is_ok();
    }
}
