//! The durable loop's records and how they are kept: a question from the moment it is asked, and how far its research is.
//! Everything is in `state` before the next thing happens, and what is to happen next is a message of `queue`, so that
//! whoever dies, the work goes on where it was. Used by the workers and by the process that asks. It must not know who does
//! which step.

use ringway::HandlerResult;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::calls::{Calls, ask};
use crate::critic::Draft;
use crate::researcher::{Answer, Research};

/// The scope of questions.
pub const QUESTIONS: &str = "questions";
/// The scope of what is known of each while it is worked on.
pub const PROGRESS: &str = "research";
/// The scope of the seconds that struck.
pub const TICKS: &str = "ticks";
/// Where answers are counted.
pub const COUNT: (&str, &str) = ("desk", "count");
/// The queue of questions to go on with.
pub const RESEARCH_QUEUE: &str = "research";
/// The queue of drafts to judge.
pub const REVIEW_QUEUE: &str = "review";

/// Where a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It was asked. The change to this is what sets everything off.
    Pending,
    /// It has its answer.
    Answered,
    /// It cannot be answered.
    Failed,
}

/// A question with what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// Its text.
    pub question: String,
    /// Where it stands.
    pub status: Status,
    /// Its answer, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Question {
    /// A question that was just asked.
    #[must_use]
    pub fn new(question: &str) -> Self {
        Self { question: question.to_owned(), status: Status::Pending, answer: None, error: None }
    }
}

/// How far the work on a question is, after each step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The agent's plan.
    pub research: Research,
    /// Steps that were kept.
    pub steps: u32,
    /// How often somebody began to go on with it.
    pub begun: u32,
}

/// A message that says: go on with this question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Investigation {
    /// The question's key.
    pub key: String,
}

/// A message that says: judge this draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Review {
    /// The question's key.
    pub key: String,
    /// The round whose draft it is.
    pub round: u32,
    /// The draft.
    pub draft: Draft,
}

/// How many questions there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// Questions that are worked on.
    pub pending: u64,
    /// Questions that have an answer.
    pub answered: u64,
    /// Questions that cannot be answered.
    pub failed: u64,
}

impl Count {
    /// Counts questions.
    #[must_use]
    pub fn of(questions: &[Question]) -> Self {
        let mut count = Self::default();
        for question in questions {
            match question.status {
                Status::Pending => count.pending += 1,
                Status::Answered => count.answered += 1,
                Status::Failed => count.failed += 1,
            }
        }
        count
    }
}

/// A value with its revision, by which a later write shows that nobody else wrote meanwhile; 0 where there is none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Kept<T> {
    pub(crate) value: Option<T>,
    pub(crate) revision: u64,
}

#[derive(Deserialize)]
struct Written {
    revision: u64,
}

/// Reads a value.
pub(crate) fn read<T: DeserializeOwned>(calls: &dyn Calls, scope: &str, key: &str) -> HandlerResult<Kept<T>> {
    ask(calls, "state::get", &json!({ "scope": scope, "key": key, "with_revision": true }))
}

/// Writes a value, if nobody has written there since it was read; returns the new revision.
pub(crate) fn write(
    calls: &dyn Calls,
    scope: &str,
    key: &str,
    value: &impl Serialize,
    revision: u64,
) -> HandlerResult<u64> {
    let request = json!({ "scope": scope, "key": key, "value": value, "if_revision": revision });
    ask::<Written>(calls, "state::set", &request).map(|written| written.revision)
}

/// Hands a message over. One with the same name that was handed over before is not taken twice.
pub(crate) fn enqueue(
    calls: &dyn Calls,
    queue: &str,
    function: &str,
    data: &impl Serialize,
    name: &str,
) -> HandlerResult<()> {
    let request = json!({ "queue": queue, "function_id": function, "data": data, "idempotency_key": name });
    ask::<Value>(calls, "queue::enqueue", &request).map(drop)
}
