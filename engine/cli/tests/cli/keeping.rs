//! `ringway state`, `queue` and `cron` against a worker that offers the documented functions: what is asked, and how the
//! answers look.

use ringway::{Failure, Function, Worker};
use serde_json::{Value, json};

use crate::host::Host;

/// Answers with the request among others, so that a test sees what was asked.
/// A function's id, and what it answers.
type Answer = (&'static str, fn(&Value) -> Result<Value, Failure>);

fn offer(worker: &Worker, answers: &[Answer]) {
    let functions = answers.iter().map(|(id, answer)| {
        let answer = *answer;
        Function::json(id, move |_, request: Value| answer(&request))
    });
    worker.register_all(functions.collect()).unwrap();
}

#[test]
fn state_is_read_and_written() {
    let host = Host::start();
    host.run(&["state", "get", "s", "k"])
        .fails(3, &["`state`", "ringway.yaml", "no worker offers `state::get`"]);
    offer(
        &host.worker,
        &[
            ("state::get", |asked| {
                Ok(if asked == &json!({"scope": "s", "key": "k"}) { json!({"a": 1}) } else { Value::Null })
            }),
            ("state::delete", |asked| Ok(if asked["key"] == "k" { json!(1) } else { Value::Null })),
            ("state::set", |asked| match &asked["value"] {
                Value::String(text) if text == "bad" => {
                    Err(Failure::with_code("SET_ERROR", "the disk is full; make room"))
                }
                value => Ok(json!({"old_value": null, "new_value": value})),
            }),
            ("state::list", |_| Ok(json!([{"a": 1}, "x"]))),
            ("state::list_groups", |_| Ok(json!({"groups": ["s", "t"]}))),
            ("state::scan", |asked| {
                let more = (asked["cursor"].is_null() && asked["limit"] == 1).then_some("abc");
                Ok(
                    json!({"entries": [{"key": format!("{}1", asked["prefix"].as_str().unwrap_or("k")), "value": {"n": 1}, "revision": 7}], "cursor": more}),
                )
            }),
        ],
    );
    host.run(&["state", "get", "s", "k"]).prints("{\"a\":1}\n");
    host.run(&["state", "get", "s", "none"]).fails(3, &["holds no key `none`", "state scan s"]);
    host.run(&["state", "set", "s", "k", "5"]).prints("{\"old_value\":null,\"new_value\":5}\n");
    host.run(&["state", "set", "s", "k", "-5"]).prints("{\"old_value\":null,\"new_value\":-5}\n");
    host.run(&["state", "set", "s", "k", "word", "--json"])
        .prints("{\"old_value\":null,\"new_value\":\"word\"}\n");
    host.run(&["state", "set", "s", "k", "bad"]).fails(1, &["SET_ERROR", "the disk is full; make room"]);
    host.run(&["state", "delete", "s", "k"]).prints("1\n");
    host.run(&["state", "delete", "s", "x"]).fails(3, &["holds no key `x`"]);
    host.run(&["state", "list", "s"]).prints("{\"a\":1}\n\"x\"\n");
    host.run(&["state", "list", "s", "--json"]).prints("[{\"a\":1},\"x\"]\n");
    host.run(&["state", "groups"]).prints("s\nt\n");
    host.run(&["state", "scan", "s", "--prefix", "p"])
        .prints("KEY  REVISION  VALUE\np1          7  {\"n\":1}\n");
    let page = host.run(&["state", "scan", "s", "--limit", "1"]);
    assert!(page.out.contains("k1") && page.err.contains("--cursor abc"), "{page:?}");
    assert_eq!(host.run(&["state", "scan", "s", "--json"]).json()["entries"][0]["revision"], 7);
    host.run(&["state", "scan", "s", "--limit", "0"]).fails(2, &["--limit"]);
}

#[test]
fn queues_are_looked_at_and_held() {
    let host = Host::start();
    host.run(&["queue", "list"]).fails(3, &["`queue`", "queue::topics"]);
    offer(
        &host.worker,
        &[
            ("queue::topics", |_| {
                Ok(json!([{"name": "mail", "broker_type": "ringway", "subscriber_count": 2}]))
            }),
            ("queue::stats", |asked| {
                Ok(json!({"depth": 3, "consumer_count": 1, "dlq_depth": 4, "config": asked["topic"]}))
            }),
            ("queue::dlq::topics", |_| {
                Ok(json!([{"topic": "mail", "broker_type": "ringway", "message_count": 4}]))
            }),
            ("queue::dlq::messages", |asked| {
                Ok(
                    json!([{"id": "m1", "payload": asked, "error": "no such box", "failed_at": 1, "retries": 3, "size_bytes": 20}]),
                )
            }),
            ("queue::enqueue", |asked| Ok(json!({"id": "m2", "status": "waiting", "asked": asked}))),
            ("queue::pause", |asked| Ok(json!({"queue": asked["queue"], "mode": "paused"}))),
            ("queue::resume", |asked| Ok(json!({"queue": asked["queue"], "mode": "active"}))),
            ("iii::queue::redrive", |asked| Ok(json!({"queue": asked["queue"], "redriven": 4}))),
            ("iii::queue::redrive_message", |asked| {
                Ok(json!({"redriven": u8::from(asked["message_id"] == "m1")}))
            }),
            ("iii::queue::discard_message", |asked| {
                Ok(json!({"redriven": u8::from(asked["message_id"] == "m1")}))
            }),
        ],
    );
    host.run(&["queue", "list"]).prints("QUEUE  BROKER   SUBSCRIBERS\nmail   ringway            2\n");
    host.run(&["queue", "stats", "mail"]).prints("waiting       3\nconsumers     1\ndead letters  4\n");
    assert_eq!(host.run(&["queue", "stats", "mail", "--json"]).json()["config"], "mail");
    host.run(&["queue", "enqueue", "mail", "{\"to\":1}"]).prints("m2\n");
    let full = [
        "queue",
        "enqueue",
        "mail",
        "x",
        "--function",
        "a::b",
        "--delay",
        "2s",
        "--idempotency-key",
        "k",
        "--json",
    ];
    let asked = json!({"queue": "mail", "data": "x", "function_id": "a::b", "delay_ms": 2000, "idempotency_key": "k"});
    assert_eq!(host.run(&full).json()["asked"], asked);
    host.run(&["queue", "pause", "mail"]).prints("mail is paused\n");
    host.run(&["queue", "resume", "mail"]).prints("mail is active\n");
    host.run(&["queue", "dlq", "list"])
        .prints("QUEUE  BROKER   DEAD LETTERS\nmail   ringway             4\n");
    let letters = host.run(&["queue", "dlq", "list", "mail", "--limit", "5"]);
    letters.prints("RETRIES  BYTES  ID  ERROR\n      3     20  m1  no such box\n");
    let asked = json!({"topic": "mail", "offset": 0, "limit": 50});
    assert_eq!(host.run(&["queue", "dlq", "list", "mail", "--json"]).json()[0]["payload"], asked);
    host.run(&["queue", "dlq", "redrive", "mail"]).prints("4 sent again\n");
    host.run(&["queue", "dlq", "redrive", "mail", "m1"]).prints("m1 sent again\n");
    host.run(&["queue", "dlq", "discard", "mail", "m1"]).prints("m1 thrown away\n");
    host.run(&["queue", "dlq", "discard", "mail", "m9"]).fails(3, &["no dead letter `m9`", "dlq list mail"]);
}

#[test]
fn jobs_are_looked_at_and_held() {
    let host = Host::start();
    host.run(&["cron", "list"]).fails(3, &["`cron`"]);
    offer(
        &host.worker,
        &[
            ("cron::list", |_| {
                Ok(
                    json!({"jobs": [{"id": "j", "expression": "@daily", "timezone": "UTC", "function_id": "a::b", "next": "2026-03-01T00:00:00Z", "last": null, "paused": false, "problem": null, "last_error": "late"}]}),
                )
            }),
            ("cron::preview", |asked| match asked["expression"].as_str() {
                Some("@daily") => Ok(json!({"times": ["2026-03-01T00:00:00Z"], "local": [], "asked": asked})),
                _ => Err(Failure::with_code("INVALID_EXPRESSION", "wanted 5 to 7 fields")),
            }),
            ("cron::pause", |asked| Ok(json!({"id": asked["id"], "paused": true}))),
            ("cron::resume", |asked| Ok(json!({"id": asked["id"], "paused": false}))),
        ],
    );
    // The function's own limit is all that ends a run.
    let run = Function::json("cron::run_now", |context, asked: Value| {
        let result = json!({"n": 1, "wait": asked["wait"], "limited": context.deadline_ns().is_some()});
        Ok(json!({"id": asked["id"], "called": asked["id"] == "j", "result": result}))
    });
    host.worker.register(run).unwrap();
    let list = host.run(&["cron", "list"]);
    assert!(
        list.out.contains("j    @daily      UTC   a::b      2026-03-01T00:00:00Z        late\n"),
        "{}",
        list.out
    );
    host.run(&["cron", "preview", "@daily"]).prints("2026-03-01T00:00:00Z\n");
    let asked = &host
        .run(&["cron", "preview", "@daily", "-n", "3", "--timezone", "Europe/Berlin", "--json"])
        .json()["asked"];
    assert_eq!(
        (&asked["count"], &asked["timezone"], &asked["from"]),
        (&json!(3), &json!("Europe/Berlin"), &Value::Null)
    );
    host.run(&["cron", "preview", "x"]).fails(1, &["INVALID_EXPRESSION", "5 to 7 fields"]);
    host.run(&["cron", "run", "j"]).prints("{\"n\":1,\"wait\":null,\"limited\":false}\n");
    host.run(&["cron", "run", "j", "--no-wait"]).prints("j was started\n");
    let started = host.run(&["cron", "run", "j", "--no-wait", "--json"]).json();
    assert_eq!((&started["id"], &started["result"]["wait"]), (&json!("j"), &json!(false)));
    host.run(&["cron", "run", "k"]).prints("not called: its condition does not hold\n");
    host.run(&["cron", "pause", "j"]).prints("j is paused\n");
    host.run(&["cron", "resume", "j"]).prints("j runs when it is due\n");
}
