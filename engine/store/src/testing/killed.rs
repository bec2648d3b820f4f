//! A process that commits and is killed: what it does until then, and whether what it said to be committed is there, whole
//! and without gaps. Used by the tests of every store; it must not know which store it is, nor who kills.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::batch::{Batch, Durability};
use crate::store::{Scan, Store};

/// Writers at once, each with keys of its own.
pub const WRITERS: u8 = 3;

/// The key of a writer's number.
#[must_use]
pub fn key(writer: u8, number: u64) -> Vec<u8> {
    [&[writer][..], &number.to_be_bytes()].concat()
}

/// The same value under a key of two tables: of both, or of neither, is what a batch is for.
#[must_use]
pub fn pair(writer: u8, number: u64, bytes: usize) -> Batch {
    let (key, value) = (key(writer, number), vec![writer; bytes]);
    Batch::new().put("a", &key, value.clone()).put("b", &key, value)
}

/// The numbers that a table has of a writer, in order.
///
/// # Panics
/// If the store cannot be read.
pub fn numbers(store: &impl Store, table: &str, writer: u8) -> Vec<u64> {
    let entries = store.scan(&Scan::table(table).prefix(&[writer])).expect("a store that can be read");
    let number = |key: &[u8]| u64::from_be_bytes(key[1..].try_into().expect("a writer and its number"));
    entries.iter().map(|entry| number(&entry.key)).collect()
}

/// Commits pairs without end, each writer its own, goes on where it was, removes all but the last `kept`, and says each
/// number that was acknowledged. `length` gives the bytes of a value.
///
/// # Panics
/// When a commit fails.
pub fn live(store: &impl Store, kept: u64, length: impl Fn(u64) -> usize + Sync) {
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let length = &length;
            scope.spawn(move || {
                let first = numbers(store, "a", writer).last().map_or(0, |last| last + 1);
                for number in first.. {
                    // Old ones go, so that there is something to remove.
                    let old = number.checked_sub(kept).map(|old| key(writer, old));
                    let batch = old.into_iter().fold(pair(writer, number, length(number)), |batch, old| {
                        batch.delete("a", &old).delete("b", &old)
                    });
                    store.commit(batch, Durability::Durable).expect("a commit");
                    let mut line = std::io::stdout().lock();
                    writeln!(line, "acknowledged {writer} {number}").expect("somebody who reads");
                    line.flush().expect("somebody who reads");
                }
            });
        }
    });
}

/// What children have said to be acknowledged.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// The last number of each writer.
    last: [Option<u64>; WRITERS as usize],
    /// How many there were.
    pub total: u64,
}

impl Acknowledged {
    /// Starts this test executable again with one test, which is to call [`live`] when it finds the variable, kills it after
    /// a while, and notes what it said.
    ///
    /// # Panics
    /// If it cannot be started or killed.
    pub fn by_child(&mut self, test: &str, variable: (&str, &OsStr), life: Duration) {
        let program = std::env::current_exe().expect("this executable");
        let mut child = Command::new(program)
            .args([test, "--exact", "--nocapture"])
            .env(variable.0, variable.1)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this executable starts again");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let reader = std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned())).collect::<Vec<_>>()
        });
        std::thread::sleep(life);
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
        for line in reader.join().expect("nothing to go wrong") {
            // The last line may be cut short.
            let Some((writer, number)) = line.split_once(' ') else { continue };
            let (Ok(writer), Ok(number)) = (writer.parse::<usize>(), number.parse::<u64>()) else { continue };
            self.last[writer] = self.last[writer].max(Some(number));
            self.total += 1;
        }
    }

    /// Compares a store with what was said: nothing acknowledged is missing, no pair is half, and the last `kept` of each
    /// writer are there without a gap.
    ///
    /// # Panics
    /// If it is otherwise.
    pub fn assert_kept(&self, store: &impl Store, kept: u64, when: &str) {
        for writer in 0..WRITERS {
            let (a, b) = (numbers(store, "a", writer), numbers(store, "b", writer));
            assert_eq!(a, b, "{when}: a batch was cut in two");
            let (last, said) = (a.last().copied(), self.last[usize::from(writer)]);
            assert!(last >= said, "{when}: {last:?}, and {said:?} was acknowledged");
            let Some(last) = last else { continue };
            let expected: Vec<u64> = (last.saturating_sub(kept - 1)..=last).collect();
            assert_eq!(a, expected, "{when}: a gap");
        }
    }
}
