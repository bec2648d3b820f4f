//! The trace of a message: who enqueued it, each attempt with its number and its end, the call that the attempt made; all in
//! one trace, read as users read it.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use ringway::{Context, Enqueue, Failure, Function, HandlerResult, Sampler, Worker};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

/// Reads the trace of a function's calls until nothing in it is under way and it has `attempts` attempts.
fn trace(stage: &Stage, function: &str, attempts: usize) -> Value {
    let started = Instant::now();
    loop {
        let list = stage.call("engine::traces::list", json!({ "function": function }));
        if let Some(id) = list["traces"][0]["trace_id"].as_str() {
            let tree = stage.call("engine::traces::tree", json!({ "trace_id": id }));
            let rows = tree["rows"].as_array().unwrap();
            let found = rows.iter().filter(|row| is_attempt(row) && !row["logs"].is_null()).count();
            if tree["live"] == 0 && found == attempts {
                return tree;
            }
        }
        assert!(started.elapsed() < SOON, "the trace does not become whole: {list:#}");
        std::thread::yield_now();
    }
}

fn is_attempt(row: &Value) -> bool {
    row["name"].as_str().is_some_and(|name| name.starts_with("attempt"))
}

#[test]
fn attempts_are_spans_of_the_senders_trace_with_number_and_end() {
    let stage = Stage::configured(json!({ "t": { "max_retries": 3, "backoff_ms": 1 } }));
    let _given = Stage::serve(&stage.client, "t::work", |given| {
        if given.metadata["attempt"] == 1 {
            Err(Failure::with_code("E1", "not yet"))
        } else {
            Ok(Value::Null)
        }
    });
    let sender: Worker = stage.traced("sender", Sampler::always());
    let receipt = sender.enqueue("t::work", &json!({ "n": 1 }), &Enqueue::to("t")).unwrap();
    receipt.wait(SOON).unwrap();
    let tree = trace(&stage, "queue::enqueue", 2);
    let rows = tree["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| (&row["name"], &row["depth"])).collect();
    let expected =
        [("queue::enqueue", 0), ("attempt 1", 1), ("t::work", 2), ("attempt 2", 1), ("t::work", 2)];
    let expected: Vec<_> = expected.map(|(name, depth)| (json!(name), json!(depth))).into();
    assert_eq!(names, expected.iter().map(|(name, depth)| (name, depth)).collect::<Vec<_>>(), "{tree:#}");
    let errors: Vec<_> = rows.iter().map(|row| row["error"].as_str()).collect();
    assert_eq!(errors, [None, Some("handler_error"), Some("handler_error"), None, None]);
    for (row, number) in [(&rows[1], 1), (&rows[3], 2)] {
        assert_eq!(row["spans"][0]["kind"], "consumer");
        let log = &row["logs"][0];
        let fields = &log["fields"];
        assert_eq!((&fields["attempt"], &fields["attempts_max"]), (&json!(number), &json!(4)));
        assert_eq!((&fields["queue"], &fields["function"]), (&json!("t"), &json!("t::work")));
        assert_eq!(fields["message_id"], receipt.id());
    }
    let failed = &rows[1]["logs"][0];
    assert_eq!((&failed["level"], &failed["fields"]["code"]), (&json!("warn"), &json!("E1")));
    assert_eq!(failed["fields"]["error"], "not yet");
}

#[test]
fn a_step_is_a_span_of_its_attempt_and_says_how_it_ended() {
    let stage = Stage::configured(json!({ "t": { "max_retries": 0 } }));
    let work = |context: &Context, _: Value| -> HandlerResult<()> {
        context.step("look up", || Ok(1))?;
        context.step("charge", || Err(Failure::new("no money")))
    };
    stage.client.register(Function::json("t::steps", work).pooled()).unwrap();
    let sender: Worker = stage.traced("sender", Sampler::always());
    let receipt = sender.enqueue("t::steps", &Value::Null, &Enqueue::to("t")).unwrap();
    receipt.wait(SOON).unwrap();
    let tree = trace(&stage, "queue::enqueue", 1);
    let rows = tree["rows"].as_array().unwrap();
    let steps = rows.iter().filter(|row| row["name"].as_str().is_some_and(|name| name.starts_with("step ")));
    let found: Vec<_> = steps.map(|row| (&row["name"], &row["depth"], row["error"].as_str())).collect();
    let (look_up, charge, depth) = (json!("step look up"), json!("step charge"), json!(3));
    assert_eq!(found, [(&look_up, &depth, None), (&charge, &depth, Some("handler_error"))], "{tree:#}");
    let kept = rows.iter().find(|row| row["name"] == "queue::step").expect("the result of the first is kept");
    assert_eq!(kept["depth"], 4, "below the step");
}

#[test]
fn an_attempt_that_is_given_up_does_not_tell_of_success() {
    let stage = Stage::configured(json!({ "t": {} }));
    let ((began, has_begun), (end, may_end)) = (channel(), channel());
    let may_end = Mutex::new(may_end);
    let work = move |_: &Context, _: Value| -> HandlerResult<()> {
        let _told = began.send(());
        let _end = may_end.lock().unwrap().recv();
        Ok(())
    };
    stage.client.register(Function::json("t::long", work).pooled()).unwrap();
    let sender: Worker = stage.traced("sender", Sampler::always());
    let receipt = sender.enqueue("t::long", &Value::Null, &Enqueue::to("t")).unwrap();
    has_begun.recv().unwrap();
    assert!(receipt.cancel().unwrap());
    end.send(()).unwrap();
    let started = Instant::now();
    let error = loop {
        let list = stage.call("engine::traces::list", json!({ "function": "queue::enqueue" }));
        if let Some(id) = list["traces"][0]["trace_id"].as_str() {
            let tree = stage.call("engine::traces::tree", json!({ "trace_id": id }));
            let attempt = tree["rows"].as_array().unwrap().iter().find(|row| is_attempt(row)).cloned();
            if let Some(attempt) = attempt.filter(|_| tree["live"] == 0) {
                break attempt["error"].clone();
            }
        }
        assert!(started.elapsed() < SOON, "the trace does not become whole: {list:#}");
        std::thread::yield_now();
    };
    assert_eq!(error, "cancelled");
}
