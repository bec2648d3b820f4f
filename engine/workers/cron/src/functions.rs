//! The functions `cron::*`: what they take and give. It must not know how jobs are kept.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ringway::{CallError, ErrorCode, Failure, Function, HandlerResult};
use ringway_worker_kit::{Delivered, store_failure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schedule::Schedule;
use crate::scheduler::Scheduler;

/// Times that one preview shows at most.
pub const PREVIEW_MAX: usize = 100;

/// Nothing is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListRequest {}

/// The jobs whose triggers are bound, by id.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ListResponse {
    /// The jobs.
    pub jobs: Vec<JobView>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// The trigger's id.
    pub id: String,
    /// The expression, as it was written.
    pub expression: String,
    /// Its time zone.
    pub timezone: String,
    /// The function that is called.
    pub function_id: String,
    /// The next slot (RFC 3339, UTC); none if it is paused, or never due again.
    pub next: Option<String>,
    /// The slot that was fired last (RFC 3339, UTC).
    pub last: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Calls of the function that run now.
    pub running: usize,
    /// Slots that wait: for the function to end, or to be written down.
    pub waiting: usize,
    /// Slots fired since the trigger was bound.
    pub fired: u64,
    /// Slots left out since then because the function still ran, too many waited, or the job was paused.
    pub skipped: u64,
    /// Slots missed since then and not made up for; at most 1,000 are counted for each gap.
    pub missed: u64,
    /// Slots whose function had been called when the engine stopped, and was not called again.
    pub interrupted: u64,
    /// How the function's last call failed, if it did.
    pub last_error: Option<String>,
    /// What keeps the job from working, if anything.
    pub problem: Option<String>,
}

/// Which job.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct JobRequest {
    /// The trigger's id.
    pub id: String,
}

/// Whether the job is paused now.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PauseResponse {
    /// The trigger's id.
    pub id: String,
    /// Whether it is paused.
    pub paused: bool,
}

/// Which job to run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunRequest {
    /// The trigger's id.
    pub id: String,
    /// Whether to wait until the function has ended. Default: true.
    #[serde(default = "yes")]
    pub wait: bool,
}

const fn yes() -> bool {
    true
}

/// What came of the call.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RunResponse {
    /// The trigger's id.
    pub id: String,
    /// Whether the function was called; not if the trigger's condition does not hold. Null if nobody waited for that.
    pub called: Option<bool>,
    /// Its answer, if somebody waited for it.
    pub result: Option<Value>,
}

/// Which times to show.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PreviewRequest {
    /// The expression.
    pub expression: String,
    /// Its time zone. Default: that of the worker's configuration.
    #[serde(default)]
    pub timezone: Option<String>,
    /// How many times, 100 at most. Default: 10.
    #[serde(default)]
    pub count: Option<usize>,
    /// After when (RFC 3339). Default: now.
    #[serde(default)]
    pub from: Option<String>,
}

/// When a job would be due.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PreviewResponse {
    /// RFC 3339, UTC.
    pub times: Vec<String>,
    /// The same in the time zone, with its offset and name.
    pub local: Vec<String>,
}

/// What is registered, over one scheduler.
pub(crate) fn all(scheduler: &Arc<Scheduler>) -> Vec<Function> {
    vec![
        list(Arc::clone(scheduler)),
        pause(Arc::clone(scheduler), "cron::pause", true)
            .description("Pauses a job, durably; slots that come meanwhile are left out"),
        pause(Arc::clone(scheduler), "cron::resume", false).description("Resumes a job, durably"),
        run_now(Arc::clone(scheduler)),
        preview(Arc::clone(scheduler)),
    ]
}

fn list(scheduler: Arc<Scheduler>) -> Function {
    let handler = move |_: &_, _: Option<ListRequest>| Ok(ListResponse { jobs: scheduler.list() });
    Function::json("cron::list", handler)
        .description("The jobs that are bound: schedule, next and last slot, what runs and waits")
        .idempotent()
}

fn pause(scheduler: Arc<Scheduler>, id: &str, paused: bool) -> Function {
    Function::json_async(id, move |_, request: JobRequest| {
        let commit = scheduler.pause(&request.id, paused);
        async move {
            let ended = commit?.recv().await.map_err(|_| leaving())?;
            ended.map_err(|error| store_failure("PAUSE_ERROR", &error))?;
            Ok(PauseResponse { id: request.id, paused })
        }
    })
    .idempotent()
}

fn leaving() -> Failure {
    let text = "the cron worker ends, and whether this was written down is not known; `cron::list` shows it";
    CallError::new(ErrorCode::WorkerGone, text).into()
}

fn run_now(scheduler: Arc<Scheduler>) -> Function {
    Function::json_async("cron::run_now", move |context, request: RunRequest| {
        let RunRequest { id, wait } = request;
        let run = if wait {
            scheduler.run_now(context.worker().clone(), id.clone()).map(Some)
        } else {
            scheduler.start_now(&id).map(|()| None)
        };
        async move {
            let Some(run) = run? else { return Ok(RunResponse { id, called: None, result: None }) };
            let (called, result) = match run.await? {
                Delivered::Skipped => (false, None),
                Delivered::Answered(answer) => (true, Some(answer)),
            };
            Ok(RunResponse { id, called: Some(called), result })
        }
    })
    .description("Calls a job's function now, beside its schedule, and gives its answer")
}

fn preview(scheduler: Arc<Scheduler>) -> Function {
    let handler = move |_: &_, request: PreviewRequest| {
        let zone = request.timezone.as_deref().unwrap_or(&scheduler.config.timezone);
        times(&request, zone, scheduler.clock.now())
    };
    Function::json("cron::preview", handler)
        .description("When an expression would be due, across changes of the clock")
        .idempotent()
}

fn times(request: &PreviewRequest, zone: &str, now: i64) -> HandlerResult<PreviewResponse> {
    let schedule =
        Schedule::new(&request.expression, zone).map_err(|error| Failure::invalid(error.to_string()))?;
    let count = request.count.unwrap_or(10);
    if count > PREVIEW_MAX {
        return Err(Failure::invalid(format!("`count` is {count}, at most {PREVIEW_MAX} times are shown")));
    }
    let mut at = match &request.from {
        None => Timestamp::from_millisecond(now)?,
        Some(text) => text.parse().map_err(|error| {
            Failure::invalid(format!(
                "`from` is `{text}`, a time such as 2026-03-29T00:00:00Z is wanted: {error}"
            ))
        })?,
    };
    let zone = TimeZone::get(zone)?;
    let mut response = PreviewResponse { times: Vec::new(), local: Vec::new() };
    while response.times.len() < count {
        let Some(next) = schedule.next_after(at) else { break };
        response.times.push(next.to_string());
        response.local.push(next.to_zoned(zone.clone()).to_string());
        at = next;
    }
    Ok(response)
}
