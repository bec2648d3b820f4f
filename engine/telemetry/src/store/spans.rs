//! Spans in a slab, threaded by trace, with the traces threaded by age.
//!
//! Used by the store alone. Slots are reused, so that a store that has reached its limits allocates no more. It
//! must not know the limits: the store decides what goes.
//!
//! Invariants. I1: every index in a map, a link or `live` names an occupied slot. I2: a trace is linked in `oldest…
//! newest` in order of its first span's arrival, and holds at least one span. I3: `bytes` is the sum of the
//! footprints of the occupied slots. I4: `by_span` has all spans of the traces that are longer than [`WALKED_MAX`],
//! and no others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ringway_protocol::{ErrorCode, SpanId, TraceId, WorkerId};

use super::hash::IdHash;
use crate::record::Span;

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;

/// The most spans of a trace among which one is looked for by walking: most traces are short, and their last spans are in the
/// processor's cache, where an index of all spans is not.
const WALKED_MAX: usize = if cfg!(test) { 2 } else { 16 };

/// What a hash map spends beside a key and a value: control bytes and free room.
const MAP_ENTRY_OVERHEAD: usize = 16;

/// Estimates what a span costs, its index entry included.
pub(super) fn footprint(span: &Span) -> usize {
    let index = size_of::<(u32, SpanId, u32)>() + MAP_ENTRY_OVERHEAD;
    let details = span.details.as_ref().map_or(0, |details| details.footprint());
    size_of::<SpanSlot>() + index + span.name.len() + details
}

#[derive(Debug)]
struct SpanSlot {
    /// `None` while the slot is free.
    span: Option<Span>,
    /// The trace's next span, or the next free slot.
    next: u32,
}

#[derive(Debug)]
struct TraceSlot {
    id: TraceId,
    first: u32,
    last: u32,
    older: u32,
    newer: u32,
    span_count: usize,
    dropped: u64,
}

/// All spans, by trace and by id.
#[derive(Debug)]
pub(super) struct SpanSlab {
    spans: Vec<SpanSlot>,
    spans_free: u32,
    span_count: usize,
    bytes: usize,
    traces: Vec<TraceSlot>,
    traces_free: Vec<u32>,
    oldest: u32,
    newest: u32,
    by_trace: HashMap<TraceId, u32, IdHash>,
    /// By the trace's slot and the span's id, for long traces.
    by_span: HashMap<(u32, SpanId), u32, IdHash>,
    live: HashSet<u32>,
}

impl Default for SpanSlab {
    fn default() -> Self {
        Self {
            spans: Vec::new(),
            spans_free: NONE,
            span_count: 0,
            bytes: 0,
            traces: Vec::new(),
            traces_free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            by_trace: HashMap::default(),
            by_span: HashMap::default(),
            live: HashSet::new(),
        }
    }
}

/// The handle of a trace in the slab, good until that trace is let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct TraceIndex(u32);

/// The handle of a span in the slab, good until its trace is let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpanIndex(u32);

impl SpanSlab {
    pub(super) fn len(&self) -> usize {
        self.span_count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn trace_count(&self) -> usize {
        self.by_trace.len()
    }

    pub(super) fn live_count(&self) -> usize {
        self.live.len()
    }

    pub(super) fn find_trace(&self, id: TraceId) -> Option<TraceIndex> {
        self.by_trace.get(&id).copied().map(TraceIndex)
    }

    pub(super) fn find_span(&self, trace: TraceIndex, span_id: SpanId) -> Option<SpanIndex> {
        let slot = &self.traces[at(trace.0)];
        if slot.span_count > WALKED_MAX {
            return self.by_span.get(&(trace.0, span_id)).copied().map(SpanIndex);
        }
        let mut index = slot.first;
        while index != NONE {
            let held = &self.spans[at(index)];
            if held.span.as_ref().is_some_and(|span| span.span_id == span_id) {
                return Some(SpanIndex(index));
            }
            index = held.next;
        }
        None
    }

    /// Has a trace that has become long looked up by span from now on.
    fn index_trace(&mut self, trace: u32) {
        let mut index = self.traces[at(trace)].first;
        while index != NONE {
            let held = &self.spans[at(index)];
            if let Some(span) = &held.span {
                self.by_span.insert((trace, span.span_id), index);
            }
            index = held.next;
        }
    }

    pub(super) fn span_count(&self, trace: TraceIndex) -> usize {
        self.traces[at(trace.0)].span_count
    }

    pub(super) fn trace_id(&self, trace: TraceIndex) -> TraceId {
        self.traces[at(trace.0)].id
    }

    pub(super) fn dropped(&self, trace: TraceIndex) -> u64 {
        self.traces[at(trace.0)].dropped
    }

    pub(super) fn count_drop(&mut self, trace: TraceIndex) {
        self.traces[at(trace.0)].dropped += 1;
    }

    /// Replaces a live span by its finished self, which keeps the name it had. What it says beside may take a little more
    /// room; the next span makes it. Says no where it is not that.
    pub(super) fn end_live(&mut self, held: SpanIndex, finished: Span) -> bool {
        if finished.is_live() || !self.live.contains(&held.0) {
            return false;
        }
        if let Some(slot) = &mut self.spans[at(held.0)].span {
            let (name, before) = (Arc::clone(&slot.name), footprint(slot));
            *slot = Span { name, ..finished };
            self.bytes = self.bytes + footprint(slot) - before;
        }
        self.live.remove(&held.0);
        true
    }

    /// Ends the live spans of a worker that is gone.
    pub(super) fn end_lost(&mut self, worker: WorkerId, now_ns: u64) -> Vec<Span> {
        let mut ended = Vec::new();
        let spans = &mut self.spans;
        self.live.retain(|&index| match &mut spans[at(index)].span {
            Some(span) if span.worker.id == worker => {
                span.end_ns = Some(now_ns.max(span.start_ns));
                span.status = ErrorCode::WorkerGone.status();
                span.lost = true;
                ended.push(span.clone());
                false
            }
            _ => true,
        });
        ended
    }

    /// Adds a span that is not held yet to its trace, or to a new one.
    pub(super) fn insert(&mut self, trace: Option<TraceIndex>, span: Span) {
        let trace = trace.map_or_else(|| self.add_trace(span.trace_id), |trace| trace.0);
        self.bytes += footprint(&span);
        self.span_count += 1;
        let key = (trace, span.span_id);
        let is_live = span.is_live();
        let index = self.take_slot(span);
        let slot = &mut self.traces[at(trace)];
        slot.span_count += 1;
        let count = slot.span_count;
        let last = std::mem::replace(&mut slot.last, index);
        if last == NONE {
            slot.first = index;
        } else {
            self.spans[at(last)].next = index;
        }
        match count {
            ..=WALKED_MAX => {}
            count if count == WALKED_MAX + 1 => self.index_trace(trace),
            _ => drop(self.by_span.insert(key, index)),
        }
        if is_live {
            self.live.insert(index);
        }
    }

    fn take_slot(&mut self, span: Span) -> u32 {
        let slot = SpanSlot { span: Some(span), next: NONE };
        if self.spans_free == NONE {
            self.spans.push(slot);
            return index_of_last(self.spans.len());
        }
        let index = self.spans_free;
        let free = std::mem::replace(&mut self.spans[at(index)], slot);
        self.spans_free = free.next;
        index
    }

    fn add_trace(&mut self, id: TraceId) -> u32 {
        let older = self.newest;
        let slot = TraceSlot { id, first: NONE, last: NONE, older, newer: NONE, span_count: 0, dropped: 0 };
        let index = if let Some(index) = self.traces_free.pop() {
            self.traces[at(index)] = slot;
            index
        } else {
            self.traces.push(slot);
            index_of_last(self.traces.len())
        };
        match older {
            NONE => self.oldest = index,
            older => self.traces[at(older)].newer = index,
        }
        self.newest = index;
        self.by_trace.insert(id, index);
        index
    }

    /// Lets the oldest trace go that is not `kept`, and returns how many spans went with it.
    pub(super) fn evict_oldest_except(&mut self, kept: TraceId) -> Option<u64> {
        let mut index = self.oldest;
        if index != NONE && self.traces[at(index)].id == kept {
            index = self.traces[at(index)].newer;
        }
        if index == NONE {
            return None;
        }
        let TraceSlot { id, first, older, newer, span_count, .. } = self.traces[at(index)];
        match older {
            NONE => self.oldest = newer,
            older => self.traces[at(older)].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.traces[at(newer)].older = older,
        }
        self.by_trace.remove(&id);
        self.traces_free.push(index);
        Some(self.free_spans(index, first, span_count > WALKED_MAX))
    }

    fn free_spans(&mut self, trace: u32, first: u32, is_indexed: bool) -> u64 {
        let mut freed = 0;
        let mut index = first;
        while index != NONE {
            let slot = &mut self.spans[at(index)];
            let next = std::mem::replace(&mut slot.next, self.spans_free);
            if let Some(span) = slot.span.take() {
                if is_indexed {
                    self.by_span.remove(&(trace, span.span_id));
                }
                self.bytes -= footprint(&span);
                if span.is_live() {
                    self.live.remove(&index);
                }
            }
            self.spans_free = index;
            self.span_count -= 1;
            freed += 1;
            index = next;
        }
        freed
    }

    /// Walks a trace's spans in order of arrival.
    pub(super) fn spans_of(&self, trace: TraceIndex) -> impl Iterator<Item = &Span> {
        let mut index = self.traces[at(trace.0)].first;
        std::iter::from_fn(move || {
            let slot = self.spans.get(at(index))?;
            index = slot.next;
            slot.span.as_ref()
        })
    }

    /// Walks the traces, the one that arrived last first.
    pub(super) fn latest_first(&self) -> impl Iterator<Item = TraceIndex> {
        let mut index = self.newest;
        std::iter::from_fn(move || {
            let found = index;
            index = self.traces.get(at(found))?.older;
            Some(TraceIndex(found))
        })
    }

    /// Walks the spans that still run, in no order.
    pub(super) fn live(&self) -> impl Iterator<Item = &Span> {
        self.live.iter().filter_map(|&index| self.spans[at(index)].span.as_ref())
    }
}

/// Widens a slot index; [`NONE`] lies beyond any slab.
const fn at(index: u32) -> usize {
    index as usize
}

fn index_of_last(len: usize) -> u32 {
    u32::try_from(len - 1).unwrap_or(NONE - 1)
}
