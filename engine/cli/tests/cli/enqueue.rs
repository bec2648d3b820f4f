//! `ringway trigger FN --enqueue QUEUE`, against the built-in workers.

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_config::Settings;
use ringway_workers::{Workers, sections};
use serde_json::{Value, json};

use crate::host::Host;

fn workers(host: &Host, folder: &tempfile::TempDir) -> Workers {
    let settings = Settings::defaults(&sections()).unwrap();
    Workers::start(host.address(), folder.path(), &settings).unwrap()
}

/// Answers with what it was told, or fails as it was asked to.
fn work(context: &Context, request: Value) -> HandlerResult<Value> {
    let delivery = context.delivery().ok_or_else(|| Failure::new("nobody enqueued this"))?;
    if request["fail"] == true {
        let text = format!("{} of {}", delivery.group.unwrap_or_default(), delivery.queue);
        return Err(Failure::with_code("no_luck", text).do_not_retry());
    }
    Ok(Value::Null)
}

#[test]
fn a_call_goes_to_a_queue_and_says_how_it_ended() {
    let (host, folder) = (Host::start(), tempfile::tempdir().unwrap());
    host.run(&["trigger", "calc::add", "a=1", "b=2", "--enqueue", "sums"])
        .fails(3, &["`queue::enqueue`", "built-in worker `queue`"]);
    let _workers = workers(&host, &folder);
    host.worker.register(Function::json("work::run", work)).unwrap();
    let to_queue = |more: &[&str]| {
        let mut words = vec!["trigger", "work::run", "--enqueue", "jobs"];
        words.extend_from_slice(more);
        host.run(&words)
    };
    let done = to_queue(&["n=1", "--key", "one", "--wait"]).json();
    assert_eq!((&done["status"], &done["attempts"]), (&json!("done"), &json!(1)));
    let again = to_queue(&["n=1", "--key", "one"]).json();
    assert_eq!(again, json!({ "id": done["id"], "duplicate": true }));
    let dead = to_queue(&["fail=true", "--group", "g", "--priority", "3", "--wait"]);
    assert_eq!(dead.code, Some(1), "{}", dead.err);
    assert!(dead.out.contains("\"status\":\"dead\""), "{}", dead.out);
    assert!(
        dead.err.contains("no_luck: g of jobs") && dead.err.contains("queue dlq list jobs"),
        "{}",
        dead.err
    );
    // A function may come later; who waits in vain is told where the message is.
    let late = host.run(&["trigger", "late::run", "--enqueue", "jobs", "--wait", "--timeout", "1ms"]);
    late.fails(124, &["deadline_exceeded", "ringway queue receipt jobs:"]);
}

#[test]
fn what_is_of_a_queue_wants_a_queue() {
    let host = Host::start();
    host.run(&["trigger", "calc::add", "a=1", "b=2", "--wait"]).fails(2, &["--enqueue"]);
    host.run(&["queue", "dlq", "list", "--cursor", "jobs:1"]).fails(2, &["name the queue"]);
    host.run(&["queue", "dlq", "list", "--code", "E"]).fails(2, &["name the queue"]);
    host.run(&["trigger", "calc::add", "--enqueue", "q", "--void"]).fails(2, &["--void"]);
    host.run(&["trigger", "calc::add", "--enqueue", "q", "--priority", "10"]).fails(2, &["--priority"]);
}
