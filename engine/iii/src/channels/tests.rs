//! Tests of the registry and of the queue, without sockets.

use std::future::Future;

use bytes::Bytes;
use futures_util::FutureExt;
use ringway::{ChannelPair, WorkerId};

use super::*;

fn text(text: &str) -> Item {
    Item::Text(text.into())
}

fn bytes(count: usize) -> Item {
    Item::Binary(Bytes::from(vec![7; count]))
}

fn ends(channels: &Channels, messages: usize) -> (Writer, Reader) {
    let ChannelPair { writer, reader } = channels.create(None, Some(messages)).unwrap();
    (
        channels.take_writer(&writer.channel_id, &writer.access_key).unwrap(),
        channels.take_reader(&reader.channel_id, &reader.access_key).unwrap(),
    )
}

/// What a future gives if it is ready.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

fn read(reader: &Reader) -> Option<Result<Option<Item>, Lost>> {
    now(reader.recv())
}

#[test]
fn what_is_written_is_read_in_order_to_the_end() {
    let channels = Channels::default();
    let (writer, reader) = ends(&channels, 8);
    assert_eq!(read(&reader), None);
    for item in [text("a"), bytes(3), text("")] {
        assert_eq!(now(writer.send(item)), Some(Ok(())));
    }
    writer.finish();
    for item in [text("a"), bytes(3), text("")] {
        assert_eq!(read(&reader), Some(Ok(Some(item))));
    }
    assert_eq!(read(&reader), Some(Ok(None)));
    assert_eq!(channels.counters().open, 1);
    drop(reader);
    let counters = channels.counters();
    assert_eq!((counters.open, counters.bytes_waiting, counters.created), (0, 0, 1));
}

#[test]
fn a_break_is_told_after_what_was_written() {
    let channels = Channels::default();
    let (writer, reader) = ends(&channels, 8);
    assert_eq!(now(writer.send(text("a"))), Some(Ok(())));
    writer.break_off("it fell");
    assert_eq!(read(&reader), Some(Ok(Some(text("a")))));
    assert_eq!(read(&reader), Some(Err(Lost::Writer("it fell".to_owned()))));
    let (writer, reader) = ends(&channels, 8);
    drop(writer);
    assert!(matches!(read(&reader), Some(Err(Lost::Writer(_)))));
}

#[test]
fn a_writer_waits_for_room_and_hears_that_its_reader_has_gone() {
    let limits = ChannelLimits { bytes_max: 10, ..ChannelLimits::default() };
    let channels = Channels::new(limits);
    let (writer, reader) = ends(&channels, 2);
    assert!(now(writer.send(text("a"))).is_some());
    assert!(now(writer.send(bytes(9))).is_some());
    assert!(now(writer.send(text("c"))).is_none(), "two messages are all");
    assert_eq!(read(&reader), Some(Ok(Some(text("a")))));
    assert!(now(writer.send(text("cc"))).is_none(), "ten bytes are all");
    assert!(now(writer.send(text("c"))).is_some());
    assert!(now(writer.lost()).is_none());
    drop(reader);
    assert_eq!(now(writer.send(text("d"))), Some(Err(Lost::Reader)));
    assert_eq!(now(writer.lost()), Some(Lost::Reader));
    drop(writer);
    assert_eq!(channels.counters(), ChannelCounters { created: 1, ..ChannelCounters::default() });
}

#[test]
fn a_message_larger_than_the_room_passes_alone() {
    let limits = ChannelLimits { bytes_max: 10, ..ChannelLimits::default() };
    let channels = Channels::new(limits);
    let (writer, reader) = ends(&channels, 8);
    assert!(now(writer.send(bytes(100))).is_some());
    assert!(now(writer.send(bytes(0))).is_none());
    assert_eq!(read(&reader), Some(Ok(Some(bytes(100)))));
    assert!(now(writer.send(bytes(100))).is_some());
}

#[test]
fn channels_that_nobody_reads_do_not_stop_those_that_are_read() {
    let limits = ChannelLimits { total_bytes_max: 100, ..ChannelLimits::default() };
    let channels = Channels::new(limits);
    let unread = channels.create(None, None).unwrap();
    let hoard = channels.take_writer(&unread.writer.channel_id, &unread.writer.access_key).unwrap();
    assert!(now(hoard.send(bytes(90))).is_some());
    assert!(now(hoard.send(bytes(11))).is_none(), "all bytes are taken");
    let (writer, reader) = ends(&channels, 8);
    for _ in 0..3 {
        assert!(now(writer.send(bytes(50))).is_some(), "one message at a time goes on");
        assert!(now(writer.send(bytes(50))).is_none());
        assert!(matches!(read(&reader), Some(Ok(Some(_)))));
    }
    let mut waiting = Box::pin(hoard.send(bytes(11)));
    assert!(waiting.as_mut().now_or_never().is_none());
    let reader = channels.take_reader(&unread.reader.channel_id, &unread.reader.access_key).unwrap();
    assert!(matches!(read(&reader), Some(Ok(Some(_)))));
    assert!(waiting.now_or_never().is_some(), "there is room again");
}

#[test]
fn either_end_comes_first_and_each_once() {
    let channels = Channels::default();
    let pair = channels.create(None, None).unwrap();
    let (id, key) = (&pair.writer.channel_id, &pair.writer.access_key);
    let writer = channels.take_writer(id, key).unwrap();
    assert!(now(writer.send(text("early"))).is_some());
    writer.finish();
    assert_eq!(channels.take_writer(id, key).unwrap_err(), TakeError::Taken);
    let reader = channels.take_reader(id, key).unwrap();
    assert_eq!(read(&reader), Some(Ok(Some(text("early")))));
    assert_eq!(read(&reader), Some(Ok(None)));
    assert_eq!(channels.take_reader(id, key).unwrap_err(), TakeError::Taken);
    drop(reader);
    assert_eq!(channels.take_reader(id, key).unwrap_err(), TakeError::NotFound, "it is forgotten");
    assert_eq!(channels.counters().denied, 3);
}

#[test]
fn only_the_key_opens() {
    let channels = Channels::default();
    let pair = channels.create(None, None).unwrap();
    let (id, key) = (&pair.reader.channel_id, &pair.reader.access_key);
    assert_eq!(pair.writer.access_key, *key);
    assert!(key.len() >= 32);
    for wrong in ["", "x", &key[1..], &key.to_uppercase().replace('A', "B"), &format!("{key}0")] {
        assert!(!channels.contains(id, wrong), "{wrong}");
        assert_eq!(channels.take_reader(id, wrong).unwrap_err(), TakeError::NotFound);
    }
    assert!(!channels.contains("other", key));
    assert!(channels.contains(id, key));
    let other = channels.create(None, None).unwrap();
    assert!(other.reader.access_key != *key && other.reader.channel_id != *id);
}

#[test]
fn what_nobody_takes_expires_and_the_other_end_is_told() {
    let limits = ChannelLimits { untaken_max: Duration::ZERO, ..ChannelLimits::default() };
    let channels = Channels::new(limits);
    let pair = channels.create(None, None).unwrap();
    let (id, key) = (&pair.writer.channel_id, &pair.writer.access_key);
    let writer = channels.take_writer(id, key).unwrap();
    assert!(now(writer.send(text("a"))).is_some());
    channels.expire();
    assert_eq!(now(writer.lost()), Some(Lost::Expired));
    assert_eq!(channels.take_reader(id, key).unwrap_err(), TakeError::NotFound);
    assert_eq!(channels.counters().bytes_waiting, 0);
    drop(writer);
    let pair = channels.create(None, None).unwrap();
    let reader = channels.take_reader(&pair.reader.channel_id, &pair.reader.access_key).unwrap();
    channels.expire();
    assert_eq!(read(&reader), Some(Err(Lost::Expired)));
    let in_use = ends(&channels, 1);
    channels.expire();
    assert!(now(in_use.0.send(text("a"))).is_some(), "it is in use at both ends");
    assert_eq!(channels.counters().expired, 2);
    assert_eq!(channels.counters().open, 1);
}

#[test]
fn there_are_only_so_many_and_each_worker_has_its_share() {
    let limits = ChannelLimits { channels_max: 3, worker_channels_max: 2, ..ChannelLimits::default() };
    let channels = Channels::new(limits);
    let worker = Some(WorkerId::new(1));
    let ends = |pair: &ChannelPair| {
        (
            channels.take_writer(&pair.writer.channel_id, &pair.writer.access_key).unwrap(),
            channels.take_reader(&pair.reader.channel_id, &pair.reader.access_key).unwrap(),
        )
    };
    let first = ends(&channels.create(worker, None).unwrap());
    let _second = channels.create(worker, None).unwrap();
    assert_eq!(channels.create(worker, None), Err(CreateError::WorkerFull { found: 2 }));
    drop(first);
    let _third = channels.create(worker, None).unwrap();
    let _fourth = channels.create(Some(WorkerId::new(2)), None).unwrap();
    assert_eq!(channels.create(None, None), Err(CreateError::Full { found: 3 }));
    assert_eq!(channels.counters().refused, 2);
}

#[test]
fn short_channels_leave_nothing_behind() {
    let channels = Channels::default();
    for _ in 0..1000 {
        drop(ends(&channels, 1));
    }
    let state = channels.shared.state.lock();
    assert!(state.open.is_empty() && state.of_worker.is_empty());
    assert!(state.by_age.is_empty(), "{} ids are remembered", state.by_age.len());
}
