//! `stream::list`, `list_groups`, `list_all`, `logs` and `info`. See the parent for what this must not know.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use ringway::{Context, Failure, Function, HandlerResult, Message};
use serde_json::{Value, json};

use super::{anything, json_text, limit, of, place, read_json, schema};
use crate::core::Core;
use crate::place::Place;
use crate::record::{Head, Item};
use crate::requests::{Group, List, ListGroups, Logs, Nothing};
use crate::{backend, limits, reader};

pub(super) fn all(core: &Weak<Core>) -> Vec<Function> {
    let own = Weak::clone;
    let (lister, grouper, all, logs, informer) = (own(core), own(core), own(core), own(core), own(core));
    let groups = json!({"type": "array", "items": {"type": "string"}});
    vec![
        Function::raw_async("stream::list", move |context, message| list(own(&lister), context, message))
            .idempotent()
            .schema(schema::<List>(), anything())
            .description(
                "Reads the items of a group in the order of their ids: the values, or pages with ids",
            ),
        Function::raw_async("stream::list_groups", move |context, message| {
            list_groups(own(&grouper), context, message)
        })
        .idempotent()
        .schema(schema::<ListGroups>(), Some(groups))
        .description("Names the groups of a stream that hold an item, in order"),
        Function::raw_async("stream::list_all", move |_, message| list_all(own(&all), message))
            .idempotent()
            .schema(schema::<Nothing>(), Some(json!({"type": "object"})))
            .description("Names all streams with the groups that hold an item"),
        Function::raw_async("stream::logs", move |_, message| list_logs(own(&logs), message))
            .idempotent()
            .schema(schema::<Logs>(), Some(json!({"type": "object"})))
            .description("Lists groups with what their logs and items take, those without items too"),
        Function::raw_async("stream::info", move |_, message| info(own(&informer), message))
            .idempotent()
            .schema(schema::<Group>(), Some(json!({"type": "object"})))
            .description("Says how a group stands, which limits hold, and what waits"),
    ]
}

const LIST: &str = "STREAM_GET_GROUP_ERROR";

async fn list(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    let list: List = read_json(&message)?;
    if let Some(id) = backend::of(&context, "list", &list.stream_name) {
        return Message::json(&backend::ask(&context, &id, &message).await?);
    }
    let place = place(&list.stream_name, &list.group_id, LIST)?;
    let core = of(&core)?;
    if list.with_ids || list.limit.is_some() || list.cursor.is_some() {
        return page(&core, &place, &list);
    }
    values(&core, &place).map(|text| json_text(&text))
}

/// The values of a group as a JSON array.
pub(super) fn values(core: &Core, place: &Place) -> HandlerResult<Vec<u8>> {
    let snapshot = core.store.snapshot().map_err(|error| Failure::with_code(LIST, error.to_string()))?;
    values_of(core, &*snapshot, place)
}

pub(super) fn values_of(
    core: &Core,
    snapshot: &dyn ringway_store::Snapshot,
    place: &Place,
) -> HandlerResult<Vec<u8>> {
    let max = core.config.list_bytes_max;
    let mut text = b"[".to_vec();
    reader::items(core, snapshot, place, None, |_, item| {
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(item.json());
        text.len() < max
    })
    .map_err(|refusal| refusal.into_failure(LIST))?;
    if text.len() >= max {
        let text = format!(
            "group `{}` has more than {max} bytes of items (list_bytes_max): read it page by page, with `limit`",
            place.group
        );
        return Err(Failure::with_code(LIST, text));
    }
    text.push(b']');
    Ok(text)
}

fn page(core: &Core, place: &Place, list: &List) -> HandlerResult<Message> {
    let limit = limit(list.limit)?;
    let after = match &list.cursor {
        Some(cursor) => Some(cursor.strip_prefix("1:").ok_or_else(|| {
            Failure::invalid(format!("`{cursor}` is no cursor: pass on the one of the page before as it is"))
        })?),
        None => None,
    };
    let refused = |refusal: crate::error::Refusal| refusal.into_failure(LIST);
    let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
    let head = reader::head(&*snapshot, place).map_err(refused)?;
    let mut text = b"{\"items\":[".to_vec();
    let (mut count, mut cursor) = (0, None);
    reader::items(core, &*snapshot, place, after, |id, item| {
        if count == limit || (count > 0 && text.len() >= core.config.page_bytes_max) {
            return false;
        }
        write_item(&mut text, count > 0, id, &item);
        (count, cursor) = (count + 1, Some(format!("1:{id}")));
        true
    })
    .map_err(refused)?;
    // A page that ended early may be the last one; the next is empty then.
    let cursor = cursor.filter(|_| count == limit || text.len() >= core.config.page_bytes_max);
    let (cursor, last) = (Value::from(cursor), head.map_or(0, |head| head.last));
    text.extend_from_slice(format!("],\"cursor\":{cursor},\"sequence\":{last}}}").as_bytes());
    Ok(json_text(&text))
}

fn write_item(text: &mut Vec<u8>, comma: bool, id: &str, item: &Item) {
    if comma {
        text.push(b',');
    }
    text.extend_from_slice(format!("{{\"id\":{},\"data\":", Value::from(id)).as_bytes());
    text.extend_from_slice(item.json());
    text.extend_from_slice(format!(",\"version\":{}", item.version).as_bytes());
    if let Some(expires) = item.expires_at_ms {
        text.extend_from_slice(format!(",\"expires_at_ms\":{expires}").as_bytes());
    }
    text.push(b'}');
}

async fn list_groups(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    let list: ListGroups = read_json(&message)?;
    if let Some(id) = backend::of(&context, "list_groups", &list.stream_name) {
        return Message::json(&backend::ask(&context, &id, &message).await?);
    }
    let groups = reader::groups(&*of(&core)?, Some(&list.stream_name));
    let groups = groups.map_err(|refusal| refusal.into_failure("STREAM_LIST_GROUPS_ERROR"))?;
    Message::json(&groups.iter().map(|place| &*place.group).collect::<Vec<_>>())
}

async fn list_all(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    let Nothing {} = read_json(&message)?;
    let groups = reader::groups(&*of(&core)?, None);
    let groups = groups.map_err(|refusal| refusal.into_failure("STREAM_LIST_ALL_ERROR"))?;
    let of_one = groups.chunk_by(|one, other| one.stream == other.stream);
    let streams: Vec<Value> = of_one
        .map(|groups| {
            json!({"id": groups[0].stream, "groups": groups.iter().map(|place| &*place.group).collect::<Vec<_>>()})
        })
        .collect();
    Message::json(&json!({"count": streams.len(), "stream": streams}))
}

fn shown(place: &Place, head: &Head) -> Value {
    json!({
        "stream_name": place.stream,
        "group_id": place.group,
        "first_offset": head.first,
        "last_offset": head.last,
        "entries": head.entries(),
        "log_bytes": head.log_bytes,
        "items": head.items,
        "item_bytes": head.item_bytes,
    })
}

async fn list_logs(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    let logs: Logs = read_json(&message)?;
    let mut groups = Vec::new();
    reader::heads(&*of(&core)?, logs.stream_name.as_deref(), None, |place, head, _| {
        groups.push(shown(&place, &head));
        groups.len() < 10 * limits::PAGE_ENTRIES_MAX
    })
    .map_err(|refusal| refusal.into_failure("STREAM_LOGS_ERROR"))?;
    Message::json(&json!({ "groups": groups }))
}

async fn info(core: Weak<Core>, message: Message) -> HandlerResult<Message> {
    let group: Group = read_json(&message)?;
    let place = place(&group.stream_name, &group.group_id, "STREAM_INFO_ERROR")?;
    let core = of(&core)?;
    let refused = |refusal: crate::error::Refusal| refusal.into_failure("STREAM_INFO_ERROR");
    let snapshot = core.store.snapshot().map_err(|error| refused(error.into()))?;
    let head = reader::head(&*snapshot, &place).map_err(refused)?;
    let head = head.unwrap_or_else(|| Head::new(core.floor.load(Ordering::Relaxed)));
    let rules = core.config.rules(&place.stream);
    let counters = &core.counters;
    let (bound, remembered, lanes) = core.news.delivery.counts();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut answer = shown(&place, &head);
    answer["durability"] = match rules.durability {
        ringway_store::Durability::Durable => json!("durable"),
        ringway_store::Durability::Ephemeral => json!("ephemeral"),
    };
    answer["limits"] = json!({
        "value_bytes_max": core.config.value_bytes_max,
        "items_max": rules.items_max,
        "item_bytes_max": rules.item_bytes_max,
        "ttl_ms": rules.ttl_ms,
        "retention_ms": rules.retention_ms,
        "retention_bytes": rules.retention_bytes,
        "retention_entries": rules.retention_entries,
        "page_entries_max": limits::PAGE_ENTRIES_MAX,
    });
    answer["worker"] = json!({
        "subscriptions": core.registry.subscriptions(),
        "triggers": {"bound": bound, "remembered": remembered, "telling": lanes},
        "delivered": count(&counters.delivered),
        "attempts_failed": count(&counters.attempts_failed),
        "set_aside": count(&counters.set_aside),
        "expired": count(&counters.expired),
        "trimmed": count(&counters.trimmed),
        "resyncs": count(&counters.resyncs),
        "unreadable": count(&counters.unreadable),
    });
    Message::json(&answer)
}
