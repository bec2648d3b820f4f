//! The control socket's bytes, cut anywhere: framing, then both directions' messages. A message that was understood
//! must be written and read again as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_protocol::control::{EngineMessage, WorkerMessage};
use ringway_protocol::framing::{self, Decoder};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    read_json(bytes);
    let mut decoder = Decoder::new();
    for part in bytes.chunks(usize::from(cut).max(1)) {
        decoder.push(part);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => read_json(frame.json),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn read_json(json: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<WorkerMessage>(json) {
        let mut out = Vec::new();
        framing::encode(&message, 0, &mut out).expect("what was read can be written");
        let mut decoder = Decoder::new();
        decoder.push(&out);
        let frame = decoder.next_frame().expect("our own frame").expect("a whole frame");
        assert_eq!(frame.parse::<WorkerMessage>().expect("our own message"), message);
    }
    if let Ok(message) = serde_json::from_slice::<EngineMessage>(json) {
        let text = serde_json::to_vec(&message).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<EngineMessage>(&text).expect("our own message"), message);
    }
}
