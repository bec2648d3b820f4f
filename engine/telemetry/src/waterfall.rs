//! A trace drawn as text: one line a hop, with where its time went and a bar, logs in place.
//!
//! `ringway traces`, the demo and the console's plain view print it. It fits the width it is given: bars shrink first,
//! then the breakdown goes, then the bars; only an error's code may stand beyond it. Whatever a worker wrote, no control character reaches the terminal. This file
//! must not know terminals: width, colour and character set are arguments.
//!
//! Legend of the bars: waiting `░`, wake-up `▒`, run `█`, reply `▓`, times of one side only `─`, still running `→`.

mod columns;
pub mod groups;
pub mod json;
pub mod otel;
pub mod read;

use std::fmt::Write as _;

use ringway_protocol::ErrorCode;

use self::columns::{Layout, fit, pad_left, pad_right};
use crate::record::{ClockAnchor, FieldValue, Level, Log, SPAN_FLAG_RELAYED};
use crate::trace::{Breakdown, Row, Trace, Work};

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether ANSI colours are used.
    pub colour: bool,
    /// Whether only ASCII is used for lines and bars (names and messages stay as they are).
    pub ascii: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 120, colour: false, ascii: false }
    }
}

/// The characters of one character set.
struct Glyphs {
    branch: &'static str,
    last: &'static str,
    pipe: &'static str,
    gap: &'static str,
    error: &'static str,
    orphan: &'static str,
    live: char,
    waiting: char,
    wake: char,
    run: char,
    reply: char,
    unknown: char,
    micro: &'static str,
}

const UNICODE: Glyphs = Glyphs {
    branch: "├─ ",
    last: "└─ ",
    pipe: "│  ",
    gap: "   ",
    error: "✗ ",
    orphan: "┄ ",
    live: '→',
    waiting: '░',
    wake: '▒',
    run: '█',
    reply: '▓',
    unknown: '─',
    micro: "µs",
};

const ASCII: Glyphs = Glyphs {
    branch: "|- ",
    last: "`- ",
    pipe: "|  ",
    gap: "   ",
    error: "x ",
    orphan: "~ ",
    live: '>',
    waiting: '.',
    wake: '~',
    run: '#',
    reply: '=',
    unknown: '-',
    micro: "us",
};

#[derive(Clone, Copy)]
enum Paint {
    Dim,
    Bold,
    Red,
    Yellow,
    Green,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Green => "32",
        }
    }
}

/// Draws a trace. Lines end in a line feed and have no trailing blanks.
#[must_use]
pub fn render(trace: &Trace, anchor: ClockAnchor, style: Style) -> String {
    let glyphs = if style.ascii { &ASCII } else { &UNICODE };
    let names: Vec<Label> = labels(trace, glyphs);
    let layout = Layout::new(style.width, names.iter().map(Label::width).max().unwrap_or(0));
    let mut drawing = Drawing { out: String::new(), trace, style, glyphs, layout };
    drawing.heading(anchor);
    drawing.column_titles();
    for (row, label) in trace.rows.iter().zip(&names) {
        drawing.row(row, label);
        for log in &row.logs {
            drawing.log(log, &label.below);
        }
    }
    if !trace.logs.is_empty() {
        drawing.line(&[("logs without a span", Some(Paint::Dim))]);
        for log in &trace.logs {
            drawing.log(log, "");
        }
    }
    drawing.out
}

/// The first column of a row, and what stands in its place on the lines of its logs.
struct Label {
    tree: String,
    error: bool,
    name: String,
    worker: String,
    below: String,
}

impl Label {
    fn width(&self) -> usize {
        let marks = if self.error { 2 } else { 0 };
        columns::width(&self.tree) + marks + columns::width(&self.name) + 2 + columns::width(&self.worker)
    }
}

/// How deep the tree is drawn; deeper rows stand at this depth with their depth as a number.
const DEPTH_DRAWN_MAX: usize = 12;

fn labels(trace: &Trace, glyphs: &Glyphs) -> Vec<Label> {
    // For each depth, whether the row last seen there was the last of its siblings.
    let mut closed: Vec<bool> = Vec::new();
    let mut labels = Vec::with_capacity(trace.rows.len());
    for (place, row) in trace.rows.iter().enumerate() {
        closed.truncate(row.depth);
        let stem: String = closed
            .iter()
            .skip(1)
            .take(DEPTH_DRAWN_MAX)
            .map(|&closed| if closed { glyphs.gap } else { glyphs.pipe })
            .collect();
        closed.push(row.last);
        let mut tree = stem.clone();
        if row.depth > 0 {
            tree.push_str(if row.last { glyphs.last } else { glyphs.branch });
        }
        if row.depth > DEPTH_DRAWN_MAX {
            let _infallible = write!(tree, "({}) ", row.depth);
        }
        if row.orphan {
            tree.push_str(glyphs.orphan);
        }
        let mut below = stem;
        if row.depth > 0 {
            below.push_str(if row.last { glyphs.gap } else { glyphs.pipe });
        }
        let parent = trace.rows.get(place + 1).is_some_and(|next| next.depth > row.depth);
        below.push_str(if parent && row.depth < DEPTH_DRAWN_MAX { glyphs.pipe } else { glyphs.gap });
        labels.push(Label {
            tree,
            error: row.work.error_code().is_some(),
            name: printable(&row.work.outer().name),
            worker: printable(&row.work.inner().worker.name),
            below,
        });
    }
    labels
}

struct Drawing<'a> {
    out: String,
    trace: &'a Trace,
    style: Style,
    glyphs: &'static Glyphs,
    layout: Layout,
}

impl Drawing<'_> {
    /// Ends a line made of painted parts, blanks at its end cut off.
    fn line(&mut self, parts: &[(&str, Option<Paint>)]) {
        let last = parts.iter().rposition(|(text, _)| !text.trim_end().is_empty());
        for (place, &(text, paint)) in parts.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
            let text = if Some(place) == last { text.trim_end() } else { text };
            match paint.filter(|_| self.style.colour && !text.trim().is_empty()) {
                Some(paint) => {
                    let _infallible = write!(self.out, "\x1b[{}m{text}\x1b[0m", paint.code());
                }
                None => self.out.push_str(text),
            }
        }
        self.out.push('\n');
    }

    fn heading(&mut self, anchor: ClockAnchor) {
        let trace = self.trace;
        let (errors, live) = (trace.error_count(), trace.live_count());
        let mut facts = vec![
            duration(trace.duration_ns(), self.glyphs),
            counted(trace.spans, "span"),
            counted(trace.worker_count(), "worker"),
        ];
        if errors > 0 {
            facts.push(counted(errors, "error"));
        }
        if live > 0 {
            facts.push(format!("{live} running"));
        }
        if trace.spans_dropped > 0 {
            facts.push(format!("{} left out", trace.spans_dropped));
        }
        facts.push(utc_time(anchor.unix_ns(trace.start_ns)));
        let title = format!("trace {}  ", trace.trace_id);
        let facts = facts.join(", ");
        if columns::width(&title) + columns::width(&facts) <= self.style.width {
            self.line(&[(&title, Some(Paint::Bold)), (&facts, None)]);
        } else {
            self.line(&[(&title, Some(Paint::Bold))]);
            self.line(&[(&facts, None)]);
        }
    }

    fn column_titles(&mut self) {
        let mut titles = " ".repeat(self.layout.name);
        if self.layout.total > 0 {
            titles.push_str(&pad_left("total", self.layout.total));
        }
        if self.layout.part > 0 {
            let Glyphs { waiting, wake, run, reply, .. } = self.glyphs;
            for (glyph, title) in [(waiting, "wait"), (wake, "wake"), (run, "run"), (reply, "reply")] {
                titles.push_str(&pad_left(&format!("{glyph} {title}"), self.layout.part));
            }
        }
        self.line(&[(&titles, Some(Paint::Dim))]);
    }

    fn row(&mut self, row: &Row, label: &Label) {
        let error = row.work.error_code();
        let name_paint = if error.is_some() { Some(Paint::Red) } else { None };
        let mark = if error.is_some() { self.glyphs.error } else { "" };
        let room = self.layout.name.saturating_sub(columns::width(&label.tree) + columns::width(mark));
        let name = fit(&label.name, room, self.style.ascii);
        let room = room.saturating_sub(columns::width(&name));
        let worker = if room > 3 {
            fit(&format!("  {}", label.worker), room, self.style.ascii)
        } else {
            String::new()
        };
        let worker = pad_right(&worker, room);
        let figures = self.figures(row);
        let bar = self.bar(row);
        let tail = self.tail(row);
        self.line(&[
            (&label.tree, Some(Paint::Dim)),
            (mark, name_paint),
            (&name, name_paint),
            (&worker, Some(Paint::Dim)),
            (&figures, None),
            (if bar.is_empty() { "" } else { "  " }, None),
            (&bar, Some(if error.is_some() { Paint::Red } else { Paint::Green })),
            (&tail, Some(if error.is_some() { Paint::Red } else { Paint::Yellow })),
        ]);
    }

    fn figures(&self, row: &Row) -> String {
        let mut figures = String::new();
        if self.layout.total > 0 {
            let total =
                row.work.duration_ns().map_or_else(|| "running".to_owned(), |ns| duration(ns, self.glyphs));
            figures.push_str(&pad_left(&total, self.layout.total));
        }
        if self.layout.part > 0 {
            let Breakdown { waiting_ns, wake_ns, run_ns, reply_ns, .. } = row.work.breakdown();
            for part in [waiting_ns, wake_ns, run_ns, reply_ns] {
                let part = match part {
                    None => "-".to_owned(),
                    Some(0) => "0".to_owned(),
                    Some(ns) => duration(ns, self.glyphs),
                };
                figures.push_str(&pad_left(&part, self.layout.part));
            }
        }
        figures
    }

    /// Says in words after the bar what the bar cannot: the error, or that the worker died.
    fn tail(&self, row: &Row) -> String {
        let mut words: Vec<&str> = row.work.error_code().into_iter().collect();
        if row.work.inner().lost && words != [ErrorCode::WorkerGone.as_str()] {
            words.push("worker died");
        }
        if row.work.inner().flags & SPAN_FLAG_RELAYED != 0 {
            words.push("relayed");
        }
        if words.is_empty() { String::new() } else { format!(" {}", words.join(", ")) }
    }

    /// Draws each cell with what took most of it.
    fn bar(&self, row: &Row) -> String {
        let cells = self.layout.bar;
        let span_ns = self.trace.duration_ns().max(1);
        let cell_of = |time_ns: u64| {
            let offset = u128::from(time_ns.saturating_sub(self.trace.start_ns).min(span_ns));
            usize::try_from(offset * (cells as u128) / u128::from(span_ns)).unwrap_or(cells)
        };
        let mut bar = vec![' '; cells];
        let mut draw = |from_ns: u64, to_ns: u64, glyph: char| {
            for cell in bar.iter_mut().take(cell_of(to_ns)).skip(cell_of(from_ns)) {
                *cell = glyph;
            }
        };
        let end_ns = row.work.end_ns().unwrap_or(self.trace.end_ns);
        for (from_ns, to_ns, glyph) in segments(&row.work, end_ns, self.glyphs) {
            draw(from_ns, to_ns, glyph);
        }
        // The shortest call still shows where it was.
        let first = cell_of(row.work.start_ns()).min(cells.saturating_sub(1));
        if let Some(cell) = bar.get_mut(first).filter(|cell| **cell == ' ') {
            *cell = self.glyphs.run;
        }
        if row.work.end_ns().is_none()
            && let Some(cell) = bar.last_mut()
        {
            *cell = self.glyphs.live;
        }
        let mut bar: String = bar.into_iter().collect();
        bar.truncate(bar.trim_end().len());
        bar
    }

    fn log(&mut self, log: &Log, below: &str) {
        let when = duration(log.time_ns.saturating_sub(self.trace.start_ns), self.glyphs);
        let level = format!("{:<5} ", log.level.as_str().to_ascii_uppercase());
        let mut text = format!("+{when} {}: {}", printable(&log.target), printable(&log.message));
        for (key, value) in &log.fields {
            let _infallible = write!(text, " {}={}", printable(key), field(value));
        }
        let room = self.style.width.saturating_sub(columns::width(below) + level.len());
        let text = fit(&text, room, self.style.ascii);
        let paint = match log.level {
            Level::Error => Some(Paint::Red),
            Level::Warn => Some(Paint::Yellow),
            Level::Info | Level::Debug | Level::Trace => Some(Paint::Dim),
        };
        self.line(&[(below, Some(Paint::Dim)), (&level, paint), (&text, None)]);
    }
}

/// Splits a row's time into what it was spent on; later pieces are drawn over earlier ones.
fn segments(work: &Work, end_ns: u64, glyphs: &Glyphs) -> Vec<(u64, u64, char)> {
    let start_ns = work.start_ns();
    match work {
        Work::Hop { server, .. } => {
            let woke_ns = start_ns.saturating_add(work.breakdown().wake_ns.unwrap_or(0));
            let run_end_ns = server.end_ns.unwrap_or(end_ns);
            vec![
                (run_end_ns.min(end_ns), end_ns, glyphs.reply),
                (start_ns, woke_ns, glyphs.wake),
                (woke_ns, server.start_ns, glyphs.waiting),
                (server.start_ns, run_end_ns, glyphs.run),
            ]
        }
        Work::Single(span) if work.breakdown().run_ns.is_none() && !span.is_live() => {
            vec![(start_ns, end_ns, glyphs.unknown)]
        }
        Work::Single(_) => vec![(start_ns, end_ns, glyphs.run)],
    }
}

fn field(value: &FieldValue) -> String {
    match value {
        FieldValue::Bool(value) => value.to_string(),
        FieldValue::I64(value) => value.to_string(),
        FieldValue::U64(value) => value.to_string(),
        FieldValue::F64(value) => value.to_string(),
        FieldValue::Text(value) => format!("{:?}", printable(value)),
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes a duration with three digits that count: `0`, `87 ns`, `1.23 µs`, `45.6 ms`, `789 s`.
fn duration(ns: u64, glyphs: &Glyphs) -> String {
    let units = [(1_000_000_000_u64, "s"), (1_000_000, "ms"), (1_000, glyphs.micro)];
    // The least value that three digits show as one of this unit: 999.5 of the one below is one of this.
    let unit = units.into_iter().find(|(unit, _)| ns >= unit - unit / 2_000);
    let Some((unit, name)) = unit else { return format!("{ns} ns") };
    let hundredths = (u128::from(ns) * 100 + u128::from(unit) / 2) / u128::from(unit);
    let tenths = (u128::from(ns) * 10 + u128::from(unit) / 2) / u128::from(unit);
    if hundredths < 1_000 {
        format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
    } else if tenths < 1_000 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (u128::from(ns) + u128::from(unit) / 2) / u128::from(unit))
    }
}

/// Writes unix time as RFC 3339 in UTC, to the millisecond.
#[must_use]
pub fn utc_time(unix_ns: u64) -> String {
    let (seconds, millis) = (unix_ns / 1_000_000_000, unix_ns / 1_000_000 % 1_000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Turns days since 1970 into a date of the Gregorian calendar: eras of 400 years that begin on 1 March.
const fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day)
}

/// Makes text harmless for a terminal: control characters and those that turn the direction of writing become `�`.
fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|c| {
            if c == '\n' || c == '\t' {
                ' '
            } else if harmful(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
