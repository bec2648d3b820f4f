//! Words as every part of the demo counts them: alphanumeric runs, lower case, without stop words, stemmed.
//! The index, the summary, the researcher and the critic use this one definition, so that a term found by one
//! is found by all. It knows nothing of documents, lines or sentences.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};

/// Longest run that still counts as a word, in bytes; longer ones are encoded data.
const WORD_BYTES_MAX: usize = 40;

/// Words that say how something is asked or joined, and nothing about its subject.
const STOP_WORDS: &str = "a about after again all also am an and any are as at be because been before being both but by \
     can could did do does doing done each few for from further get gets had has have having he her here him his how i \
     if in into is it its itself just let like make makes many may me might more most much must my no nor not of off on \
     once one only or other our out over own same she should so some such than that the their them then there these they \
     this those through to too under until up us use used uses using very was way we were what when where which while \
     who whom whose why will with without would you your between";

/// Splits text into terms. Building one allocates; keep it and reuse it.
#[derive(Clone)]
pub struct Words {
    analyzer: TextAnalyzer,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Words").finish_non_exhaustive()
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::new()
    }
}

impl Words {
    /// Makes a splitter with the demo's stop words and the English Snowball stemmer (Porter 2001).
    #[must_use]
    pub fn new() -> Self {
        Self { analyzer: analyzer() }
    }

    /// Calls `visit` with every term of `text` and the byte offset of the word it comes from.
    pub fn visit(&mut self, text: &str, mut visit: impl FnMut(&str, usize)) {
        let mut stream = self.analyzer.token_stream(text);
        while let Some(token) = stream.next() {
            visit(&token.text, token.offset_from);
        }
    }

    /// Returns the terms of `text` in order, repeats included.
    pub fn terms(&mut self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        self.visit(text, |term, _| terms.push(term.to_owned()));
        terms
    }

    /// Returns the distinct terms of `text`, in order of first appearance.
    pub fn distinct(&mut self, text: &str) -> Vec<String> {
        let mut terms: Vec<String> = Vec::new();
        self.visit(text, |term, _| {
            if !terms.iter().any(|known| known == term) {
                terms.push(term.to_owned());
            }
        });
        terms
    }

    /// Returns the distinct terms of `text` with the words they were written as, in order of first appearance.
    pub fn surface(&mut self, text: &str) -> Vec<AskedTerm> {
        let mut asked: Vec<AskedTerm> = Vec::new();
        self.visit(text, |term, offset| {
            if !asked.iter().any(|known| known.term == term) {
                let rest = &text[offset..];
                let end = rest.find(|character: char| !character.is_alphanumeric()).unwrap_or(rest.len());
                asked.push(AskedTerm { term: term.to_owned(), word: rest[..end].to_owned() });
            }
        });
        asked
    }
}

/// A term and the word it was first written as. Searches are given the word, for a stem may stem further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AskedTerm {
    /// The stemmed term.
    pub term: String,
    /// The word as written.
    pub word: String,
}

/// Makes the analyzer that the index registers, so that it sees the same terms.
pub(crate) fn analyzer() -> TextAnalyzer {
    let stop_words = STOP_WORDS.split_whitespace().map(str::to_owned);
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES_MAX))
        .filter(LowerCaser)
        .filter(StopWordFilter::remove(stop_words))
        .filter(Stemmer::new(Language::English))
        .build()
}

/// Returns the plain lower-case words of `text`, stop words included and nothing stemmed: what a quotation is
/// compared by, since markup and line breaks hold no letters.
#[must_use]
pub fn literal_words(text: &str) -> Vec<String> {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(Words::new().terms(text), expected, "{text}");
    }

    #[test]
    fn terms_are_stemmed_and_lose_stop_words() {
        check("How do I share a value between threads safely?", &["share", "valu", "thread", "safe"]);
        check("Sharing values; a thread's safe value", &["share", "valu", "thread", "s", "safe", "valu"]);
        check("`Arc::clone(&x)` — snake_case", &["arc", "clone", "x", "snake", "case"]);
        check("", &[]);
        check(&"z".repeat(200), &[]);
    }

    #[test]
    fn distinct_keeps_first_appearance() {
        assert_eq!(Words::new().distinct("lock locks queue locked"), ["lock", "queue"]);
    }

    #[test]
    fn offsets_point_at_the_word() {
        let text = "the façade locks";
        let mut found = Vec::new();
        Words::new().visit(text, |_, offset| found.push(&text[offset..offset + 2]));
        assert_eq!(found, ["fa", "lo"]);
    }

    #[test]
    fn literal_words_ignore_markup() {
        assert_eq!(literal_words("The **`Arc<T>`** type,\n/// it's"), ["the", "arc", "t", "type", "it", "s"]);
    }
}
