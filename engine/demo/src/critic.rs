//! Judges a draft answer: `agents::critic`. It reads the cited lines itself and trusts nothing that the draft says of
//! them: every statement must name a source, stand in it word for word, and all of them together must speak of what
//! was asked. It knows nothing of how the draft was found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::{DocumentId, Passage, ReadRequest, line_offset};
use crate::prose::plain_text;
use crate::words::{Words, literal_words};

/// Fewest words of an answer that says something.
const WORDS_MIN: usize = 12;
/// Most words of an answer that one still reads.
const WORDS_MAX: usize = 260;
/// Share of the question's terms that an answer must speak of.
const COVERAGE_MIN: f64 = 0.7;

/// An answer that is to be judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Draft {
    /// The question.
    pub question: String,
    /// What the answer says, in order.
    pub statements: Vec<Statement>,
    /// The lines it rests on, numbered from 1 in order.
    pub sources: Vec<Source>,
}

/// One sentence of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Statement {
    /// The sentence.
    pub text: String,
    /// The number of its source; 0 where there is none.
    pub source: u32,
}

/// Lines of a document that a statement quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// The document.
    pub document: DocumentId,
    /// Its name.
    pub name: String,
    /// First line quoted.
    pub first_line: u32,
    /// Last line quoted.
    pub last_line: u32,
}

/// What is wrong with a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objection {
    /// It says nothing.
    NoStatements,
    /// A statement, counted from 0, names no source that the draft lists.
    NoSource {
        /// The statement.
        statement: u32,
    },
    /// A cited source could not be read.
    SourceUnreadable {
        /// The statement.
        statement: u32,
        /// The source's number.
        source: u32,
    },
    /// The words of a statement do not stand in the lines it cites.
    NotInSource {
        /// The statement.
        statement: u32,
        /// The source's number.
        source: u32,
    },
    /// Too few of the question's terms are spoken of.
    TermsMissing {
        /// The question's words that are missing, as they were asked.
        words: Vec<String>,
    },
    /// There are too few words to say something.
    TooShort {
        /// Words there are.
        words: u32,
    },
    /// There are more words than one reads.
    TooLong {
        /// Words there are.
        words: u32,
    },
    /// Everything rests on one document.
    OneDocument,
}

/// The critic's judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Whether the draft may stand; if not, a further round is asked for.
    pub accepted: bool,
    /// From 0 to 1: four tenths for support, four for coverage, one each for length and variety.
    pub score: f64,
    /// Share of statements that stand in their source.
    pub supported: f64,
    /// Share of the question's terms that supported statements speak of.
    pub coverage: f64,
    /// The objections.
    pub objections: Vec<Objection>,
}

/// Lists what must be read to judge a draft: the lines of each source, in the order of their numbers.
#[must_use]
pub fn reads(draft: &Draft) -> Vec<ReadRequest> {
    draft
        .sources
        .iter()
        .map(|source| ReadRequest {
            document: source.document,
            first_line: source.first_line,
            last_line: Some(source.last_line),
        })
        .collect()
}

/// Judges a draft against passages that hold its sources' lines. A source that no passage holds counts as unreadable.
#[must_use]
pub fn judge(draft: &Draft, passages: &[Passage]) -> Verdict {
    let mut objections = Vec::new();
    let mut supported: Vec<&Statement> = Vec::new();
    for (number, statement) in (0_u32..).zip(&draft.statements) {
        match objection_to(draft, number, statement, passages) {
            None => supported.push(statement),
            Some(objection) => objections.push(objection),
        }
    }
    if draft.statements.is_empty() {
        objections.push(Objection::NoStatements);
    }
    let coverage = coverage(&draft.question, &supported, &mut objections);
    let word_count: usize =
        draft.statements.iter().map(|statement| statement.text.split_whitespace().count()).sum();
    let words = u32::try_from(word_count).unwrap_or(u32::MAX);
    let length_fits = (WORDS_MIN..=WORDS_MAX).contains(&word_count);
    if word_count < WORDS_MIN {
        objections.push(Objection::TooShort { words });
    } else if word_count > WORDS_MAX {
        objections.push(Objection::TooLong { words });
    }
    let varied = draft.sources.iter().any(|source| source.document != draft.sources[0].document);
    if !varied && !draft.sources.is_empty() {
        objections.push(Objection::OneDocument);
    }
    let share = supported.len() as f64 / draft.statements.len().max(1) as f64;
    let score = 0.4 * share
        + 0.4 * coverage
        + 0.1 * f64::from(u8::from(length_fits))
        + 0.1 * f64::from(u8::from(varied));
    let all_supported = !draft.statements.is_empty() && supported.len() == draft.statements.len();
    Verdict {
        accepted: all_supported && length_fits && coverage >= COVERAGE_MIN,
        score,
        supported: share,
        coverage,
        objections,
    }
}

fn objection_to(
    draft: &Draft,
    number: u32,
    statement: &Statement,
    passages: &[Passage],
) -> Option<Objection> {
    let index = usize::try_from(statement.source).ok().and_then(|source| source.checked_sub(1));
    let Some(source) = index.and_then(|index| draft.sources.get(index)) else {
        return Some(Objection::NoSource { statement: number });
    };
    let Some(cited) = passages.iter().find_map(|passage| cited_text(source, passage)) else {
        return Some(Objection::SourceUnreadable { statement: number, source: statement.source });
    };
    let quoted = literal_words(&statement.text);
    let held = literal_words(&cited);
    let stands = !quoted.is_empty() && held.windows(quoted.len()).any(|run| run == quoted);
    (!stands).then_some(Objection::NotInSource { statement: number, source: statement.source })
}

/// Returns the cited lines without markup, if the passage holds all of them.
fn cited_text(source: &Source, passage: &Passage) -> Option<String> {
    let holds = passage.document == source.document
        && passage.first_line <= source.first_line
        && source.first_line <= source.last_line
        && source.last_line <= passage.last_line;
    if !holds {
        return None;
    }
    let relative = |line: u32| line_offset(&passage.text, line - passage.first_line + 1);
    let lines =
        passage.text.get(relative(source.first_line)..relative(source.last_line.saturating_add(1)))?;
    Some(plain_text(lines, passage.format))
}

/// Returns the share of the question's terms that supported statements hold, and objects if it is too small.
fn coverage(question: &str, supported: &[&Statement], objections: &mut Vec<Objection>) -> f64 {
    let mut words = Words::new();
    let asked = words.surface(question);
    let spoken: Vec<String> = supported.iter().flat_map(|statement| words.terms(&statement.text)).collect();
    let missing: Vec<String> =
        asked.iter().filter(|asked| !spoken.contains(&asked.term)).map(|asked| asked.word.clone()).collect();
    let coverage = 1.0 - missing.len() as f64 / asked.len().max(1) as f64;
    if coverage < COVERAGE_MIN {
        objections.push(Objection::TermsMissing { words: missing });
    }
    coverage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prose::Format;

    fn passage(name: &str, text: &str) -> Passage {
        let line_count = u32::try_from(text.lines().count()).unwrap();
        Passage {
            document: DocumentId::of_path(name),
            name: name.to_owned(),
            format: Format::of_name(name),
            first_line: 10,
            last_line: 9 + line_count,
            line_count: 100,
            starts_in_code: false,
            text: text.to_owned(),
        }
    }

    fn source(name: &str, first_line: u32, last_line: u32) -> Source {
        Source { document: DocumentId::of_path(name), name: name.to_owned(), first_line, last_line }
    }

    fn evidence() -> Vec<Passage> {
        vec![
            passage(
                "a/README.md",
                "# Locks\nA [mutex](x.html) guards a shared\nvalue between threads safely.\n",
            ),
            passage("b/lib.rs", "/// Share a value by wrapping it in an `Arc`.\nfn f() {}\n"),
        ]
    }

    fn draft(statements: &[(&str, u32)]) -> Draft {
        Draft {
            question: "How do I share a value between threads safely?".to_owned(),
            statements: statements
                .iter()
                .map(|(text, source)| Statement { text: (*text).to_owned(), source: *source })
                .collect(),
            sources: vec![source("a/README.md", 11, 12), source("b/lib.rs", 10, 10)],
        }
    }

    const FIRST: (&str, u32) = ("A mutex guards a shared value between threads safely.", 1);
    const SECOND: (&str, u32) = ("Share a value by wrapping it in an `Arc`.", 2);

    #[test]
    fn a_supported_answer_is_accepted() {
        let verdict = judge(&draft(&[FIRST, SECOND]), &evidence());
        assert!(verdict.accepted, "{verdict:?}");
        assert!((verdict.score - 1.0).abs() < 1e-9 && verdict.objections.is_empty(), "{verdict:?}");
    }

    fn check(draft: &Draft, expected: &Objection) {
        let verdict = judge(draft, &evidence());
        assert!(verdict.objections.contains(expected), "{verdict:?}");
        assert!(!verdict.accepted, "{verdict:?}");
        assert!(verdict.score < 1.0);
    }

    #[test]
    fn invented_misplaced_and_unsourced_statements_are_found() {
        check(
            &draft(&[FIRST, ("A mutex makes everything faster.", 1)]),
            &Objection::NotInSource { statement: 1, source: 1 },
        );
        let reordered = "Threads guards a shared value between mutex safely.";
        check(&draft(&[(reordered, 1), SECOND]), &Objection::NotInSource { statement: 0, source: 1 });
        check(&draft(&[(FIRST.0, 2), SECOND]), &Objection::NotInSource { statement: 0, source: 2 });
        check(&draft(&[FIRST, (SECOND.0, 0)]), &Objection::NoSource { statement: 1 });
        check(&draft(&[FIRST, (SECOND.0, 3)]), &Objection::NoSource { statement: 1 });
        check(&draft(&[FIRST, ("", 1)]), &Objection::NotInSource { statement: 1, source: 1 });
        let mut elsewhere = draft(&[FIRST, SECOND]);
        elsewhere.sources[1].last_line = 99;
        check(&elsewhere, &Objection::SourceUnreadable { statement: 1, source: 2 });
        let mut narrowed = draft(&[FIRST, SECOND]);
        narrowed.sources[0].last_line = 11;
        check(&narrowed, &Objection::NotInSource { statement: 0, source: 1 });
    }

    #[test]
    fn coverage_and_length_are_judged() {
        check(&draft(&[]), &Objection::NoStatements);
        check(&draft(&[SECOND]), &Objection::TooShort { words: 9 });
        check(
            &draft(&[SECOND]),
            &Objection::TermsMissing { words: vec!["threads".to_owned(), "safely".to_owned()] },
        );
        let long: Vec<_> = std::iter::repeat_n(FIRST, 30).collect();
        check(&draft(&long), &Objection::TooLong { words: 270 });
    }

    #[test]
    fn one_document_is_noted_and_costs_a_tenth() {
        let mut narrow = draft(&[FIRST, FIRST]);
        narrow.sources.truncate(1);
        let verdict = judge(&narrow, &evidence());
        assert!(verdict.accepted && verdict.objections == [Objection::OneDocument], "{verdict:?}");
        assert!((verdict.score - 0.9).abs() < 1e-9);
    }

    #[test]
    fn reads_follow_the_sources() {
        let wanted = reads(&draft(&[FIRST]));
        assert_eq!(wanted.len(), 2);
        assert_eq!((wanted[0].first_line, wanted[0].last_line), (11, Some(12)));
    }
}
