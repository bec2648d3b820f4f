//! For tests: the engine's end of a telemetry ring.

use std::os::fd::AsFd;
use std::sync::Arc;

use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::Inline;
use ringway_ipc::layout::{self, Facts};
use ringway_ipc::ring::{Consumer, EndMemory};
use ringway_ipc::segment::{Segment, SegmentOptions, SegmentView};
use ringway_protocol::telemetry::{Dropped, LogAssembler, LogRecord, Record, SpanRecord, SpanStart};

use super::Telemetry;

/// What came.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    Span(Box<SpanRecord>),
    SpanStart(Box<SpanStart>),
    Log(LogRecord),
    Dropped(Dropped),
}

pub(crate) struct FakeReader {
    pub(crate) consumer: Consumer,
    pub(crate) bell: Doorbell,
    logs: LogAssembler,
}

impl FakeReader {
    /// Does what the engine does at an attach.
    pub(crate) fn attach(telemetry: &Arc<Telemetry>) -> Self {
        let ring = telemetry.prepare().unwrap();
        let page = Segment::create("page", layout::end_bytes(2), SegmentOptions::default()).unwrap();
        let page_fd = page.fd().unwrap().try_clone_to_owned().unwrap();
        let facts = Facts { slot_count: 2, flags: 0, owner: 1, channel: 0 };
        let own = EndMemory::create(page, facts).unwrap();
        let bell = Doorbell::new().unwrap();
        let bell_fd = bell.as_fd().try_clone_to_owned().unwrap();
        let (peer, _) = EndMemory::map(SegmentView::map(ring, 1 << 30).unwrap()).unwrap();
        let consumer = Consumer::new(own, peer);
        consumer.stop_bell();
        telemetry.attach(vec![page_fd, bell_fd], 1 << 30, false).unwrap();
        Self { consumer, bell, logs: LogAssembler::new() }
    }

    /// Reads everything that came.
    pub(crate) fn read(&mut self) -> Vec<Came> {
        let mut came = Vec::new();
        let mut inline = Inline::default();
        while let Some(header) = self.consumer.poll(&mut inline).unwrap() {
            match Record::decode(&inline.bytes()[..usize::from(header.inline_len)]).unwrap() {
                Record::Span(span) => came.push(Came::Span(Box::new(span))),
                Record::SpanStart(start) => came.push(Came::SpanStart(Box::new(start))),
                Record::Log(chunk) => came.extend(self.logs.push(&chunk).unwrap().map(Came::Log)),
                Record::Dropped(dropped) => came.push(Came::Dropped(dropped)),
            }
        }
        came
    }
}
