//! `stream::append`, `read`, `commit` and `consumers`: the log of a group, and how far its readers are. See the parent for
//! what this must not know.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use ringway::{Context, Failure, Function, HandlerResult, Message};
use ringway_store::{Batch, Snapshot};
use serde_json::{Value, json};

use super::{limit, needed, of, place, read_json, schema};
use crate::core::{self, Core};
use crate::error::Refusal;
use crate::place::{Place, Reader};
use crate::plan::Act;
use crate::reader::{self, Found};
use crate::record::{Cursor, Head, Kind};
use crate::requests::{Append, Commit, Group, Read};
use crate::{tables, wrapper};

pub(super) fn all(core: &Weak<Core>) -> Vec<Function> {
    let own = Weak::clone;
    let (appender, reader, committer, counter) = (own(core), own(core), own(core), own(core));
    let object = || Some(json!({"type": "object"}));
    vec![
        Function::raw_async("stream::append", move |context, message| {
            append(own(&appender), context, message)
        })
        .schema(schema::<Append>(), object())
        .description("Adds an entry to the log of a group; answers its offset when it is on disk"),
        Function::raw_async("stream::read", move |_, message| read(own(&reader), message))
            .idempotent()
            .schema(schema::<Read>(), object())
            .description(
                "Reads the log of a group from an offset, a time or a consumer's place on, page by page",
            ),
        Function::raw_async("stream::commit", move |_, message| commit(own(&committer), message))
            .idempotent()
            .schema(schema::<Commit>(), object())
            .description("Writes down the last entry that a consumer has done; answers when it is on disk"),
        Function::raw_async("stream::consumers", move |_, message| consumers(own(&counter), message))
            .idempotent()
            .schema(schema::<Group>(), object())
            .description("Lists the consumers of a group with how far they are, and how far behind"),
    ]
}

async fn append(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_APPEND_ERROR";
    let append: Append = read_json(&message)?;
    drop(message);
    let place = place(&append.stream_name, &append.group_id, CODE)?;
    let act = Act::Note { kind: Kind::Append, item: None, name: None, data: needed(append.data)? };
    let done = core::write(&core, &place, &[act], context.trace()).await;
    let done = done.map_err(|refusal| refusal.into_failure(CODE))?;
    Message::json(&json!({"offset": done.first().map_or(0, |outcome| outcome.sequence)}))
}

/// What is known of a group, also of one that is new.
pub(super) fn head_of(core: &Core, snapshot: &dyn Snapshot, place: &Place) -> Result<Head, Refusal> {
    Ok(reader::head(snapshot, place)?.unwrap_or_else(|| Head::new(core.floor.load(Ordering::Relaxed))))
}

/// Where reading begins: at an offset, at a time, after what a consumer has committed, or as `or` says.
pub(super) fn beginning(
    snapshot: &dyn Snapshot,
    place: &Place,
    head: &Head,
    wanted: (Option<u64>, Option<u64>, Option<&str>),
    or: u64,
) -> HandlerResult<u64> {
    let refused = |refusal: Refusal| refusal.into_failure("STREAM_READ_ERROR");
    match wanted {
        (Some(_), Some(_), _) => {
            Err(Failure::invalid("`from_offset` and `from_time_ms`: only one was wanted"))
        }
        (Some(offset), None, _) => Ok(offset),
        (None, Some(time_ms), _) => {
            let late = |found: &Found| found.entry.as_ref().is_ok_and(|entry| entry.time_ms >= time_ms);
            reader::first_entry(snapshot, place, head, late).map_err(refused)
        }
        (None, None, Some(consumer)) => {
            let cursor =
                reader::cursor(snapshot, place, &Reader::Consumer(consumer.into())).map_err(refused)?;
            Ok(cursor.map_or(0, |cursor| cursor.done) + 1)
        }
        (None, None, None) => Ok(or),
    }
}

/// Entries as readers see them; those that cannot be read say so.
pub(super) fn shown(place: &Place, found: &Found) -> Value {
    let read = match &found.entry {
        Ok(entry) => wrapper::read(found.sequence, entry).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|error| {
        tracing::error!(stream = %place.stream, group = %place.group, offset = found.sequence, error, "an entry cannot be read");
        json!({"offset": found.sequence, "type": "unreadable", "error": error})
    })
}

async fn read(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_READ_ERROR";
    let read: Read = read_json(&message)?;
    let place = place(&read.stream_name, &read.group_id, CODE)?;
    let limit = limit(read.limit)?;
    let core = of(&core)?;
    let refused = |refusal: Refusal| refusal.into_failure(CODE);
    let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
    let head = head_of(&core, &*snapshot, &place).map_err(refused)?;
    let wanted = (read.from_offset, read.from_time_ms, read.consumer.as_deref());
    let wanted = beginning(&*snapshot, &place, &head, wanted, head.first)?.max(1);
    let from = wanted.max(head.first);
    let found =
        reader::entries(&*snapshot, &place, from, limit, core.config.page_bytes_max).map_err(refused)?;
    let next = found.last().map_or(from, |last| last.sequence + 1);
    let entries: Vec<Value> = found.iter().map(|found| shown(&place, found)).collect();
    Message::json(&json!({
        "entries": entries,
        "next_offset": next,
        "first_offset": head.first,
        "last_offset": head.last,
        // Whoever begins at the beginning has not missed what was removed before.
        "missed": if wanted > 1 { from - wanted } else { 0 },
    }))
}

async fn commit(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_COMMIT_ERROR";
    let commit: Commit = read_json(&message)?;
    drop(message);
    let place = place(&commit.stream_name, &commit.group_id, CODE)?;
    let refused = |refusal: Refusal| refusal.into_failure(CODE);
    let started = {
        let core = of(&core)?;
        let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
        let head = head_of(&core, &*snapshot, &place).map_err(refused)?;
        if commit.offset > head.last {
            let (offset, last) = (commit.offset, head.last);
            return Err(Failure::invalid(format!(
                "offset is {offset}, the last entry of group `{}` is {last}: commit what was read",
                place.group
            )));
        }
        let key = place.reader(&Reader::Consumer(commit.consumer.as_str().into()));
        let key = key.map_err(|text| Failure::with_code(CODE, text))?;
        let cursor = Cursor { done: commit.offset, time_ms: core.now_ms() };
        let batch = Batch::new().put(tables::CURSORS, &key, cursor.encode());
        core.store.start(batch, core.config.rules(&place.stream).durability)
    };
    // Without the worker's core, so that the store is not let go by its own thread.
    started.map_err(|error| refused(error.into()))?.await.map_err(|error| refused(error.into()))?;
    Message::json(&json!({"committed": commit.offset}))
}

async fn consumers(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_CONSUMERS_ERROR";
    let group: Group = read_json(&message)?;
    let place = place(&group.stream_name, &group.group_id, CODE)?;
    let core = of(&core)?;
    let refused = |refusal: Refusal| refusal.into_failure(CODE);
    let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
    let head = head_of(&core, &*snapshot, &place).map_err(refused)?;
    let cursors = reader::cursors(&*snapshot, &place).map_err(refused)?;
    let shown = cursors.iter().filter_map(|(reader, cursor)| match reader {
        Reader::Consumer(name) => Some(json!({
            "consumer": name, "committed": cursor.done, "behind": head.last.saturating_sub(cursor.done),
            "timestamp": cursor.time_ms,
        })),
        Reader::Trigger(_) => None,
    });
    Message::json(&json!({"consumers": shown.collect::<Vec<_>>(), "last_offset": head.last}))
}
