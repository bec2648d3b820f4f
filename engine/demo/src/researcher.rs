//! The agent's plan: `agents::researcher`. A state machine that says what to call next and takes in what came back:
//! search, read, summarize, draft, have the critic judge, and once more if the critic asks for it. It is plain data, so it
//! can be kept after every step and taken up again; it makes no calls, reads no clock and throws no dice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::{DocumentId, DocumentKind, Passage, ReadRequest};
use crate::critic::{Draft, Objection, Source, Statement, Verdict};
use crate::search::{Hit, SearchReply, SearchRequest};
use crate::summarize::{RankedSentence, SummarizeRequest, Summary};
use crate::words::{AskedTerm, Words};

/// Questions that the documentation of Rust crates can answer.
pub const DEFAULT_QUESTIONS: [&str; 4] = [
    "How do I share a value between threads safely?",
    "How do I compress a stream of data with zstd?",
    "When does sending a message into a bounded channel block?",
    "How do I compute the BLAKE3 hash of a large file?",
];

/// Rounds after which the best draft stands whatever the critic says.
pub const ROUNDS_MAX: u32 = 2;
/// Searches of a round.
const SEARCHES_MAX: usize = 4;
/// Hits asked for by each search.
const HITS_PER_SEARCH: u32 = 12;
/// Passages read in a round.
const READS_MAX: usize = 8;
/// Passages of one top folder (a crate) in a round, so that answers do not rest on one voice.
const READS_PER_FOLDER_MAX: usize = 2;
/// Lines read before a snippet and after it.
const LINES_BEFORE: u32 = 25;
const LINES_AFTER: u32 = 60;
/// Sentences asked of the summary, of which the draft takes its statements.
const SENTENCES_ASKED: u32 = 16;
/// Statements of a draft.
const STATEMENTS_MAX: usize = 6;
/// Share of a question's weight that a statement must hold.
const SHARE_MIN: f64 = 0.5;
/// The constant of reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009).
const FUSION_K: f64 = 60.0;

/// Where the work stands: what is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Replies of searches.
    Searching,
    /// Passages.
    Reading,
    /// The summary.
    Summarizing,
    /// The critic's verdict.
    Judging,
    /// Nothing more.
    Finished,
}

/// What to do next. The calls of one step do not depend on each other and may run at the same time.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Call `docs::search` with each, then [`Research::take_hits`].
    Search(Vec<SearchRequest>),
    /// Call `docs::read` with each, then [`Research::take_passages`].
    Read(Vec<ReadRequest>),
    /// Call `text::summarize`, then [`Research::take_summary`].
    Summarize(SummarizeRequest),
    /// Call `agents::critic`, then [`Research::take_verdict`].
    Judge(Draft),
    /// Nothing: [`Research::answer`] has it.
    Finish,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The statements and their sources, without the statements that the critic found unsupported.
    pub draft: Draft,
    /// What the critic said of the draft.
    pub verdict: Verdict,
    /// Rounds it took.
    pub rounds: u32,
    /// Searches made.
    pub searches: u32,
    /// Passages read.
    pub reads: u32,
}

/// Why research cannot begin or go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResearchError {
    /// The question holds no word to look for.
    #[error("the question {question:?} holds no word to look for")]
    NoTerms {
        /// The question.
        question: String,
    },
    /// Something came back that was not waited for.
    #[error("the research waits for {waiting:?}, it was given {given:?}")]
    OutOfOrder {
        /// What it waits for.
        waiting: Stage,
        /// What came.
        given: Stage,
    },
}

/// One question's work. Serializable after every step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Research {
    question: String,
    terms: Vec<AskedTerm>,
    /// What each term is worth: rare ones say more. Known after the first searches.
    weights: Vec<f64>,
    stage: Stage,
    round: u32,
    searches: Vec<SearchRequest>,
    searches_made: u32,
    wanted: Vec<ReadRequest>,
    passages: Vec<Passage>,
    ranked: Vec<RankedSentence>,
    draft: Draft,
    best: Option<(Draft, Verdict)>,
}

impl Research {
    /// Begins with a question.
    ///
    /// # Errors
    /// [`ResearchError::NoTerms`] if the question has no word to look for.
    pub fn new(question: &str) -> Result<Self, ResearchError> {
        let terms = Words::new().surface(question);
        if terms.is_empty() {
            return Err(ResearchError::NoTerms { question: question.to_owned() });
        }
        Ok(Self {
            question: question.to_owned(),
            searches: first_searches(&terms),
            weights: vec![1.0; terms.len()],
            terms,
            stage: Stage::Searching,
            round: 1,
            searches_made: 0,
            wanted: Vec::new(),
            passages: Vec::new(),
            ranked: Vec::new(),
            draft: Draft::default(),
            best: None,
        })
    }

    /// Says what to do next; asking twice says the same.
    #[must_use]
    pub fn next_step(&self) -> Step {
        match self.stage {
            Stage::Searching => Step::Search(self.searches.clone()),
            Stage::Reading => Step::Read(self.wanted.clone()),
            Stage::Summarizing => Step::Summarize(SummarizeRequest {
                passages: self.passages.clone(),
                question: Some(self.question.clone()),
                sentences_max: SENTENCES_ASKED,
            }),
            Stage::Judging => Step::Judge(self.draft.clone()),
            Stage::Finished => Step::Finish,
        }
    }

    /// Returns what is waited for.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns the question.
    #[must_use]
    pub fn question(&self) -> &str {
        &self.question
    }

    /// Returns the current round, from 1.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Takes the replies of the searches; those that failed are simply absent.
    ///
    /// # Errors
    /// [`ResearchError::OutOfOrder`] if no searches were asked for.
    pub fn take_hits(&mut self, replies: &[SearchReply]) -> Result<(), ResearchError> {
        self.expect(Stage::Searching)?;
        self.searches_made += u32::try_from(replies.len()).unwrap_or(u32::MAX);
        for (asked, weight) in self.terms.iter().zip(&mut self.weights) {
            let counts =
                replies.iter().flat_map(|reply| reply.terms.iter().map(|count| (count, reply.documents)));
            if let Some((count, total)) = counts.into_iter().find(|(count, _)| count.term == asked.term) {
                *weight = (1.0 + total as f64 / (1.0 + count.documents as f64)).ln();
            }
        }
        self.wanted = choose_reads(replies, &self.passages);
        self.stage = Stage::Reading;
        Ok(())
    }

    /// Takes the passages that could be read.
    ///
    /// # Errors
    /// [`ResearchError::OutOfOrder`] if no reads were asked for.
    pub fn take_passages(&mut self, passages: Vec<Passage>) -> Result<(), ResearchError> {
        self.expect(Stage::Reading)?;
        self.passages.extend(passages);
        self.stage = Stage::Summarizing;
        Ok(())
    }

    /// Takes the summary and drafts an answer from it.
    ///
    /// # Errors
    /// [`ResearchError::OutOfOrder`] if no summary was asked for.
    pub fn take_summary(&mut self, summary: Summary) -> Result<(), ResearchError> {
        self.expect(Stage::Summarizing)?;
        self.draft = compose(&self.question, &self.terms, &self.weights, &summary.sentences);
        self.ranked = summary.sentences;
        self.stage = Stage::Judging;
        Ok(())
    }

    /// Takes the critic's verdict: finishes, or plans another round around what is missing.
    ///
    /// # Errors
    /// [`ResearchError::OutOfOrder`] if no judgement was asked for.
    pub fn take_verdict(&mut self, verdict: Verdict) -> Result<(), ResearchError> {
        self.expect(Stage::Judging)?;
        let accepted = verdict.accepted;
        let missing: Vec<String> = verdict.objections.iter().flat_map(missing_words).cloned().collect();
        if self.best.as_ref().is_none_or(|(_, best)| verdict.score > best.score) {
            self.best = Some((self.draft.clone(), verdict));
        }
        if accepted || self.round >= ROUNDS_MAX {
            self.stage = Stage::Finished;
        } else {
            self.round += 1;
            self.searches = further_searches(&self.terms, &missing, &self.ranked);
            self.stage = Stage::Searching;
        }
        Ok(())
    }

    /// Returns the best draft the critic has seen, less what it found unsupported.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        let (draft, verdict) = self.best.as_ref().filter(|_| self.stage == Stage::Finished)?;
        Some(Answer {
            draft: without_unsupported(draft, verdict),
            verdict: verdict.clone(),
            rounds: self.round,
            searches: self.searches_made,
            reads: u32::try_from(self.passages.len()).unwrap_or(u32::MAX),
        })
    }

    fn expect(&self, given: Stage) -> Result<(), ResearchError> {
        if self.stage == given {
            Ok(())
        } else {
            Err(ResearchError::OutOfOrder { waiting: self.stage, given })
        }
    }
}

/// Makes up questions from the headings of a folder's documents, for folders whose subject is not known beforehand.
#[must_use]
pub fn questions_about<'a>(texts: impl IntoIterator<Item = &'a str>, questions_max: usize) -> Vec<String> {
    let mut words = Words::new();
    let mut questions: Vec<String> = Vec::new();
    for text in texts {
        let heading = text.lines().find_map(|line| line.strip_prefix("# ").map(str::trim));
        let Some(heading) = heading.filter(|heading| !words.terms(heading).is_empty()) else { continue };
        let question = format!("What about {}?", heading.trim_end_matches(['?', '.', '#', ' ']));
        if !questions.contains(&question) {
            questions.push(question);
        }
        if questions.len() == questions_max {
            break;
        }
    }
    questions
}

fn search_for(words: &[&str]) -> SearchRequest {
    SearchRequest { query: words.join(" "), limit: HITS_PER_SEARCH }
}

/// All words together, then each pair of neighbours: pairs find documents that the rarest word would hide.
fn first_searches(terms: &[AskedTerm]) -> Vec<SearchRequest> {
    let words: Vec<&str> = terms.iter().map(|term| term.word.as_str()).collect();
    let pairs = words.windows(2).filter(|_| words.len() > 2).map(search_for);
    std::iter::once(search_for(&words)).chain(pairs).take(SEARCHES_MAX).collect()
}

/// Looks for what was missing, and for the question enriched by the words of its best sentences: the positive half of
/// Rocchio's relevance feedback ("Relevance Feedback in Information Retrieval", 1971), with scores as weights.
fn further_searches(
    terms: &[AskedTerm],
    missing: &[String],
    ranked: &[RankedSentence],
) -> Vec<SearchRequest> {
    let mut words = Words::new();
    let mut weights: Vec<(AskedTerm, f64)> = Vec::new();
    for sentence in ranked {
        for found in words.surface(&sentence.text) {
            if terms.iter().any(|asked| asked.term == found.term) || found.term.len() < 3 {
                continue;
            }
            match weights.iter_mut().find(|(known, _)| known.term == found.term) {
                Some((_, weight)) => *weight += sentence.score,
                None => weights.push((found, sentence.score)),
            }
        }
    }
    weights.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.term.cmp(&b.0.term)));
    let related: Vec<&str> = weights.iter().take(3).map(|(found, _)| found.word.as_str()).collect();
    let asked: Vec<&str> = terms.iter().map(|term| term.word.as_str()).collect();
    let lacking: Vec<&str> = missing.iter().map(String::as_str).collect();
    let mut searches = Vec::new();
    if !lacking.is_empty() {
        searches.push(search_for(&lacking));
        searches.push(search_for(&[&lacking[..], &related[..related.len().min(1)]].concat()));
    }
    searches.push(search_for(&[&asked[..], &related[..]].concat()));
    searches.truncate(SEARCHES_MAX);
    searches
}

fn missing_words(objection: &Objection) -> &[String] {
    match objection {
        Objection::TermsMissing { words } => words,
        _ => &[],
    }
}

/// Merges the rankings and picks what to read around each snippet, passing over what was read before.
fn choose_reads(replies: &[SearchReply], read_before: &[Passage]) -> Vec<ReadRequest> {
    let mut fused: Vec<(&Hit, f64)> = Vec::new();
    for reply in replies {
        for (rank, hit) in (1_u32..).zip(&reply.hits) {
            let share = kind_weight(hit.kind) * nearness(hit, reply) / (FUSION_K + f64::from(rank));
            match fused.iter_mut().find(|(known, _)| known.document == hit.document) {
                Some((known, score)) => {
                    *score += share;
                    // Of several snippets of one document the one with most of the words is read.
                    if hit.matched.len() > known.matched.len() {
                        *known = hit;
                    }
                }
                None => fused.push((hit, share)),
            }
        }
    }
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.document.cmp(&b.0.document)));
    let mut chosen: Vec<&Hit> = Vec::new();
    for (hit, _) in fused {
        let folder_count =
            chosen.iter().filter(|other| top_folder(&other.name) == top_folder(&hit.name)).count();
        let is_known = read_before.iter().any(|passage| {
            passage.document == hit.document
                && passage.first_line <= hit.first_line
                && hit.last_line <= passage.last_line
        });
        let crowded = top_folder(&hit.name).is_some() && folder_count >= READS_PER_FOLDER_MAX;
        if !is_known && !crowded && chosen.len() < READS_MAX {
            chosen.push(hit);
        }
    }
    chosen
        .into_iter()
        .map(|hit| ReadRequest {
            document: hit.document,
            first_line: hit.first_line.saturating_sub(LINES_BEFORE).max(1),
            last_line: Some(hit.last_line.saturating_add(LINES_AFTER)),
        })
        .collect()
}

/// Words that stand together answer; the same words scattered over a long file do not.
fn nearness(hit: &Hit, reply: &SearchReply) -> f64 {
    let share = hit.matched.len() as f64 / reply.terms.len().max(1) as f64;
    share * share
}

/// Prose answers better than code.
fn kind_weight(kind: DocumentKind) -> f64 {
    match kind {
        DocumentKind::Readme | DocumentKind::Prose => 1.5,
        DocumentKind::Source => 1.0,
        DocumentKind::Example => 0.6,
        DocumentKind::Data => 0.4,
    }
}

fn top_folder(name: &str) -> Option<&str> {
    name.split_once('/').map(|(folder, _)| folder)
}

/// Picks statements one by one: each time the sentence that ranks well, holds much of the question, and adds most of
/// it that no earlier statement has. A sentence that holds less than [`SHARE_MIN`] of the question is no answer; it is taken
/// only for a term that would be missing otherwise.
fn compose(question: &str, terms: &[AskedTerm], weights: &[f64], ranked: &[RankedSentence]) -> Draft {
    let mut words = Words::new();
    let score_max = ranked.iter().map(|sentence| sentence.score).fold(f64::MIN_POSITIVE, f64::max);
    let weight_all: f64 = weights.iter().sum();
    let worth = |indexes: &mut dyn Iterator<Item = &usize>| {
        indexes.map(|index| weights[*index]).sum::<f64>() / weight_all
    };
    let mut left: Vec<(&RankedSentence, Vec<usize>)> = ranked
        .iter()
        .map(|sentence| {
            let held = words.distinct(&sentence.text);
            (sentence, (0..terms.len()).filter(|index| held.contains(&terms[*index].term)).collect())
        })
        .collect();
    let mut spoken = vec![false; terms.len()];
    let mut draft = Draft { question: question.to_owned(), ..Draft::default() };
    while draft.statements.len() < STATEMENTS_MAX {
        let value = |(sentence, asked): &(&RankedSentence, Vec<usize>)| {
            let share = worth(&mut asked.iter());
            let news = worth(&mut asked.iter().filter(|index| !spoken[**index]));
            let answers = share >= SHARE_MIN || news > 0.0;
            answers.then_some(sentence.score / score_max + 2.0 * share + 2.0 * news)
        };
        let values =
            left.iter().enumerate().filter_map(|(index, candidate)| Some((index, value(candidate)?)));
        // Of equal values the earlier sentence wins.
        let best = values.reduce(|best, next| if next.1 > best.1 { next } else { best });
        let Some((best, _)) = best else { break };
        let (sentence, asked) = left.remove(best);
        for index in asked {
            spoken[index] = true;
        }
        let source = source_number(&mut draft.sources, sentence);
        draft.statements.push(Statement { text: sentence.text.clone(), source });
    }
    draft
}

fn source_number(sources: &mut Vec<Source>, sentence: &RankedSentence) -> u32 {
    let same = |source: &Source| {
        (source.document, source.first_line, source.last_line)
            == (sentence.document, sentence.first_line, sentence.last_line)
    };
    let index = sources.iter().position(same).unwrap_or_else(|| {
        sources.push(Source {
            document: sentence.document,
            name: sentence.name.clone(),
            first_line: sentence.first_line,
            last_line: sentence.last_line,
        });
        sources.len() - 1
    });
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

/// Drops what the critic could not find in its source, and numbers the remaining sources anew.
fn without_unsupported(draft: &Draft, verdict: &Verdict) -> Draft {
    let refused = |number: u32| {
        verdict.objections.iter().any(|objection| match objection {
            Objection::NoSource { statement }
            | Objection::SourceUnreadable { statement, .. }
            | Objection::NotInSource { statement, .. } => *statement == number,
            _ => false,
        })
    };
    let mut kept = Draft { question: draft.question.clone(), ..Draft::default() };
    let mut numbers: Vec<(u32, u32)> = Vec::new();
    for (_, statement) in (0_u32..).zip(&draft.statements).filter(|(number, _)| !refused(*number)) {
        let known = numbers.iter().find(|(old, _)| *old == statement.source).map(|(_, new)| *new);
        let number = known.or_else(|| {
            let index = usize::try_from(statement.source).ok()?.checked_sub(1)?;
            kept.sources.push(draft.sources.get(index)?.clone());
            let new = u32::try_from(kept.sources.len()).ok()?;
            numbers.push((statement.source, new));
            Some(new)
        });
        if let Some(source) = number {
            kept.statements.push(Statement { text: statement.text.clone(), source });
        }
    }
    kept
}

/// Names the documents an answer cites, each once, in order.
#[must_use]
pub fn cited_documents(draft: &Draft) -> Vec<DocumentId> {
    let mut cited = Vec::new();
    for source in &draft.sources {
        if !cited.contains(&source.document) {
            cited.push(source.document);
        }
    }
    cited
}

#[cfg(test)]
mod tests;
