//! Spans and events as they reach the engine's end of the telemetry ring.

use std::future::Future;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use ringway_protocol::TraceId;
use ringway_protocol::trace::FLAG_SAMPLED;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::fake_reader::{Came, FakeReader};

fn active(span: u8, flags: u8) -> TraceContext {
    TraceContext { trace_id: TraceId::from_bytes([1; 16]), span_id: SpanId::from_bytes([span; 8]), flags }
}

/// Runs something under the layer, within a call's span, and returns what came.
fn hear(call: TraceContext, work: impl FnOnce()) -> Vec<Came> {
    let telemetry = Telemetry::new(WorkerId::new(1));
    let mut reader = FakeReader::attach(&telemetry);
    let subscriber = tracing_subscriber::registry().with(Tracing { telemetry: Some(telemetry) });
    tracing::subscriber::with_default(subscriber, || {
        let _in_call = context::enter_trace(call);
        work();
        assert_eq!(context::inherited().trace, call, "the active span is back");
    });
    reader.read()
}

fn log(came: &Came) -> &LogRecord {
    let Came::Log(log) = came else { panic!("no log: {came:?}") };
    log
}

fn span(came: &Came) -> &SpanRecord {
    let Came::Span(span) = came else { panic!("no span: {came:?}") };
    span
}

#[test]
fn an_event_becomes_a_log_of_the_active_span() {
    let call = active(2, FLAG_SAMPLED);
    let came = hear(call, || {
        tracing::warn!(target: "shop::orders", amount = 3, large = u64::MAX, share = 0.5, ok = true, name = "x", debug = ?Some(1), "bad order {}", 7);
    });
    let log = log(&came[0]);
    assert_eq!((log.trace_id, log.span_id), (call.trace_id, call.span_id));
    assert_eq!((log.level, &*log.target, &*log.message), (Level::Warn, "shop::orders", "bad order 7"));
    let fields = [
        ("amount", FieldValue::I64(3)),
        ("large", FieldValue::U64(u64::MAX)),
        ("share", FieldValue::F64(0.5)),
        ("ok", FieldValue::Bool(true)),
        ("name", FieldValue::Text("x".into())),
        ("debug", FieldValue::Text("Some(1)".into())),
    ];
    assert_eq!(log.fields, fields.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn spans_nest_below_the_call() {
    let call = active(2, FLAG_SAMPLED);
    let came = hear(call, || {
        let outer = tracing::info_span!(target: "shop", "outer").entered();
        tracing::info_span!(target: "shop", "inner").in_scope(|| tracing::info!(target: "shop", "deep"));
        drop(outer);
        tracing::info!(target: "shop", "after");
    });
    let [deep, inner, outer, after] = &came[..] else { panic!("{came:?}") };
    let (deep, inner, outer) = (log(deep), span(inner), span(outer));
    assert_eq!((inner.name.as_str(), outer.name.as_str()), ("inner", "outer"));
    assert_eq!(deep.span_id, inner.span_id);
    assert_eq!((inner.parent_id, outer.parent_id), (outer.span_id, call.span_id));
    assert_eq!(log(after).span_id, call.span_id);
    assert!(
        inner.start_ns >= outer.start_ns && inner.end_ns <= outer.end_ns && inner.start_ns <= inner.end_ns
    );
}

#[test]
fn two_futures_that_take_turns_keep_their_own_spans() {
    struct Pause(bool);
    impl Future for Pause {
        type Output = ();
        fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
        }
    }
    let work = |name: &'static str| {
        async move {
            tracing::info!(target: "shop", name);
            Pause(false).await;
            tracing::info!(target: "shop", name);
        }
        .instrument(tracing::info_span!(target: "shop", "task"))
    };
    let came = hear(active(2, FLAG_SAMPLED), || {
        let (mut a, mut b) = (pin!(work("a")), pin!(work("b")));
        let mut task = TaskContext::from_waker(Waker::noop());
        for _ in 0..2 {
            for future in [a.as_mut(), b.as_mut()] {
                let _ready = future.poll(&mut task);
            }
        }
    });
    let spans: Vec<_> =
        came.iter().filter(|came| matches!(came, Came::Log(_))).map(|came| log(came).span_id).collect();
    let [a, b, a_again, b_again] = spans[..] else { panic!("{came:?}") };
    assert!(a == a_again && b == b_again && a != b);
}

#[test]
fn spans_left_out_of_order_leave_nothing_active() {
    let came = hear(active(2, FLAG_SAMPLED), || {
        let first = tracing::info_span!(target: "shop", "first").entered();
        let second = tracing::info_span!(target: "shop", "second").entered();
        drop(first);
        drop(second);
    });
    assert_eq!(came.len(), 2);
}

#[test]
fn what_is_not_sampled_is_not_recorded_but_logged() {
    let call = active(2, 0);
    let came = hear(call, || {
        tracing::info_span!(target: "shop", "quiet").in_scope(|| tracing::info!(target: "shop", "said"));
    });
    assert_eq!(came.len(), 1);
    assert_eq!(log(&came[0]).span_id, call.span_id);
}

#[test]
fn the_product_speaks_of_trouble_only() {
    let came = hear(active(2, FLAG_SAMPLED), || {
        tracing::info!(target: "ringway_engine::server", "routine");
        tracing::info!(target: "ringway_demo", "an example is a user");
        tracing::error!(target: "ringway", "trouble");
    });
    let said: Vec<_> = came.iter().map(|came| log(came).message.as_str()).collect();
    assert_eq!(said, ["an example is a user", "trouble"]);
}

#[test]
fn long_texts_are_cut() {
    let long = "é".repeat(TEXT_BYTES_MAX);
    let came = hear(TraceContext::default(), || {
        tracing::info!(target: "shop", text = %long, plain = long.as_str(), "{long}");
    });
    let log = log(&came[0]);
    assert!(log.trace_id.is_none());
    assert_eq!(log.message.len(), TEXT_BYTES_MAX);
    assert!(
        log.fields
            .iter()
            .all(|(_, value)| matches!(value, FieldValue::Text(text) if text.len() == TEXT_BYTES_MAX))
    );
}

#[test]
fn a_log_belongs_to_the_worker_whose_handler_it_comes_from() {
    let (first, second) = (Telemetry::new(WorkerId::new(71)), Telemetry::new(WorkerId::new(72)));
    let found = |worker: u64| Telemetry::of_worker(WorkerId::new(worker)).expect("there is one");
    assert!(Arc::ptr_eq(&found(71), &first) && Arc::ptr_eq(&found(72), &second));
    let oldest = found(0);
    assert!(Arc::ptr_eq(&found(73), &oldest), "a worker that is gone leaves its logs to the oldest");
    let mut reader = FakeReader::attach(&second);
    let subscriber = tracing_subscriber::registry().with(Tracing { telemetry: None });
    tracing::subscriber::with_default(subscriber, || {
        let inherited =
            context::Inherited { worker: WorkerId::new(72), trace: active(3, FLAG_SAMPLED), deadline_ns: 0 };
        let _in_handler = context::enter(inherited, None);
        tracing::info!(target: "shop", "of the second");
        tracing::info_span!(target: "shop", "step").in_scope(|| tracing::info!(target: "shop", "in a step"));
    });
    let came = reader.read();
    let said: Vec<_> =
        came.iter().filter(|came| matches!(came, Came::Log(_))).map(|came| &*log(came).message).collect();
    assert_eq!((said, came.len()), (vec!["of the second", "in a step"], 3));
}
