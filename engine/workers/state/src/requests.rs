//! Requests and replies of the functions, as they look in JSON and in the catalog. Read by `functions`. It must not know
//! what is done with them.

use std::borrow::Cow;

use ringway_update_ops::{Op, OpError};
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

/// What `state::set` takes. Raw bytes come as attachment beside it, or as body with this as metadata.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Set {
    /// The scope of the key.
    pub(crate) scope: String,
    /// The key.
    pub(crate) key: String,
    /// Any JSON.
    #[serde(default, alias = "data", deserialize_with = "given")]
    #[schemars(with = "Option<Value>")]
    pub(crate) value: Option<Text>,
    /// Milliseconds after which the value is absent, at least 1; never unless given.
    pub(crate) ttl_ms: Option<u64>,
    /// Only if the key is at this revision; 0: only if it is absent.
    pub(crate) if_revision: Option<u64>,
}

/// What `state::get` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Get<'a> {
    /// The scope of the key.
    #[serde(borrow)]
    pub(crate) scope: Cow<'a, str>,
    /// The key.
    #[serde(borrow)]
    pub(crate) key: Cow<'a, str>,
    /// Answers `{value, revision}`, with null and 0 where there is nothing.
    #[serde(default)]
    pub(crate) with_revision: bool,
}

/// What `state::delete` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Delete {
    /// The scope of the key.
    pub(crate) scope: String,
    /// The key.
    pub(crate) key: String,
    /// Only if the key is at this revision; 0: only if it is absent.
    pub(crate) if_revision: Option<u64>,
}

/// What `state::update` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Update {
    /// The scope of the key.
    pub(crate) scope: String,
    /// The key.
    pub(crate) key: String,
    /// Applied in order to the value, or to `{}`.
    pub(crate) ops: Vec<Op>,
    /// Writes nothing if one of them cannot be applied.
    #[serde(default)]
    pub(crate) all_or_nothing: bool,
    /// Only if the key is at this revision; 0: only if it is absent.
    pub(crate) if_revision: Option<u64>,
}

/// What `state::transaction` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Transaction {
    /// Done in order, all or none. Each sees what those before it did; revisions are those before all of them.
    pub(crate) operations: Vec<Operation>,
}

/// One operation of a transaction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Operation {
    /// As `state::set`.
    Set {
        /// The scope of the key.
        scope: String,
        /// The key.
        key: String,
        /// Any JSON.
        #[serde(alias = "data")]
        value: Value,
        /// Milliseconds after which the value is absent.
        ttl_ms: Option<u64>,
        /// Only if the key is at this revision.
        if_revision: Option<u64>,
    },
    /// As `state::delete`.
    Delete {
        /// The scope of the key.
        scope: String,
        /// The key.
        key: String,
        /// Only if the key is at this revision.
        if_revision: Option<u64>,
    },
    /// As `state::update`.
    Update {
        /// The scope of the key.
        scope: String,
        /// The key.
        key: String,
        /// Applied in order.
        ops: Vec<Op>,
        /// Writes nothing for this key if one of them cannot be applied.
        #[serde(default)]
        all_or_nothing: bool,
        /// Only if the key is at this revision.
        if_revision: Option<u64>,
    },
    /// Nothing but: the key is at this revision.
    Check {
        /// The scope of the key.
        scope: String,
        /// The key.
        key: String,
        /// The revision, 0 for absent.
        revision: u64,
    },
}

/// What `state::list` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct List {
    /// The scope.
    pub(crate) scope: String,
}

/// What `state::scan` takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Scan {
    /// The scope.
    pub(crate) scope: String,
    /// Keys with this beginning; not together with `from` and `to`.
    pub(crate) prefix: Option<String>,
    /// The first key wanted.
    pub(crate) from: Option<String>,
    /// The first key not wanted any more.
    pub(crate) to: Option<String>,
    /// Entries of the page, 1 to 1,000; 100 unless given.
    pub(crate) limit: Option<usize>,
    /// `cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// From the last key to the first.
    #[serde(default)]
    pub(crate) reverse: bool,
    /// Leaves the values out.
    #[serde(default)]
    pub(crate) keys_only: bool,
}

/// What `state::watch` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Watch {
    /// Only changes in this scope.
    pub(crate) scope: Option<String>,
    /// Only keys with this beginning; needs a scope.
    pub(crate) prefix: Option<String>,
    /// Changes after this revision, such as that of a scan; from now on unless given.
    pub(crate) from_revision: Option<u64>,
}

/// What `state::info` takes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Info {
    /// The scope whose durability is asked for.
    pub(crate) scope: Option<String>,
}

/// What `state::list_groups` takes: nothing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Nothing {}

/// What `state::set` answers.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) enum SetReply {
    /// To JSON.
    Json { old_value: Value, new_value: Value, revision: u64 },
    /// To raw bytes, which need not come back: how many there are.
    Bytes { bytes: u64, revision: u64 },
}

/// What `state::update` answers.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) struct UpdateReply {
    old_value: Value,
    new_value: Value,
    revision: u64,
    errors: Option<Vec<OpError>>,
}

/// What `state::transaction` answers.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) struct TransactionReply {
    /// Of all that was written, which is one commit.
    revision: u64,
    /// One for each operation.
    results: Vec<OperationReply>,
}

/// What one operation of a transaction did.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) struct OperationReply {
    old_value: Value,
    new_value: Value,
    errors: Option<Vec<OpError>>,
}

/// What `state::list_groups` answers.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) struct Groups {
    groups: Vec<String>,
}

/// What `state::scan` answers.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) struct ScanReply {
    entries: Vec<ScanEntry>,
    /// For the next page; null if there is none.
    cursor: Option<String>,
    /// What the page was read at; a watch that begins there misses nothing.
    revision: u64,
}

/// An entry of a page.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the shape of text that is written without it")]
pub(crate) struct ScanEntry {
    key: String,
    value: Option<Value>,
    revision: u64,
    /// Milliseconds since 1970.
    expires_at_ms: Option<u64>,
}
