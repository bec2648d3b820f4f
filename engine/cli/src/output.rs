//! How results look: JSON or text on standard output, notes on standard error, colour only on a terminal that wants it.
//! It must not know what is shown.

pub(crate) mod table;
pub(crate) mod words;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;

/// The colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
}

/// What is known of one of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Whether a person looks at it.
    pub(crate) interactive: bool,
    /// Whether to use colour.
    pub(crate) colour: bool,
    /// Columns; a great many where nobody looks, so that nothing is cut for programs.
    pub(crate) width: usize,
}

/// Columns where nobody looks.
const WIDTH_UNLIMITED: usize = 10_000;
/// Columns of a terminal that does not say.
const WIDTH_DEFAULT: usize = 100;

impl Terminal {
    pub(crate) fn of_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    pub(crate) fn of_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(interactive: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let width = match ratatui::crossterm::terminal::size() {
            Ok((columns, _)) if interactive => usize::from(columns.max(20)),
            _ if interactive => WIDTH_DEFAULT,
            _ => WIDTH_UNLIMITED,
        };
        Self { interactive, colour: interactive && !dumb && !set("NO_COLOR"), width }
    }

    /// Paints a text where colour is used.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Red => "31",
            Paint::Yellow => "33",
            Paint::Green => "32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Writes a text to standard output.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a value to standard output as JSON: indented for a person, on one line for a program.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if Terminal::of_stdout().interactive {
        serde_json::to_writer_pretty(&mut out, value)?;
    } else {
        serde_json::to_writer(&mut out, value)?;
    }
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Says something beside the result, on standard error.
pub(crate) fn note(text: &str) {
    // Nobody is left to be told when standard error is closed.
    let _closed = writeln!(io::stderr(), "{text}");
}
