//! A process that plays the part its arguments name, for tests that kill processes: an engine, a callee, a caller. It
//! says `ready` when it is, and takes orders in lines on its standard input; when that ends, it dies. Started by
//! `ringway_tests::member`. It must not know which test it is in.

#![forbid(unsafe_code)]

mod callee;
mod caller;
mod durable;
mod engine;
mod renamer;
mod steps;

use std::error::Error;
use std::io::BufRead as _;
use std::sync::mpsc::{Receiver, channel};

/// What a part returns: it never comes to its end by itself, so only errors are told.
type Played = Result<(), Box<dyn Error>>;

fn main() -> Played {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["engine", address] => engine::play(address, &orders()),
        ["callee", address, prefix] => callee::play(address, prefix, &orders()),
        ["fleet", address, prefix, workers, functions] => {
            callee::play_fleet(address, prefix, workers.parse()?, functions.parse()?, &orders())
        }
        ["stage", address, own, next] => callee::play_stage(address, own, next, &orders()),
        ["sender", address, function, sends, end] => {
            caller::play_sender(address, function, sends.parse()?, end)
        }
        ["victim", address, prefix, target] => callee::play_victim(address, prefix, target, &orders()),
        ["caller", address, target, point] => caller::play(address, target, point, &orders()),
        ["durable", address, folder, settings] => durable::play(address, folder, settings, &orders()),
        ["stepper", address, journal, first] => steps::play(address, journal, first, &orders()),
        ["laborer", address, journal] => durable::play_laborer(address, journal, &orders()),
        ["renamer", folder, syncs] => renamer::play(folder, syncs),
        _ => Err(format!("no such part: {words:?}").into()),
    }
}

/// Lines of the standard input. When it ends, the test is gone, and this process goes too.
fn orders() -> Receiver<String> {
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        ringway_tests::service::die()
    });
    orders
}
