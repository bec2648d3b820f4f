//! An engine with the worker in it that is killed at random under load: what it said to be acknowledged is there, whole.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use ringway::Worker;
use ringway_engine::Engine;
use ringway_store::testing::dice::Dice;
use ringway_store::{Embedded, Options};
use ringway_worker_stream::{Config, Stream};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::faults::{WRITERS, check, named, with};

const FOLDER: &str = "RINGWAY_STREAM_CHILD";

/// The child's life: each writer appends to its group and sets an item to the offset, and says each offset that was
/// acknowledged. Does nothing without its folder, as when all tests are run.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let address = format!("@ringway-stream-child-{}", std::process::id());
    let _engine = Engine::builder().address(&address).start().unwrap();
    let (store, report) = Embedded::open(Path::new(&folder), Options::default()).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    let _stream = Stream::start(&address, Arc::new(store), Config::default()).unwrap();
    let client = Worker::builder("child").address(&address).connect().unwrap();
    client.wait_for("stream::append", crate::bed::PATIENCE).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let client = &client;
            scope.spawn(move || {
                loop {
                    let append = with(named(writer), &[("data", json!("x".repeat(200)))]);
                    let done = client.trigger_json("stream::append", &append).unwrap();
                    let mut line = std::io::stdout().lock();
                    writeln!(line, "acknowledged {writer} {}", done["offset"]).unwrap();
                    line.flush().unwrap();
                    drop(line);
                    let set =
                        with(named(writer), &[("item_id", json!("k")), ("data", done["offset"].clone())]);
                    client.trigger_json("stream::set", &set).unwrap();
                }
            });
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kill() {
    let mut bed = Bed::new();
    let mut dice = Dice::new(11);
    let mut acknowledged = [0_u64; WRITERS];
    for round in 0..4 {
        bed.stop();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--nocapture"])
            .env(FOLDER, bed.folder())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut left = dice.below(150) + 1;
        // What it said before it was killed is read to the end.
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(said) = line.split_once("acknowledged ").map(|(_, said)| said) else { continue };
            let (writer, offset) = said.split_once(' ').unwrap();
            let Ok(offset) = offset.parse() else { continue };
            acknowledged[writer.parse::<usize>().unwrap()] = offset;
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        bed.start();
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let log = check(&bed, writer);
            assert!(log.len() as u64 >= *acknowledged, "round {round}: {acknowledged} was acknowledged");
        }
    }
    assert!(acknowledged.iter().sum::<u64>() > 0, "nothing was ever acknowledged");
    assert_eq!(bed.call("get", with(named(9), &[("item_id", json!("k"))])), Value::Null);
}
