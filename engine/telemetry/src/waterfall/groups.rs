//! Spans gathered by the value of an attribute, in the shape of the iii protocol's `engine::traces::group_by`: which
//! sessions, workers or functions there were, and how they fared. This file must not know who asks.

use std::collections::{BTreeMap, HashMap, HashSet};

use ringway_protocol::{SpanId, TraceId, naming};
use serde::Serialize;

use super::otel::attribute;
use crate::record::{ClockAnchor, FieldValue, Span};
use crate::store::TraceStore;

/// What is to be gathered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupFilter {
    /// An attribute as it is told with a span, one of `name`, `service_name` and `status`, or a field of a log line that
    /// was written within the span.
    pub attribute: String,
    /// The attribute whose latest value is a group's label.
    pub label_attribute: Option<String>,
    /// The earliest start of a span, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// Whether the engine's own functions count.
    pub include_internal: bool,
    /// How many groups at most, the ones seen last first.
    pub limit: usize,
}

/// All spans with one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TraceGroup {
    /// The value.
    pub value: String,
    /// What the group is called; none where no span of it says.
    pub label: Option<String>,
    /// The traces that its spans belong to, each once.
    pub trace_ids: Vec<TraceId>,
    /// How many spans it has.
    pub span_count: usize,
    /// The earliest start, milliseconds of Unix time.
    pub first_seen_ms: u64,
    /// The latest time known, milliseconds of Unix time.
    pub last_seen_ms: u64,
    /// The time between the two.
    pub duration_ms: u64,
    /// How many of its spans ended in an error.
    pub error_count: usize,
}

/// Values of one attribute: told by a span itself, or by a log line within it.
struct Values<'a> {
    key: &'a str,
    logged: HashMap<(TraceId, SpanId), String>,
}

impl<'a> Values<'a> {
    fn new(store: &TraceStore, key: &'a str) -> Self {
        let mut logged = HashMap::new();
        for log in store.log_lines() {
            let Some(place) = log.trace_id.zip(log.span_id) else { continue };
            if let Some((_, value)) = log.fields.iter().find(|(name, _)| name == key) {
                logged.insert(place, text(value));
            }
        }
        Self { key, logged }
    }

    fn of(&self, span: &Span) -> Option<String> {
        let told = attribute(span, self.key).map(std::borrow::Cow::into_owned);
        told.or_else(|| self.logged.get(&(span.trace_id, span.span_id)).cloned())
    }
}

fn text(value: &FieldValue) -> String {
    match value {
        FieldValue::Text(text) => text.clone(),
        other => serde_json::to_value(other).map_or_else(|_| String::new(), |value| value.to_string()),
    }
}

/// What is known of a group while its spans are walked.
#[derive(Default)]
struct Gathered {
    label: Option<(u64, String)>,
    seen: HashSet<TraceId>,
    trace_ids: Vec<TraceId>,
    spans: usize,
    errors: usize,
    times: Option<(u64, u64)>,
}

impl Gathered {
    fn add(&mut self, span: &Span, label: Option<String>) {
        let (start, end) = (span.start_ns, span.end_ns.unwrap_or(span.start_ns));
        if self.seen.insert(span.trace_id) {
            self.trace_ids.push(span.trace_id);
        }
        self.spans += 1;
        self.errors += usize::from(span.is_error());
        let (first, last) = self.times.unwrap_or((start, end));
        self.times = Some((first.min(start), last.max(end)));
        if let Some(label) = label.filter(|_| self.label.as_ref().is_none_or(|(since, _)| *since <= start)) {
            self.label = Some((start, label));
        }
    }

    fn finish(self, value: String, anchor: ClockAnchor) -> TraceGroup {
        let (first, last) = self.times.unwrap_or_default();
        TraceGroup {
            value,
            label: self.label.map(|(_, label)| label),
            trace_ids: self.trace_ids,
            span_count: self.spans,
            first_seen_ms: anchor.unix_ns(first) / NS_PER_MS,
            last_seen_ms: anchor.unix_ns(last) / NS_PER_MS,
            duration_ms: last.saturating_sub(first) / NS_PER_MS,
            error_count: self.errors,
        }
    }
}

const NS_PER_MS: u64 = 1_000_000;

/// Gathers the spans of a store. Costs a walk over all spans, and one over all log lines for each attribute.
#[must_use]
pub fn group(store: &TraceStore, filter: &GroupFilter, anchor: ClockAnchor) -> Vec<TraceGroup> {
    let values = Values::new(store, &filter.attribute);
    let labels = filter.label_attribute.as_deref().map(|key| Values::new(store, key));
    let mut groups = BTreeMap::<String, Gathered>::new();
    for span in store.spans() {
        let internal = naming::is_reserved(&span.name) && !filter.include_internal;
        if internal || span.start_ns < filter.since_ns {
            continue;
        }
        let Some(value) = values.of(span) else { continue };
        let label = labels.as_ref().and_then(|labels| labels.of(span));
        groups.entry(value).or_default().add(span, label);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.times.map(|(_, last)| last)));
    groups.truncate(filter.limit);
    groups.into_iter().map(|(value, group)| group.finish(value, anchor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Level, SpanKind::*};
    use crate::testing::{log, span, worker};

    const ANCHOR: ClockAnchor = ClockAnchor { monotonic_ns: 0, unix_ns: 1_000_000_000 };

    fn store() -> TraceStore {
        let (agent, docs) = (worker(1, "agent"), worker(2, "docs"));
        let ms = |start: u64, end: u64| (start * NS_PER_MS, end * NS_PER_MS);
        let failed = |span: Span| Span { status: ringway_protocol::ErrorCode::HandlerError.status(), ..span };
        let mut store = TraceStore::default();
        for span in [
            span(&agent, (1, 0), Client, "docs::search", ms(10, 40)),
            failed(span(&docs, (2, 1), Server, "docs::search", ms(12, 38))),
            span(&docs, (3, 2), Internal, "open index", ms(13, 20)),
            span(&docs, (4, 0), Server, "engine::traces::list", ms(90, 95)),
        ] {
            store.insert_span(span);
        }
        let mut line = log(&docs, 2, 20 * NS_PER_MS, Level::Info, "found");
        line.fields =
            vec![("session".into(), FieldValue::Text("s1".into())), ("n".into(), FieldValue::U64(7))];
        store.insert_log(line);
        store
    }

    fn check(filter: GroupFilter, expected: &[(&str, usize, u64, u64, usize)]) {
        let found = group(&store(), &GroupFilter { limit: filter.limit.max(1), ..filter }, ANCHOR);
        let found: Vec<_> = found
            .iter()
            .map(|group| {
                assert_eq!(group.trace_ids.len(), 1, "each trace once: {group:?}");
                assert_eq!(group.duration_ms, group.last_seen_ms - group.first_seen_ms);
                let times = (group.first_seen_ms, group.last_seen_ms);
                (group.value.as_str(), group.span_count, times.0, times.1, group.error_count)
            })
            .collect();
        assert_eq!(found, expected);
    }

    fn by(attribute: &str) -> GroupFilter {
        GroupFilter { attribute: attribute.into(), limit: 10, ..GroupFilter::default() }
    }

    #[test]
    fn spans_are_gathered_by_what_they_say_of_themselves() {
        check(by("service_name"), &[("agent", 1, 1010, 1040, 0), ("docs", 2, 1012, 1038, 1)]);
        check(by("status"), &[("ok", 2, 1010, 1040, 0), ("error", 1, 1012, 1038, 1)]);
        check(GroupFilter { limit: 1, ..by("service_name") }, &[("agent", 1, 1010, 1040, 0)]);
        check(GroupFilter { since_ns: 13 * NS_PER_MS, ..by("service_name") }, &[("docs", 1, 1013, 1020, 0)]);
        let own = GroupFilter { include_internal: true, ..by("name") };
        let names: Vec<_> = group(&store(), &own, ANCHOR).into_iter().map(|group| group.value).collect();
        assert_eq!(names, ["engine::traces::list", "docs::search", "open index"]);
        check(by("no.such"), &[]);
    }

    #[test]
    fn spans_are_gathered_by_what_was_logged_within_them() {
        check(by("session"), &[("s1", 1, 1012, 1038, 1)]);
        check(by("n"), &[("7", 1, 1012, 1038, 1)]);
        let labelled = GroupFilter { label_attribute: Some("session".into()), ..by("service_name") };
        let labels: Vec<_> =
            group(&store(), &labelled, ANCHOR).into_iter().map(|group| group.label).collect();
        assert_eq!(labels, [None, Some("s1".to_owned())]);
    }
}
