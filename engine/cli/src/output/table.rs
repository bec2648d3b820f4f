//! Plain tables: a heading, columns as wide as their widest cell, the last one cut to the terminal.

use super::words::printable;
use super::{Paint, Terminal};

/// Rows of cells under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes an empty table. A heading that starts with `>` stands over numbers, which are set to the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.iter().map(|heading| heading.trim_start_matches('>')).collect(),
            right: headings.iter().map(|heading| heading.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Control characters, which workers may put into names, become spaces.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| printable(&cell)).collect();
        cells.resize(self.headings.len(), String::new());
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Draws it.
    pub(crate) fn render(&self, terminal: Terminal) -> String {
        let widths: Vec<usize> = (0..self.headings.len()).map(|column| self.width(column)).collect();
        let headings: Vec<String> = self.headings.iter().map(|&heading| heading.to_owned()).collect();
        let mut out = terminal.paint(Paint::Bold, &self.line(&headings, &widths, terminal.width));
        out.push('\n');
        for row in &self.rows {
            out.push_str(&self.line(row, &widths, terminal.width));
            out.push('\n');
        }
        out
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells.chain([self.headings[column].chars().count()]).max().unwrap_or(0)
    }

    fn line(&self, cells: &[String], widths: &[usize], limit: usize) -> String {
        let mut line = String::new();
        for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let blanks = " ".repeat(width - cell.chars().count());
            match self.right[column] {
                true => line.extend([blanks.as_str(), cell]),
                false => line.extend([cell, blanks.as_str()]),
            }
        }
        cut(line.trim_end(), limit)
    }
}

/// Cuts a line that is too long, and shows that it did.
pub(crate) fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(width: usize, expected: &str) {
        let mut table = Table::new(&["NAME", ">CALLS", "WHAT"]);
        table.row(["docs".to_owned(), "7".to_owned(), "finds\nthings".to_owned()]);
        table.row(["summarizer".to_owned(), "1200".to_owned(), String::new()]);
        let found = table.render(Terminal { interactive: true, colour: false, width });
        assert_eq!(found, expected, "\n{found}");
    }

    #[test]
    fn columns_fit_their_cells() {
        check(
            80,
            "NAME        CALLS  WHAT\n\
             docs            7  finds things\n\
             summarizer   1200\n",
        );
    }

    #[test]
    fn long_lines_are_cut() {
        check(
            22,
            "NAME        CALLS  WH…\n\
             docs            7  fi…\n\
             summarizer   1200\n",
        );
    }
}
