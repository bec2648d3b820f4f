//! Records of a telemetry ring as a faulty worker may write them: decoded, put together to logs, and written again
//! where they were understood.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_protocol::limits::TELEMETRY_BYTES;
use ringway_protocol::telemetry::{LogAssembler, LogRecord, Record};

fuzz_target!(|data: &[u8]| {
    let mut assembler = LogAssembler::new();
    for bytes in data.chunks(TELEMETRY_BYTES) {
        let mut out = [0; TELEMETRY_BYTES];
        match Record::decode(bytes) {
            Ok(Record::Span(span)) => {
                let len = span.encode(&mut out);
                assert_eq!(Record::decode(&out[..len]), Ok(Record::Span(span)));
            }
            Ok(Record::SpanStart(start)) => {
                let len = start.encode(&mut out);
                assert_eq!(Record::decode(&out[..len]), Ok(Record::SpanStart(start)));
            }
            Ok(Record::Dropped(dropped)) => {
                let len = dropped.encode(&mut out);
                assert_eq!(Record::decode(&out[..len]), Ok(Record::Dropped(dropped)));
            }
            Ok(Record::Log(chunk)) => {
                if let Ok(Some(log)) = assembler.push(&chunk) {
                    check_log(&log);
                }
            }
            Err(_) => {}
        }
    }
    if let Ok(log) = LogRecord::from_bytes(data) {
        check_log(&log);
    }
});

/// Compares bytes, since a field may hold a number that equals nothing, not even itself.
fn check_log(log: &LogRecord) {
    let bytes = log.to_bytes();
    let again = LogRecord::from_bytes(&bytes).expect("what was written can be read");
    assert_eq!(again.to_bytes(), bytes);
}
