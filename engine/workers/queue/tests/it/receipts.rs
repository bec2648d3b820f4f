//! The enqueue action of the SDK: what it hands over, what the handler is told, what the receipt says, and until when one
//! waits for it.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringway::{Delivery, Enqueue, ErrorCode, Failure, Function, Message, MessageStatus};
use ringway_worker_queue::{Clock, Config};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, next};

/// Waits until so many calls wait for messages of a queue.
fn until_waiters(stage: &Stage, queue: &str, count: usize) {
    let started = Instant::now();
    while stage.stats(queue)["waiters"] != count {
        assert!(started.elapsed() < SOON, "wanted {count} waiters, found {}", stage.stats(queue));
        std::thread::yield_now();
    }
}

#[test]
fn an_enqueued_call_tells_its_handler_what_it_is_and_its_sender_how_it_ended() {
    let stage = Stage::configured(json!({ "r": { "type": "fifo", "max_retries": 6 } }));
    let (tell, told) = channel::<(u64, Option<Delivery>, bool)>();
    let work = move |context: &ringway::Context, number: u64| {
        tell.send((number, context.delivery(), context.remaining().is_some())).unwrap();
        Ok(())
    };
    stage.client.register(Function::json("r::work", work).pooled()).unwrap();
    let action = Enqueue::to("r").group("g").key("seven");
    let receipt = stage.client.enqueue("r::work", &7u64, &action).unwrap();
    let (number, delivery, _) = told.recv_timeout(SOON).unwrap();
    let delivery = delivery.expect("the queue made the call");
    assert_eq!((number, delivery.queue.as_str(), delivery.group.as_deref()), (7, "r", Some("g")));
    assert_eq!((delivery.attempt, delivery.attempts_max), (1, 7));
    assert_eq!(delivery.message_id, receipt.id());
    let ended = receipt.wait(SOON).unwrap();
    assert_eq!((ended.status, ended.attempts, ended.error), (MessageStatus::Done, 1, None));
    assert_eq!(stage.client.receipt(receipt.id()).state().unwrap().status, MessageStatus::Done);
    let again = stage.client.enqueue("r::work", &7u64, &action).unwrap();
    assert!(again.is_duplicate() && again.id() == receipt.id());
    // Called by hand, it is no delivery.
    stage.call("r::work", json!(8));
    assert_eq!(told.recv_timeout(SOON).unwrap().1, None);
}

#[test]
fn a_typed_call_is_kept_as_json_and_bytes_are_refused() {
    let stage = Stage::new();
    let (tell, told) = channel();
    let double = move |_: &ringway::Context, number: ringway::View<'_, u64>| {
        tell.send(number.to_value()?).unwrap();
        Ok(2 * number.to_value()?)
    };
    stage.client.register(Function::typed("t::double", double).pooled()).unwrap();
    let handle = stage.client.function::<u64, u64>("t::double");
    let receipt = handle.enqueue(&21, &Enqueue::to("t")).unwrap();
    assert_eq!(told.recv_timeout(SOON).unwrap(), 21);
    assert_eq!(receipt.wait(SOON).unwrap().status, MessageStatus::Done);
    let error = handle.handle().enqueue(&Message::bytes(b"raw"), &Enqueue::to("t")).unwrap_err();
    assert_eq!(error.code, ErrorCode::UnsupportedEncoding);
    assert!(error.message.contains("blob::put"), "{error}");
    let error = handle.enqueue(&1, &Enqueue::to("")).unwrap_err();
    assert_eq!(error.user_code.as_deref(), Some("queue_not_set"));
}

#[test]
fn a_handler_says_when_to_try_again_and_when_not_to() {
    // By itself the queue would wait for an hour.
    let stage = Stage::configured(json!({ "r": { "backoff_ms": 3_600_000 } }));
    let given = Stage::serve(&stage.client, "r::work", |given| {
        let failure = Failure::with_code("E", "no luck");
        Err(match given.metadata["attempt"].as_u64() {
            Some(1) => failure.retry_after(Duration::from_millis(1)),
            _ => failure.do_not_retry(),
        })
    });
    let receipt = stage.client.enqueue("r::work", &Value::Null, &Enqueue::to("r")).unwrap();
    assert_eq!([next(&given), next(&given)].map(|given| given.metadata["attempt"].clone()), [1, 2]);
    let ended = receipt.wait(SOON).unwrap();
    assert_eq!((ended.status, ended.attempts), (MessageStatus::Dead, 2));
    assert_eq!(ended.error.as_deref(), Some("E: no luck"));
}

#[test]
fn who_waits_hears_of_every_end_also_of_one_that_is_not_kept() {
    let config = Config { receipt_retention_ms: 0, ..Config::default() };
    let stage = Stage::with(config, Clock::system());
    let queue = Enqueue::to("w");
    let enqueue = |function: &str| stage.client.enqueue(function, &1, &queue).unwrap();
    let (first, second) = (enqueue("w::late"), enqueue("w::never"));
    let waiting = |receipt: &ringway::Receipt| {
        let receipt = receipt.clone();
        std::thread::spawn(move || receipt.wait(SOON).unwrap())
    };
    let waiters = [waiting(&first), waiting(&first), waiting(&second)];
    until_waiters(&stage, "w", 3);
    assert!(second.cancel().unwrap());
    let given = stage.accept("w::late");
    next(&given);
    let ends = waiters.map(|waiter| waiter.join().unwrap().status);
    assert_eq!(ends, [MessageStatus::Done, MessageStatus::Done, MessageStatus::Cancelled]);
    // The receipt is forgotten, and that is told too.
    assert_eq!(first.wait(SOON).unwrap_err().user_code.as_deref(), Some("NOT_FOUND"));
}

#[test]
fn a_wait_ends_at_its_deadline_and_leaves_nothing_behind() {
    let stage = Stage::new();
    let receipt = stage.client.enqueue("d::work", &1, &Enqueue::to("d")).unwrap();
    let error = receipt.wait(Duration::from_millis(5)).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(!receipt.state().unwrap().status.has_ended());
    until_waiters(&stage, "d", 0);
    let given = stage.accept("d::work");
    next(&given);
    assert_eq!(futures_lite::future::block_on(receipt.wait_async(SOON)).unwrap().status, MessageStatus::Done);
}

#[test]
fn a_wait_outlives_a_restart_of_the_queue() {
    let mut stage = Stage::new();
    let receipt = stage.client.enqueue("o::work", &1, &Enqueue::to("o")).unwrap();
    let of_thread = receipt.clone();
    let blocking = std::thread::spawn(move || of_thread.wait(SOON).unwrap());
    let waiting = async move { receipt.wait_async(SOON).await.unwrap() };
    let task = std::thread::spawn(move || futures_lite::future::block_on(waiting));
    until_waiters(&stage, "o", 2);
    stage.restart();
    let given = stage.accept("o::work");
    next(&given);
    for waiter in [blocking, task] {
        assert_eq!(waiter.join().unwrap().status, MessageStatus::Done);
    }
}
