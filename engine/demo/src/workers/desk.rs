//! The durable loop: who takes a question in, who goes on with it, who judges it, who counts. Each keeps what it did before
//! it says so, and may be begun again at any point: what is kept already is not done again, and of two that work on the
//! same question the one that comes late is refused by the revision. They must not know where anything runs.

use ringway::{Failure, HandlerResult};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Service, agents};
use crate::calls::{Calls, RingCalls, ask};
use crate::desk::{
    COUNT, Count, Investigation, Kept, PROGRESS, Progress, QUESTIONS, Question, RESEARCH_QUEUE, REVIEW_QUEUE,
    Review, Status, TICKS, enqueue, read, write,
};
use crate::researcher::{Research, Stage, Step};

pub(crate) const ACCEPT: &str = "desk::accept";
const INVESTIGATE: &str = "agents::investigate";
const REVIEW: &str = "agents::review";
pub(crate) const TICK: &str = "desk::tick";

/// What a `state` trigger tells.
#[derive(Debug, Deserialize, JsonSchema)]
struct Change {
    key: String,
}

/// What a `cron` trigger tells.
#[derive(Debug, Deserialize, JsonSchema)]
struct Tick {
    scheduled_time: String,
}

pub(super) fn desk(service: &mut Service) {
    service.function(ACCEPT, "takes a question in", |worker, change: Change| {
        // Told at least once, taken in once: the message's name is the question's.
        let message = Investigation { key: change.key };
        let name = format!("{}/0", message.key);
        enqueue(&RingCalls::new(worker), RESEARCH_QUEUE, INVESTIGATE, &message, &name)
    });
    service.function(TICK, "counts answers", |worker, tick: Tick| {
        let calls = RingCalls::new(worker);
        let count = json!({
            "scope": TICKS, "key": tick.scheduled_time,
            "ops": [{ "type": "increment", "path": "struck", "by": 1 }],
        });
        ask::<Value>(&calls, "state::update", &count)?;
        let questions: Vec<Question> = ask(&calls, "state::list", &json!({ "scope": QUESTIONS }))?;
        let (scope, key) = COUNT;
        let count = json!({ "scope": scope, "key": key, "value": Count::of(&questions) });
        ask::<Value>(&calls, "state::set", &count).map(drop)
    });
}

pub(super) fn investigate(service: &mut Service) {
    service.function(
        INVESTIGATE,
        "goes on with a question where it was",
        |worker, message: Investigation| go_on(&RingCalls::new(worker), &message.key),
    );
}

pub(super) fn review(service: &mut Service) {
    service.function(REVIEW, "judges a draft, and has the research go on", |worker, review: Review| {
        let calls = RingCalls::new(worker);
        let Kept { value: progress, revision } = read::<Progress>(&calls, PROGRESS, &review.key)?;
        let mut progress =
            progress.ok_or_else(|| Failure::new("a draft was to be judged of a question nobody works on"))?;
        if progress.research.stage() == Stage::Judging && progress.research.round() == review.round {
            progress.research.take_verdict(agents::judge(&calls, &review.draft)?)?;
            progress.steps += 1;
            write(&calls, PROGRESS, &review.key, &progress, revision)?;
        }
        // Also if the verdict was kept before: whoever kept it may have died before it came here.
        let name = format!("{}/{}", review.key, review.round);
        enqueue(&calls, RESEARCH_QUEUE, INVESTIGATE, &Investigation { key: review.key }, &name)
    });
}

/// Takes steps until the critic is to be asked, or it is over.
fn go_on(calls: &dyn Calls, key: &str) -> HandlerResult<()> {
    let Kept { value: question, revision: asked } = read::<Question>(calls, QUESTIONS, key)?;
    let Some(question) = question.filter(|question| question.status == Status::Pending) else {
        return Ok(());
    };
    let Kept { value: known, mut revision } = read::<Progress>(calls, PROGRESS, key)?;
    let mut progress = match known {
        Some(progress) => progress,
        None => match Research::new(&question.question) {
            Ok(research) => Progress { research, steps: 0, begun: 0 },
            Err(error) => {
                let error = Some(error.to_string());
                let failed = Question { status: Status::Failed, error, ..question };
                return write(calls, QUESTIONS, key, &failed, asked).map(drop);
            }
        },
    };
    progress.begun += 1;
    loop {
        revision = write(calls, PROGRESS, key, &progress, revision)?;
        match progress.research.next_step() {
            Step::Judge(draft) => {
                let round = progress.research.round();
                let review = Review { key: key.to_owned(), round, draft };
                return enqueue(calls, REVIEW_QUEUE, REVIEW, &review, &format!("{key}/{round}"));
            }
            Step::Finish => break,
            step => agents::make_step(calls, &mut progress.research, step)?,
        };
        progress.steps += 1;
    }
    let answer = progress.research.answer();
    write(calls, QUESTIONS, key, &Question { status: Status::Answered, answer, ..question }, asked).map(drop)
}
