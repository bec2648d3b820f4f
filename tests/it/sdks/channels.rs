//! Channels between every two workers: made by one, one end given to the other in a call. It must not know how what is
//! written travels.

use serde_json::json;

use super::stage::{NATIVE, Stage};

/// More than the SDKs put in one message and more than a channel keeps by default, 64 messages of 64 KiB.
pub(crate) const BYTES: usize = 5 << 20;

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
    (b << 16) | a
}

/// The sum of so many bytes as every actor writes them.
pub(crate) fn sum_of(bytes: usize) -> u32 {
    sum_of_bytes((0..bytes).map(byte_at))
}

/// Each pair in both ways: one pushes what the other receives, and pulls what the other pours.
#[test]
fn everybody_exchanges_channels_with_everybody() {
    let stage = Stage::new();
    let sdks = stage.sdks();
    for &maker in &sdks {
        for &other in &sdks {
            both_ways(&stage, maker, other, &["first", "{\"second\":\u{fc}}", ""]);
        }
        for (maker, other) in [(maker, NATIVE), (NATIVE, maker)] {
            both_ways(&stage, maker, other, &["first", "second"]);
        }
    }
    for (maker, other) in sdks.iter().zip(sdks.iter().cycle().skip(1)) {
        exchange(&stage, "push", (maker, other), BYTES, &["all"]);
    }
}

pub(crate) fn both_ways(stage: &Stage, maker: &str, other: &str, texts: &[&str]) {
    for way in ["push", "pull"] {
        exchange(stage, way, (maker, other), 100_001, texts);
    }
}

pub(crate) fn exchange(stage: &Stage, way: &str, (maker, other): (&str, &str), bytes: usize, texts: &[&str]) {
    let (end, function) = if way == "push" { ("to", "receive") } else { ("from", "pour") };
    let request = json!({ end: format!("{other}::{function}"), "bytes": bytes, "texts": texts });
    let came = stage.ask(maker, way, &request);
    let wanted = json!({ "bytes": bytes, "sum": sum_of(bytes), "texts": texts });
    assert_eq!(came, wanted, "{way}: {maker} makes a channel, {other} has the other end");
}
