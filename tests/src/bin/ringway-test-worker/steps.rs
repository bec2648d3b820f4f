//! A worker whose one function has three steps and writes down each; the second, at its first time, does what the test wants:
//! dies as `kill -9` does, or goes on after its attempt was given up. It must not know who delivers.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ringway::{Context, Failure, Function, Worker};
use ringway_tests::service::{die, tell};
use serde_json::Value;

use super::Played;

/// Serves `steps::run`. `first` is `die` or `linger`.
pub(super) fn play(address: &str, journal: &str, first: &str, orders: &Receiver<String>) -> Played {
    let lingers = match first {
        "die" => false,
        "linger" => true,
        other => return Err(format!("wanted `die` or `linger`, found `{other}`").into()),
    };
    let mark = Path::new(journal).with_extension("mark");
    let journal: Arc<File> = Arc::new(File::options().create(true).append(true).open(journal)?);
    let write = move |line: &str| -> Result<(), Failure> {
        Ok((&*journal).write_all(format!("{line}\n").as_bytes())?)
    };
    let run = move |context: &Context, _: Value| {
        let one: String = context.step("one", || {
            write("one")?;
            Ok("first result".to_owned())
        })?;
        let two: String = context.step("two", || {
            write("two")?;
            // Only one of all attempts makes the mark.
            if File::create_new(&mark).is_err() {
                return Ok("second result".to_owned());
            }
            if !lingers {
                die();
            }
            tell("inside");
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok("of an attempt that is over".to_owned())
        })?;
        context.step("three", || write(&format!("three after {one}, {two}")))?;
        Ok(Value::Null)
    };
    let worker = Worker::builder("stepper").address(address).threads(4).connect()?;
    worker.register(Function::json("steps::run", run).pooled())?;
    tell("ready");
    orders.iter().for_each(drop);
    Ok(())
}
