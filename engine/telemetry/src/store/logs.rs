//! Log lines in order of arrival, the oldest let go first.
//!
//! Used by the store alone. It must not know traces: a line says itself which span it belongs to.

use std::collections::VecDeque;

use crate::record::{FieldValue, Log};

/// Estimates what a line costs.
pub(super) fn footprint(log: &Log) -> usize {
    let field = |(name, value): &(String, FieldValue)| {
        let text = if let FieldValue::Text(text) = value { text.len() } else { 0 };
        size_of::<(String, FieldValue)>() + name.len() + text
    };
    size_of::<Log>() + log.target.len() + log.message.len() + log.fields.iter().map(field).sum::<usize>()
}

#[derive(Debug)]
pub(super) struct LogRing {
    lines: VecDeque<Log>,
    bytes: usize,
    lines_max: usize,
    bytes_max: usize,
}

impl LogRing {
    pub(super) fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, lines_max, bytes_max }
    }

    /// Adds a line and returns how many went for it; the line itself where it fits no empty ring.
    pub(super) fn push(&mut self, log: Log) -> u64 {
        self.bytes += footprint(&log);
        self.lines.push_back(log);
        let mut evicted = 0;
        while (self.lines.len() > self.lines_max || self.bytes > self.bytes_max)
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= footprint(&oldest);
            evicted += 1;
        }
        evicted
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Walks the lines, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Log> {
        self.lines.iter()
    }
}
