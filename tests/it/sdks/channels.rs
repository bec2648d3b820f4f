//! Channels between every two workers: made by one, one end given to the other in a call. It must not know how what is
//! written travels.

use serde_json::{Value, json};

use super::stage::{NATIVE, Stage};

/// More than the SDKs put in one message and more than a channel keeps by default, 64 messages of 64 KiB.
const BYTES: usize = 5 << 20;

/// The byte at a place, as every actor writes it.
pub(crate) fn byte_at(i: usize) -> u8 {
    u8::try_from((31 * i + (i >> 8)) & 0xff).unwrap_or_default()
}

/// Adler-32, as every actor reckons it.
pub(crate) fn sum_of_bytes(bytes: impl Iterator<Item = u8>) -> u32 {
    let (a, b) = bytes.fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

/// The sum of so many bytes as every actor writes them.
pub(crate) fn sum_of(bytes: usize) -> u32 {
    sum_of_bytes((0..bytes).map(byte_at))
}

#[test]
fn everybody_exchanges_channels_with_everybody() {
    let stage = Stage::new();
    let texts = json!(["first", "{\"second\":\u{fc}}", ""]);
    for maker in stage.sdks() {
        for other in stage.sdks() {
            let few = json!({ "bytes": 100_001, "sum": sum_of(100_001), "texts": texts });
            assert_eq!(
                exchange(&stage, maker, other, "push", 100_001, &texts),
                few,
                "{maker} pushes to {other}"
            );
            assert_eq!(
                exchange(&stage, maker, other, "pull", 100_001, &texts),
                few,
                "{maker} pulls from {other}"
            );
        }
    }
    let many = json!({ "bytes": BYTES, "sum": sum_of(BYTES), "texts": ["all"] });
    let sdks = stage.sdks();
    for (maker, other) in sdks.iter().zip(sdks.iter().cycle().skip(1)) {
        assert_eq!(
            exchange(&stage, maker, other, "push", BYTES, &json!(["all"])),
            many,
            "{maker} pushes to {other}"
        );
    }
}

fn exchange(stage: &Stage, maker: &str, other: &str, way: &str, bytes: usize, texts: &Value) -> Value {
    let (end, function) = if way == "push" { ("to", "receive") } else { ("from", "pour") };
    let request = json!({ end: format!("{other}::{function}"), "bytes": bytes, "texts": texts });
    stage.ask(maker, way, &request)
}

#[test]
fn a_native_worker_reads_and_writes_channels_of_every_sdk() {
    let stage = Stage::new();
    let texts = json!(["first", "second"]);
    let few = json!({ "bytes": 100_001, "sum": sum_of(100_001), "texts": texts });
    for sdk in stage.sdks() {
        for (maker, other) in [(sdk, NATIVE), (NATIVE, sdk)] {
            assert_eq!(
                exchange(&stage, maker, other, "push", 100_001, &texts),
                few,
                "{maker} pushes to {other}"
            );
            assert_eq!(
                exchange(&stage, maker, other, "pull", 100_001, &texts),
                few,
                "{maker} pulls from {other}"
            );
        }
    }
}
