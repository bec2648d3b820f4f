//! `ringway top`: a live view of workers, calls and memory. Asks the engine once a second; nothing is asked of anybody while
//! it is not running.
//!
//! - `sample`: what is asked, and what follows from two answers;
//! - `view`: how it is drawn.

mod sample;
mod view;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::sample::{Sample, Sampled};
use crate::arguments::{Place, duration};
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output::{self, Terminal};

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    every: Duration,
    /// Write one sample, taken over that time, as JSON
    #[arg(long)]
    json: bool,
}

/// Looking more often than this would be most of what is seen.
const PERIOD_MIN: Duration = Duration::from_millis(100);

pub(crate) fn run(place: &Place, arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let terminal = Terminal::of_stdout();
    if !terminal.interactive && !arguments.json {
        let failure = Failure::usage("wanted a terminal to draw on, found a pipe or a file");
        return Err(failure.hint(
            "`ringway top --json` writes one sample; `ringway workers` and `ringway shm` write tables",
        ));
    }
    let connection = Connection::open(place, Tracing::Never)?;
    let period = arguments.every.max(PERIOD_MIN);
    let first = Sampled::take(&connection)?;
    if arguments.json {
        std::thread::sleep(period);
        output::json(&Sample::between(&first, &Sampled::take(&connection)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut screen = ratatui::try_init()?;
    let ended = watch(&mut screen, &connection, first, period);
    ratatui::restore();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Draws until somebody quits.
fn watch(
    screen: &mut DefaultTerminal,
    connection: &Connection,
    first: Sampled,
    period: Duration,
) -> Result<(), Failure> {
    let mut before = first;
    let mut shown = Sample::between(&before, &before);
    loop {
        screen.draw(|frame| view::draw(frame, &shown))?;
        let next = Instant::now() + period;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !event::poll(left)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press && quits(key.code, key.modifiers) => {
                    return Ok(());
                }
                Event::Resize(..) => {
                    screen.draw(|frame| view::draw(frame, &shown))?;
                }
                _ => {}
            }
        }
        let now = Sampled::take(connection)?;
        shown = Sample::between(&before, &now);
        before = now;
    }
}

fn quits(code: KeyCode, modifiers: KeyModifiers) -> bool {
    match code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}
