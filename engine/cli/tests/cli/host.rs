//! An engine with one worker, and the command against it.

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringway::{Failure, Function, Message, Worker};
use ringway_engine::{Engine, Otlp};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// Two numbers.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Sum {
    /// The first number
    a: i64,
    /// The second number
    b: i64,
    /// Said beside the result
    #[serde(default)]
    note: Option<String>,
}

/// Runs as long as a test.
pub(crate) struct Host {
    // Dropped in this order: the worker leaves while its engine is there.
    pub(crate) worker: Worker,
    _engine: Engine,
    address: String,
}

/// Makes an address that no other test has.
pub(crate) fn address() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("@ringway-cli-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Host {
    pub(crate) fn start() -> Self {
        let address = address();
        let engine = Engine::builder().address(&address).otlp(Otlp::Off).start().unwrap();
        let worker = Worker::builder("tester").address(&address).connect().unwrap();
        let add = |_: &ringway::Context, sum: Sum| {
            tracing::info!(a = sum.a, "adding");
            if let Some(note) = sum.note {
                tracing::info!(note, "noted");
            }
            Ok(sum.a + sum.b)
        };
        worker
            .register_all(vec![
                Function::json("calc::add", add).description("Adds two numbers."),
                Function::json("calc::fail", |_, _: Value| -> Result<Value, Failure> {
                    Err(Failure::with_code("no_luck", "not today"))
                }),
                Function::json("calc::slow", |context, _: Value| {
                    while !context.is_cancelled() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Ok(Value::Null)
                }),
                Function::json("hello::greet", |_, name: String| Ok(format!("Hello, {name}!"))),
                Function::raw("raw::bytes", |_, _| Ok(Message::bytes(b"\x00\xffraw"))),
                Function::json("meta::echo", |context, _: Value| Ok(context.metadata().cloned())),
            ])
            .unwrap();
        Self { worker, _engine: engine, address }
    }

    /// Where the engine listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    /// Runs the command to its end with further variables.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let mut command = ringway();
        command.args(["--address", &self.address]).args(arguments).envs(variables.iter().copied());
        Ran::of(&mut command)
    }
}

/// Returns the command, without what the tester's own environment says.
pub(crate) fn ringway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    for name in [
        "RINGWAY_SOCKET",
        "RINGWAY_PROJECT",
        "RINGWAY_CREDENTIALS",
        "RINGWAY_WAIT",
        "RINGWAY_LOG",
        "OTEL_TRACES_SAMPLER",
    ] {
        command.env_remove(name);
    }
    // What an engine of a test keeps is nobody else's.
    command.env("XDG_STATE_HOME", states().path());
    command
}

/// A folder for what engines keep that are told of none.
fn states() -> &'static tempfile::TempDir {
    static STATES: OnceLock<tempfile::TempDir> = OnceLock::new();
    STATES.get_or_init(|| tempfile::tempdir().unwrap())
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: status.code(), out: text(&stdout), bytes: stdout, err: text(&stderr) }
    }

    /// Expects a result, and nothing on standard error.
    #[track_caller]
    pub(crate) fn prints(&self, expected: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(0), expected, ""));
    }

    /// Expects a result, whatever is said beside it.
    #[track_caller]
    pub(crate) fn prints_first(&self, expected: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(0), expected), "{}", self.err);
    }

    /// Expects an exit code and words on standard error, and nothing on standard output.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        for words in words {
            assert!(self.err.contains(words), "`{words}` is not in\n{}", self.err);
        }
    }

    /// Expects JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        serde_json::from_str(&self.out).unwrap()
    }
}
