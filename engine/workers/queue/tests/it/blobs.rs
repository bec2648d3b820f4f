//! Long data by reference: who is called sees it as it was, and the file goes with the last message that names it, however
//! that ends; a damaged one makes a dead letter that says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringway::{Enqueue, Failure, MessageStatus, Receipt};
use ringway_store::{BlobId, Scan, Store as _};
use ringway_worker_queue::{Clock, Config, QueueSettings};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, next};

/// Data of more than 1000 bytes goes into blobs.
fn stage() -> Stage {
    let full = QueueSettings { max_messages: 0, ..QueueSettings::default() };
    let hasty = QueueSettings { max_retries: 0, ..QueueSettings::default() };
    let queue_configs = [("full".to_owned(), full), ("hasty".to_owned(), hasty)].into();
    Stage::with(Config { blob_bytes_min: 1000, queue_configs, ..Config::default() }, Clock::system())
}

fn long(letter: &str) -> Value {
    json!({ "text": letter.repeat(2000) })
}

fn files(stage: &Stage) -> Vec<String> {
    let folder = stage.store().blobs().unwrap().folder();
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until there are so many files: they are taken away beside what else happens.
fn until_files(stage: &Stage, count: usize) {
    let started = Instant::now();
    while files(stage).len() != count {
        assert!(started.elapsed() < SOON, "wanted {count} files, found {:?}", files(stage));
        std::thread::yield_now();
    }
}

fn enqueue(stage: &Stage, queue: &str, data: &Value) -> Receipt {
    stage.client.enqueue("b::work", data, &Enqueue::to(queue)).unwrap()
}

fn assert_done(receipt: &Receipt) {
    assert_eq!(receipt.wait(SOON).unwrap().status, MessageStatus::Done);
}

#[test]
fn long_data_lies_in_a_file_over_restarts_until_its_message_has_ended() {
    let mut stage = stage();
    let (first, short) = (enqueue(&stage, "b", &long("x")), enqueue(&stage, "b", &json!("short")));
    let expected = BlobId::of(long("x").to_string().as_bytes()).to_string();
    assert_eq!(files(&stage).concat(), expected);
    // What a crash left between putting and enqueueing goes with the next start.
    stage.restart_after(|store| drop(store.blobs().unwrap().put(b"nobody's").unwrap()));
    assert_eq!(files(&stage).len(), 2);
    stage.restart();
    assert_eq!(files(&stage), [expected]);
    let given = stage.accept("b::work");
    let mut found = [next(&given).data, next(&given).data];
    found.sort_by_key(|data| data.to_string().len());
    assert_eq!(found, [json!("short"), long("x")]);
    assert_done(&first);
    assert_done(&short);
    until_files(&stage, 0);
}

#[test]
fn the_same_data_lies_there_once_for_all_that_hold_it() {
    let stage = stage();
    let stay = Arc::new(AtomicBool::new(true));
    let stays = Arc::clone(&stay);
    let given = Stage::serve(&stage.client, "b::work", move |given| {
        let second = given.metadata["queue"] != "b" && stays.load(Ordering::SeqCst);
        if second {
            Err(Failure::new("later").retry_after(std::time::Duration::ZERO))
        } else {
            Ok(Value::Null)
        }
    });
    for queue in ["c", "d"] {
        let settings = json!({ "max_retries": 1_000_000 });
        stage.call("queue::configure", json!({ "queue": queue, "settings": settings }));
        stage.call("queue::pause", json!({ "queue": queue }));
    }
    let held = [enqueue(&stage, "c", &long("y")), enqueue(&stage, "d", &long("y"))];
    let first = enqueue(&stage, "b", &long("y"));
    assert_eq!(next(&given).data, long("y"));
    assert_done(&first);
    assert_eq!(files(&stage).len(), 1);
    assert!(held[0].cancel().unwrap());
    stay.store(false, Ordering::SeqCst);
    stage.call("queue::resume", json!({ "queue": "d" }));
    assert_eq!(next(&given).data, long("y"), "one that goes does not take what another holds");
    assert_done(&held[1]);
    until_files(&stage, 0);
}

#[test]
fn what_is_not_taken_leaves_nothing() {
    let stage = stage();
    let refused = stage.client.enqueue("b::work", &long("z"), &Enqueue::to("full")).unwrap_err();
    assert_eq!(refused.user_code.as_deref(), Some("QUEUE_FULL"));
    until_files(&stage, 0);
    let once = Enqueue::to("b").key("once");
    let first = stage.client.enqueue("b::work", &long("1"), &once).unwrap();
    let again = stage.client.enqueue("b::work", &long("2"), &once).unwrap();
    assert!(again.is_duplicate());
    until_files(&stage, 1);
    let given = stage.accept("b::work");
    assert_eq!(next(&given).data, long("1"));
    assert_done(&first);
    until_files(&stage, 0);
}

#[test]
fn a_damaged_blob_makes_a_dead_letter_that_can_be_mended() {
    let stage = stage();
    // An attempt would read it before it is damaged.
    stage.call("queue::pause", json!({ "queue": "b" }));
    let receipt = enqueue(&stage, "b", &long("d"));
    let id = files(&stage).remove(0);
    let path = stage.store().blobs().unwrap().folder().join(&id);
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[1500] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let given = stage.accept("b::work");
    stage.call("queue::resume", json!({ "queue": "b" }));
    let dead = receipt.wait(SOON).unwrap();
    assert_eq!((dead.status, dead.attempts), (MessageStatus::Dead, 1));
    let error = dead.error.unwrap();
    assert!(error.starts_with("BLOB_DAMAGED") && error.contains(&id), "{error}");
    let listed = &stage.call("queue::dlq::messages", json!({ "topic": "b" }))[0];
    assert_eq!((&listed["blob"], &listed["size_bytes"]), (&json!(id), &json!(whole.len())));
    assert_eq!(listed["payload"], Value::Null);
    std::fs::write(&path, whole).unwrap();
    let one = json!({ "queue": "b", "message_id": receipt.id() });
    assert_eq!(stage.call("iii::queue::redrive_message", one)["redriven"], 1);
    assert_eq!(next(&given).data, long("d"));
    assert_done(&receipt);
    until_files(&stage, 0);
}

#[test]
fn a_blob_that_cannot_be_read_for_now_is_read_again() {
    let stage = stage();
    stage.call("queue::pause", json!({ "queue": "b" }));
    let receipt = enqueue(&stage, "b", &long("r"));
    let path = stage.store().blobs().unwrap().folder().join(files(&stage).remove(0));
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).unwrap();
    // A folder opens as no file: the blob itself is not at fault, as it is not where the process has too many open files.
    std::fs::create_dir(&path).unwrap();
    let given = stage.accept("b::work");
    stage.call("queue::resume", json!({ "queue": "b" }));
    let started = Instant::now();
    while stage.store().scan(&Scan::table("queue.attempt")).unwrap().is_empty() {
        assert!(started.elapsed() < SOON, "no attempt has failed");
        std::thread::yield_now();
    }
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(next(&given).data, long("r"));
    assert_done(&receipt);
    until_files(&stage, 0);
}

#[test]
fn a_dead_letter_keeps_its_data_until_it_is_discarded_or_edited() {
    let mut stage = stage();
    let given = Stage::serve(&stage.client, "b::work", |given| {
        if given.data == "short" { Ok(Value::Null) } else { Err(Failure::with_code("E", "no")) }
    });
    let [gone, edited] = ["g", "e"].map(|letter| {
        let receipt = enqueue(&stage, "hasty", &long(letter));
        next(&given);
        assert_eq!(receipt.wait(SOON).unwrap().status, MessageStatus::Dead);
        receipt
    });
    stage.restart();
    assert_eq!(files(&stage).len(), 2);
    let one = json!({ "queue": "hasty", "message_id": gone.id() });
    stage.call("iii::queue::discard_message", one);
    until_files(&stage, 1);
    stage.call("queue::dlq::edit", json!({ "message_id": edited.id(), "data": "short" }));
    until_files(&stage, 0);
    stage.call("iii::queue::redrive_message", json!({ "queue": "hasty", "message_id": edited.id() }));
    assert_eq!(next(&given).data, "short");
    assert_done(&edited);
}

#[test]
fn each_subscriber_holds_what_was_published() {
    let stage = stage();
    let subscribers = ["b::one", "b::two"].map(|function| {
        let config = json!({ "topic": "news" });
        let given = stage.accept(function);
        stage.bind(function, "durable:subscriber", function, config).unwrap();
        given
    });
    stage.call("iii::durable::publish", json!({ "topic": "news", "data": long("n") }));
    for given in &subscribers {
        assert_eq!(next(given).data, long("n"));
    }
    until_files(&stage, 0);
}
