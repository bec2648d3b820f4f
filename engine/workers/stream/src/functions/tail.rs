//! `stream::tail`: a stream of entries as they are written. Of those that tail under one consumer's name, one at a time is
//! given entries; the next takes over when it goes. See the parent for what this must not know.

use std::sync::Weak;

use ringway::{Context, Function, HandlerResult, Message, StreamWriter};
use serde_json::json;

use super::log::{beginning, head_of, shown};
use super::{of, place, read_json, schema};
use crate::core::Core;
use crate::error::Refusal;
use crate::place::Place;
use crate::reader;
use crate::requests::Tail;

const CODE: &str = "STREAM_TAIL_ERROR";

/// Entries that are read at once.
const READ_ENTRIES: usize = 64;

pub(super) fn function(core: &Weak<Core>) -> Function {
    let core = Weak::clone(core);
    Function::stream_async("stream::tail", move |context, message, _, entries| {
        tail(Weak::clone(&core), context, message, entries)
    })
    .schema(schema::<Tail>(), None)
    .description(
        "Streams `{type: tailing, next_offset}`, then every entry of a group's log; `{type: gap, missed}` stands for those \
         that were removed before they were read",
    )
}

async fn tail(core: Weak<Core>, _: Context, message: Message, out: StreamWriter) -> HandlerResult<Message> {
    let tail: Tail = read_json(&message)?;
    drop(message);
    let place = place(&tail.stream_name, &tail.group_id, CODE)?;
    let (watcher, member) = {
        let core = of(&core)?;
        let member = tail.consumer.as_deref().map(|name| core.registry.join(&place, &name.into()));
        (core.news.hub.watch(&place), member)
    };
    if let Some(member) = &member {
        member.turn().await;
    }
    let mut next = first(&core, &place, &tail)?;
    out.send_async(Message::json(&json!({"type": "tailing", "next_offset": next}))?).await?;
    loop {
        let (first, found) = {
            let core = of(&core)?;
            let refused = |refusal: Refusal| refusal.into_failure(CODE);
            let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
            let first = head_of(&core, &*snapshot, &place).map_err(refused)?.first;
            let max = core.config.page_bytes_max;
            let from = next.max(first);
            (first, reader::entries(&*snapshot, &place, from, READ_ENTRIES, max).map_err(refused)?)
        };
        if next < first {
            let gap = json!({"type": "gap", "missed": first - next, "first_offset": first});
            out.send_async(Message::json(&gap)?).await?;
            next = first;
        }
        for found in &found {
            out.send_async(Message::json(&shown(&place, found))?).await?;
            next = found.sequence + 1;
        }
        if found.is_empty() {
            watcher.news().await;
        }
    }
}

/// The first entry wanted.
fn first(core: &Weak<Core>, place: &Place, tail: &Tail) -> HandlerResult<u64> {
    let core = of(core)?;
    let refused = |refusal: Refusal| refusal.into_failure(CODE);
    let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
    let head = head_of(&core, &*snapshot, place).map_err(refused)?;
    let wanted = (tail.from_offset, tail.from_time_ms, tail.consumer.as_deref());
    let first = beginning(&*snapshot, place, &head, wanted, head.last + 1)?;
    // From the beginning is from the oldest entry that is kept.
    Ok(if first <= 1 { head.first } else { first })
}
