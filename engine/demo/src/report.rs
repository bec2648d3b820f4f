//! What the demo prints: both jobs' outcomes as text for a terminal, and as JSON. The wiring fills in the times and
//! counters that it measured; nothing here measures or prints by itself.

use std::fmt::Write as _;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::{Corpus, Skipped};
use crate::critic::Objection;
use crate::pipeline::files::FilesSkipped;
use crate::pipeline::{FileList, LedgerReport};
use crate::researcher::{Answer, Stage};
use crate::search::IndexReport;

mod table;

pub use table::{Align, Table, bytes_text, count_text, duration_text, percent_text};

/// Files named in the pipeline's text.
const FILES_NAMED: usize = 8;

/// The agent loop's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentReport {
    /// Documents found.
    pub documents: u64,
    /// Bytes of those.
    pub document_bytes: u64,
    /// Files that were not taken as documents.
    pub skipped: Skipped,
    /// What indexing took.
    pub index: IndexReport,
    /// One for each question.
    pub runs: Vec<AgentRun>,
}

/// One question's loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentRun {
    /// The answer.
    pub answer: Answer,
    /// Its steps in order.
    pub steps: Vec<StepTime>,
}

/// What one step of a loop took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepTime {
    /// The step, named by what was waited for.
    pub stage: Stage,
    /// Calls made in it.
    pub calls: u32,
    /// Wall time, in nanoseconds.
    pub elapsed_ns: u64,
}

/// The pipeline's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PipelineReport {
    /// The accounts.
    pub ledger: LedgerReport,
    /// Files that were not taken.
    pub skipped: FilesSkipped,
    /// Each stage, in the order of the data.
    pub stages: Vec<StageTime>,
    /// Wall time of the whole, in nanoseconds.
    pub elapsed_ns: u64,
}

/// What one stage of the pipeline did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StageTime {
    /// Its name.
    pub name: String,
    /// Calls it served.
    pub calls: u64,
    /// Bytes it looked at.
    pub bytes: u64,
    /// Bytes copied to hand them to it.
    pub bytes_copied: u64,
    /// Time spent working, in nanoseconds, all replicas together.
    pub busy_ns: u64,
}

/// Why a report has no JSON form: a number in it is none.
#[derive(Debug, thiserror::Error)]
#[error("the report cannot be written as JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

impl AgentReport {
    /// Begins a report of what was found and indexed.
    #[must_use]
    pub fn new(corpus: &Corpus, index: IndexReport) -> Self {
        Self {
            documents: corpus.documents().len() as u64,
            document_bytes: corpus.documents().iter().map(|document| document.bytes).sum(),
            skipped: corpus.skipped().clone(),
            index,
            runs: Vec::new(),
        }
    }

    /// Returns the report as indented JSON.
    ///
    /// # Errors
    /// [`JsonError`] if it holds a number that JSON has no form for.
    pub fn json(&self) -> Result<String, JsonError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Returns the report as text, wrapped at `width` columns.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        line(
            &mut text,
            format_args!(
                "Indexed {} ({}) in {}.",
                counted(self.index.documents, "document"),
                bytes_text(self.index.bytes),
                duration_text(Duration::from_millis(self.index.elapsed_ms))
            ),
        );
        let left = self.left_out();
        if !left.is_empty() {
            text.push_str(&wrapped(&format!("Left out: {}.", left.join(", ")), width, "  "));
        }
        for run in &self.runs {
            text.push('\n');
            text.push_str(&run.text(width));
        }
        text
    }

    fn left_out(&self) -> Vec<String> {
        let skipped = &self.skipped;
        let reasons = [
            (
                skipped.beyond_budget,
                format!("beyond the budget ({})", bytes_text(skipped.beyond_budget_bytes)),
            ),
            (self.index.left_out, "when time ran out".to_owned()),
            (skipped.too_large, "too large".to_owned()),
            (skipped.binary, "binary".to_owned()),
            (skipped.unreadable + self.index.unreadable, "unreadable".to_owned()),
        ];
        reasons
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, reason)| format!("{} {reason}", count_text(count)))
            .collect()
    }
}

impl AgentRun {
    /// Returns the calls made over the whole loop.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.steps.iter().map(|step| u64::from(step.calls)).sum()
    }

    /// Returns the loop's wall time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.steps.iter().map(|step| step.elapsed_ns).sum())
    }

    /// Returns the question, the answer with numbered sources, the verdict and the time of each step.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let Answer { draft, verdict, rounds, searches, reads } = &self.answer;
        let mut text = wrapped(&format!("Q: {}", draft.question), width, "   ");
        if draft.statements.is_empty() {
            line(&mut text, format_args!("A: The documents hold no answer that stands."));
        }
        for (index, statement) in draft.statements.iter().enumerate() {
            let mark = if index == 0 { "A:" } else { "  " };
            text.push_str(&wrapped(
                &format!("{mark} {} [{}]", statement.text, statement.source),
                width,
                "   ",
            ));
        }
        for (number, source) in (1_u32..).zip(&draft.sources) {
            let lines = if source.first_line == source.last_line {
                source.first_line.to_string()
            } else {
                format!("{}-{}", source.first_line, source.last_line)
            };
            line(&mut text, format_args!("   [{number}] {}:{lines}", source.name));
        }
        line(
            &mut text,
            format_args!(
                "   critic: {} ({:.2} of 1: {} of the statements supported, {} of the question covered); {}, {}, {}",
                if verdict.accepted { "accepted" } else { "not accepted" },
                verdict.score,
                percent_text(verdict.supported),
                percent_text(verdict.coverage),
                counted(u64::from(*searches), "search"),
                counted(u64::from(*reads), "read"),
                counted(u64::from(*rounds), "round"),
            ),
        );
        for objection in &verdict.objections {
            line(&mut text, format_args!("   objection: {}", objection_text(objection)));
        }
        let mut table = Table::new(&[("step", Align::Left), ("calls", Align::Right), ("time", Align::Right)]);
        for step in &self.steps {
            let time = duration_text(Duration::from_nanos(step.elapsed_ns));
            table.row([stage_text(step.stage).to_owned(), step.calls.to_string(), time]);
        }
        let rate = self.calls() as f64 / self.elapsed().as_secs_f64().max(1e-9);
        table.row([
            "together".to_owned(),
            format!("{} ({rate:.0}/s)", self.calls()),
            duration_text(self.elapsed()),
        ]);
        text.push_str(&table.text("   "));
        text
    }
}

impl PipelineReport {
    /// Begins a report from the accounts.
    #[must_use]
    pub fn new(list: &FileList, ledger: LedgerReport, stages: Vec<StageTime>, elapsed: Duration) -> Self {
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        Self { ledger, skipped: list.skipped().clone(), stages, elapsed_ns }
    }

    /// Returns the report as indented JSON.
    ///
    /// # Errors
    /// [`JsonError`] if it holds a number that JSON has no form for.
    pub fn json(&self) -> Result<String, JsonError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Returns the report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let total = &self.ledger.total;
        let elapsed = Duration::from_nanos(self.elapsed_ns);
        let mut text = String::new();
        line(
            &mut text,
            format_args!(
                "Read {} in {}, {}, in {} ({}/s).",
                bytes_text(total.bytes),
                counted(total.files, "file"),
                counted(total.chunks, "chunk"),
                duration_text(elapsed),
                bytes_text(per_second(total.bytes, elapsed)),
            ),
        );
        let share = |part: u64| percent_text(part as f64 / total.bytes.max(1) as f64);
        let mut sums = Table::new(&[
            ("", Align::Left),
            ("bytes", Align::Right),
            ("of all", Align::Right),
            ("chunks", Align::Right),
        ]);
        let chunks = |count: u64| count_text(count);
        sums.row([
            "duplicate".to_owned(),
            bytes_text(total.duplicate_bytes),
            share(total.duplicate_bytes),
            chunks(total.chunks - total.unique_chunks),
        ]);
        sums.row([
            "unique".to_owned(),
            bytes_text(total.unique_bytes),
            share(total.unique_bytes),
            chunks(total.unique_chunks),
        ]);
        sums.row([
            "unique, compressed".to_owned(),
            bytes_text(total.compressed_bytes),
            share(total.compressed_bytes),
            String::new(),
        ]);
        text.push_str(&sums.text("  "));
        if total.missing_bytes > 0 {
            line(
                &mut text,
                format_args!(
                    "  {} announced and not seen: files shrank or could not be read",
                    bytes_text(total.missing_bytes)
                ),
            );
        }
        if self.skipped.beyond_budget > 0 {
            line(
                &mut text,
                format_args!(
                    "  left out beyond the budget: {} ({})",
                    counted(self.skipped.beyond_budget, "file"),
                    bytes_text(self.skipped.beyond_budget_bytes)
                ),
            );
        }
        text.push('\n');
        text.push_str(&self.files_text());
        if !self.ledger.top_duplicates.is_empty() {
            text.push('\n');
            text.push_str(&self.duplicates_text());
        }
        if !self.stages.is_empty() {
            text.push('\n');
            text.push_str(&self.stages_text());
        }
        text
    }

    fn files_text(&self) -> String {
        let mut largest: Vec<_> = self.ledger.files.iter().collect();
        largest.sort_by(|a, b| b.sums.bytes.cmp(&a.sums.bytes).then(a.index.cmp(&b.index)));
        let mut table = Table::new(&[
            ("largest files", Align::Left),
            ("bytes", Align::Right),
            ("duplicate", Align::Right),
            ("compressed", Align::Right),
        ]);
        for file in largest.iter().take(FILES_NAMED) {
            let sums = &file.sums;
            table.row([
                table::shortened(&file.name, 52),
                bytes_text(sums.bytes),
                bytes_text(sums.duplicate_bytes),
                bytes_text(sums.compressed_bytes),
            ]);
        }
        table.text("  ")
    }

    fn duplicates_text(&self) -> String {
        let mut table = Table::new(&[
            ("duplicates", Align::Left),
            ("bytes", Align::Right),
            ("copies", Align::Right),
            ("wasted", Align::Right),
            ("first at", Align::Left),
        ]);
        for duplicate in &self.ledger.top_duplicates {
            table.row([
                duplicate.hash.to_string().chars().take(12).collect(),
                bytes_text(u64::from(duplicate.bytes)),
                count_text(duplicate.copies),
                bytes_text(duplicate.wasted_bytes),
                duplicate.places.first().map_or_else(String::new, |place| table::shortened(place, 52)),
            ]);
        }
        table.text("  ")
    }

    fn stages_text(&self) -> String {
        let mut table = Table::new(&[
            ("stage", Align::Left),
            ("calls", Align::Right),
            ("looked at", Align::Right),
            ("copied", Align::Right),
            ("busy", Align::Right),
            ("speed", Align::Right),
        ]);
        for stage in &self.stages {
            let busy = Duration::from_nanos(stage.busy_ns);
            table.row([
                stage.name.clone(),
                count_text(stage.calls),
                bytes_text(stage.bytes),
                bytes_text(stage.bytes_copied),
                duration_text(busy),
                format!("{}/s", bytes_text(per_second(stage.bytes, busy))),
            ]);
        }
        let mut text = table.text("  ");
        if let [first, second, ..] = self.stages.as_slice()
            && first.bytes > second.bytes
        {
            line(
                &mut text,
                format_args!(
                    "  {} were read twice: what a block leaves over is read again with the next, not copied",
                    bytes_text(first.bytes - second.bytes)
                ),
            );
        }
        text
    }
}

pub(crate) fn counted(count: u64, what: &str) -> String {
    let ending = match (count, what.ends_with("ch")) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {what}{ending}", count_text(count))
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let per_second = u128::from(bytes) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Searching => "search",
        Stage::Reading => "read",
        Stage::Summarizing => "summarize",
        Stage::Judging => "judge",
        Stage::Finished => "finish",
    }
}

fn objection_text(objection: &Objection) -> String {
    match objection {
        Objection::NoStatements => "it says nothing".to_owned(),
        Objection::NoSource { statement } => format!("statement {} names no source", statement + 1),
        Objection::SourceUnreadable { statement, source } => {
            format!("source {source} of statement {} could not be read", statement + 1)
        }
        Objection::NotInSource { statement, source } => {
            format!("statement {} does not stand in source {source}", statement + 1)
        }
        Objection::TermsMissing { words } => format!("it does not speak of {}", words.join(", ")),
        Objection::TooShort { words } => format!("{words} words are too few"),
        Objection::TooLong { words } => format!("{words} words are too many"),
        Objection::OneDocument => "it rests on one document".to_owned(),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
    text.push('\n');
}

/// Breaks a paragraph at spaces so that lines have at most `width` columns where words allow; further lines are indented.
fn wrapped(paragraph: &str, width: usize, indent: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    let first = paragraph.trim_start();
    text.push_str(&paragraph[..paragraph.len() - first.len()]);
    for word in first.split(' ') {
        let word_width = word.chars().count();
        if column > 0 && column + 1 + word_width > width {
            text.push('\n');
            text.push_str(indent);
            column = indent.chars().count();
        } else if column > 0 {
            text.push(' ');
            column += 1;
        } else {
            column = paragraph.len() - first.len();
        }
        text.push_str(word);
        column += word_width;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
