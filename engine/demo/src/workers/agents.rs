//! The parts of the agent loop: the researcher asks others for all it needs, the critic reads the sources itself. Whether
//! their calls go over rings or sockets is decided by how they were called. They must not know where anything runs.

use std::time::Instant;

use ringway::{Failure, HandlerResult};

use super::docs::{READ, SEARCH};
use super::{Service, desk, socket_servers};
use crate::calls::{Calls, ask, ask_all};
use crate::corpus::Passage;
use crate::critic::{self, Draft, Verdict};
use crate::report::{AgentRun, StepTime};
use crate::researcher::{Research, Step};
use crate::search::SearchReply;
use crate::setup::Setup;
use crate::summarize::{SummarizeRequest, Summary};

pub(crate) const SUMMARIZE: &str = "text::summarize";
pub(crate) const RESEARCHER: &str = "agents::researcher";
pub(crate) const CRITIC: &str = "agents::critic";

pub(super) fn summarize(service: &mut Service) {
    let work = service.work();
    service.both(SUMMARIZE, "ranks the sentences of passages", move |_, request: SummarizeRequest| {
        let began = Instant::now();
        let summary = crate::summarize::summarize(&request);
        tracing::info!(
            passages = request.passages.len(),
            ranked = summary.ranked,
            steps = summary.steps,
            "summarized"
        );
        work.did(began, request.passages.iter().map(|passage| passage.text.len() as u64).sum());
        Ok(summary)
    });
}

pub(super) fn critic(service: &mut Service, setup: &Setup) {
    service.calls_over_socket(socket_servers(setup));
    service
        .both(CRITIC, "judges a draft by the sources it names", |calls, draft: Draft| judge(calls, &draft));
    desk::review(service);
}

/// Reads what a draft names and judges it.
pub(super) fn judge(calls: &dyn Calls, draft: &Draft) -> HandlerResult<Verdict> {
    let passages: Vec<HandlerResult<Passage>> = ask_all(calls, READ, &critic::reads(draft));
    let verdict = critic::judge(draft, &readable(passages)?);
    tracing::info!(accepted = verdict.accepted, score = verdict.score, "judged");
    Ok(verdict)
}

pub(super) fn researcher(service: &mut Service, setup: &Setup) {
    service.calls_over_socket(socket_servers(setup));
    service.both(RESEARCHER, "answers a question from documents, with sources", |calls, question: String| {
        research(calls, &question)
    });
    desk::investigate(service);
}

/// Drops what could not be read, unless that is everything, or nobody was there to read it.
fn readable<T>(replies: Vec<HandlerResult<T>>) -> HandlerResult<Vec<T>> {
    let mut read = Vec::with_capacity(replies.len());
    for reply in replies {
        match reply.map_err(Failure::into_error) {
            Ok(reply) => read.push(reply),
            Err(error) if error.code == ringway::ErrorCode::HandlerError => {
                tracing::warn!(%error, "left out");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}

/// Makes the calls of a step and takes in what came back. Returns how many there were.
pub(super) fn make_step(calls: &dyn Calls, research: &mut Research, step: Step) -> HandlerResult<usize> {
    match step {
        Step::Search(searches) => {
            let replies: Vec<HandlerResult<SearchReply>> = ask_all(calls, SEARCH, &searches);
            research.take_hits(&readable(replies)?)?;
            Ok(searches.len())
        }
        Step::Read(reads) => {
            let passages: Vec<HandlerResult<Passage>> = ask_all(calls, READ, &reads);
            research.take_passages(readable(passages)?)?;
            Ok(reads.len())
        }
        Step::Summarize(request) => {
            let summary: Summary = ask(calls, SUMMARIZE, &request)?;
            research.take_summary(summary)?;
            Ok(1)
        }
        Step::Judge(draft) => {
            let verdict: Verdict = ask(calls, CRITIC, &draft)?;
            research.take_verdict(verdict)?;
            // The critic reads each source.
            Ok(draft.sources.len() + 1)
        }
        Step::Finish => Ok(0),
    }
}

fn research(calls: &dyn Calls, question: &str) -> HandlerResult<AgentRun> {
    let mut research = Research::new(question)?;
    let mut steps = Vec::new();
    loop {
        let (stage, began, step) = (research.stage(), Instant::now(), research.next_step());
        if step == Step::Finish {
            break;
        }
        let made = make_step(calls, &mut research, step)?;
        let elapsed_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tracing::info!(step = ?stage, calls = made, round = research.round(), "step done");
        steps.push(StepTime { stage, calls: u32::try_from(made).unwrap_or(u32::MAX), elapsed_ns });
    }
    let answer = research.answer().ok_or_else(|| Failure::new("the research ended without an answer"))?;
    Ok(AgentRun { answer, steps })
}
