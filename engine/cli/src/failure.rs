//! How a command fails: what is said on standard error, and the exit code. Made from the errors of everything that
//! commands use; of the commands it knows only which codes have a page.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use ringway::CallError;
use ringway_engine::{ServiceError, StartError};
use ringway_protocol::limits;

use crate::commands::errors;
use crate::output::{Paint, Terminal};

/// A command that did not do what it should.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    message: String,
    hints: Vec<String>,
    exit: u8,
    /// The code of whatever was called, if it gave one.
    code: Option<String>,
}

impl Failure {
    /// Something went wrong.
    pub(crate) fn error(message: impl Display) -> Self {
        Self { message: message.to_string(), hints: Vec::new(), exit: limits::EXIT_ERROR, code: None }
    }

    /// Something went wrong that has an exit code of its own.
    pub(crate) fn with_exit(message: impl Display, exit: u8) -> Self {
        Self { exit, ..Self::error(message) }
    }

    /// The arguments are wrong.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { exit: limits::EXIT_USAGE, ..Self::error(message) }
    }

    /// What was named is not there.
    pub(crate) fn not_found(message: impl Display) -> Self {
        Self { exit: limits::EXIT_NOT_FOUND, ..Self::error(message) }
    }

    /// Nothing to say: the reader of the output has gone, as in `ringway functions | head -1`.
    fn silent() -> Self {
        Self { message: String::new(), hints: Vec::new(), exit: 0, code: None }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Adds what may have been meant, if anything comes close.
    pub(crate) fn did_you_mean(self, close: Option<&str>) -> Self {
        match close {
            Some(name) => self.hint(format_args!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// Whether what was called gave this code.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// What went wrong, without what to do about it.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            let terminal = Terminal::of_stderr();
            let mut text = format!("{} {}\n", terminal.paint(Paint::Red, "error:"), self.message);
            for hint in &self.hints {
                text.push_str(&format!("{} {hint}\n", terminal.paint(Paint::Green, "hint:")));
            }
            // Nobody is left to be told when standard error is closed.
            let _closed = io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(self.exit)
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![self.message.clone()];
        lines.extend(self.hints.iter().map(|hint| format!("hint: {hint}")));
        lines.join("\n")
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = error.user_code.clone();
        let failure = Self { exit: error.code.exit_code(), code, ..Self::error(&error) };
        match failure.code.clone().filter(|code| errors::has_page(code)) {
            Some(code) => failure.hint(format_args!("`ringway errors {code}` says what to try")),
            None => failure,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::silent() } else { Self::error(error) }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.io_error_kind() == Some(io::ErrorKind::BrokenPipe) {
            return Self::silent();
        }
        Self::error(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::error(error)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::error(error)
    }
}
