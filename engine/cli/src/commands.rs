//! One file for each command. A command reads its arguments, asks, and writes; it returns how to exit.

pub(crate) mod up;

pub(crate) mod trigger;

pub(crate) mod functions;

pub(crate) mod workers;

pub(crate) mod traces;

pub(crate) mod logs;

pub(crate) mod top;

pub(crate) mod shm;

pub(crate) mod state;
pub(crate) mod stream;

pub(crate) mod queue;

pub(crate) mod cron;

pub(crate) mod link;

pub(crate) mod config;

pub(crate) mod errors;

pub(crate) mod backup;

pub(crate) mod doctor;

pub(crate) mod bench;

pub(crate) mod demo;

pub(crate) mod completions;

mod ask;

mod inspect;

use std::process::ExitCode;

use ringway_protocol::naming;
use serde_json::Value;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;

/// Runs the command that was typed.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let place = &arguments.place;
    match arguments.command {
        Command::Up(arguments) => up::run(place, &arguments),
        Command::Trigger(arguments) => trigger::run(place, &arguments),
        Command::Functions(arguments) => functions::run(place, &arguments),
        Command::Workers(arguments) => workers::run(place, &arguments),
        Command::Traces(arguments) => traces::run(place, &arguments),
        Command::Logs(arguments) => logs::run(place, &arguments),
        Command::Top(arguments) => top::run(place, &arguments),
        Command::Shm(arguments) => shm::run(place, &arguments),
        Command::State(command) => state::run(place, &command),
        Command::Stream(command) => stream::run(place, &command),
        Command::Queue(command) => queue::run(place, &command),
        Command::Cron(command) => cron::run(place, &command),
        Command::Link(command) => link::run(place, &command),
        Command::Config(command) => config::run(place, &command),
        Command::Errors(arguments) => errors::run(&arguments),
        Command::Backup(command) => backup::run(place, &command),
        Command::Doctor(arguments) => doctor::run(place, &arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::DemoWorker { arguments } => demo::work(&arguments),
        Command::Completions { shell } => completions::run(shell),
    }
}

/// Whether a function is one of the engine's, or the one by which workers are asked what they hold.
fn is_question(function: &str) -> bool {
    naming::is_reserved(function) || function.starts_with("function 0 of worker ")
}

/// Returns the list under a key of an answer; an empty one where there is none.
fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns the text under a key; an empty one where there is none.
fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the whole number under a key; 0 where there is none.
fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}
