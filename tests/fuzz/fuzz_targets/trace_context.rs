//! `traceparent` and `baggage` as they come from anywhere. What was understood must be written and read again as the
//! same thing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_protocol::TraceContext;
use ringway_protocol::baggage::Baggage;

fuzz_target!(|text: &str| {
    if let Ok(context) = TraceContext::parse_traceparent(text) {
        assert!(context.is_valid());
        assert_eq!(TraceContext::parse_traceparent(&context.to_string()), Ok(context));
    }
    if let Ok(baggage) = Baggage::parse(text) {
        // Percent coding may lengthen it past the limit, which reading then refuses.
        if let Ok(again) = Baggage::parse(&baggage.format()) {
            assert_eq!(again, baggage);
        }
    }
});
