//! What comes over HTTP and is parsed by the front door itself: bodies, signatures, who asked; and what functions answer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    ringway_worker_http::fuzzing::body(bytes);
    ringway_worker_http::fuzzing::answer(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        ringway_worker_http::fuzzing::head(text);
    }
});
