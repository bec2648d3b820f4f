//! Messages as any client of the iii listener may send them: read as far as they can be, never more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_iii::protocol::{Incoming, decode};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(Incoming::Invoke(invoke)) = decode(text) {
        // What is passed on as it came is JSON by itself.
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(invoke.data).is_ok());
        assert!(invoke.metadata.is_none_or(|json| serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()));
    }
});
