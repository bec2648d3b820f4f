//! What is wrong with a file, and where. Written for whoever wrote the file: what was wanted, what was found, what to do.

use std::fmt;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The character in its line, from 1.
    pub column: usize,
}

impl Position {
    /// Where a file begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong, or worth saying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file's name as it was given.
    pub file: String,
    /// Where; none for what concerns the file as a whole.
    pub at: Option<Position>,
    /// What was wanted and what was found.
    pub message: String,
    /// What to do, or what may have been meant.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that was found wrong with a file: at least one problem, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

/// A problem before the file has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Option<Position>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn in_file(self, file: &str) -> Problem {
        Problem { file: file.to_owned(), at: self.at, message: self.message, hint: self.hint }
    }
}

/// Says what may have been meant by a word that is not among those known.
pub(crate) fn known<'a>(found: &str, words: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(close) = crate::suggest::closest(found, words.clone()) {
        return format!("did you mean `{close}`?");
    }
    let mut words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    words.sort_unstable();
    if words.is_empty() {
        "nothing is wanted here".to_owned()
    } else {
        format!("known are {}", words.join(", "))
    }
}
