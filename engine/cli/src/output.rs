//! How results look: JSON or text on standard output, notes on standard error, colour only on a terminal that wants it.
//! It must not know what is shown.

pub(crate) mod table;
pub(crate) mod words;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ColorChoice;
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

/// What `--colour` says; `Auto` until it has been read.
static COLOUR: OnceLock<ColorChoice> = OnceLock::new();

/// Sets when to use colour, once, before anything is written.
pub(crate) fn use_colour(choice: ColorChoice) {
    // Whoever asked first keeps what they asked for.
    let _already = COLOUR.set(choice);
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
        let choice = COLOUR.get().copied().unwrap_or(ColorChoice::Auto);
        let width = match ratatui::crossterm::terminal::size() {
            Ok((columns, _)) if interactive => usize::from(columns.max(20)),
            _ if interactive => WIDTH_DEFAULT,
            _ => WIDTH_UNLIMITED,
        };
        Self { interactive, colour: colour(choice, interactive, &|name| std::env::var(name).ok()), width }
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

/// Whether to use colour: what was asked for, else on terminals that can, unless `NO_COLOR` has a value
/// (<https://no-color.org>).
fn colour(choice: ColorChoice, interactive: bool, variable: &dyn Fn(&str) -> Option<String>) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let dumb = variable("TERM").is_some_and(|value| value == "dumb");
            let unwanted = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
            interactive && !dumb && !unwanted
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_used_where_it_is_wanted() {
        use ColorChoice::{Always, Auto, Never};
        let check = |choice, interactive, name: &str, value: &str, expected| {
            let variable = |asked: &str| (asked == name).then(|| value.to_owned());
            assert_eq!(
                colour(choice, interactive, &variable),
                expected,
                "{choice} {interactive} {name}={value}"
            );
        };
        check(Auto, true, "TERM", "xterm", true);
        check(Auto, true, "NO_COLOR", "1", false);
        check(Auto, true, "NO_COLOR", "", true);
        check(Auto, true, "TERM", "dumb", false);
        check(Auto, false, "TERM", "xterm", false);
        check(Always, false, "NO_COLOR", "1", true);
        check(Never, true, "TERM", "xterm", false);
    }
}
