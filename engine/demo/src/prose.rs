//! Finds the sentences that people wrote in a file — the prose of Markdown, the documentation comments of source
//! code, the text of HTML — and remembers the lines each came from. The summary and the researcher quote these; the
//! critic checks them against the same lines. It never looks at what a sentence says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Words before a full stop that do not end a sentence.
const ABBREVIATIONS: [&str; 14] =
    ["e.g", "i.e", "etc", "vs", "cf", "mr", "mrs", "dr", "fig", "al", "approx", "resp", "incl", "no"];

/// How prose is marked in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Markdown: paragraphs, lists, fenced code.
    Markdown,
    /// Rust: Markdown behind `///` and `//!`.
    Rust,
    /// Other languages with `//` comments.
    SlashComments,
    /// Languages and settings with `#` comments.
    HashComments,
    /// HTML: text between tags.
    Html,
    /// Paragraphs of plain text.
    Plain,
    /// Data without prose, such as JSON.
    Data,
}

impl Format {
    /// Chooses a format by the file's name.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let base = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        match base.rsplit_once('.').map_or("", |(_, extension)| extension) {
            "md" | "markdown" | "mdx" => Self::Markdown,
            "rs" => Self::Rust,
            "c" | "h" | "cc" | "cpp" | "hpp" | "go" | "java" | "js" | "ts" | "tsx" | "jsx" | "swift"
            | "kt" | "proto" => Self::SlashComments,
            "py" | "toml" | "yaml" | "yml" | "sh" | "rb" | "cfg" | "conf" | "ini" => Self::HashComments,
            "html" | "htm" | "xhtml" => Self::Html,
            "json" | "csv" | "tsv" | "xml" | "svg" | "lock" => Self::Data,
            _ if base.starts_with("readme") => Self::Markdown,
            _ => Self::Plain,
        }
    }
}

/// A sentence and the lines of its file, counted from one, that it covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sentence {
    /// The sentence with markup removed and line breaks turned into spaces.
    pub text: String,
    /// First line it touches.
    pub first_line: u32,
    /// Last line it touches.
    pub last_line: u32,
}

impl Sentence {
    /// Says whether this reads as a whole sentence rather than as a heading, a label or a list of names.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let word_count = self.text.split_whitespace().count();
        let begins = self.text.chars().find(|character| character.is_alphanumeric());
        let opens = begins.is_some_and(char::is_uppercase) || self.text.starts_with('`');
        let ends = self.text.trim_end_matches(['`', '"', '\'', ')', '*', '_']).ends_with(['.', '!', '?']);
        let characters = self.text.chars().count();
        let letters =
            self.text.chars().filter(|character| character.is_alphabetic() || *character == ' ').count();
        (5..=60).contains(&word_count) && opens && ends && letters * 4 >= characters * 3
    }
}

/// Returns the sentences of `text`, whose first line has the number `first_line` in its file. `starts_in_code` says
/// that this line lies inside a fenced code block, as [`code_fence_open`] found.
#[must_use]
pub fn sentences(text: &str, format: Format, first_line: u32, starts_in_code: bool) -> Vec<Sentence> {
    let mut found = Vec::new();
    for paragraph in paragraphs(text, format, first_line, starts_in_code) {
        paragraph.split_into(&mut found);
    }
    found
}

/// Says whether a fenced code block is open after all of `text`, the part of a file before an excerpt.
#[must_use]
pub fn code_fence_open(text: &str, format: Format) -> bool {
    let mut open = false;
    for line in text.lines() {
        match comment_body(line, format) {
            Some(body) if is_fence(body.trim_start()) => open = !open,
            Some(_) => {}
            None => open = false,
        }
    }
    open
}

/// Returns `text` with the markup of every line removed, paragraphs joined: what a quotation is looked up in.
#[must_use]
pub fn plain_text(text: &str, format: Format) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let body = comment_body(line, format).unwrap_or(line);
        plain.push_str(&without_markup(without_line_marker(body.trim())));
        plain.push(' ');
    }
    plain
}

/// Text of one paragraph and where in it each source line begins.
#[derive(Debug, Default)]
struct Paragraph {
    text: String,
    lines: Vec<(usize, u32)>,
}

impl Paragraph {
    fn push(&mut self, body: &str, line: u32) {
        if body.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.lines.push((self.text.len(), line));
        self.text.push_str(body);
    }

    fn line_at(&self, offset: usize) -> u32 {
        let after = self.lines.partition_point(|(start, _)| *start <= offset);
        self.lines.get(after.saturating_sub(1)).map_or(1, |(_, line)| *line)
    }

    fn split_into(&self, found: &mut Vec<Sentence>) {
        let mut start = 0;
        for end in sentence_ends(&self.text) {
            let piece = self.text.get(start..end).unwrap_or_default();
            let trimmed = piece.trim();
            if !trimmed.is_empty() {
                let begin = start + (piece.len() - piece.trim_start().len());
                let (first_line, last_line) = (self.line_at(begin), self.line_at(begin + trimmed.len() - 1));
                found.push(Sentence { text: trimmed.to_owned(), first_line, last_line });
            }
            start = end;
        }
    }
}

/// Returns the byte offsets at which sentences of a paragraph end; the last is its length.
fn sentence_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut in_code = false;
    for (offset, character) in text.char_indices() {
        match character {
            '`' => in_code = !in_code,
            '.' | '!' | '?' if !in_code => {
                let after = &text[offset + 1..];
                let closing = after.len() - after.trim_start_matches(['"', '\'', ')', '*', '_', '”']).len();
                let rest = &after[closing..];
                let next = rest.trim_start();
                let opens = next.chars().next().is_none_or(|first| {
                    first.is_uppercase() || first.is_ascii_digit() || matches!(first, '`' | '"' | '(' | '“')
                });
                let spaced = rest.len() != next.len() || rest.is_empty();
                if spaced && opens && !(character == '.' && is_abbreviated(&text[..offset])) {
                    ends.push(offset + 1 + closing);
                }
            }
            _ => {}
        }
    }
    if ends.last() != Some(&text.len()) {
        ends.push(text.len());
    }
    ends
}

fn is_abbreviated(before: &str) -> bool {
    let word = before.rsplit([' ', '(', '"', '/']).next().unwrap_or_default();
    let initial = word.chars().count() == 1
        && word.chars().all(|character| character.is_uppercase() && character != 'I');
    initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

fn paragraphs(text: &str, format: Format, first_line: u32, starts_in_code: bool) -> Vec<Paragraph> {
    let mut done = Vec::new();
    let mut current = Paragraph::default();
    let mut in_code = starts_in_code;
    if format == Format::Data {
        return done;
    }
    for (line, number) in text.lines().zip(first_line..) {
        let Some(body) = comment_body(line, format) else {
            in_code = false;
            finish(&mut current, &mut done);
            continue;
        };
        let trimmed = body.trim();
        if is_fence(trimmed) && format != Format::Plain {
            in_code = !in_code;
            finish(&mut current, &mut done);
            continue;
        }
        let indented_code = current.text.is_empty() && (body.starts_with("     ") || body.starts_with('\t'));
        let drops = in_code || (indented_code && format != Format::Html) || is_structure(trimmed);
        if drops || trimmed.is_empty() {
            finish(&mut current, &mut done);
            continue;
        }
        let unmarked = without_line_marker(trimmed);
        if unmarked.len() != trimmed.len() {
            finish(&mut current, &mut done);
        }
        let clean = without_markup(unmarked);
        current.push(clean.trim(), number);
    }
    finish(&mut current, &mut done);
    done
}

fn finish(current: &mut Paragraph, done: &mut Vec<Paragraph>) {
    if !current.text.is_empty() {
        done.push(std::mem::take(current));
    }
}

/// Returns what a line says as prose, or `None` where the line is code.
fn comment_body(line: &str, format: Format) -> Option<&str> {
    let trimmed = line.trim_start();
    match format {
        Format::Markdown | Format::Plain | Format::Html | Format::Data => Some(line),
        Format::Rust => trimmed.strip_prefix("///").or_else(|| trimmed.strip_prefix("//!")),
        Format::SlashComments => trimmed.strip_prefix("//").or_else(|| {
            let starred = trimmed.strip_prefix("/*").or_else(|| trimmed.strip_prefix('*'))?;
            Some(starred.trim_start_matches('*').trim_end_matches("*/"))
        }),
        Format::HashComments => trimmed.strip_prefix('#').filter(|body| !body.starts_with('!')),
    }
}

fn is_fence(trimmed: &str) -> bool {
    trimmed.starts_with("```") || trimmed.starts_with("~~~")
}

/// Headings, tables, rules and link definitions: they shape a page and are no sentences.
fn is_structure(trimmed: &str) -> bool {
    let is_link_definition = trimmed.starts_with('[') && trimmed.contains("]: ");
    let is_rule = trimmed.len() >= 3
        && trimmed.chars().all(|character| matches!(character, '-' | '=' | '*' | '_' | ' '));
    trimmed.starts_with('#') || trimmed.starts_with('|') || is_link_definition || is_rule
}

/// Strips the marker of a list item or a quotation.
fn without_line_marker(trimmed: &str) -> &str {
    let quoted = trimmed.trim_start_matches(['>', ' ']);
    for marker in ["- ", "* ", "+ "] {
        if let Some(item) = quoted.strip_prefix(marker) {
            return item.trim_start();
        }
    }
    let digits = quoted.len() - quoted.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    if (1..=3).contains(&digits) {
        let after = &quoted[digits..];
        if let Some(item) = after.strip_prefix(". ").or_else(|| after.strip_prefix(") ")) {
            return item.trim_start();
        }
    }
    quoted
}

/// Removes images, link targets, tags and bold marks; code spans stay as they are.
fn without_markup(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    let mut in_code = false;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        if character == '`' {
            in_code = !in_code;
        } else if !in_code && let Some(skipped) = skip_markup(rest, &mut clean) {
            rest = skipped;
            continue;
        }
        clean.push(character);
        rest = after;
    }
    clean
}

/// Handles a construct that begins at the start of `rest`: writes what stays of it and returns what follows.
fn skip_markup<'a>(rest: &'a str, clean: &mut String) -> Option<&'a str> {
    if let Some(after) = rest.strip_prefix("**") {
        return Some(after);
    }
    if let Some(tag) = rest.strip_prefix('<') {
        let is_tag = tag.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '/' | '!'));
        return if is_tag { tag.split_once('>').map(|(_, after)| after) } else { None };
    }
    let is_image = rest.starts_with("![");
    let label_start = rest.strip_prefix("![").or_else(|| rest.strip_prefix('['))?;
    let label_end = matching_bracket(label_start)?;
    let (label, after) = (&label_start[..label_end], &label_start[label_end + 1..]);
    let followed = match after.chars().next() {
        Some('(') => after.split_once(')').map_or(after, |(_, following)| following),
        Some('[') => after.split_once(']').map_or(after, |(_, following)| following),
        _ => after,
    };
    if !is_image {
        clean.push_str(&without_markup(label));
    }
    Some(followed)
}

/// Returns where the bracket that encloses `label` closes, nested ones skipped.
fn matching_bracket(label: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (offset, character) in label.char_indices() {
        match character {
            '[' => depth += 1,
            ']' if depth == 0 => return Some(offset),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
