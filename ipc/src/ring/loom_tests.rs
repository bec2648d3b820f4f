//! Every interleaving of the ring that ships, with two slots so that it wraps.
//!
//! Seen to fail with the stamp stored Relaxed, with `consumed` raised before the copy, and with either fence of I4
//! removed, and, where a bell is answered once, with a consumer that sleeps again without asking anew. They cannot show that `consumed` must be stored with Release: that is a load passing a later store, which
//! loom does not explore; its argument is I2.

use loom::sync::Notify;
use loom::thread;

use super::*;

fn frame(value: u64) -> (Header, Inline) {
    let mut inline = Inline::default();
    inline.words_mut()[0] = value;
    (Header { invocation: value, inline_len: 8, ..Header::default() }, inline)
}

#[test]
fn loom_wraps_without_tearing_or_loss() {
    loom::model(|| {
        let (writer, reader) = (EndMemory::heap(2), EndMemory::heap(2));
        let mut producer = Producer::new(writer.clone(), reader.clone(), SleepFence::Both);
        let mut consumer = Consumer::new(reader, writer);
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while sent < 3 {
                let (header, inline) = frame(sent + 10);
                match producer.push(&header, &inline) {
                    Ok(_) => sent += 1,
                    Err(PushError::Full) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut received = Inline::default();
        let mut next = 0;
        while next < 3 {
            match consumer.poll(&mut received).unwrap() {
                Some(header) => {
                    assert_eq!(header.invocation, next + 10);
                    assert_eq!(received.words()[0], next + 10);
                    next += 1;
                }
                None => thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn loom_no_wake_up_is_lost() {
    loom::model(|| {
        let (writer, reader) = (EndMemory::heap(2), EndMemory::heap(2));
        let bell = Arc::new(Notify::new());
        let mut producer = Producer::new(writer.clone(), reader.clone(), SleepFence::Both);
        let mut consumer = Consumer::new(reader, writer);
        consumer.stop_bell();
        let rings = Arc::clone(&bell);
        let sender = thread::spawn(move || {
            let answered = Answered::default();
            for value in 0..2 {
                let (header, inline) = frame(value);
                producer.push(&header, &inline).unwrap();
                let asked = producer.attention();
                if asked.bell() != layout::ATTENTION_POLLING && answered.is_new(asked) {
                    rings.notify();
                }
            }
        });
        let mut received = Inline::default();
        let mut next = 0;
        while next < 2 {
            if let Some(header) = consumer.poll(&mut received).unwrap() {
                assert_eq!(header.invocation, next);
                next += 1;
            } else if consumer.ask_for_bell(layout::ATTENTION_WORKER_BELL, || ()) {
                // Loom reports a deadlock when this sleep is never ended.
                bell.wait();
            }
        }
        sender.join().unwrap();
    });
}
