//! `state::watch`: a stream of changes from a revision on. See the parent for what this must not know.

use std::sync::Weak;

use ringway::{CallError, ErrorCode, Failure, Function, HandlerResult, Message, StreamWriter};
use ringway_worker_kit::json;
use serde_json::{Value, json};

use super::{of, schema};
use crate::core::Core;
use crate::keys;
use crate::requests::Watch;
use crate::watch::{Behind, Commit};

pub(super) fn function(core: &Weak<Core>) -> Function {
    let core = Weak::clone(core);
    Function::stream_async("state::watch", move |_, message, _, changes| {
        watch(Weak::clone(&core), message, changes)
    })
    .schema(schema::<Watch>(), None)
    .description(
        "Streams `{type: watching, revision}`, then every change with its revision, until the caller leaves or is \
         told WATCH_BEHIND",
    )
}

async fn watch(core: Weak<Core>, message: Message, changes: StreamWriter) -> HandlerResult<Message> {
    let request: Watch = json::read(message.encoding(), message.body())?;
    drop(message);
    let beginning = beginning(&request)?;
    let core = of(&core)?;
    let now = core.store.snapshot().map_err(|error| Failure::with_code("WATCH_ERROR", error.to_string()))?;
    let now = now.revision();
    let mut after = request.from_revision.unwrap_or(now);
    if after > now {
        let text = format!(
            "watching was to begin after revision {after}, the store is at {now}: it is another store, or an older copy; \
             read what you need with state::scan and watch from its revision"
        );
        return Err(told(text, after, now));
    }
    let mut watcher = core.news.watch.watch(after);
    drop(core);
    changes.send_async(Message::json(&json!({"type": "watching", "revision": after}))?).await?;
    loop {
        let commits = watcher.next().await.map_err(|Behind { oldest }| {
            let text = format!(
                "the watcher is at revision {after}, changes are kept from {oldest} on: read what you need with \
                 state::scan and watch from its revision"
            );
            told(text, after, oldest)
        })?;
        for commit in commits {
            after = commit.revision;
            for item in items(&commit, &beginning)? {
                changes.send_async(Message::json(&item)?).await?;
            }
        }
    }
}

fn told(text: String, at: u64, oldest: u64) -> Failure {
    let error = CallError::new(ErrorCode::HandlerError, text).with_user_code("WATCH_BEHIND");
    error.with_details(json!({"revision": at, "oldest": oldest})).into()
}

/// What the keys that are watched begin with.
fn beginning(request: &Watch) -> HandlerResult<Vec<u8>> {
    match (&request.scope, &request.prefix) {
        (None, None) => Ok(Vec::new()),
        (None, Some(_)) => Err(Failure::invalid("`prefix` without `scope`: name the scope as well")),
        (Some(scope), prefix) => keys::join(scope, prefix.as_deref().unwrap_or_default())
            .map_err(|text| Failure::with_code("WATCH_ERROR", text)),
    }
}

fn items(commit: &Commit, beginning: &[u8]) -> HandlerResult<Vec<Value>> {
    let mut items = Vec::new();
    for change in commit.changes.iter().filter(|change| change.key.starts_with(beginning)) {
        let mut item =
            change.payload().map_err(|error| Failure::with_code("WATCH_ERROR", error.to_string()))?;
        item["revision"] = json!(commit.revision);
        items.push(item);
    }
    Ok(items)
}
