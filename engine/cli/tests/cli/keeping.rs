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

/// What the queue answers.
fn offer_queue(worker: &Worker) {
    offer(
        worker,
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
            ("queue::dlq::list", |asked| {
                let whole = json!({"id": "m1", "payload": asked, "error": "no such box", "retries": 3, "size_bytes": 20});
                let damaged =
                    json!({"id": "m2", "unreadable": "no JSON", "error": "", "retries": 0, "size_bytes": 4});
                Ok(json!({"messages": [whole, damaged], "cursor": asked["cursor"].is_null().then_some("m2")}))
            }),
            ("queue::drain", |asked| Ok(json!({"queue": asked["queue"], "mode": "draining"}))),
            ("queue::configure", |asked| Ok(json!({"queue": asked["queue"], "settings": asked["settings"]}))),
            ("queue::receipt", |asked| {
                Ok(
                    json!({"id": asked["id"], "status": "dead", "queue": "mail", "attempts": 4, "error": "E: no"}),
                )
            }),
            ("queue::cancel", |asked| Ok(json!({"id": asked["id"], "cancelled": asked["id"] == "m1"}))),
            ("queue::unsubscribe", |asked| Ok(json!({"removed": asked["topic"] == "news"}))),
            ("queue::dlq::discard", |asked| {
                let named = asked["message_ids"].is_array();
                let none = asked["message_ids"] == json!(["m9"]);
                Ok(
                    json!({"queue": asked["queue"], "discarded": if none { 0 } else { 1 + u8::from(!named) }, "asked": asked}),
                )
            }),
            ("queue::dlq::edit", |asked| Ok(json!({"message_id": asked["message_id"], "asked": asked}))),
            ("queue::enqueue", |asked| Ok(json!({"id": "m2", "status": "waiting", "asked": asked}))),
            ("queue::pause", |asked| Ok(json!({"queue": asked["queue"], "mode": "paused"}))),
            ("queue::resume", |asked| Ok(json!({"queue": asked["queue"], "mode": "active"}))),
            ("iii::queue::redrive", |asked| {
                let redriven = if asked["message_ids"].is_array() { 1 } else { 4 };
                Ok(json!({"queue": asked["queue"], "redriven": redriven, "asked": asked}))
            }),
        ],
    );
}

#[test]
fn queues_are_looked_at_and_held() {
    let host = Host::start();
    host.run(&["queue", "list"]).fails(3, &["`queue`", "queue::topics"]);
    offer_queue(&host.worker);
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
        "--priority",
        "9",
        "--group",
        "g",
        "--ttl",
        "1m",
        "--id",
        "mine",
        "--json",
    ];
    let asked = json!({"queue": "mail", "data": "x", "function_id": "a::b", "delay_ms": 2000, "idempotency_key": "k",
        "priority": 9, "group": "g", "ttl_ms": 60_000, "id": "mine"});
    assert_eq!(host.run(&full).json()["asked"], asked);
    host.run(&["queue", "pause", "mail"]).prints("mail is paused\n");
    host.run(&["queue", "resume", "mail"]).prints("mail is active\n");
    host.run(&["queue", "dlq", "list"])
        .prints("QUEUE  BROKER   DEAD LETTERS\nmail   ringway             4\n");
    let at = host.run(&["queue", "enqueue", "mail", "x", "--at", "2030-01-31T08:00:00Z", "--json"]).json();
    assert_eq!(at["asked"]["at"], "2030-01-31T08:00:00Z");
    host.run(&["queue", "enqueue", "mail", "x", "--at", "2030-01-31T08:00:00Z", "--delay", "1s"])
        .fails(2, &["--delay"]);
    host.run(&["queue", "enqueue", "mail", "x", "--priority", "10"]).fails(2, &["--priority"]);
    host.run(&["queue", "drain", "mail", "--timeout", "5s"]).prints("mail is empty and takes no messages\n");
    assert_eq!(host.run(&["queue", "drain", "mail", "--json"]).json()["mode"], "draining");
    host.run(&["queue", "configure", "mail", "{\"max_retries\":5}"]).prints("{\"max_retries\":5}\n");
    assert_eq!(host.run(&["queue", "configure", "mail", "--json"]).json()["settings"], Value::Null);
    host.run(&["queue", "receipt", "m1"])
        .prints("status    dead\nqueue     mail\nattempts  4\nerror     E: no\n");
    assert_eq!(host.run(&["queue", "receipt", "m1", "--json"]).json()["id"], "m1");
    host.run(&["queue", "cancel", "m1"]).prints("m1 is taken back\n");
    host.run(&["queue", "cancel", "m9"]).prints("m9 has ended already\n");
    assert_eq!(host.run(&["queue", "cancel", "m9", "--json"]).json()["cancelled"], false);
    host.run(&["queue", "unsubscribe", "news", "a::b"]).prints("a::b gets no more of news\n");
    host.run(&["queue", "unsubscribe", "olds", "a::b"]).fails(3, &["no subscription to `olds`"]);
}

#[test]
fn dead_letters_are_seen_to() {
    let host = Host::start();
    offer_queue(&host.worker);
    let letters = host.run(&["queue", "dlq", "list", "mail", "--limit", "5"]);
    assert_eq!(
        letters.out,
        "RETRIES  BYTES  ID  ERROR\n      3     20  m1  no such box\n      0      4  m2  unreadable: no JSON\n"
    );
    assert!(letters.err.contains("--cursor m2"), "{letters:?}");
    let filtered = [
        "queue",
        "dlq",
        "list",
        "mail",
        "--function",
        "a::b",
        "--code",
        "E",
        "--text",
        "no",
        "--after",
        "2030-01-31T08:00:00Z",
        "--before",
        "2030-02-01T08:00:00Z",
        "--cursor",
        "m5",
        "--json",
    ];
    let asked = json!({"queue": "mail", "limit": 50, "function_id": "a::b", "code": "E", "text": "no",
        "after": "2030-01-31T08:00:00Z", "before": "2030-02-01T08:00:00Z", "cursor": "m5"});
    assert_eq!(host.run(&filtered).json()["messages"][0]["payload"], asked);
    host.run(&["queue", "dlq", "redrive", "mail"]).prints("4 sent again\n");
    host.run(&["queue", "dlq", "redrive", "mail", "m1"]).prints("1 sent again\n");
    let staggered =
        ["queue", "dlq", "redrive", "mail", "m1", "m2", "--interval", "2s", "--code", "E", "--json"];
    let asked = json!({"queue": "mail", "message_ids": ["m1", "m2"], "interval_ms": 2000, "code": "E"});
    assert_eq!(host.run(&staggered).json()["asked"], asked);
    host.run(&["queue", "dlq", "discard", "mail", "m1"]).prints("1 thrown away\n");
    host.run(&["queue", "dlq", "discard", "mail", "--all"]).prints("2 thrown away\n");
    let by_filter = host.run(&["queue", "dlq", "discard", "mail", "--text", "no", "--json"]).json();
    assert_eq!(by_filter["asked"], json!({"queue": "mail", "text": "no"}));
    host.run(&["queue", "dlq", "discard", "mail"]).fails(2, &["--all"]);
    host.run(&["queue", "dlq", "discard", "mail", "m9"]).fails(3, &["no dead letter `m9`", "dlq list mail"]);
    host.run(&["queue", "dlq", "edit", "m1", "{\"to\":2}"]).prints("m1 has other data\n");
    let edited = host.run(&["queue", "dlq", "edit", "m1", "5", "--json"]).json();
    assert_eq!(edited["asked"], json!({"message_id": "m1", "data": 5}));
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
            ("cron::run_now", |asked| {
                Ok(json!({"id": asked["id"], "called": asked["id"] == "j", "result": {"n": 1}}))
            }),
            ("cron::pause", |asked| Ok(json!({"id": asked["id"], "paused": true}))),
            ("cron::resume", |asked| Ok(json!({"id": asked["id"], "paused": false}))),
        ],
    );
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
    host.run(&["cron", "run", "j"]).prints("{\"n\":1}\n");
    host.run(&["cron", "run", "k"]).prints("not called: its condition does not hold\n");
    host.run(&["cron", "pause", "j"]).prints("j is paused\n");
    host.run(&["cron", "resume", "j"]).prints("j runs when it is due\n");
}
