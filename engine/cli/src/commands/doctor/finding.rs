//! What a check found: a mark, a fact, and what to do.

use serde::Serialize;

use crate::output::words::printable;
use crate::output::{Paint, Terminal};

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    Ok,
    Warn,
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    #[serde(rename = "result")]
    pub(super) mark: Mark,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, mark: Mark::Ok, found: found.into(), advice: None }
    }

    pub(super) fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, mark: Mark::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { mark: Mark::Fail, ..Self::warn(check, found, advice) }
    }

    /// Draws it: a line, and one below it where there is something to do.
    pub(super) fn render(&self, terminal: Terminal) -> String {
        let (paint, word) = match self.mark {
            Mark::Ok => (Paint::Green, "ok  "),
            Mark::Warn => (Paint::Yellow, "warn"),
            Mark::Fail => (Paint::Red, "fail"),
        };
        let mut text =
            format!("{}  {:<15} {}\n", terminal.paint(paint, word), self.check, printable(&self.found));
        if let Some(advice) = &self.advice {
            text.push_str(&format!(
                "      {:<15} {}\n",
                "",
                terminal.paint(Paint::Dim, &format!("→ {}", printable(advice)))
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below() {
        let plain = Terminal { interactive: true, colour: false, width: 80 };
        assert_eq!(Finding::ok("seals", "enforced").render(plain), "ok    seals           enforced\n");
        assert_eq!(
            Finding::fail("open files", "64", "raise it").render(plain),
            "fail  open files      64\n                      → raise it\n"
        );
    }
}
