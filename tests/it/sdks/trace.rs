//! One trace over every SDK: the calls of one chain, each the child of the one before, with the spans that the SDKs made
//! themselves. It must not know how spans reach the engine.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::stage::{Stage, until};

/// A span, by what the test looks at.
#[derive(Debug, Clone)]
struct Seen {
    id: String,
    parent: String,
    name: String,
    service: String,
}

fn spans(stage: &Stage, trace_id: &str) -> Vec<Seen> {
    let request = json!({ "trace_id": trace_id, "search_all_spans": true, "limit": 1000 });
    let listed = stage.client.trigger_json("engine::traces::list", &request).expect("the list");
    let text = |span: &Value, field: &str| span[field].as_str().unwrap_or_default().to_owned();
    let all = listed["spans"].as_array().into_iter().flatten();
    all.map(|span| Seen {
        id: text(span, "span_id"),
        parent: text(span, "parent_span_id"),
        name: text(span, "name"),
        service: text(span, "service_name"),
    })
    .collect()
}

/// The trace that began with a function's call.
fn trace_of(stage: &Stage, function: &str) -> Option<String> {
    let request = json!({ "name": function, "limit": 10 });
    let listed = stage.client.trigger_json("engine::traces::list", &request).expect("the list");
    listed["spans"][0]["trace_id"].as_str().map(str::to_owned)
}

#[test]
fn one_trace_over_all_sdks() {
    let stage = Stage::new();
    let chain = stage.everybody();
    let path: Vec<String> = chain.iter().skip(1).map(|name| format!("{name}::relay")).collect();
    let names = stage.ask(chain[0], "relay", &json!({ "path": path }));
    assert_eq!(names, json!(chain));
    let executed = |name: &str| format!("execute {name}::relay");
    let trace = until("the trace of the first call", || {
        trace_of(&stage, &format!("{}::relay", chain[0])).ok_or(Value::Null)
    });
    // An SDK sends its spans when it gets to it; the last of them is the chain's first.
    let spans = until("a span of every actor", || {
        let spans = spans(&stage, &trace);
        let is_there = |name: &str| spans.iter().any(|span| span.name == executed(name));
        let all_there = stage.sdks().into_iter().all(is_there);
        if all_there { Ok(spans) } else { Err(json!(format!("{spans:#?}"))) }
    });
    let by_id: HashMap<&str, &Seen> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "every span is there once");
    for (callee, caller) in chain.iter().skip(1).zip(&chain) {
        if *callee == super::stage::NATIVE {
            continue;
        }
        let own = spans.iter().find(|span| span.name == executed(callee)).expect("found above");
        assert_eq!(own.service, *callee, "{own:?}");
        // Between two handlers may stand the engine's own span of the call, and the SDK's of the calling.
        let mut at = own;
        while at.name != executed(caller) {
            at = by_id.get(at.parent.as_str()).unwrap_or_else(|| {
                panic!("{callee}'s span does not descend from {caller}'s: {at:?} has no parent in {spans:#?}")
            });
        }
    }
}
