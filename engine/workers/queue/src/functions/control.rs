//! Steering a queue: settings, pause, resume, drain, cancel, and the end of a subscription.

use std::sync::Arc;

use ringway::{Context, Failure, Function, HandlerResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_name, check_queue, receipt, written};
use crate::config::QueueSettings;
use crate::driver::{Answer, Core, Driver};
use crate::machine::Ticket;
use crate::record::{Mode, SettingsRecord};
use crate::topics;

#[derive(Debug, Deserialize, JsonSchema)]
struct QueueRequest {
    /// The queue.
    #[serde(default, alias = "topic")]
    queue: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ConfigureRequest {
    /// The queue.
    #[serde(default)]
    queue: String,
    /// All of its settings, in place of those in the file; those that are not named have their defaults. Without any, those
    /// of the file hold again.
    #[serde(default)]
    settings: Option<QueueSettings>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct QueueAnswer {
    queue: String,
    /// Whether it takes and gives.
    mode: Mode,
    /// What holds of it.
    settings: QueueSettings,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CancelRequest {
    /// The id of the message.
    #[serde(default)]
    id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    id: String,
    /// Whether it was still to be delivered. An attempt under way is told; it may have done its work.
    cancelled: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Unsubscribe {
    /// The topic.
    #[serde(default)]
    topic: String,
    /// The function that is to get no more copies.
    #[serde(default)]
    function_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Unsubscribed {
    /// Whether there was such a subscription.
    removed: bool,
}

pub(super) fn all(driver: &Driver) -> Vec<Function> {
    vec![
        configure(driver),
        set_mode(driver, "queue::pause", Mode::Paused)
            .description("has a queue take messages and deliver none; what is under way goes on"),
        set_mode(driver, "queue::resume", Mode::Active)
            .description("has a queue take and deliver messages again"),
        drain(driver),
        cancel(driver),
        unsubscribe(driver),
    ]
}

fn configure(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::configure", move |_: Context, request: ConfigureRequest| {
        let driver = driver.clone();
        async move {
            check_queue(&request.queue)?;
            if let Some(settings) = &request.settings {
                settings.check().map_err(|error| Failure::invalid(error.to_string()))?;
            }
            driver.ask(move |core, answer| change(core, request, answer)).await
        }
    })
    .description("sets what holds of a queue; remembered over restarts")
}

fn change(core: &mut Core, request: ConfigureRequest, answer: Answer<QueueAnswer>) {
    let ConfigureRequest { queue, settings } = request;
    let (old, _) = core.machine.settings(&queue);
    let new = settings.clone().unwrap_or_else(|| core.machine.settings_of_file(&queue));
    let other_lanes = old.kind != new.kind;
    if other_lanes && !core.machine.is_empty(&queue) {
        let text = format!(
            "queue `{queue}` holds messages, so that its `type` cannot change: use `queue::drain`, then try again"
        );
        return answer.give(Err(Failure::with_code("QUEUE_NOT_EMPTY", text)));
    }
    let record = SettingsRecord { settings, ..core.machine.record(&queue) };
    let now_ms = core.now_ms();
    let ticket = core.machine.configure(now_ms, &queue, &record);
    tell(core, ticket, queue.clone(), queue, answer);
}

/// Tells how a queue, or the topic that it belongs to, is set when that is on disk.
fn tell(core: &mut Core, ticket: Ticket, name: String, queue: String, answer: Answer<QueueAnswer>) {
    let then = move |core: &mut Core, outcome| {
        let (settings, mode) = core.machine.settings(&queue);
        let told = QueueAnswer { queue: name, mode, settings };
        answer.give(written("configure_failed", outcome).map(|()| told));
    };
    core.after(ticket, Box::new(then));
}

fn set_mode(driver: &Driver, id: &str, mode: Mode) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: QueueRequest| {
        let driver = driver.clone();
        async move {
            check_name("queue", &request.queue, "queue_not_set")?;
            driver.ask(move |core, answer| enter(core, &request.queue, mode, answer)).await
        }
    })
}

/// The queues that are held together: those of a topic, and those that will be, or one queue.
fn held_by(core: &Core, name: &str) -> Vec<String> {
    let mut queues = core.resolve(name);
    if !core.topics.queues(name).is_empty() {
        // Also the one that those of new subscribers follow.
        queues.push(topics::backlog(name));
    }
    if queues.is_empty() {
        queues.push(name.to_owned());
    }
    queues.sort();
    queues.dedup();
    queues
}

fn enter(core: &mut Core, name: &str, mode: Mode, answer: Answer<QueueAnswer>) {
    let queues = held_by(core, name);
    if mode != Mode::Draining {
        end_drains(core, &queues);
    }
    let now_ms = core.now_ms();
    let mut last = None;
    for queue in &queues {
        let record = SettingsRecord { mode, ..core.machine.record(queue) };
        last = Some((core.machine.configure(now_ms, queue, &record), queue));
    }
    // The commits end in their order.
    let Some((ticket, queue)) = last else { return };
    tell(core, ticket, name.to_owned(), queue.clone(), answer);
}

/// Tells those that wait for queues to be empty that they take messages again.
fn end_drains(core: &mut Core, queues: &[String]) {
    let (ended, left) = std::mem::take(&mut core.drains)
        .into_iter()
        .partition(|(drained, _)| drained.iter().any(|queue| queues.contains(queue)));
    core.drains = left;
    let ended: Vec<(Vec<String>, Answer<()>)> = ended;
    ended.into_iter().for_each(|(_, answer)| answer.give(Err(drain_ended())));
}

fn drain_ended() -> Failure {
    let text = "the queue was resumed or paused before it was empty: drain it again if it is to be";
    Failure::with_code("DRAIN_ENDED", text)
}

fn drain(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::drain", move |_: Context, request: QueueRequest| {
        let driver = driver.clone();
        async move {
            check_name("queue", &request.queue, "queue_not_set")?;
            let name = request.queue.clone();
            let entered = driver.ask(move |core, answer| enter(core, &name, Mode::Draining, answer)).await?;
            let wait = move |core: &mut Core, answer: Answer<()>| {
                let queues = held_by(core, &request.queue);
                let drains = |queue: &String| core.machine.settings(queue).1 == Mode::Draining;
                // Somebody may have been quicker.
                if !queues.iter().all(drains) {
                    return answer.give(Err(drain_ended()));
                }
                core.drains.push((queues, answer));
            };
            driver.ask(wait).await?;
            Ok(entered)
        }
    })
    .description(
        "has a queue or topic take no messages, and answers when it has delivered those that it holds",
    )
}

fn cancel(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::cancel", move |_: Context, request: CancelRequest| {
        let driver = driver.clone();
        async move {
            let id = request.id;
            let store = driver.ask(|core, answer| answer.give(Ok(Arc::clone(&core.store)))).await?;
            let place = receipt::place(&*store, &id)?;
            driver
                .ask(move |core, answer| {
                    let now_ms = core.now_ms();
                    match core.machine.cancel(now_ms, &place) {
                        None => answer.give(Ok(Cancelled { id, cancelled: false })),
                        Some(ticket) => core.after(
                            ticket,
                            Box::new(move |_, outcome| {
                                let written: HandlerResult<()> = written("cancel_failed", outcome);
                                answer.give(written.map(|()| Cancelled { id, cancelled: true }));
                            }),
                        ),
                    }
                })
                .await
        }
    })
    .description("takes a message back that has not ended")
}

fn unsubscribe(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::unsubscribe", move |_: Context, request: Unsubscribe| {
        let driver = driver.clone();
        async move {
            check_name("topic", &request.topic, "topic_not_set")?;
            driver
                .ask(move |core, answer| match core.unsubscribe(&request.topic, &request.function_id) {
                    None => answer.give(Ok(Unsubscribed { removed: false })),
                    Some(ticket) => {
                        core.after(
                            ticket,
                            Box::new(move |_, outcome| {
                                let written = written("unsubscribe_failed", outcome);
                                answer.give(written.map(|()| Unsubscribed { removed: true }));
                            }),
                        );
                    }
                })
                .await
        }
    })
    .description(
        "ends a durable subscription for good: copies that wait are dropped, and none is kept any more",
    )
}
