//! A ring's two ends against a queue, and from the first lie on against nothing but their own checks: the input says who
//! does what next, and when a word of the producer's or the consumer's memory is overwritten.
#![no_main]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::ring::{Consumer, EndMemory, Producer, PushError, SleepFence};

const SLOTS: u32 = 4;

fuzz_target!(|data: &[u8]| {
    let (writer, reader) = (EndMemory::heap(SLOTS), EndMemory::heap(SLOTS));
    let mut producer = Producer::new(writer.clone(), reader.clone(), SleepFence::Both);
    let mut consumer = Consumer::new(reader.clone(), writer.clone());
    let (mut model, mut honest, mut sent) = (VecDeque::new(), true, 0u64);
    let mut inline = Inline::default();
    for step in data.chunks_exact(3) {
        let value = u64::from(step[1]) | u64::from(step[2]) << 56;
        match step[0] % 8 {
            0..3 => {
                let inline_len = u16::from(step[1]).min(192);
                let header = Header { invocation: sent, inline_len, ..Header::default() };
                inline.words_mut().fill(sent);
                match producer.push(&header, &inline) {
                    Ok(position) => {
                        assert_eq!(position, sent);
                        sent += 1;
                        model.push_back(header);
                    }
                    Err(PushError::Full) => assert!(!honest || model.len() == SLOTS as usize),
                    Err(_) => assert!(!honest),
                }
            }
            3..6 => match consumer.poll(&mut inline) {
                Ok(Some(header)) => {
                    assert!(header.check());
                    if honest {
                        assert_eq!(Some(header), model.pop_front());
                        let words = usize::from(header.inline_len).div_ceil(8);
                        assert!(inline.words()[..words].iter().all(|word| *word == header.invocation));
                    }
                }
                Ok(None) => assert!(!honest || model.is_empty()),
                Err(_) => assert!(!honest),
            },
            6 => {
                let attention = producer.attention();
                let asleep = consumer.ask_for_bell(u64::from(step[1] % 3), || {});
                assert!(!honest || asleep == model.is_empty());
                assert_eq!(consumer.bell_asked(), step[1] % 3 != 0);
                assert_ne!(producer.attention(), attention, "every request is another one");
            }
            _ => {
                honest = false;
                scribble(&writer, &reader, step[0] / 8, value);
            }
        }
    }
});

fn scribble(writer: &EndMemory, reader: &EndMemory, place: u8, value: u64) {
    let (Some(slot), Some(page)) = (writer.own_slot(value), reader.own_page()) else { return };
    match place % 4 {
        0 => slot.stamp.store(value, Ordering::Release),
        1 => slot.header[usize::from(place / 4) % 7]
            .store(value.rotate_left(u32::from(place)), Ordering::Relaxed),
        2 => page.consumed.word.store(value, Ordering::Release),
        _ => page.consumed.word.store(value >> 56, Ordering::Release),
    }
}
