//! How `top` looks: one line about the engine, a table of workers, a table of traced calls.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::sample::{Sample, WINDOW_MS};
use crate::output::words::{bytes, count, nanoseconds, printable, several};

/// Draws a sample.
pub(super) fn draw(frame: &mut Frame<'_>, sample: &Sample) {
    let workers = u16::try_from(sample.workers.len()).unwrap_or(u16::MAX);
    let areas = Layout::vertical([
        Constraint::Length(2),
        // Its lines, the heading, and the title.
        Constraint::Max(workers.saturating_add(2).max(3)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .split(frame.area());
    frame.render_widget(Paragraph::new(heading(sample)), areas[0]);
    frame.render_widget(worker_table(sample), areas[1]);
    frame.render_widget(call_table(sample), areas[2]);
    frame.render_widget(Paragraph::new("q quits").style(dim()), areas[3]);
}

fn heading(sample: &Sample) -> Vec<Line<'static>> {
    let engine = format!(
        "ringway engine, {}: {}, {}, {} calls/s",
        sample.engine,
        several(sample.workers.len(), "worker"),
        several(sample.functions, "function"),
        count(sample.calls_per_s),
    );
    let held: u64 = sample.workers.iter().map(|worker| worker.memory_held_bytes).sum();
    let used: u64 = sample.workers.iter().map(|worker| worker.memory_used_bytes).sum();
    let leases: u64 = sample.workers.iter().map(|worker| worker.leases).sum();
    let memory = format!(
        "payload memory {} in use of {}, {leases} leases; {} spans/s, {} spans in {} traces held",
        bytes(used),
        bytes(held),
        count(sample.spans_per_s),
        sample.spans_held,
        sample.traces_held,
    );
    vec![Line::from(engine).style(bold()), Line::from(memory)]
}

fn worker_table(sample: &Sample) -> Table<'static> {
    let rows = sample.workers.iter().map(|worker| {
        Row::new([
            text(&worker.name),
            number(worker.pid.to_string()),
            text(&worker.status),
            number(worker.functions.to_string()),
            number(count(worker.served_per_s)),
            number(worker.running.to_string()),
            number(worker.waiting_for.to_string()),
            number(bytes(worker.memory_used_bytes)),
            number(bytes(worker.memory_held_bytes)),
            number(worker.leases.to_string()),
            text(&worker.wait_mode),
        ])
    });
    let widths = [
        Constraint::Min(16),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(5),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(9),
    ];
    let names = [
        "worker", "pid", "status", "fns", "served/s", "running", "waiting", "in use", "held", "leases",
        "waits",
    ];
    Table::new(rows, widths)
        .header(header(names, &[0, 2, 10]))
        .block(Block::new().title("Workers").title_style(bold()))
}

fn call_table(sample: &Sample) -> Table<'static> {
    let rows = sample.calls.iter().map(|call| {
        Row::new([
            text(&call.function),
            number(count(call.per_s)),
            number(nanoseconds(call.p50_ns)),
            number(nanoseconds(call.max_ns)),
            number(call.errors.to_string()),
            number(call.running.to_string()),
        ])
    });
    let widths = [
        Constraint::Min(24),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(6),
        Constraint::Length(7),
    ];
    let names = ["function that began a trace", "traces/s", "p50", "max", "failed", "running"];
    let seconds = WINDOW_MS / 1000;
    let title = if sample.calls.is_empty() {
        format!(
            "No traced calls in the last {seconds} s (all calls are counted above; callers choose what is traced)"
        )
    } else {
        format!("Traced calls of the last {seconds} s (all calls, traced or not, are counted above)")
    };
    Table::new(rows, widths).header(header(names, &[0])).block(Block::new().title(title).title_style(bold()))
}

/// Makes a heading; the columns that are named hold texts, the others numbers.
fn header<const N: usize>(names: [&'static str; N], texts: &[usize]) -> Row<'static> {
    let cells = names.into_iter().enumerate().map(|(column, name)| {
        let line = Line::from(name);
        Cell::from(if texts.contains(&column) { line } else { line.right_aligned() })
    });
    Row::new(cells).style(dim())
}

fn text(value: &str) -> Cell<'static> {
    Cell::from(printable(value))
}

fn number(value: String) -> Cell<'static> {
    Cell::from(Line::from(value).right_aligned())
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sample::{CallLine, WorkerLine};
    use super::*;

    fn sample() -> Sample {
        Sample {
            engine: "process 7".to_owned(),
            functions: 3,
            calls_per_s: 1_234_567.0,
            spans_per_s: 20.0,
            spans_held: 40,
            traces_held: 5,
            workers: vec![WorkerLine {
                name: "docs\u{1b}[2J".to_owned(),
                id: "0a".to_owned(),
                pid: 42,
                status: "connected".to_owned(),
                functions: 3,
                served_per_s: 1_234_567.0,
                running: 2,
                waiting_for: 1,
                wait_mode: "balanced".to_owned(),
                memory_held_bytes: 2 << 20,
                memory_used_bytes: 1 << 20,
                leases: 5,
            }],
            calls: vec![CallLine {
                function: "docs::search".to_owned(),
                per_s: 0.3,
                p50_ns: 200,
                max_ns: 3_000,
                errors: 1,
                running: 0,
            }],
        }
    }

    fn drawn(width: u16, height: u16) -> String {
        drawn_of(&sample(), width, height)
    }

    fn drawn_of(sample: &Sample, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, sample)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width));
        let line = |cells: &[ratatui::buffer::Cell]| {
            let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned()
        };
        lines.map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn everything_is_there() {
        let found = drawn(120, 12);
        for expected in [
            "ringway engine, process 7: 1 worker, 3 functions, 1.23 M calls/s",
            "payload memory 1.00 MiB in use of 2.00 MiB, 5 leases; 20 spans/s, 40 spans in 5 traces held",
            "docs [2J",
            "Traced calls of the last 10 s",
            "docs::search",
            "200 ns",
            "q quits",
        ] {
            assert!(found.contains(expected), "{expected} is not in\n{found}");
        }
        assert!(!found.contains('\u{1b}'));
    }

    #[test]
    fn calls_that_are_not_traced_are_not_missed_silently() {
        let found = drawn_of(&Sample { calls: Vec::new(), ..sample() }, 120, 12);
        assert!(found.contains("No traced calls in the last 10 s (all calls are counted above"), "{found}");
    }

    #[test]
    fn any_size_can_be_drawn() {
        for (width, height) in [(1, 1), (10, 3), (40, 6), (300, 80)] {
            drawn(width, height);
        }
    }
}
