//! Steering a queue: settings, pause, resume, drain, cancel, and the end of a subscription.

use ringway::{Context, Failure, Function, HandlerResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check_name, check_queue, receipt, written};
use crate::config::QueueSettings;
use crate::driver::{Answer, Core, Driver};
use crate::machine::Ticket;
use crate::record::{Mode, SettingsRecord};

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
    tell(core, ticket, queue, answer);
}

/// Tells how a queue is set when that is on disk.
fn tell(core: &mut Core, ticket: Ticket, queue: String, answer: Answer<QueueAnswer>) {
    let then = move |core: &mut Core, outcome| {
        let (settings, mode) = core.machine.settings(&queue);
        answer.give(written("configure_failed", outcome).map(|()| QueueAnswer { queue, mode, settings }));
    };
    core.after(ticket, Box::new(then));
}

fn set_mode(driver: &Driver, id: &str, mode: Mode) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: QueueRequest| {
        let driver = driver.clone();
        async move {
            check_name("queue", &request.queue, "queue_not_set")?;
            driver.ask(move |core, answer| enter(core, request.queue, mode, answer)).await
        }
    })
}

fn enter(core: &mut Core, queue: String, mode: Mode, answer: Answer<QueueAnswer>) {
    let record = SettingsRecord { mode, ..core.machine.record(&queue) };
    let now_ms = core.now_ms();
    let ticket = core.machine.configure(now_ms, &queue, &record);
    tell(core, ticket, queue, answer);
}

fn drain(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::drain", move |_: Context, request: QueueRequest| {
        let driver = driver.clone();
        async move {
            check_name("queue", &request.queue, "queue_not_set")?;
            let queue = request.queue.clone();
            let entered = driver.ask(move |core, answer| enter(core, queue, Mode::Draining, answer)).await?;
            driver.ask(move |core, answer| core.drains.push((request.queue, answer))).await?;
            Ok(entered)
        }
    })
    .description("has a queue take no messages, and answers when it has delivered those that it holds")
}

fn cancel(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("queue::cancel", move |_: Context, request: CancelRequest| {
        let driver = driver.clone();
        async move {
            driver
                .ask(move |core, answer| {
                    let id = request.id;
                    let place = match receipt::place(core, &id) {
                        Ok(place) => place,
                        Err(failure) => return answer.give(Err(failure)),
                    };
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
                .ask(move |core, answer| {
                    match core.topics.unsubscribe(&request.topic, &request.function_id) {
                        None => answer.give(Ok(Unsubscribed { removed: false })),
                        Some((_, writes)) => {
                            let ticket = core.machine.write(writes);
                            core.after(
                                ticket,
                                Box::new(move |_, outcome| {
                                    let written = written("unsubscribe_failed", outcome);
                                    answer.give(written.map(|()| Unsubscribed { removed: true }));
                                }),
                            );
                        }
                    }
                })
                .await
        }
    })
    .description("ends a durable subscription for good: no copies are kept for the function any more")
}
