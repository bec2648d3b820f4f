//! A full-text index over a corpus, in memory: `docs::search`. BM25 ranking is tantivy's; snippets are windows of
//! lines chosen here, so that every hit says where in its document the words stand. No file is left behind. It
//! knows nothing of questions or answers.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tantivy::collector::TopDocs;
use tantivy::directory::RamDirectory;
use tantivy::indexer::NoMergePolicy;
use tantivy::query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery};
use tantivy::schema::{
    Field, INDEXED, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, Term};

use crate::corpus::{Corpus, DocumentId, DocumentKind, line_offset};
use crate::prose::Format;
use crate::words::{Words, analyzer};

/// Most hits one search returns.
pub const HITS_MAX: u32 = 50;
/// Most distinct terms of a query that are looked up; the rest are ignored.
pub const QUERY_TERMS_MAX: usize = 32;
/// Lines of a snippet.
const SNIPPET_LINES: usize = 8;
/// Memory the indexing threads may fill before they write a segment, in bytes.
const WRITER_BYTES: usize = 96 << 20;
/// Name under which the index knows this crate's analyzer.
const ANALYZER: &str = "ringway_words";
/// How much more a word in a document's name says than one in its text.
const NAME_BOOST: f32 = 2.0;
/// How much a line of code says in a snippet, beside a line of prose.
const CODE_LINE_WEIGHT: f32 = 0.4;

/// Asks for documents about some words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SearchRequest {
    /// Words; no operators.
    pub query: String,
    /// Most hits wanted, up to [`HITS_MAX`].
    #[serde(default = "default_limit")]
    pub limit: u32,
}

fn default_limit() -> u32 {
    10
}

/// The best documents, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SearchReply {
    /// Documents in the index.
    pub documents: u64,
    /// The query's terms as they were looked up, with the number of documents that hold each.
    pub terms: Vec<TermCount>,
    /// The hits.
    pub hits: Vec<Hit>,
}

/// A term and how common it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TermCount {
    /// The stemmed word.
    pub term: String,
    /// Documents that hold it.
    pub documents: u64,
}

/// A document that matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    /// The document.
    pub document: DocumentId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DocumentKind,
    /// BM25 score.
    pub score: f32,
    /// Terms of the query that stand in the snippet.
    pub matched: Vec<String>,
    /// Number of the snippet's first line.
    pub first_line: u32,
    /// Number of its last line.
    pub last_line: u32,
    /// The lines in which most of the query's terms stand together.
    pub snippet: String,
}

/// What building an index took and took in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexReport {
    /// Documents indexed.
    pub documents: u64,
    /// Bytes of text indexed.
    pub bytes: u64,
    /// Documents that could not be read, or hold no UTF-8 text.
    pub unreadable: u64,
    /// Documents left out because time ran out.
    pub left_out: u64,
    /// Time taken, in milliseconds.
    pub elapsed_ms: u64,
}

/// Why indexing or searching failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query has no word to look for.
    #[error("the query {query:?} holds no word to look for")]
    NoTerms {
        /// The query.
        query: String,
    },
    /// The index library refused.
    #[error("the index failed: {0}")]
    Index(#[from] tantivy::TantivyError),
}

struct Fields {
    id: Field,
    name: Field,
    body: Field,
}

/// An index over a corpus.
pub struct Library {
    corpus: Corpus,
    texts: HashMap<DocumentId, Box<str>>,
    reader: IndexReader,
    fields: Fields,
    report: IndexReport,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Library").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Library {
    /// Indexes documents in the corpus's order until `time_max` has passed. Blocks; takes about as much memory as
    /// the text itself and half again; uses a thread per core, two at most.
    ///
    /// # Errors
    /// [`SearchError::Index`] where the index library fails.
    pub fn build(corpus: Corpus, time_max: Duration) -> Result<Self, SearchError> {
        let started = Instant::now();
        let (schema, fields) = schema();
        let index = Index::create(RamDirectory::create(), schema, tantivy::IndexSettings::default())?;
        index.tokenizers().register(ANALYZER, analyzer());
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(2));
        let mut writer: IndexWriter = index.writer_with_num_threads(threads, WRITER_BYTES)?;
        // A few segments are searched as fast as one, and merging them would take as long again.
        writer.set_merge_policy(Box::new(NoMergePolicy));
        let mut texts = HashMap::with_capacity(corpus.documents().len());
        let mut report = IndexReport::default();
        for document in corpus.documents() {
            if started.elapsed() >= time_max {
                report.left_out += 1;
                continue;
            }
            let Ok(text) = corpus.text(document.id) else {
                report.unreadable += 1;
                continue;
            };
            let mut row = TantivyDocument::new();
            row.add_u64(fields.id, document.id.0);
            row.add_text(fields.name, &document.name);
            row.add_text(fields.body, &text);
            writer.add_document(row)?;
            report.documents += 1;
            report.bytes += text.len() as u64;
            texts.insert(document.id, text.into_boxed_str());
        }
        writer.commit()?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        report.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Self { corpus, texts, reader, fields, report })
    }

    /// Returns the corpus, through which documents are read.
    #[must_use]
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Returns what building took.
    #[must_use]
    pub fn report(&self) -> &IndexReport {
        &self.report
    }

    /// Finds the documents that say most about the query's words; this is `docs::search`. At least half of the words
    /// must occur in a hit. Equal scores stand in the order of document ids.
    ///
    /// # Errors
    /// [`SearchError::NoTerms`] for a query without words, [`SearchError::Index`] where the index library fails.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchReply, SearchError> {
        let mut words = Words::new();
        let mut terms = words.distinct(&request.query);
        terms.truncate(QUERY_TERMS_MAX);
        if terms.is_empty() {
            return Err(SearchError::NoTerms { query: request.query.clone() });
        }
        let searcher = self.reader.searcher();
        let terms = terms
            .into_iter()
            .map(|term| {
                let documents = searcher.doc_freq(&Term::from_field_text(self.fields.body, &term))?;
                Ok(TermCount { term, documents })
            })
            .collect::<Result<Vec<_>, SearchError>>()?;
        let limit = usize::try_from(request.limit.clamp(1, HITS_MAX)).unwrap_or(1);
        let found = searcher.search(&self.query(&terms), &TopDocs::with_limit(limit).order_by_score())?;
        let mut hits = Vec::with_capacity(found.len());
        for (score, address) in found {
            let row: TantivyDocument = searcher.doc(address)?;
            let id = row.get_first(self.fields.id).and_then(|value| value.as_u64()).map(DocumentId);
            hits.extend(id.and_then(|id| self.hit(id, score, &terms, &mut words)));
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.document.cmp(&b.document)));
        Ok(SearchReply { documents: self.report.documents, terms, hits })
    }

    /// Each word may stand in the text or in the name; half of them must.
    fn query(&self, terms: &[TermCount]) -> BooleanQuery {
        let words = terms.iter().map(|TermCount { term, .. }| {
            let in_field = |field| {
                let term = Term::from_field_text(field, term);
                Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>
            };
            let in_name = Box::new(BoostQuery::new(in_field(self.fields.name), NAME_BOOST)) as Box<dyn Query>;
            let either = BooleanQuery::new(vec![
                (Occur::Should, in_field(self.fields.body)),
                (Occur::Should, in_name),
            ]);
            (Occur::Should, Box::new(either) as Box<dyn Query>)
        });
        BooleanQuery::with_minimum_required_clauses(words.collect(), terms.len().div_ceil(2))
    }

    fn hit(&self, id: DocumentId, score: f32, terms: &[TermCount], words: &mut Words) -> Option<Hit> {
        let document = self.corpus.document(id)?;
        let text = self.texts.get(&id)?;
        let weights = self.weights(terms);
        let best = best_window(text, Format::of_name(&document.name), &weights, words);
        let (first_line, last_line) = (best.lines.start, best.lines.end.saturating_sub(1));
        let snippet = &text[line_offset(text, first_line)..line_offset(text, best.lines.end)];
        Some(Hit {
            document: id,
            name: document.name.clone(),
            kind: document.kind,
            score,
            matched: best.matched,
            first_line,
            last_line,
            snippet: snippet.trim_end().to_owned(),
        })
    }

    /// Rare words weigh more (Spärck Jones 1972).
    fn weights<'a>(&self, terms: &'a [TermCount]) -> Vec<(&'a str, f32)> {
        let total = self.report.documents as f32;
        terms
            .iter()
            .map(|term| (term.term.as_str(), (1.0 + total / (1.0 + term.documents as f32)).ln()))
            .collect()
    }
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(ANALYZER)
        .set_index_option(IndexRecordOption::WithFreqs)
        .set_fieldnorms(true);
    let text = TextOptions::default().set_indexing_options(indexing);
    let id = schema.add_u64_field("id", INDEXED | STORED);
    let name = schema.add_text_field("name", text.clone());
    let body = schema.add_text_field("body", text);
    (schema.build(), Fields { id, name, body })
}

struct Window {
    lines: Range<u32>,
    matched: Vec<String>,
}

/// Finds the lines in which the heaviest set of terms stands together; earlier lines win a tie.
fn best_window(text: &str, format: Format, weights: &[(&str, f32)], words: &mut Words) -> Window {
    let starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line_weight = |line: usize| {
        let start = starts.get(line).copied().unwrap_or_default();
        let is_comment = text[start..].trim_start_matches([' ', '\t']).starts_with("//");
        if format == Format::Rust && !is_comment { CODE_LINE_WEIGHT } else { 1.0 }
    };
    // (line, term) for every occurrence, in order.
    let mut places: Vec<(usize, usize)> = Vec::new();
    words.visit(text, |word, offset| {
        if let Some(term) = weights.iter().position(|(term, _)| *term == word) {
            places.push((starts.partition_point(|start| *start <= offset).saturating_sub(1), term));
        }
    });
    let mut best = (0.0_f32, 0_usize, Vec::new());
    for (index, (first, _)) in places.iter().enumerate() {
        let mut heaviest = vec![0.0_f32; weights.len()];
        let mut score = 0.0_f32;
        for (line, term) in places[index..].iter().take_while(|(line, _)| *line < first + SNIPPET_LINES) {
            let weight = weights[*term].1 * line_weight(*line);
            // A repeat says a little more, a new word says much more.
            score += 0.05 * weight + (weight - heaviest[*term]).max(0.0);
            heaviest[*term] = heaviest[*term].max(weight);
        }
        if score > best.0 {
            best = (score, *first, heaviest);
        }
    }
    let matched = weights.iter().zip(&best.2).filter(|(_, heaviest)| **heaviest > 0.0);
    let line_count = text.lines().count();
    let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
    Window {
        lines: number(best.1 + 1)..number((best.1 + SNIPPET_LINES).min(line_count) + 1),
        matched: matched.map(|((term, _), _)| (*term).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests;
