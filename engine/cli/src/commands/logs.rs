//! `ringway logs`: what workers logged, from the engine's store; with `--follow` also what they log from now on.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringway_protocol::naming;
use serde_json::{Value, json};

use super::{list, number, word};
use crate::arguments::{Place, duration};
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::words::{printable, time_of_day, unix_ms};
use crate::output::{self, Paint, Terminal};

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// Only lines that have this in their message or module
    text: Option<String>,
    /// Only lines at least this grave
    #[arg(long, short, value_enum)]
    level: Option<Level>,
    /// Only this worker's lines (name)
    #[arg(long, short, value_name = "NAME")]
    worker: Option<String>,
    /// Only the lines of this trace
    #[arg(long, value_name = "ID")]
    trace: Option<ringway::TraceId>,
    /// Only lines of this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// How many, the latest
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Go on with what is logged from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Write JSON, one line each
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How often `--follow` asks.
const FOLLOW_PERIOD: Duration = Duration::from_millis(250);
/// How far back each question of `--follow` reaches behind the last line: logs of different workers arrive out of turn.
const OVERLAP_MS: u64 = 2_000;
/// The most lines of one question of `--follow`.
const FOLLOW_LIMIT: usize = 10_000;

pub(crate) fn run(place: &Place, arguments: &LogsArguments) -> Result<ExitCode, Failure> {
    let connection = Connection::open(place, Tracing::Never)?;
    let since = arguments
        .since
        .map(|since| unix_ms().saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
    let answer = connection.ask(naming::LOGS_LIST, &question(arguments, since, arguments.limit))?;
    let terminal = Terminal::of_stdout();
    let mut shown = Shown::default();
    show(shown.fresh(list(&answer, "logs")), arguments.json, terminal)?;
    if list(&answer, "logs").is_empty() && !arguments.follow {
        output::note(
            "no such lines are held; workers log through `ringway::layer()`, a layer for tracing's subscribers",
        );
    }
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        std::thread::sleep(FOLLOW_PERIOD);
        let from = shown.latest_ms().saturating_sub(OVERLAP_MS);
        let from = if from == 0 { since } else { Some(from) };
        let answer = connection.ask(naming::LOGS_LIST, &question(arguments, from, FOLLOW_LIMIT))?;
        show(shown.fresh(list(&answer, "logs")), arguments.json, terminal)?;
    }
}

fn question(arguments: &LogsArguments, since_ms: Option<u64>, limit: usize) -> Value {
    json!({
        "level": arguments.level.map(Level::as_str),
        "trace_id": arguments.trace,
        "worker": arguments.worker,
        "text": arguments.text,
        "start_time": since_ms,
        "limit": limit,
    })
}

/// Which lines have been shown, as far back as the next question can reach.
#[derive(Debug, Default)]
struct Shown {
    lines: HashSet<String>,
    times: Vec<(u64, String)>,
    latest_ns: u64,
}

impl Shown {
    fn latest_ms(&self) -> u64 {
        self.latest_ns / 1_000_000
    }

    /// Returns the lines that have not been shown, and counts them as shown.
    fn fresh<'a>(&mut self, logs: &'a [Value]) -> Vec<&'a Value> {
        // Equal lines of one answer are all shown: that they occurred twice is news.
        let fresh: Vec<&Value> = logs.iter().filter(|log| !self.lines.contains(&log.to_string())).collect();
        for log in &fresh {
            let time_ns = number(log, "time_unix_ns");
            self.latest_ns = self.latest_ns.max(time_ns);
            self.lines.insert(log.to_string());
            self.times.push((time_ns, log.to_string()));
        }
        let forget_ns = self.latest_ns.saturating_sub((OVERLAP_MS + 1_000) * 1_000_000);
        let lines = &mut self.lines;
        self.times.retain(|(time_ns, line)| {
            let keep = *time_ns >= forget_ns;
            if !keep {
                lines.remove(line);
            }
            keep
        });
        fresh
    }
}

fn show(logs: Vec<&Value>, as_json: bool, terminal: Terminal) -> Result<(), Failure> {
    let mut text = String::new();
    for log in logs {
        text.push_str(&if as_json { log.to_string() } else { line(log, terminal) });
        text.push('\n');
    }
    output::text(&text)
}

/// Draws a line: time, level, worker, message, fields, module.
fn line(log: &Value, terminal: Terminal) -> String {
    let level = word(log, "level");
    let paint = match level {
        "error" => Paint::Red,
        "warn" => Paint::Yellow,
        "info" => Paint::Green,
        _ => Paint::Dim,
    };
    let mut text = format!(
        "{} {} {} {}",
        terminal.paint(Paint::Dim, &time_of_day(number(log, "time_unix_ns"))),
        terminal.paint(paint, &format!("{:<5}", printable(level))),
        terminal.paint(Paint::Bold, &printable(word(log, "worker"))),
        printable(word(log, "message")),
    );
    for (name, value) in log.get("fields").and_then(Value::as_object).into_iter().flatten() {
        let value = match value.as_str() {
            Some(text) if !text.contains([' ', '"', '=']) => text.to_owned(),
            _ => value.to_string(),
        };
        text.push_str(&printable(&format!(" {name}={value}")));
    }
    let mut origin = printable(word(log, "target"));
    if let Some(trace) = log.get("trace_id").and_then(Value::as_str) {
        origin.push_str(&format!(" {}", printable(trace)));
    }
    if !origin.is_empty() {
        text.push_str(&format!("  {}", terminal.paint(Paint::Dim, &origin)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Terminal = Terminal { interactive: true, colour: false, width: 100 };

    fn log(time_ms: u64, message: &str) -> Value {
        json!({"time_unix_ns": time_ms * 1_000_000, "level": "info", "worker": "docs", "target": "docs::index", "message": message})
    }

    #[test]
    fn a_line_has_its_fields() {
        let mut log = log(1_700_000_000_123, "found\u{1b}[31m");
        log["fields"] = json!({"count": 12, "best": "a b", "kind": "x"});
        log["trace_id"] = json!("0af7");
        let expected = "22:13:20.123 info  docs found [31m best=\"a b\" count=12 kind=x  docs::index 0af7";
        let sorted = line(&log, PLAIN);
        let words = |text: &str| {
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            words.sort_unstable();
            words
        };
        assert_eq!(words(&sorted), words(expected), "\n{sorted}");
    }

    #[test]
    fn followed_lines_are_shown_once() {
        let mut shown = Shown::default();
        let first = [log(5_000, "a"), log(5_001, "b")];
        assert_eq!(shown.fresh(&first).len(), 2);
        let second = [log(5_000, "a"), log(5_001, "b"), log(4_999, "late"), log(5_002, "c")];
        let fresh: Vec<&str> = shown.fresh(&second).into_iter().map(|log| word(log, "message")).collect();
        assert_eq!(fresh, ["late", "c"]);
        assert_eq!(shown.latest_ms(), 5_002);
    }

    #[test]
    fn what_is_out_of_reach_is_forgotten() {
        let mut shown = Shown::default();
        shown.fresh(&[log(1_000, "a")]);
        shown.fresh(&[log(60_000, "b")]);
        assert_eq!((shown.lines.len(), shown.times.len()), (1, 1));
    }
}
