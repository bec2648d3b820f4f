//! The ring against a queue, and against a peer that lies.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn pair(slot_count: u32) -> (Producer, Consumer, EndMemory, EndMemory) {
    let (writer, reader) = (EndMemory::heap(slot_count), EndMemory::heap(slot_count));
    let producer = Producer::new(writer.clone(), reader.clone(), SleepFence::Both);
    let consumer = Consumer::new(reader.clone(), writer.clone());
    (producer, consumer, writer, reader)
}

fn frame(value: u64, bytes: u16) -> (Header, Inline) {
    let mut inline = Inline::default();
    inline.words_mut().fill(value);
    (Header { invocation: value, inline_len: bytes, ..Header::default() }, inline)
}

proptest! {
    #[test]
    fn behaves_like_a_bounded_queue(log2 in 1u32..5, steps in prop::collection::vec((any::<bool>(), 0u16..=192), 1..400)) {
        let slots = 1usize << log2;
        let (mut producer, mut consumer, _, _) = pair(1 << log2);
        let mut model = VecDeque::new();
        let mut received = Inline::default();
        for (at, (push, bytes)) in steps.into_iter().enumerate() {
            if push {
                let (header, inline) = frame(at as u64, bytes);
                match producer.push(&header, &inline) {
                    Ok(_) => { prop_assert!(model.len() < slots); model.push_back(header); }
                    Err(error) => { prop_assert_eq!(error, PushError::Full); prop_assert_eq!(model.len(), slots); }
                }
            } else {
                let got = consumer.poll(&mut received).unwrap();
                prop_assert_eq!(got, model.pop_front());
                if let Some(header) = got {
                    let words = usize::from(header.inline_len).div_ceil(8);
                    prop_assert!(received.words()[..words].iter().all(|word| *word == header.invocation));
                }
            }
            prop_assert_eq!(consumer.ready(), !model.is_empty());
        }
    }
}

#[test]
fn a_lying_consumer_is_found_out() {
    for claim in [5u64, u64::MAX] {
        let (mut producer, _consumer, _, reader) = pair(2);
        let (header, inline) = frame(1, 8);
        producer.push(&header, &inline).unwrap();
        producer.push(&header, &inline).unwrap();
        reader.page().consumed.word.store(claim, Ordering::Relaxed);
        assert!(matches!(producer.push(&header, &inline), Err(PushError::Violation(_))), "{claim}");
    }
    let (mut producer, mut consumer, _, reader) = pair(2);
    let (header, inline) = frame(1, 8);
    let mut received = Inline::default();
    for _ in 0..3 {
        producer.push(&header, &inline).unwrap();
        consumer.poll(&mut received).unwrap();
    }
    reader.page().consumed.word.store(0, Ordering::Relaxed);
    producer.push(&header, &inline).unwrap();
    assert!(matches!(producer.push(&header, &inline), Err(PushError::Violation(_))), "fell back");
}

#[test]
fn a_lying_producer_is_found_out() {
    let mut received = Inline::default();
    for stamp in [2u64, 3, u64::MAX] {
        let (_producer, mut consumer, writer, _) = pair(4);
        writer.slot(0).stamp.store(stamp, Ordering::Relaxed);
        assert_eq!(consumer.poll(&mut received), Err(RingViolation::Stamp { found: stamp, awaited: 1 }));
    }
    let (mut producer, mut consumer, writer, _) = pair(4);
    let (header, inline) = frame(1, 8);
    producer.push(&header, &inline).unwrap();
    writer.slot(0).header[6].store(u64::MAX, Ordering::Relaxed);
    assert_eq!(consumer.poll(&mut received), Err(RingViolation::Sizes { position: 0 }));
}

#[test]
fn rings_in_sealed_segments_carry_frames() {
    let facts = |owner| Facts { slot_count: 8, flags: 0, owner, channel: 1 };
    let bytes = layout::end_bytes(8).next_multiple_of(4096);
    let segments: Vec<_> =
        (0..2).map(|_| Segment::create("ring-test", bytes, Default::default()).unwrap()).collect();
    let own: Vec<_> = (0u64..)
        .zip(&segments)
        .map(|(owner, segment)| EndMemory::create(Arc::clone(segment), facts(owner)).unwrap())
        .collect();
    let seen: Vec<_> = segments.iter().map(|segment| EndMemory::map(segment.view()).unwrap().0).collect();
    let mut producer = Producer::new(own[0].clone(), seen[1].clone(), SleepFence::Both);
    let mut consumer = Consumer::new(own[1].clone(), seen[0].clone());
    let mut received = Inline::default();
    for value in 0..100 {
        let (header, inline) = frame(value, 192);
        producer.push(&header, &inline).unwrap();
        assert_eq!(consumer.poll(&mut received), Ok(Some(header)));
    }
    assert_eq!(seen[1].consumed(), 100);
}
