//! What can be called: requests and answers in iii's shapes, with versions beside them. Each waits for the disk as a
//! future. It must not know how anything is stored.

use ringway::{Context, Failure, Function, HandlerResult, TraceContext};
use std::sync::{Arc, Weak};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check;
use crate::entries::{Changed, Entries, Registration};
use crate::store::{Cause, Entry};

/// A configuration to register.
#[derive(Debug, Deserialize, JsonSchema)]
struct Register {
    /// 1 to 64 of the characters a-z, 0-9, `_` and `-`.
    id: String,
    /// For people.
    #[serde(default)]
    name: String,
    /// For people.
    #[serde(default)]
    description: String,
    /// JSON Schema that its values must fit.
    schema: Value,
    /// Its value; without one, the stored value stays.
    #[serde(default, deserialize_with = "present")]
    initial_value: Option<Value>,
    /// Anything its owner wants to say.
    #[serde(default)]
    metadata: Option<Value>,
}

/// Tells `null`, which is a value, from nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A whole configuration.
#[derive(Debug, Serialize, JsonSchema)]
struct Whole {
    id: String,
    name: String,
    description: String,
    schema: Value,
    /// Variables are put in.
    value: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    /// Rises by one with every change, also where the entry was deleted in between.
    version: u64,
}

/// A configuration without its value.
#[derive(Debug, Serialize, JsonSchema)]
struct View {
    id: String,
    name: String,
    description: String,
    schema: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
}

/// A value to set.
#[derive(Debug, Deserialize, JsonSchema)]
struct Set {
    /// Which configuration.
    id: String,
    /// The whole new value. Texts may hold `${VAR}` and `${VAR:-default}`.
    value: Value,
    /// Only if this is the current version.
    #[serde(default)]
    expected_version: Option<u64>,
}

/// What a change replaced, and by what.
#[derive(Debug, Serialize, JsonSchema)]
struct Replaced {
    old_value: Value,
    new_value: Value,
    /// The version that the change made; the one before where it changed nothing.
    version: u64,
}

/// A configuration to read.
#[derive(Debug, Deserialize, JsonSchema)]
struct Get {
    /// Which configuration.
    id: String,
    /// Leave variables as they were set.
    #[serde(default)]
    raw: bool,
}

/// A value.
#[derive(Debug, Serialize, JsonSchema)]
struct Got {
    id: String,
    value: Value,
    version: u64,
}

/// A configuration that is meant.
#[derive(Debug, Deserialize, JsonSchema)]
struct One {
    /// Which configuration.
    id: String,
}

/// Nothing is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
struct All {}

/// All configurations.
#[derive(Debug, Serialize, JsonSchema)]
struct List {
    configurations: Vec<View>,
    /// Those that are stored and cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
}

/// What is stored and cannot be read.
#[derive(Debug, Serialize, JsonSchema)]
struct Unreadable {
    id: String,
    reason: String,
}

/// Which versions.
#[derive(Debug, Deserialize, JsonSchema)]
struct History {
    /// Which configuration.
    id: String,
    /// At most so many. Default: 20.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 1000))]
    limit: u32,
    /// Only versions before this one. Default: from the newest.
    #[serde(default)]
    before: Option<u64>,
}

const fn twenty() -> u32 {
    20
}

/// Versions, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
struct Versions {
    id: String,
    versions: Vec<VersionView>,
}

/// One version.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionView {
    version: u64,
    /// When, in milliseconds of Unix time.
    at_ms: u64,
    /// What made it.
    cause: Cause,
    /// The version that was gone back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<u64>,
    /// Variables are as they were set.
    value: Value,
}

/// The version to go back to.
#[derive(Debug, Deserialize, JsonSchema)]
struct RollBack {
    /// Which configuration.
    id: String,
    /// One that is kept.
    version: u64,
}

/// What was deleted.
#[derive(Debug, Serialize, JsonSchema)]
struct Deleted {
    id: String,
    old_value: Value,
}

/// Makes all functions of the worker. They outlive it for a while, and do not keep its store open.
pub(crate) fn all(entries: &Arc<Entries>) -> Vec<Function> {
    let own = || Arc::downgrade(entries);
    vec![
        answering("configuration::register", own(), register).description(
            "Registers a configuration with its schema; a stored value stays unless one is given",
        ),
        answering("configuration::set", own(), set).description("Sets the whole value of a configuration"),
        answering("configuration::get", own(), get)
            .description("Reads a configuration, variables put in unless `raw`")
            .idempotent(),
        answering("configuration::list", own(), list)
            .description("Lists configurations, without their values")
            .idempotent(),
        answering("configuration::schema", own(), schema)
            .description("Describes one configuration")
            .idempotent(),
        answering("configuration::history", own(), history)
            .description("Lists versions of a configuration, the newest first")
            .idempotent(),
        answering("configuration::rollback", own(), roll_back)
            .description("Sets a configuration to the value of an earlier version"),
        answering("configuration::delete", own(), delete)
            .description("Deletes a configuration with all its versions"),
    ]
}

fn answering<Request, Answer, Fut>(
    id: &str,
    entries: Weak<Entries>,
    handler: impl Fn(Arc<Entries>, TraceContext, Request) -> Fut + Copy + Send + Sync + 'static,
) -> Function
where
    Request: serde::de::DeserializeOwned + JsonSchema + Send + 'static,
    Answer: Serialize + JsonSchema + Send + 'static,
    Fut: Future<Output = HandlerResult<Answer>> + Send + 'static,
{
    Function::json_async(id, move |context: Context, request: Request| {
        let entries = entries.clone();
        async move {
            let entries = entries.upgrade().ok_or_else(|| {
                Failure::with_code(
                    "LEAVING",
                    "the configuration worker is leaving: call again when it is back",
                )
            })?;
            handler(entries, context.trace(), request).await
        }
    })
}

async fn register(entries: Arc<Entries>, trace: TraceContext, request: Register) -> HandlerResult<Whole> {
    let Register { id, name, description, schema, initial_value, metadata } = request;
    let wanted = Registration { id, name, description, schema, initial_value, metadata };
    let Entry { id, name, description, schema, metadata, value, version } =
        entries.register(wanted, trace).await?.entry;
    // A value that was kept may have variables that are gone; that is for `get` to say.
    let value = check::expand(&id, &value).unwrap_or(value);
    Ok(Whole { id, name, description, schema, value, metadata, version })
}

fn replaced(changed: Changed) -> Replaced {
    let read = |entry: Entry| check::expand(&entry.id, &entry.value).unwrap_or(entry.value);
    let version = changed.entry.version;
    Replaced { old_value: changed.old.map_or(Value::Null, read), new_value: read(changed.entry), version }
}

async fn set(entries: Arc<Entries>, trace: TraceContext, request: Set) -> HandlerResult<Replaced> {
    Ok(replaced(entries.set(&request.id, &request.value, request.expected_version, trace).await?))
}

async fn roll_back(entries: Arc<Entries>, trace: TraceContext, request: RollBack) -> HandlerResult<Replaced> {
    Ok(replaced(entries.roll_back(&request.id, request.version, trace).await?))
}

async fn get(entries: Arc<Entries>, _: TraceContext, request: Get) -> HandlerResult<Got> {
    let entry = entries.entry(&request.id)?;
    if request.raw {
        return Ok(Got { id: entry.id, value: entry.value, version: entry.version });
    }
    let value = check::expand(&entry.id, &entry.value)?;
    // What was never set need not fit; what was must, also where a variable or the schema has changed since.
    if !entry.value.is_null() {
        check::value(&entry.id, &check::schema(&entry.id, &entry.schema)?, &value)?;
    }
    Ok(Got { id: entry.id, value, version: entry.version })
}

fn view(entry: Entry) -> View {
    let Entry { id, name, description, schema, metadata, .. } = entry;
    View { id, name, description, schema, metadata }
}

async fn list(entries: Arc<Entries>, _: TraceContext, _: All) -> HandlerResult<List> {
    let mut list = List { configurations: Vec::new(), unreadable: Vec::new() };
    for entry in entries.shelf.all()? {
        match entry {
            Ok(entry) => list.configurations.push(view(entry)),
            Err((id, why)) => list.unreadable.push(Unreadable { id, reason: why.into_error().message }),
        }
    }
    Ok(list)
}

async fn schema(entries: Arc<Entries>, _: TraceContext, request: One) -> HandlerResult<View> {
    Ok(view(entries.entry(&request.id)?))
}

async fn history(entries: Arc<Entries>, _: TraceContext, request: History) -> HandlerResult<Versions> {
    let entry = entries.entry(&request.id)?;
    let limit = request.limit.clamp(1, 1000) as usize;
    let versions = entries.shelf.history(&request.id, request.before.unwrap_or(u64::MAX), limit)?;
    let versions = versions.into_iter().map(|version| VersionView {
        version: version.version,
        at_ms: version.at_ms,
        cause: version.cause,
        of: version.of,
        value: version.value,
    });
    Ok(Versions { id: entry.id, versions: versions.collect() })
}

async fn delete(entries: Arc<Entries>, trace: TraceContext, request: One) -> HandlerResult<Deleted> {
    let entry = entries.delete(&request.id, trace).await?;
    Ok(Deleted { id: entry.id, old_value: entry.value })
}
