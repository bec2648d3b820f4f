//! All that a demo found out, as text and as one JSON document.

use std::fmt::Write as _;
use std::time::Duration;

use ringway_bench::stats::Summary as Percentiles;
use serde::Serialize;
use serde_json::Value;

use super::agents::Comparison;
use super::desk::DeskReport;
use super::latency::{Latency, PING_LENGTH};
use crate::processes::Death;
use crate::report::{
    AgentReport, Align, JsonError, PipelineReport, Table, bytes_text, count_text, counted, duration_text,
};
use crate::researcher::Stage;

/// What one process passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PayloadLine {
    /// Its part; `demo` is the process that started the others.
    pub part: String,
    /// Its process.
    pub pid: u32,
    /// Payload bytes passed by reference.
    pub lent_bytes: u64,
    /// Payload bytes copied.
    pub copied_bytes: u64,
}

/// The trace of one loop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TracePicture {
    /// As a picture.
    #[serde(skip)]
    pub text: String,
    /// Spans in it.
    pub spans: usize,
    /// Workers that took part.
    pub workers: usize,
    /// Logs at their spans.
    pub logs: usize,
    /// Spans whose parent is missing.
    pub orphans: usize,
    /// As data.
    pub tree: Value,
}

/// The outcome of a demo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Answers with sources.
    pub agents: AgentReport,
    /// The loop over rings and over sockets.
    pub comparison: Comparison,
    /// The same questions through durable state and queues.
    pub desk: DeskReport,
    /// Duplicate data.
    pub pipeline: PipelineReport,
    /// What a small call costs.
    pub latency: Latency,
    /// What each process passed and copied.
    pub payload: Vec<PayloadLine>,
    /// The trace of one loop.
    pub trace: TracePicture,
    /// Workers that died on the way.
    pub deaths: Vec<Death>,
    /// The whole demo, in nanoseconds.
    pub elapsed_ns: u64,
}

impl Summary {
    /// Returns the bytes that all processes copied to pass payloads on.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.payload.iter().map(|line| line.copied_bytes).sum()
    }

    /// Returns the bytes that all processes passed by reference.
    #[must_use]
    pub fn lent_bytes(&self) -> u64 {
        self.payload.iter().map(|line| line.lent_bytes).sum()
    }

    /// Returns one indented JSON document.
    ///
    /// # Errors
    /// [`JsonError`] if a number in it has no JSON form.
    pub fn json(&self) -> Result<String, JsonError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Returns everything as text, paragraphs wrapped at `width` columns.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        heading(&mut text, "Answers from documents");
        text.push_str(&self.agents.text(width));
        heading(&mut text, "The same loops over rings and over Unix sockets");
        text.push_str(&self.comparison.text());
        heading(&mut text, "Duplicate data");
        text.push_str(&self.pipeline.text());
        heading(&mut text, "The trace of one loop");
        text.push_str(&self.trace.text);
        heading(&mut text, "The same questions, durably");
        text.push_str(&self.desk.text());
        heading(&mut text, "A small call");
        text.push_str(&self.latency.text());
        heading(&mut text, "Payloads");
        text.push_str(&self.payload_text());
        for death in &self.deaths {
            let Death { part, pid, status, .. } = death;
            line(&mut text, format_args!("Worker {part} (process {pid}) died: {status}; others went on."));
        }
        line(&mut text, format_args!("\nDone in {}.", duration_text(Duration::from_nanos(self.elapsed_ns))));
        text
    }

    fn payload_text(&self) -> String {
        let mut table = Table::new(&[
            ("process", Align::Left),
            ("pid", Align::Right),
            ("passed", Align::Right),
            ("copied", Align::Right),
        ]);
        for PayloadLine { part, pid, lent_bytes, copied_bytes } in &self.payload {
            table.row([part.clone(), pid.to_string(), bytes_text(*lent_bytes), bytes_text(*copied_bytes)]);
        }
        table.row([
            "together".to_owned(),
            String::new(),
            bytes_text(self.lent_bytes()),
            bytes_text(self.copied_bytes()),
        ]);
        table.text("  ")
    }
}

impl DeskReport {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("", Align::Left),
            ("question", Align::Left),
            ("steps kept", Align::Right),
            ("taken up", Align::Right),
            ("answer", Align::Left),
        ]);
        for one in &self.questions {
            let answer = if one.same { "that of the plain loop" } else { "another" };
            table.row([
                one.key.clone(),
                one.question.clone(),
                one.steps.to_string(),
                one.begun.to_string(),
                answer.to_owned(),
            ]);
        }
        let mut text = table.text("  ");
        line(
            &mut text,
            format_args!(
                "  {} in {}, each step on disk before the next; {} struck, none twice; {}",
                counted(self.questions.len() as u64, "question"),
                duration_text(Duration::from_nanos(self.elapsed_ns)),
                counted(self.ticks, "second"),
                counted(self.dead_letters, "dead letter"),
            ),
        );
        if self.engines_killed + self.workers_killed > 0 {
            line(
                &mut text,
                format_args!(
                    "  meanwhile {} and {} were killed with SIGKILL",
                    counted(u64::from(self.engines_killed), "engine"),
                    counted(u64::from(self.workers_killed), "worker"),
                ),
            );
        } else {
            line(
                &mut text,
                format_args!("  `ringway demo --chaos` kills the engine and workers in the middle"),
            );
        }
        text
    }
}

impl Comparison {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("", Align::Left),
            ("rings", Align::Right),
            ("Unix sockets", Align::Right),
            ("ratio", Align::Right),
        ]);
        let mut row = |name: &str, ring_ns: u64, socket_ns: u64| {
            let ratio = socket_ns as f64 / ring_ns.max(1) as f64;
            let time = |ns| duration_text(Duration::from_nanos(ns));
            table.row([name.to_owned(), time(ring_ns), time(socket_ns), format!("{ratio:.2}")]);
        };
        for ((stage, ring_ns), (_, socket_ns)) in self.ring.steps_ns.iter().zip(&self.socket.steps_ns) {
            row(step_name(*stage), *ring_ns, *socket_ns);
        }
        row("whole loops", self.ring.loops_ns.iter().sum(), self.socket.loops_ns.iter().sum());
        table.row([
            "tool calls per second".to_owned(),
            format!("{:.0}", self.ring.calls_per_s),
            format!("{:.0}", self.socket.calls_per_s),
            format!("{:.2}", self.ring.calls_per_s / self.socket.calls_per_s.max(1e-9)),
        ]);
        let mut text = table.text("  ");
        line(
            &mut text,
            format_args!(
                "  {} calls, medians of {}, taking turns; same processes, same handlers, same JSON, neither traced.\n  \
                 Most of a loop is the tools' own work; what is compared is the rest.",
                count_text(self.calls),
                self.repeats
            ),
        );
        text
    }
}

fn step_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Searching => "search",
        Stage::Reading => "read",
        Stage::Summarizing => "summarize",
        Stage::Judging => "judge",
        Stage::Finished => "finish",
    }
}

impl Latency {
    fn text(&self) -> String {
        let floor = self.floors.cache_line.summary.p50_ns.max(1);
        let mut table = Table::new(&[
            ("round trip", Align::Left),
            ("p50", Align::Right),
            ("p90", Align::Right),
            ("p99", Align::Right),
            ("p99.9", Align::Right),
            ("max", Align::Right),
            ("p50 / floor", Align::Right),
        ]);
        let mut row = |name: String, of: &Percentiles| {
            let time = |ns| duration_text(Duration::from_nanos(ns));
            let ratio = of.p50_ns as f64 / floor as f64;
            table.row([
                name,
                time(of.p50_ns),
                time(of.p90_ns),
                time(of.p99_ns),
                time(of.p999_ns),
                time(of.max_ns),
                format!("{ratio:.1}"),
            ]);
        };
        row("floor: a cache line".to_owned(), &self.floors.cache_line.summary);
        row("floor: a bare stamp ring".to_owned(), &self.floors.stamp_ring.summary);
        row(format!("call, {PING_LENGTH} bytes, caller spins"), &self.bytes_over_ring);
        row(format!("call, {PING_LENGTH} bytes, caller spins, traced"), &self.traced_over_ring);
        row(format!("call, {PING_LENGTH} bytes"), &self.adaptive_over_ring);
        row("call, JSON".to_owned(), &self.json_over_ring);
        row("floor: a bare event counter".to_owned(), &self.floors.eventfd.summary);
        row("floor: a bare Unix socket".to_owned(), &self.floors.unix_socket.summary);
        row("call over a Unix socket, JSON".to_owned(), &self.json_over_socket);
        let mut text = table.text("  ");
        line(
            &mut text,
            format_args!(
                "  the floors ran on two pinned cores ({}), the calls wherever the system put them; who does not spin\n  \
                 waits as long as a sleep costs and then sleeps; `ringway bench` measures all of it pinned and at length",
                self.regime
            ),
        );
        text
    }
}

fn heading(text: &mut String, title: &str) {
    line(text, format_args!("\n{title}\n{}", "=".repeat(title.chars().count())));
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
    text.push('\n');
}
