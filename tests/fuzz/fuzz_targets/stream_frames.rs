//! Messages of browsers to the stream socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_worker_stream_socket::frames::{Asked, error};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Asked::read(text) {
        Ok(Asked::Join(join)) => assert!(join.subscription_id.len() <= 1024 && join.stream_name.len() <= 1024),
        Ok(_) => {}
        Err(wrong) => {
            let told = error(None, "invalid_request", &wrong.to_string());
            serde_json::from_str::<serde_json::Value>(&told).expect("what is told can be read");
        }
    }
});
