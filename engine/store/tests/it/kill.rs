//! A process that commits and is killed at random: what it said to be committed is there, whole, and nothing is half.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringway_store::{Batch, Durability, Scan, Store};

use crate::tools::{dice, open, rounds};

const FOLDER: &str = "RINGWAY_STORE_CHILD";

/// Writers of the child.
const WRITERS: u8 = 3;

fn numbers(store: &impl Store, table: &str, writer: u8) -> Vec<u64> {
    let entries = store.scan(&Scan::table(table).prefix(&[writer])).unwrap();
    entries.iter().map(|entry| u64::from_be_bytes(entry.key[1..].try_into().unwrap())).collect()
}

/// The child's life: each writer commits pairs and says each number that was acknowledged. Does nothing without its
/// folder, as when all tests are run.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let (store, report) = open(Path::new(&folder));
    assert_eq!(report.damage, []);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = &store;
            scope.spawn(move || {
                let first = numbers(store, "a", writer).last().map_or(0, |last| last + 1);
                for number in first.. {
                    let key = [&[writer][..], &number.to_be_bytes()].concat();
                    let batch =
                        Batch::new().put("a", &key, vec![writer; 300]).put("b", &key, vec![writer; 300]);
                    // Old ones go, so that moves have something to remove.
                    let old = number.checked_sub(200).map(|old| [&[writer][..], &old.to_be_bytes()].concat());
                    let batch =
                        old.into_iter().fold(batch, |batch, old| batch.delete("a", &old).delete("b", &old));
                    store.commit(batch, Durability::Durable).unwrap();
                    let mut line = std::io::stdout().lock();
                    writeln!(line, "acknowledged {writer} {number}").unwrap();
                    line.flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = dice();
    let mut expected = [None; WRITERS as usize];
    let mut total = 0;
    for round in 0..rounds(12) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned())).collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(40 + dice.below(200)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            // The last line may be cut short.
            let Some((writer, number)) = line.split_once(' ') else { continue };
            let (Ok(writer), Ok(number)) = (writer.parse::<usize>(), number.parse::<u64>()) else { continue };
            expected[writer] = expected[writer].max(Some(number));
            total += 1;
        }
        let (store, report) = open(folder.path());
        assert_eq!(report.damage, [], "round {round}");
        for writer in 0..WRITERS {
            let (a, b) = (numbers(&store, "a", writer), numbers(&store, "b", writer));
            assert_eq!(a, b, "round {round}: a batch was cut in two");
            let last = a.last().copied();
            assert!(last >= expected[usize::from(writer)], "round {round}: {last:?} of {expected:?}");
            let Some(last) = last else { continue };
            assert_eq!(a, (last.saturating_sub(199)..=last).collect::<Vec<_>>(), "round {round}: a gap");
        }
        assert_eq!(store.verify(), []);
        if dice.below(3) == 0 {
            store.close().unwrap();
        } else {
            store.abandon();
        }
    }
    println!("{total} commits acknowledged");
    assert!(total > 0, "no child lived long enough to commit");
}
