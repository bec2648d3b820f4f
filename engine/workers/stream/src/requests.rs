//! Requests of the functions, as they look in JSON and in the catalog. Read by `functions`. It must not know what is done
//! with them.

use ringway_update_ops::Op;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// JSON text that is passed on as it came.
pub(crate) type Text = Box<RawValue>;

/// Tells a null from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
    Text::deserialize(deserializer).map(Some)
}

/// What `stream::set` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Set {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    pub(crate) item_id: String,
    /// Any JSON.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Value>")]
    pub(crate) data: Option<Text>,
    /// Milliseconds after which the item is absent, at least 1; as the stream's settings say unless given.
    pub(crate) ttl_ms: Option<u64>,
    /// Only if the item has this version; 0: only if it is absent.
    pub(crate) if_version: Option<u64>,
}

/// What `stream::get` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Get {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    pub(crate) item_id: String,
    /// Answers `{data, version, expires_at_ms?}`, with null and 0 where there is nothing.
    #[serde(default)]
    pub(crate) with_version: bool,
}

/// What `stream::delete` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Delete {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    pub(crate) item_id: String,
    /// Only if the item has this version.
    pub(crate) if_version: Option<u64>,
}

/// What `stream::update` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Update {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    pub(crate) item_id: String,
    /// Applied in order to the item, or to `{}`.
    pub(crate) ops: Vec<Op>,
    /// Writes nothing if one of them cannot be applied.
    #[serde(default)]
    pub(crate) all_or_nothing: bool,
    /// Only if the item has this version; 0: only if it is absent.
    pub(crate) if_version: Option<u64>,
}

/// What `stream::list` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct List {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    /// Answers `{items: [{id, data, version}], cursor, sequence}` instead of the values alone.
    #[serde(default)]
    pub(crate) with_ids: bool,
    /// Items of the page, 1 to 1,000; 100 unless given. Means `with_ids`.
    pub(crate) limit: Option<usize>,
    /// `cursor` of the page before. Means `with_ids`.
    pub(crate) cursor: Option<String>,
}

/// What `stream::list_groups` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ListGroups {
    pub(crate) stream_name: String,
}

/// What is asked for where nothing has to be said.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Nothing {}

/// What `stream::send` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Send {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    /// The item that it is about.
    pub(crate) id: Option<String>,
    /// What kind of event it is.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Any JSON; null unless given.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Value>")]
    pub(crate) data: Option<Text>,
}

/// What `stream::append` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Append {
    pub(crate) stream_name: String,
    /// The group whose log it goes to; the one without a name unless given.
    #[serde(default)]
    pub(crate) group_id: String,
    /// Any JSON.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Value>")]
    pub(crate) data: Option<Text>,
}

/// What `stream::read` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Read {
    pub(crate) stream_name: String,
    #[serde(default)]
    pub(crate) group_id: String,
    /// The first entry wanted; the oldest one that is kept unless given.
    pub(crate) from_offset: Option<u64>,
    /// The first entry written at or after this time, in milliseconds since 1970.
    pub(crate) from_time_ms: Option<u64>,
    /// Entries after the last one that this consumer has committed.
    pub(crate) consumer: Option<String>,
    /// Entries of the page, 1 to 1,000; 100 unless given.
    pub(crate) limit: Option<usize>,
}

/// What `stream::tail` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Tail {
    pub(crate) stream_name: String,
    #[serde(default)]
    pub(crate) group_id: String,
    /// The first entry wanted; unless given, the one after the last that the consumer has committed, or without a consumer
    /// the next that is written.
    pub(crate) from_offset: Option<u64>,
    /// The first entry written at or after this time, in milliseconds since 1970.
    pub(crate) from_time_ms: Option<u64>,
    /// A name that several may tail under: one of them at a time is given entries.
    pub(crate) consumer: Option<String>,
}

/// What `stream::commit` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Commit {
    pub(crate) stream_name: String,
    #[serde(default)]
    pub(crate) group_id: String,
    pub(crate) consumer: String,
    /// The last entry that is done; 0 begins anew.
    pub(crate) offset: u64,
}

/// What `stream::info` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Group {
    pub(crate) stream_name: String,
    #[serde(default)]
    pub(crate) group_id: String,
}

/// What `stream::logs` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Logs {
    /// Only this stream.
    pub(crate) stream_name: Option<String>,
}

/// What `stream::subscribe` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Subscribe {
    pub(crate) stream_name: String,
    pub(crate) group_id: String,
    /// Only what is about this item.
    pub(crate) id: Option<String>,
    /// A name for `stream::unsubscribe`; one is made unless given.
    pub(crate) subscription_id: Option<String>,
    /// What the functions of `stream:join` and `stream:leave` are told that it is called; its name unless given. Whoever passes
    /// on what many ask for needs it, since they choose the same names.
    pub(crate) told_as: Option<String>,
    /// The last entry that the subscriber has seen: no snapshot, but what came after it.
    pub(crate) after_sequence: Option<u64>,
    /// Passed on to the functions of `stream:join` and `stream:leave`.
    #[serde(default)]
    pub(crate) context: Value,
}

/// What `stream::unsubscribe` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Unsubscribe {
    pub(crate) subscription_id: String,
}
