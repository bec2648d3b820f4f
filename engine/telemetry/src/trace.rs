//! A trace put together: spans in the order of the tree, the two sides of a call joined into one hop that says where
//! its time went.
//!
//! The waterfall, the JSON answers and the console's views are made from a [`Trace`]. What is missing is tolerated: a
//! span whose parent never came stands at the top, a hop of which one side is known has gaps in its breakdown. The
//! tree is a flat list with depths, since nothing limits how deep a worker may nest its spans. This file must not know
//! how a trace is drawn.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_protocol::{SpanId, TraceId, WorkerId};

use crate::record::{Log, Span, SpanKind};
use crate::store::TraceRecord;

/// An assembled trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The trace's id.
    pub trace_id: TraceId,
    /// The earliest time in it, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// The latest time in it that is known, `CLOCK_MONOTONIC` nanoseconds.
    pub end_ns: u64,
    /// Every hop and step, parents before their children, siblings by start.
    pub rows: Vec<Row>,
    /// Logs that belong to no span that is held.
    pub logs: Vec<Log>,
    /// How many spans went into it.
    pub spans: usize,
    /// How many more did not fit into the store.
    pub spans_dropped: u64,
}

/// A hop or a step, and its place in the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// How many rows it lies under.
    pub depth: usize,
    /// Whether its parent is known to exist but is not held.
    pub orphan: bool,
    /// Whether no sibling follows.
    pub last: bool,
    /// What was done.
    pub work: Work,
    /// What was logged meanwhile, by time.
    pub logs: Vec<Log>,
}

/// One hop or step.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A call of which both sides are held.
    Hop {
        /// The caller's side.
        client: Span,
        /// The callee's side.
        server: Span,
    },
    /// A step within a worker, or one side of a call.
    Single(Span),
}

/// Where the time of a call went, nanoseconds each; `None` where a time is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Breakdown {
    /// From the request's publication, or from the callee's wake-up where it slept, to the handler's start: behind
    /// other frames, and in the callee's hands.
    pub waiting_ns: Option<u64>,
    /// From the request's publication until the callee was awake; 0 where it was polling.
    pub wake_ns: Option<u64>,
    /// In the handler.
    pub run_ns: Option<u64>,
    /// From the handler's end until the caller had the reply.
    pub reply_ns: Option<u64>,
    /// The part of that in which the caller was still waking up; 0 where it was polling.
    pub reply_wake_ns: Option<u64>,
}

impl Work {
    /// Returns the side that stands for the whole: the caller's, where there are two.
    #[must_use]
    pub fn outer(&self) -> &Span {
        match self {
            Self::Hop { client, .. } => client,
            Self::Single(span) => span,
        }
    }

    /// Returns the side where the work was done: the callee's, where there are two.
    #[must_use]
    pub fn inner(&self) -> &Span {
        match self {
            Self::Hop { server, .. } => server,
            Self::Single(span) => span,
        }
    }

    /// Returns when it began.
    #[must_use]
    pub fn start_ns(&self) -> u64 {
        self.outer().start_ns
    }

    /// Returns when it ended; `None` while it runs. A send ends with its handler.
    #[must_use]
    pub fn end_ns(&self) -> Option<u64> {
        match self {
            Self::Hop { client, server } if client.kind == SpanKind::Producer => {
                Some(client.end_ns?.max(server.end_ns?))
            }
            _ => self.outer().end_ns,
        }
    }

    /// Returns how long it took; `None` while it runs.
    #[must_use]
    pub fn duration_ns(&self) -> Option<u64> {
        self.end_ns().map(|end_ns| end_ns.saturating_sub(self.start_ns()))
    }

    /// Returns the stable code of the error it ended in; the caller's, where the sides differ.
    #[must_use]
    pub fn error_code(&self) -> Option<&'static str> {
        self.outer().error_code().or_else(|| self.inner().error_code())
    }

    /// Says where the time went, as far as it is known. Times that contradict each other (one was written down late)
    /// count as 0.
    #[must_use]
    pub fn breakdown(&self) -> Breakdown {
        match self {
            Self::Hop { client, server } => hop_breakdown(client, server),
            Self::Single(span) if is_caller(span) => Breakdown::default(),
            Self::Single(span) => Breakdown { run_ns: span.duration_ns(), ..Breakdown::default() },
        }
    }
}

fn hop_breakdown(client: &Span, server: &Span) -> Breakdown {
    // A callee that woke up before this request was published did not wake up for it.
    let woke_ns = server.woke_ns.unwrap_or(0).clamp(client.start_ns, server.start_ns.max(client.start_ns));
    let replied = |server_end_ns: u64| {
        let client_end_ns = client.end_ns.filter(|_| client.kind != SpanKind::Producer)?;
        let woke_ns = client.woke_ns.unwrap_or(0).clamp(server_end_ns, client_end_ns.max(server_end_ns));
        Some((client_end_ns.saturating_sub(server_end_ns), woke_ns - server_end_ns))
    };
    // The end of a lost span is when its worker was found dead, not when it replied.
    let reply = server.end_ns.filter(|_| !server.lost).and_then(replied);
    Breakdown {
        waiting_ns: Some(server.start_ns.saturating_sub(woke_ns)),
        wake_ns: Some(woke_ns - client.start_ns),
        run_ns: server.duration_ns(),
        reply_ns: reply.map(|(reply_ns, _)| reply_ns),
        reply_wake_ns: reply.map(|(_, wake_ns)| wake_ns),
    }
}

fn is_caller(span: &Span) -> bool {
    matches!(span.kind, SpanKind::Client | SpanKind::Producer)
}

fn is_callee(span: &Span) -> bool {
    matches!(span.kind, SpanKind::Server | SpanKind::Consumer)
}

/// Puts a trace together. Costs about a sort of its spans.
#[must_use]
pub fn assemble(record: TraceRecord) -> Trace {
    let TraceRecord { trace_id, spans, logs, spans_dropped } = record;
    let span_count = spans.len();
    let mut tree = Tree::new(spans);
    let mut logs = Logs::new(logs, &tree);
    let mut rows = Vec::new();
    for (root, orphan) in tree.roots() {
        walk(&mut tree, &mut logs, root, orphan, &mut rows);
    }
    for stray in tree.untaken_by_start() {
        // What no root leads to hangs in a ring of parents; the earliest of it opens the ring.
        walk(&mut tree, &mut logs, stray, true, &mut rows);
    }
    mark_last(&mut rows);
    let start_ns = rows.iter().map(|row| row.work.start_ns()).min();
    let end_ns = rows.iter().map(|row| row.work.end_ns().unwrap_or_else(|| latest_known(&row.work))).max();
    let start_ns = start_ns.unwrap_or(0);
    let end_ns = end_ns.unwrap_or(start_ns).max(start_ns);
    Trace { trace_id, start_ns, end_ns, rows, logs: logs.homeless, spans: span_count, spans_dropped }
}

fn latest_known(work: &Work) -> u64 {
    let known = |span: &Span| span.end_ns.unwrap_or(span.start_ns);
    known(work.outer()).max(known(work.inner()))
}

/// The spans with who is whose child.
struct Tree {
    /// A span is taken out when its row is made.
    spans: Vec<Option<Span>>,
    by_id: HashMap<SpanId, usize>,
    children: HashMap<SpanId, Vec<usize>>,
}

impl Tree {
    fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_by_key(|span| (span.start_ns, span.span_id));
        let by_id = spans.iter().enumerate().map(|(place, span)| (span.span_id, place)).collect();
        let mut children: HashMap<SpanId, Vec<usize>> = HashMap::new();
        for (place, span) in spans.iter().enumerate() {
            if let Some(parent) = span.parent_id {
                children.entry(parent).or_default().push(place);
            }
        }
        Self { spans: spans.into_iter().map(Some).collect(), by_id, children }
    }

    /// Lists the spans at the top by start, and whether they have lost their parents.
    fn roots(&self) -> Vec<(usize, bool)> {
        let spans = self.spans.iter().enumerate();
        spans
            .filter_map(|(place, span)| match span.as_ref()?.parent_id {
                None => Some((place, false)),
                Some(parent) => (!self.by_id.contains_key(&parent)).then_some((place, true)),
            })
            .collect()
    }

    /// Walks what no row was made of, each time from the earliest that is left.
    fn untaken_by_start(&self) -> Vec<usize> {
        (0..self.spans.len()).filter(|&place| self.spans[place].is_some()).collect()
    }

    fn children_of(&self, id: SpanId) -> impl Iterator<Item = usize> {
        self.children.get(&id).into_iter().flatten().copied()
    }

    /// Takes a span out, with the callee's side of its call where that is held. Of several callees (a call that was
    /// given to another replica) the last to start is the one that answered.
    fn take(&mut self, place: usize) -> Option<Work> {
        let span = self.spans[place].take()?;
        if !is_caller(&span) {
            return Some(Work::Single(span));
        }
        let answers = |place: &usize| self.spans[*place].as_ref().is_some_and(is_callee);
        let callee = self.children_of(span.span_id).filter(answers).last();
        Some(match callee.and_then(|callee| self.spans[callee].take()) {
            Some(server) => Work::Hop { client: span, server },
            None => Work::Single(span),
        })
    }

    /// Lists what lies under a row, by start.
    fn children_of_work(&self, work: &Work) -> Vec<usize> {
        let (outer, inner) = (work.outer().span_id, work.inner().span_id);
        let mut children: Vec<usize> = self.children_of(outer).collect();
        if inner != outer {
            children.extend(self.children_of(inner));
        }
        children.sort_unstable();
        children
    }
}

/// Makes rows of a span and of everything under it. Uses a list, not the call stack: depth is the workers' choice.
fn walk(tree: &mut Tree, logs: &mut Logs, root: usize, orphan: bool, rows: &mut Vec<Row>) {
    let mut pending = vec![(root, 0)];
    while let Some((place, depth)) = pending.pop() {
        let Some(work) = tree.take(place) else { continue };
        let children = tree.children_of_work(&work);
        pending.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
        let logs = logs.take(&work);
        rows.push(Row { depth, orphan: orphan && depth == 0, last: false, work, logs });
    }
}

/// Finds the last of each group of siblings, from the end.
fn mark_last(rows: &mut [Row]) {
    // For each depth, whether a later sibling was seen since the last shallower row.
    let mut followed: Vec<bool> = Vec::new();
    for row in rows.iter_mut().rev() {
        followed.resize(row.depth + 1, false);
        row.last = !followed[row.depth];
        followed[row.depth] = true;
    }
}

/// The logs by span, with those that have none.
struct Logs {
    by_span: HashMap<SpanId, Vec<Log>>,
    homeless: Vec<Log>,
}

impl Logs {
    fn new(mut logs: Vec<Log>, tree: &Tree) -> Self {
        logs.sort_by_key(|log| log.time_ns);
        let mut by_span: HashMap<SpanId, Vec<Log>> = HashMap::new();
        let mut homeless = Vec::new();
        for log in logs {
            match log.span_id.filter(|id| tree.by_id.contains_key(id)) {
                Some(id) => by_span.entry(id).or_default().push(log),
                None => homeless.push(log),
            }
        }
        Self { by_span, homeless }
    }

    fn take(&mut self, work: &Work) -> Vec<Log> {
        let mut logs = self.by_span.remove(&work.outer().span_id).unwrap_or_default();
        logs.extend(self.by_span.remove(&work.inner().span_id).unwrap_or_default());
        logs.sort_by_key(|log| log.time_ns);
        logs
    }
}

impl Trace {
    /// Returns the time from the first start to the last end that is known.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }

    /// Counts the workers that took part.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        let sides = self.rows.iter().flat_map(|row| [row.work.outer(), row.work.inner()]);
        let mut workers: Vec<WorkerId> = sides.map(|span| span.worker.id).collect();
        workers.sort_unstable();
        workers.dedup();
        workers.len()
    }

    /// Counts the rows that ended in an error.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.rows.iter().filter(|row| row.work.error_code().is_some()).count()
    }

    /// Counts the rows that still run.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.rows.iter().filter(|row| row.work.end_ns().is_none()).count()
    }

    /// Returns the name of the trace's first row.
    #[must_use]
    pub fn name(&self) -> Option<Arc<str>> {
        self.rows.first().map(|row| Arc::clone(&row.work.outer().name))
    }
}

#[cfg(test)]
mod tests;
