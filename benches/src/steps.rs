//! The steps, each named after the question it answers. A step returns something that depends on its work, so that none of
//! it can be left out. It must not know who measures it.

use std::hint::black_box;

use ringway_ipc::arena::{Arena, ArenaConfig, SegmentSource};
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::lease::{LeaseBytes, LeaseTable};
use ringway_ipc::plain;
use ringway_ipc::ring::{Consumer, EndMemory, Producer, SleepFence};
use ringway_protocol::header::{Encoding, Kind};
use ringway_protocol::telemetry::{FunctionRef, RecordBytes, SpanKind, SpanName, SpanRecord};
use ringway_protocol::{SpanId, TraceId, WorkerId};
use rkyv::rancor::Error as ArchiveError;

/// Slots of each ring, as a worker has them unless told otherwise.
const SLOTS: u32 = 256;

/// One step, ready to be taken again and again.
pub type Taken = Box<dyn FnMut() -> u64>;

/// A step by name.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The question it answers.
    pub name: &'static str,
    /// Prepares it.
    pub prepare: fn() -> Taken,
}

/// All steps, from the smallest to the largest.
pub const STEPS: &[Step] = &[
    Step { name: "pack_and_unpack_a_header", prepare: header },
    Step { name: "push_and_poll_a_frame", prepare: frame },
    Step { name: "round_trip_over_two_rings", prepare: round_trip },
    Step { name: "round_trip_of_64_archived_bytes", prepare: archived_round_trip },
    Step { name: "look_for_a_frame_that_is_not_there", prepare: nothing },
    Step { name: "archive_and_read_64_bytes", prepare: archive },
    Step { name: "write_and_read_64_bytes_of_json", prepare: json },
    Step { name: "loan_and_return_4_kib", prepare: || loan(4 << 10) },
    Step { name: "loan_and_return_1_mib", prepare: || loan(1 << 20) },
    Step { name: "lend_and_end_a_lease", prepare: lease },
    Step { name: "encode_and_decode_a_span", prepare: span },
];

/// A call's header, as the SDK fills it in.
fn request() -> Header {
    Header {
        invocation: 7,
        trace_id: [3; 16],
        span_id: 5,
        deadline_ns: 1 << 40,
        function: 9,
        function_generation: 1,
        kind: Kind::Call.to_u8(),
        trace_flags: 1,
        inline_len: 64,
        encoding: Encoding::Rkyv.to_u8(),
        ..Header::default()
    }
}

fn header() -> Taken {
    let header = request();
    Box::new(move || {
        let header = Header::from_words(&black_box(black_box(&header).to_words()));
        header.invocation + u64::from(header.check())
    })
}

/// Two rings between two ends, both in this process.
struct Rings {
    to_callee: (Producer, Consumer),
    to_caller: (Producer, Consumer),
}

impl Rings {
    fn new() -> Self {
        let (caller, callee) = (EndMemory::heap(SLOTS), EndMemory::heap(SLOTS));
        let ring = |writer: &EndMemory, reader: &EndMemory| {
            let producer = Producer::new(writer.clone(), reader.clone(), SleepFence::ConsumerOnly);
            let consumer = Consumer::new(reader.clone(), writer.clone());
            consumer.stop_bell();
            (producer, consumer)
        };
        Self { to_callee: ring(&caller, &callee), to_caller: ring(&callee, &caller) }
    }
}

/// Moves a frame over one ring, and asks whether the other side wants a bell.
fn carry(ring: &mut (Producer, Consumer), header: &Header, sent: &Inline, received: &mut Inline) -> Header {
    let (producer, consumer) = ring;
    let pushed = producer.push(header, sent).is_ok();
    let bell = producer.attention().bell();
    let polled = consumer.poll(received).ok().flatten();
    assert!(pushed && bell == 0, "the ring takes a frame, and nobody sleeps");
    polled.expect("what was pushed is there")
}

fn frame() -> Taken {
    let (mut rings, header, sent, mut received) =
        (Rings::new(), request(), Inline::default(), Inline::default());
    Box::new(move || carry(&mut rings.to_callee, &header, &sent, &mut received).invocation)
}

fn nothing() -> Taken {
    let (mut rings, mut received) = (Rings::new(), Inline::default());
    Box::new(move || {
        let found = rings.to_callee.1.poll(black_box(&mut received));
        u64::from(matches!(found, Ok(None)))
    })
}

fn round_trip() -> Taken {
    let mut rings = Rings::new();
    let (sent, mut there, mut back) = (Inline::default(), Inline::default(), Inline::default());
    let header = request();
    Box::new(move || {
        let asked = carry(&mut rings.to_callee, &header, &sent, &mut there);
        let reply = Header {
            invocation: asked.invocation,
            kind: Kind::Reply.to_u8(),
            inline_len: 64,
            ..Header::default()
        };
        carry(&mut rings.to_caller, &reply, &there, &mut back).invocation
    })
}

/// 64 bytes that are the same in memory, in an archive and for serde.
#[derive(Debug, Clone, Copy, rkyv::Archive, rkyv::Serialize, serde::Serialize, serde::Deserialize)]
struct Words {
    words: [u64; 8],
}

/// Archives into a slot's inline area, as the SDK does with a flat value.
fn write(words: &Words, inline: &mut Inline) -> u16 {
    let bytes = plain::bytes_of(words).expect("the archive is a copy");
    inline.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    u16::try_from(bytes.len()).unwrap_or(0)
}

/// Checks an archive and reads its first word.
fn read(bytes: &[u8]) -> u64 {
    rkyv::access::<ArchivedWords, ArchiveError>(bytes).map_or(0, |words| words.words[0].to_native())
}

fn archive() -> Taken {
    let (words, mut inline) = (Words { words: [7; 8] }, Inline::default());
    Box::new(move || {
        let len = usize::from(write(black_box(&words), &mut inline));
        read(&black_box(&inline).bytes()[..len])
    })
}

fn archived_round_trip() -> Taken {
    let mut rings = Rings::new();
    let (mut sent, mut there, mut back) = (Inline::default(), Inline::default(), Inline::default());
    let mut number = 0;
    Box::new(move || {
        number += 1;
        let header = Header { inline_len: write(&Words { words: [number; 8] }, &mut sent), ..request() };
        let asked = carry(&mut rings.to_callee, &header, &sent, &mut there);
        let answer = Words { words: [read(&there.bytes()[..usize::from(asked.inline_len)]) + 1; 8] };
        let inline_len = write(&answer, &mut sent);
        let reply = Header { invocation: asked.invocation, inline_len, ..Header::default() };
        let reply = carry(&mut rings.to_caller, &reply, &sent, &mut back);
        read(&back.bytes()[..usize::from(reply.inline_len)])
    })
}

fn json() -> Taken {
    let words = Words { words: [1_234_567; 8] };
    let mut out = Vec::with_capacity(256);
    Box::new(move || {
        out.clear();
        let written = serde_json::to_writer(&mut out, black_box(&words)).is_ok();
        let read = serde_json::from_slice::<Words>(black_box(&out)).map_or(0, |words| words.words[0]);
        read + u64::from(written)
    })
}

fn loan(bytes: usize) -> Taken {
    let arena = Arena::new(ArenaConfig { source: SegmentSource::Heap, ..ArenaConfig::default() });
    Box::new(move || {
        let loan = arena.loan(black_box(bytes), 64).expect("the arena has room");
        loan.freeze().len()
    })
}

/// A payload that is a number of bytes and nothing else.
struct Bytes(u64);

impl LeaseBytes for Bytes {
    fn bytes(&self) -> u64 {
        self.0
    }
}

fn lease() -> Taken {
    let mut table = LeaseTable::new();
    Box::new(move || {
        let lease = table.lend(Bytes(black_box(4096))).expect("the table has room");
        table.give_back(black_box(lease)).map_or(0, |bytes| bytes.0)
    })
}

fn span() -> Taken {
    let worker = WorkerId::new(11);
    let record = SpanRecord {
        trace_id: TraceId::from_bytes([3; 16]),
        span_id: SpanId::from_bytes([5; 8]),
        parent_id: SpanId::from_bytes([6; 8]),
        start_ns: 1 << 40,
        end_ns: (1 << 40) + 200,
        kind: SpanKind::Client,
        status: 0,
        function: FunctionRef { worker, index: 9 },
        peer: worker,
        woke_ns: 0,
        bytes_in: 64,
        bytes_out: 64,
        flags: 0,
        name: SpanName::EMPTY,
    };
    let mut bytes: RecordBytes = [0; std::mem::size_of::<RecordBytes>()];
    Box::new(move || {
        let len = black_box(&record).encode(&mut bytes);
        SpanRecord::decode(&black_box(&bytes)[..len]).map_or(0, |record| record.end_ns)
    })
}

#[cfg(test)]
mod tests {
    use super::STEPS;

    #[test]
    fn every_step_can_be_taken_more_often_than_a_ring_has_slots() {
        for step in STEPS {
            let mut taken = (step.prepare)();
            for turn in 0..1000 {
                assert!(taken() > 0, "{} did nothing in turn {turn}", step.name);
            }
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
