//! Extractive summaries: `text::summarize`. The method is continuous `LexRank` (Erkan & Radev, "`LexRank`: Graph-based
//! Lexical Centrality as Salience in Text Summarization", JAIR 22, 2004); with a question it becomes the biased
//! `LexRank` of Otterbacher, Erkan & Radev ("Using Random Walks for Question-focused Sentence Retrieval", HLT/EMNLP
//! 2005). Every sentence keeps the lines it came from. It knows nothing of searching, and nothing here is random: the same
//! passages give the same summary.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::{DocumentId, Passage};
use crate::prose::sentences;
use crate::words::Words;

/// Most sentences ranked; beyond it the matrix grows quadratically, so later ones are counted and left out.
pub const SENTENCES_RANKED_MAX: usize = 600;
/// Similarities below this are no edge; the value with which the authors report their best results.
const SIMILARITY_MIN: f64 = 0.1;
/// Chance of a jump instead of a step along an edge, within the authors' range of 0.1 to 0.2.
const JUMP: f64 = 0.15;
/// The same with a question, where the jump goes to what resembles it: Otterbacher et al. found high values best.
const JUMP_TO_QUESTION: f64 = 0.7;
/// The iteration ends when the scores, which sum to 1, change by less than this in all.
pub const TOLERANCE: f64 = 1e-8;
/// Bound on the iteration; it contracts by at least 1 - JUMP a step, so 120 steps pass the tolerance.
const STEPS_MAX: u32 = 200;
/// A sentence more similar than this to a chosen one repeats it (as MEAD's re-ranker does).
const REPEATS_ABOVE: f64 = 0.5;

/// Asks for the sentences that say most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SummarizeRequest {
    /// The text, as it was read.
    pub passages: Vec<Passage>,
    /// What the summary should be about; absent means the text itself.
    #[serde(default)]
    pub question: Option<String>,
    /// Most sentences wanted.
    pub sentences_max: u32,
}

/// A sentence, where it stands, and how much it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RankedSentence {
    /// The sentence.
    pub text: String,
    /// The document it stands in.
    pub document: DocumentId,
    /// That document's name.
    pub name: String,
    /// First line it touches.
    pub first_line: u32,
    /// Last line it touches.
    pub last_line: u32,
    /// Centrality: all sentences together have 1.
    pub score: f64,
}

/// The summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The chosen sentences, best first.
    pub sentences: Vec<RankedSentence>,
    /// Complete sentences that were ranked.
    pub ranked: u32,
    /// Sentences beyond [`SENTENCES_RANKED_MAX`].
    pub left_out: u32,
    /// Steps until the scores settled.
    pub steps: u32,
}

/// Chooses the most central sentences, none repeating another. Costs the square of the number of sentences; allocates.
#[must_use]
pub fn summarize(request: &SummarizeRequest) -> Summary {
    let mut words = Words::new();
    let (candidates, left_out) = candidates(&request.passages);
    let vectors = Vectors::of(&candidates, &mut words);
    let similarity = vectors.similarities();
    let jump = request.question.as_ref().map_or_else(
        || Jump::even(candidates.len()),
        |question| Jump::to_question(&vectors, &words.terms(question)),
    );
    let (scores, steps) = walk(&similarity, &jump);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let wanted = usize::try_from(request.sentences_max).unwrap_or(usize::MAX);
    let mut chosen: Vec<usize> = Vec::new();
    for index in order {
        if chosen.len() == wanted {
            break;
        }
        if !chosen.iter().any(|other| similarity[index][*other] > REPEATS_ABOVE) {
            chosen.push(index);
        }
    }
    let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Summary {
        sentences: chosen
            .into_iter()
            .map(|index| RankedSentence { score: scores[index], ..candidates[index].clone() })
            .collect(),
        ranked: count(candidates.len()),
        left_out: count(left_out),
        steps,
    }
}

/// Collects the complete sentences of all passages, one copy of each, in order.
fn candidates(passages: &[Passage]) -> (Vec<RankedSentence>, usize) {
    let mut seen = std::collections::HashSet::new();
    let mut found = Vec::new();
    for passage in passages {
        for sentence in sentences(&passage.text, passage.format, passage.first_line, passage.starts_in_code) {
            if sentence.is_complete() && seen.insert(sentence.text.clone()) {
                found.push(RankedSentence {
                    text: sentence.text,
                    document: passage.document,
                    name: passage.name.clone(),
                    first_line: sentence.first_line,
                    last_line: sentence.last_line,
                    score: 0.0,
                });
            }
        }
    }
    let left_out = found.len().saturating_sub(SENTENCES_RANKED_MAX);
    found.truncate(SENTENCES_RANKED_MAX);
    (found, left_out)
}

/// The sentences as term vectors. Terms are numbered in order of first appearance, so sums never depend on a hash.
struct Vectors {
    /// For each sentence: its terms by number, ascending, with how often each occurs.
    counts: Vec<Vec<(usize, f64)>>,
    idf: Vec<f64>,
    numbers: HashMap<String, usize>,
}

impl Vectors {
    fn of(sentences: &[RankedSentence], words: &mut Words) -> Self {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut holders: Vec<f64> = Vec::new();
        let mut counts = Vec::with_capacity(sentences.len());
        for sentence in sentences {
            let mut terms: Vec<usize> = Vec::new();
            for term in words.terms(&sentence.text) {
                let next = numbers.len();
                terms.push(*numbers.entry(term).or_insert(next));
            }
            holders.resize(numbers.len(), 0.0);
            terms.sort_unstable();
            let row: Vec<(usize, f64)> =
                terms.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as f64)).collect();
            for (term, _) in &row {
                holders[*term] += 1.0;
            }
            counts.push(row);
        }
        let total = sentences.len() as f64;
        // The plus one keeps a term that every sentence holds from vanishing, which matters in short texts.
        let idf = holders.iter().map(|holders| (1.0 + total / holders).ln()).collect();
        Self { counts, idf, numbers }
    }

    /// The idf-modified cosine of every pair (equation 1 of the paper), zero below the threshold. A sentence is no
    /// neighbour of itself, as in `TextRank` (Mihalcea & Tarau 2004) and unlike the paper's algorithm 3: with the edge to
    /// itself a sentence that resembles no other would keep its share and come out in the middle instead of last.
    fn similarities(&self) -> Vec<Vec<f64>> {
        let weighted: Vec<Vec<(usize, f64)>> = self
            .counts
            .iter()
            .map(|row| row.iter().map(|(term, count)| (*term, count * self.idf[*term])).collect())
            .collect();
        let norms: Vec<f64> = weighted
            .iter()
            .map(|row| row.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt())
            .collect();
        let mut matrix = vec![vec![0.0; weighted.len()]; weighted.len()];
        for (i, a) in weighted.iter().enumerate() {
            for (j, b) in weighted.iter().enumerate().take(i) {
                let norm = norms[i] * norms[j];
                let cosine = if norm > 0.0 { dot(a, b) / norm } else { 0.0 };
                if cosine >= SIMILARITY_MIN {
                    matrix[i][j] = cosine;
                    matrix[j][i] = cosine;
                }
            }
        }
        matrix
    }

    /// How relevant a sentence is to a question: sum over the question's words of
    /// log(tf in sentence + 1) · log(tf in question + 1) · idf, as in Otterbacher et al.
    fn relevance(&self, sentence: usize, question: &[(usize, f64)]) -> f64 {
        let row = &self.counts[sentence];
        let matching = question.iter().filter_map(|(term, asked)| {
            let place = row.binary_search_by_key(term, |(term, _)| *term).ok()?;
            Some((row[place].1 + 1.0).ln() * (asked + 1.0).ln() * self.idf[*term])
        });
        matching.sum()
    }
}

fn dot(a: &[(usize, f64)], b: &[(usize, f64)]) -> f64 {
    let (mut i, mut j, mut sum) = (0, 0, 0.0);
    while let (Some((term_a, weight_a)), Some((term_b, weight_b))) = (a.get(i), b.get(j)) {
        match term_a.cmp(term_b) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                sum += weight_a * weight_b;
                i += 1;
                j += 1;
            }
        }
    }
    sum
}

/// Where the walk goes when it jumps: a probability for each sentence, and how often it does.
struct Jump {
    chance: f64,
    to: Vec<f64>,
}

impl Jump {
    fn even(count: usize) -> Self {
        Self { chance: JUMP, to: vec![1.0 / count.max(1) as f64; count] }
    }

    fn to_question(vectors: &Vectors, terms: &[String]) -> Self {
        let mut asked: HashMap<usize, f64> = HashMap::new();
        for number in terms.iter().filter_map(|term| vectors.numbers.get(term)) {
            *asked.entry(*number).or_insert(0.0) += 1.0;
        }
        let mut asked: Vec<(usize, f64)> = asked.into_iter().collect();
        asked.sort_unstable_by_key(|(term, _)| *term);
        let relevances: Vec<f64> =
            (0..vectors.counts.len()).map(|sentence| vectors.relevance(sentence, &asked)).collect();
        let total: f64 = relevances.iter().sum();
        if total > 0.0 {
            Self {
                chance: JUMP_TO_QUESTION,
                to: relevances.iter().map(|relevance| relevance / total).collect(),
            }
        } else {
            Self::even(vectors.counts.len())
        }
    }
}

/// Power iteration: `p(u) = chance · to(u) + (1 - chance) · Σ_v p(v) · sim(u, v) / Σ_z sim(z, v)`. Where a sentence has
/// no neighbour the walk always jumps, so that all scores together stay 1.
fn walk(similarity: &[Vec<f64>], jump: &Jump) -> (Vec<f64>, u32) {
    let count = similarity.len();
    let outgoing: Vec<f64> = similarity.iter().map(|row| row.iter().sum()).collect();
    let mut scores = vec![1.0 / count.max(1) as f64; count];
    for step in 1..=STEPS_MAX {
        let share = |(score, sum): (&f64, &f64)| if *sum > 0.0 { score / sum } else { 0.0 };
        let shares: Vec<f64> = scores.iter().zip(&outgoing).map(share).collect();
        let stuck: f64 =
            scores.iter().zip(&outgoing).filter(|(_, sum)| **sum <= 0.0).map(|(score, _)| score).sum();
        let jumping = jump.chance + (1.0 - jump.chance) * stuck;
        let next: Vec<f64> = similarity
            .iter()
            .zip(&jump.to)
            .map(|(row, to)| {
                let arriving: f64 = row.iter().zip(&shares).map(|(edge, share)| edge * share).sum();
                jumping * to + (1.0 - jump.chance) * arriving
            })
            .collect();
        let change: f64 = next.iter().zip(&scores).map(|(new, old)| (new - old).abs()).sum();
        scores = next;
        if change < TOLERANCE {
            return (scores, step);
        }
    }
    (scores, STEPS_MAX)
}

#[cfg(test)]
mod tests;
