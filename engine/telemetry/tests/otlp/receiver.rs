//! Starts the independent receiver (`receiver.py`) and hands on what it decoded.
//!
//! The first run sets up a Python environment under the target folder and says so. This file must not decode OTLP
//! itself: that would be one more copy of the code under test.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver as Lines};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The official package, by the version this test was written against.
const PACKAGE: &str = "opentelemetry-proto==1.45.2";

/// How long to wait for a line that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running receiver; it ends when dropped.
pub(crate) struct Receiver {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<Value>,
    pub(crate) port: u64,
}

impl Receiver {
    /// Starts a receiver with the given arguments on a port of the system's choice.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(python()?)
            .args(["-c", include_str!("receiver.py")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the receiver did not start")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the receiver has no output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let parsed = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(parsed).is_err() {
                    break;
                }
            }
        });
        let mut receiver = Self { child, input, lines, port: 0 };
        let first = receiver.lines.recv_timeout(PATIENCE).context("the receiver said nothing")?;
        receiver.port = first["port"].as_u64().with_context(|| format!("no port in {first}"))?;
        Ok(receiver)
    }

    /// Ends the receiver and returns all that it decoded.
    pub(crate) fn finish(mut self) -> Result<Vec<Value>> {
        drop(self.input.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the receiver ended with {status}");
        Ok(self.lines.iter().collect())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ended = self.child.wait();
    }
}

/// Returns a Python that has the package, setting one up the first time. Tests run side by side: one of them does it.
fn python() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("otlp-receiver");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    let ready = folder.join(format!("{PACKAGE}.ready"));
    if !ready.exists() {
        writeln!(std::io::stdout(), "setting up {PACKAGE} in {} (once)", environment.display())?;
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PACKAGE,
        ]))?;
        File::create(&ready)?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} did not start; Python 3 with venv is needed"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
