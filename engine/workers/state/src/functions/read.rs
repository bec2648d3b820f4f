//! `state::get`, `list`, `list_groups`, `scan` and `info`. `state::get` runs where the request arrives: it looks at the
//! store's memory and copies the value's bytes into the reply. See the parent for what this must not know.

use std::ops::Bound;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use ringway::{Context, Failure, Function, HandlerResult, Message, Request};
use ringway_worker_kit::json;
use serde_json::{Value, json};

use super::write::value_message;
use super::{anything, of, schema};
use crate::config::ScopeDurability;
use crate::core::Core;
use crate::limits::{PAGE_ENTRIES, PAGE_ENTRIES_MAX};
use crate::reader::{self, Found, Range};
use crate::record;
use crate::requests::{Get, Groups, Info, List, Nothing, Scan, ScanReply};
use crate::{keys, limits};

pub(super) fn all(core: &Weak<Core>) -> Vec<Function> {
    let own = || Weak::clone(core);
    let (getter, lister, grouper, scanner, informer) = (own(), own(), own(), own(), own());
    vec![
        Function::raw("state::get", move |context, request| get(&*of(&getter)?, context, request))
            .inline()
            .idempotent()
            .schema(schema::<Get<'_>>(), anything())
            .description("Reads a value; nothing at all where there is none"),
        Function::raw("state::list", move |_, request| list(&*of(&lister)?, request))
            .idempotent()
            .schema(schema::<List>(), Some(json!({"type": "array"})))
            .description("Reads all values of a scope, in the order of their keys"),
        Function::raw("state::list_groups", move |_, request| groups(&*of(&grouper)?, request))
            .idempotent()
            .schema(schema::<Nothing>(), schema::<Groups>())
            .description("Names the scopes that hold a value, in order"),
        Function::raw("state::scan", move |_, request| scan(&*of(&scanner)?, request))
            .idempotent()
            .schema(schema::<Scan>(), schema::<ScanReply>())
            .description("Reads keys with values and revisions, by prefix or range, page by page"),
        Function::raw("state::info", move |_, request| info(&*of(&informer)?, request))
            .idempotent()
            .schema(schema::<Info>(), Some(json!({"type": "object"})))
            .description("Says when changes of a scope are acknowledged, which limits hold, and what waits"),
    ]
}

fn get(core: &Core, context: &Context, request: &Request<'_>) -> HandlerResult<Message> {
    json::expect(request.encoding())?;
    let get: Get<'_> = serde_json::from_slice(request.body()).map_err(|error| json::unfit(&error))?;
    let key = keys::join(&get.scope, &get.key).map_err(|text| Failure::with_code("GET_ERROR", text))?;
    let found = reader::get(core, &key).map_err(|error| error.into_failure("GET_ERROR"))?;
    if !get.with_revision {
        return Ok(value_message(context.worker(), found.as_ref().map(|(record, _)| record)));
    }
    let mut text = b"{\"value\":".to_vec();
    record::write_json(found.as_ref().map(|(record, _)| record), &mut text);
    let revision = found.map_or(0, |(_, revision)| revision);
    text.extend_from_slice(format!(",\"revision\":{revision}}}").as_bytes());
    Ok(json::message(&text))
}

fn list(core: &Core, request: &Request<'_>) -> HandlerResult<Message> {
    let list: List = json::read(request.encoding(), request.body())?;
    let max = core.config.list_bytes_max;
    let mut text = b"[".to_vec();
    let mut count = 0_usize;
    let listed = reader::each(core, &list.scope, |record| {
        if count > 0 {
            text.push(b',');
        }
        record.write_json(&mut text);
        count += 1;
        text.len() < max
    });
    listed.map_err(|error| error.into_failure("LIST_ERROR"))?;
    if text.len() >= max {
        let text = format!(
            "scope `{}` has more than {max} bytes of values (list_bytes_max): read it page by page with state::scan",
            list.scope
        );
        return Err(Failure::with_code("LIST_ERROR", text));
    }
    text.push(b']');
    Ok(json::message(&text))
}

fn groups(core: &Core, request: &Request<'_>) -> HandlerResult<Message> {
    json::expect(request.encoding())?;
    let groups = reader::scopes(core).map_err(|error| error.into_failure("LIST_GROUPS_ERROR"))?;
    Message::json(&json!({ "groups": groups }))
}

fn scan(core: &Core, request: &Request<'_>) -> HandlerResult<Message> {
    let scan: Scan = json::read(request.encoding(), request.body())?;
    let range = range(core, &scan)?;
    let page = reader::page(core, range).map_err(|error| error.into_failure("SCAN_ERROR"))?;
    let mut text = b"{\"entries\":[".to_vec();
    for (number, found) in page.found.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        write_found(found, scan.keys_only, &mut text)?;
    }
    let cursor = page.next.and_then(|key| keys::split(&key).map(|(_, key)| format!("1:{key}")));
    let cursor = serde_json::to_string(&cursor)?;
    text.extend_from_slice(format!("],\"cursor\":{cursor},\"revision\":{}}}", page.revision).as_bytes());
    Ok(json::message(&text))
}

fn write_found(found: &Found, keys_only: bool, text: &mut Vec<u8>) -> HandlerResult<()> {
    let (_, key) = keys::split(&found.key)
        .ok_or_else(|| Failure::with_code("SCAN_ERROR", "a key of the store cannot be read"))?;
    text.extend_from_slice(format!("{{\"key\":{}", serde_json::to_string(key)?).as_bytes());
    if !keys_only {
        text.extend_from_slice(b",\"value\":");
        found.record.write_json(text);
    }
    text.extend_from_slice(format!(",\"revision\":{}", found.revision).as_bytes());
    if let Some(expires) = found.record.expires_at_ms() {
        text.extend_from_slice(format!(",\"expires_at_ms\":{expires}").as_bytes());
    }
    text.push(b'}');
    Ok(())
}

fn range(core: &Core, scan: &Scan) -> HandlerResult<Range> {
    let limit = scan.limit.unwrap_or(PAGE_ENTRIES);
    if limit == 0 || limit > PAGE_ENTRIES_MAX {
        return Err(Failure::invalid(format!("limit is {limit}, 1 to {PAGE_ENTRIES_MAX} was wanted")));
    }
    if scan.prefix.is_some() && (scan.from.is_some() || scan.to.is_some()) {
        return Err(Failure::invalid("`prefix` with `from` or `to`: only one of the two was wanted"));
    }
    let join =
        |key: &str| keys::join(&scan.scope, key).map_err(|text| Failure::with_code("SCAN_ERROR", text));
    let all = join(scan.prefix.as_deref().unwrap_or_default())?;
    let mut to = Bound::Excluded(keys::behind(&all));
    let mut from = Bound::Included(all);
    if let Some(key) = &scan.from {
        from = Bound::Included(join(key)?);
    }
    if let Some(key) = &scan.to {
        to = Bound::Excluded(join(key)?);
    }
    if let Some(cursor) = &scan.cursor {
        let key = cursor.strip_prefix("1:").ok_or_else(|| {
            Failure::invalid(format!("`{cursor}` is no cursor: pass on the one of the page before as it is"))
        })?;
        let edge = Bound::Excluded(join(key)?);
        if scan.reverse { to = edge } else { from = edge }
    }
    Ok(Range { from, to, reverse: scan.reverse, limit, bytes_max: core.config.page_bytes_max })
}

fn info(core: &Core, request: &Request<'_>) -> HandlerResult<Message> {
    let info: Info = json::read(request.encoding(), request.body())?;
    let (config, counters) = (&core.config, &core.counters);
    let revision =
        core.store.snapshot().map_err(|error| Failure::with_code("INFO_ERROR", error.to_string()))?;
    let durability = info.scope.as_deref().map_or(ScopeDurability::Durable, |scope| config.durability(scope));
    let mut answer = json!({
        "durability": durability,
        "scopes": config.scopes,
        "revision": revision.revision(),
        "limits": {
            "value_bytes_max": config.value_bytes_max,
            "key_bytes_max": limits::KEY_BYTES_MAX - 2,
            "ops_max": config.ops_max,
            "page_entries_max": PAGE_ENTRIES_MAX,
            "outbox_entries_max": config.outbox_entries_max,
        },
        "events": {
            "waiting": core.news.outbox.load(Ordering::Relaxed),
            "delivered": counters.delivered.load(Ordering::Relaxed),
            "attempts_failed": counters.attempts_failed.load(Ordering::Relaxed),
            "set_aside": counters.set_aside.load(Ordering::Relaxed),
        },
        "expired": counters.expired.load(Ordering::Relaxed),
        "unreadable": counters.unreadable.load(Ordering::Relaxed),
    });
    if let Some(scope) = info.scope {
        answer["scope"] = Value::String(scope);
    }
    Message::json(&answer)
}
