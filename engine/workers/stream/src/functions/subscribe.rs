//! `stream::subscribe` and `unsubscribe`: a snapshot of a group or an item, then everything that happens to it, each with its
//! number, so that whoever comes back goes on after the last one that he saw. Nothing is queued for a subscriber: he is given
//! entries as fast as he takes them, and one that falls too far behind a new snapshot. See the parent for what this must not
//! know.

use std::hash::{BuildHasher, RandomState};
use std::sync::Weak;
use std::sync::atomic::Ordering;

use futures_lite::future;
use ringway::{Context, Encoding, Failure, Function, HandlerResult, Message, StreamWriter};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::list::values_of;
use super::log::head_of;
use super::{of, place, read_json, schema, text_of};
use crate::core::Core;
use crate::error::Refusal;
use crate::gate::{self, Leaving, Subscriber};
use crate::reader::{self, Found};
use crate::registry::Subscription;
use crate::requests::{Subscribe, Unsubscribe};
use crate::wrapper;

const CODE: &str = "STREAM_SUBSCRIBE_ERROR";

/// Entries that are read at once.
const READ_ENTRIES: usize = 64;

pub(super) fn all(core: &Weak<Core>) -> Vec<Function> {
    let (subscriber, ender) = (Weak::clone(core), Weak::clone(core));
    vec![
        Function::stream_async("stream::subscribe", move |context, message, _, out| {
            subscribe(Weak::clone(&subscriber), context, message, out)
        })
        .schema(schema::<Subscribe>(), None)
        .description(
            "Streams `{type: subscribed, subscription_id}`, a snapshot as event `sync`, then every event with its sequence; \
             after the event `resync` comes a new snapshot",
        ),
        Function::raw_async("stream::unsubscribe", move |_, message| unsubscribe(Weak::clone(&ender), message))
            .idempotent()
            .schema(schema::<Unsubscribe>(), Some(json!({"type": "object"})))
            .description("Ends a subscription by its id"),
    ]
}

async fn unsubscribe(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    let request: Unsubscribe = read_json(&message)?;
    Message::json(&json!({"unsubscribed": of(&core)?.registry.unsubscribe(&request.subscription_id)}))
}

async fn subscribe(
    core: Weak<Core>,
    context: Context,
    message: Message,
    out: StreamWriter,
) -> HandlerResult<Message> {
    let request: Subscribe = read_json(&message)?;
    drop(message);
    let place = place(&request.stream_name, &request.group_id, CODE)?;
    let id = request.subscription_id.unwrap_or_else(|| {
        format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
    });
    let Some(subscription) = of(&core)?.registry.subscribe(&id) else {
        return Err(Failure::invalid(format!(
            "there is a subscription `{id}` already: end it, or leave `subscription_id` out to be given one"
        )));
    };
    let subscription_id = request.told_as.unwrap_or(id);
    let subscriber = Subscriber { subscription_id, place, item: request.id, context: request.context };
    gate::ask(&core, context.worker(), &subscriber).await?;
    let leaving = Leaving { core: Weak::clone(&core), worker: context.worker().clone(), subscriber };
    let feed = Feed { core, subscription, out, subscriber: &leaving.subscriber };
    feed.run(request.after_sequence).await?;
    Ok(Message::empty())
}

/// What one subscriber is given.
struct Feed<'a> {
    core: Weak<Core>,
    subscription: Subscription,
    out: StreamWriter,
    subscriber: &'a Subscriber,
}

/// A snapshot; the data is passed on as it lies in the store.
#[derive(Serialize)]
struct Sync<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a RawValue,
}

/// What comes next.
enum Next {
    Entries(Vec<Found>),
    /// The subscriber missed so many entries.
    Resync(u64),
}

impl Feed<'_> {
    /// Gives entries until the subscription is ended.
    async fn run(&self, after: Option<u64>) -> HandlerResult<()> {
        let place = &self.subscriber.place;
        let watcher = of(&self.core)?.news.hub.watch(place);
        let greeting =
            json!({"type": "subscribed", "subscription_id": self.subscription.id, "after_sequence": after});
        if !self.give(Message::json(&greeting)?).await? {
            return Ok(());
        }
        let mut at = match after {
            Some(after) => after,
            None => match self.snapshot().await? {
                Some(at) => at,
                None => return Ok(()),
            },
        };
        loop {
            match self.next(at)? {
                Next::Resync(missed) => {
                    let event = json!({"type": "resync", "data": {"missed": missed}});
                    let notice = wrapper::wrap(place, self.item(), self.now_ms()?, event, at);
                    if !self.give(Message::json(&notice)?).await? {
                        return Ok(());
                    }
                    match self.snapshot().await? {
                        Some(now_at) => at = now_at,
                        None => return Ok(()),
                    }
                }
                Next::Entries(found) if found.is_empty() => {
                    let news = async {
                        watcher.news().await;
                        true
                    };
                    if !future::or(news, self.ended()).await {
                        return Ok(());
                    }
                }
                Next::Entries(found) => {
                    for found in found {
                        at = found.sequence;
                        if !self.tell(&found).await? {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn item(&self) -> Option<&str> {
        self.subscriber.item.as_deref()
    }

    fn now_ms(&self) -> HandlerResult<u64> {
        Ok(of(&self.core)?.now_ms())
    }

    async fn ended(&self) -> bool {
        self.subscription.ended().await;
        false
    }

    /// Sends a message; whether the subscription goes on.
    async fn give(&self, message: Message) -> HandlerResult<bool> {
        let sent = async { self.out.send_async(message).await.map(|()| true) };
        Ok(future::or(sent, async { Ok(self.ended().await) }).await?)
    }

    async fn tell(&self, found: &Found) -> HandlerResult<bool> {
        let Ok(entry) = &found.entry else {
            of(&self.core)?.counters.unreadable.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        };
        if self.item().is_some() && self.item() != entry.item.as_deref() {
            return Ok(true);
        }
        let told = wrapper::told(&self.subscriber.place, found.sequence, entry)?;
        self.give(Message::json(&told)?).await
    }

    /// Sends everything as it is; gives the number of the last entry that it shows, or nothing if the subscription has ended.
    async fn snapshot(&self) -> HandlerResult<Option<u64>> {
        let place = &self.subscriber.place;
        let (text, at) = {
            let core = of(&self.core)?;
            let refused = |refusal: Refusal| refusal.into_failure(CODE);
            let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
            let head = head_of(&core, &*snapshot, place).map_err(refused)?;
            let data = match self.item() {
                Some(id) => {
                    let item = reader::item_of(&core, &*snapshot, place, id).map_err(refused)?;
                    text_of(item.as_ref()).to_vec()
                }
                None => values_of(&core, &*snapshot, place)?,
            };
            let data: Box<RawValue> = serde_json::from_slice(&data)?;
            let event = Sync { kind: "sync", data: &data };
            let wrapper = wrapper::wrap(place, self.item(), core.now_ms(), event, head.last);
            (serde_json::to_vec(&wrapper)?, head.last)
        };
        Ok(self.give(Message::new(Encoding::Json, &text)).await?.then_some(at))
    }

    fn next(&self, at: u64) -> HandlerResult<Next> {
        let core = of(&self.core)?;
        let place = &self.subscriber.place;
        let refused = |refusal: Refusal| refusal.into_failure(CODE);
        let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
        let head = head_of(&core, &*snapshot, place).map_err(refused)?;
        let behind = head.last.saturating_sub(at);
        if behind > core.config.subscriber_lag_max || at + 1 < head.first || at > head.last {
            core.counters.resyncs.fetch_add(1, Ordering::Relaxed);
            return Ok(Next::Resync(behind));
        }
        if behind == 0 {
            return Ok(Next::Entries(Vec::new()));
        }
        let max = core.config.page_bytes_max;
        reader::entries(&*snapshot, place, at + 1, READ_ENTRIES, max).map(Next::Entries).map_err(refused)
    }
}
