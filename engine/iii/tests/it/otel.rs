//! Telemetry of iii's SDKs in the engine's own traces, logs and figures.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use ringway::{CallOptions, ErrorCode, Function, Message as Native, TraceContext};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::channels::{Client, PATIENCE, Stage, stage};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const OWN: &str = "00f067aa0ba902b8";

fn otel(stage: &Stage) -> Client {
    stage.run(connect_async(format!("ws://{}/otel", stage.bed.face.addresses()[0]))).unwrap().0
}

fn send(stage: &Stage, client: &mut Client, letters: &str, body: &Value) {
    stage.run(client.send(Message::binary(format!("{letters}{body}").into_bytes()))).unwrap();
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Asks until the answer is as wanted; what is handed over is seen a little later.
fn ask(stage: &Stage, id: &str, input: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = stage.worker.trigger_json(id, input).unwrap_or_default();
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < until, "{id}: {answer}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn find<'a>(spans: &'a Value, name: &str) -> Option<&'a Value> {
    spans
        .as_array()?
        .iter()
        .find_map(|span| if span["name"] == name { Some(span) } else { find(&span["children"], name) })
}

fn resource() -> Value {
    json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": "mailer"}},
        {"key": "service.instance.id", "value": {"stringValue": "abc"}},
    ]})
}

fn spans(spans: &Value) -> Value {
    json!({"resourceSpans": [{"resource": resource(), "scopeSpans": [{"scope": {"name": "iii"}, "spans": spans}]}]})
}

#[test]
fn spans_and_logs_of_an_sdk_stand_in_the_one_trace_under_their_parents() {
    let stage = stage();
    stage.worker.register(Function::json("mail::send", |_, _: Value| Ok(json!("sent")))).unwrap();
    let parent = TraceContext::parse_traceparent(&format!("00-{TRACE}-{CALLER}-01")).unwrap();
    let options = CallOptions::new().parent(parent).timeout(PATIENCE);
    stage.worker.trigger_json_with("mail::send", &json!({}), &options).unwrap();
    let tree = |wanted: &dyn Fn(&Value) -> bool| {
        ask(&stage, "engine::traces::tree", &json!({"trace_id": TRACE}), |tree| wanted(&tree["roots"]))
    };
    let before =
        tree(&|roots| find(roots, "mail::send").is_some_and(|client| client["children"][0].is_object()));
    let client = find(&before["roots"], "mail::send").unwrap();
    let server = client["children"][0]["span_id"].as_str().unwrap();

    let mut socket = otel(&stage);
    let start = now_ns();
    let span = json!({
        "traceId": TRACE, "spanId": OWN, "parentSpanId": server, "name": "execute mail::send", "kind": 2,
        "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 5_000).to_string(),
        "attributes": [{"key": "iii.payload", "value": {"stringValue": "{}"}}], "status": {"code": 1},
    });
    let log = json!({"resourceLogs": [{"resource": resource(), "scopeLogs": [{"scope": {"name": "iii"}, "logRecords": [
        {"timeUnixNano": (start + 1_000).to_string(), "severityNumber": 9, "body": {"stringValue": "off it goes"},
         "traceId": TRACE, "spanId": OWN}]}]}]});
    send(&stage, &mut socket, "LOGS", &log);
    send(&stage, &mut socket, "OTLP", &spans(&json!([span])));

    let after = tree(&|roots| find(roots, "execute mail::send").is_some());
    let client = find(&after["roots"], "mail::send").unwrap();
    let own = &client["children"][0]["children"][0];
    assert_eq!((&own["span_id"], &own["parent_span_id"]), (&json!(OWN), &json!(server)), "{after}");
    assert_eq!((&own["service_name"], &own["status"]), (&json!("mailer"), &json!("ok")));
    assert_eq!(own["events"][0]["name"], "off it goes", "{own}");
    assert!(own["attributes"].as_array().unwrap().contains(&json!(["iii.payload", "{}"])));
    let told = own["start_time_unix_nano"].as_u64().unwrap().abs_diff(u64::try_from(start).unwrap());
    assert!(told < 1_000_000_000, "the time is told as it was, {told} ns off");
    let logs = ask(&stage, "engine::logs::list", &json!({"trace_id": TRACE}), |logs| logs["total"] == 1);
    assert_eq!(
        (&logs["logs"][0]["body"], &logs["logs"][0]["service_name"]),
        (&json!("off it goes"), &json!("mailer"))
    );
    // Handing it over is no part of any trace.
    let all = stage.worker.trigger_json("engine::traces::list", &json!({"search_all_spans": true})).unwrap();
    assert!(!all.to_string().contains("engine::telemetry::ingest"), "{all}");
}

#[test]
fn figures_are_told_and_the_latest_counts() {
    let stage = stage();
    let mut socket = otel(&stage);
    for value in [1.5, 2.5] {
        let frame = json!({"resourceMetrics": [{"resource": resource(), "scopeMetrics": [{"metrics": [
            {"name": "iii.worker.cpu.percent", "unit": "%", "gauge": {"dataPoints": [
                {"asDouble": value, "timeUnixNano": now_ns().to_string(),
                 "attributes": [{"key": "worker.name", "value": {"stringValue": "mailer"}}]}]}}]}]}]});
        send(&stage, &mut socket, "MTRC", &frame);
    }
    let metrics =
        ask(&stage, "engine::metrics::list", &Value::Null, |found| found["sdk_metrics"][0]["value"] == 2.5);
    let figures = metrics["sdk_metrics"].as_array().unwrap();
    assert_eq!(figures.len(), 1, "{figures:?}");
    assert_eq!(
        (&figures[0]["name"], &figures[0]["attributes"]["worker.name"], &figures[0]["kind"]),
        (&json!("iii.worker.cpu.percent"), &json!("mailer"), &json!("gauge"))
    );
}

#[test]
fn bad_frames_are_counted_and_end_nothing() {
    let stage = stage();
    let mut socket = otel(&stage);
    let good =
        json!({"traceId": TRACE, "spanId": OWN, "name": "good", "startTimeUnixNano": now_ns().to_string()});
    stage.run(async {
        for frame in [&b""[..], b"OT", b"NOPE{}", b"OTLP", b"OTLP{", b"LOGS[]", b"MTRC\xff\xff"] {
            socket.send(Message::binary(frame.to_vec())).await.unwrap();
        }
        socket.send(Message::text("hello")).await.unwrap();
    });
    send(&stage, &mut socket, "OTLP", &spans(&json!([good, {"traceId": "?"}, 7])));
    ask(&stage, "engine::traces::tree", &json!({"trace_id": TRACE}), |tree| tree["spans"] != Value::Null);
    let metrics = ask(&stage, "engine::metrics::list", &Value::Null, |_| true);
    let intake = &metrics["engine_metrics"]["intake"];
    assert_eq!((&intake["malformed"], &intake["rejected"]), (&json!(4), &json!(2)), "{intake}");
    assert_eq!(stage.bed.face.counters().telemetry_refused, 4);
    stage.run(async {
        socket.close(None).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            assert!(matches!(message, Message::Close(_)), "nothing is ever answered: {message:?}");
        }
    });
}

#[test]
fn any_worker_may_hand_telemetry_over_and_hears_what_became_of_it() {
    let stage = stage();
    let call = |message: &Native, signal: &str| {
        let options = CallOptions::new().metadata(json!({"signal": signal})).timeout(PATIENCE);
        stage.worker.handle("engine::telemetry::ingest").call_with(message, &options)
    };
    let frame = Native::json(&spans(&json!([{"traceId": TRACE, "spanId": OWN}, {}]))).unwrap();
    let answer: Value = serde_json::from_slice(call(&frame, "traces").unwrap().body()).unwrap();
    assert_eq!(answer, json!({"spans": 1, "logs": 0, "points": 0, "rejected": 1}));
    for (message, signal) in [
        (Native::bytes(b"\xff\xff"), "traces"),
        (Native::new(ringway::Encoding::Json, b"{"), "logs"),
        (frame, "smells"),
    ] {
        let error = call(&message, signal).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    }
}
