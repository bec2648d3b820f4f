//! Settings of the worker, as `ringway.yaml` holds them. Read once, when the worker starts. It must not know how a setting
//! is used.

use std::collections::BTreeMap;

use ringway_store::Durability;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::VALUE_BYTES_MAX;

/// Settings of the stream worker. Every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of an item, or of an entry of a log, as JSON text, at most 7 MiB. Default: 1,048,576.
    pub value_bytes_max: u64,
    /// Operations of one `stream::update`. Default: 1,000.
    pub ops_max: usize,
    /// What applies to a stream where `streams` does not say otherwise.
    pub default: StreamConfig,
    /// What applies to single streams, by name. Default: none.
    pub streams: BTreeMap<String, StreamConfig>,
    /// Bytes of a reply of `stream::list` that is not read in pages. Default: 67,108,864.
    pub list_bytes_max: usize,
    /// Bytes after which a page of `stream::list` or `stream::read` ends early. Default: 8,388,608.
    pub page_bytes_max: usize,
    /// Entries that a subscriber may be behind before it is given a new snapshot instead. Default: 10,000.
    pub subscriber_lag_max: u64,
    /// Whether `stream` triggers fire. Default: true.
    pub triggers_enabled: bool,
    /// Threads on which calls of functions are begun and ended. Default: 2.
    pub threads: usize,
    /// Milliseconds that a function of a trigger may take before it is called again. Default: 60,000.
    pub delivery_timeout_ms: u64,
    /// Milliseconds until the second attempt; doubled for each further one. Default: 100.
    pub retry_ms: u64,
    /// Milliseconds between attempts at most. Default: 30,000.
    pub retry_ms_max: u64,
    /// Milliseconds for which entries are kept for a trigger that does not take them, and for which one that nobody binds
    /// any more is remembered. Default: 86,400,000, a day.
    pub trigger_retention_ms: u64,
    /// Entries that are kept for triggers beyond the retention of a group; with more, writers are refused. Default: 100,000.
    pub backlog_max: u64,
    /// Milliseconds between two looks at the age of entries. Default: 60,000.
    pub retention_check_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            value_bytes_max: 1 << 20,
            ops_max: 1000,
            default: StreamConfig::default(),
            streams: BTreeMap::new(),
            list_bytes_max: 64 << 20,
            page_bytes_max: 8 << 20,
            subscriber_lag_max: 10_000,
            triggers_enabled: true,
            threads: 2,
            delivery_timeout_ms: 60_000,
            retry_ms: 100,
            retry_ms_max: 30_000,
            trigger_retention_ms: 24 * 60 * 60 * 1000,
            backlog_max: 100_000,
            retention_check_ms: 60_000,
        }
    }
}

/// What applies to one stream. What is left out is as `default` says, and there as written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// When a change is acknowledged. Default: durable.
    pub durability: Option<StreamDurability>,
    /// Items of a group. Default: 1,000,000.
    pub items_max: Option<u64>,
    /// Bytes of the items of a group, their ids included. Default: 1,073,741,824.
    pub item_bytes_max: Option<u64>,
    /// Milliseconds after which an item is absent, unless the request says otherwise. Default: never.
    pub ttl_ms: Option<u64>,
    /// Milliseconds for which entries of a group's log are kept. Default: 604,800,000, a week.
    pub retention_ms: Option<u64>,
    /// Bytes of a group's log. Default: 1,073,741,824.
    pub retention_bytes: Option<u64>,
    /// Entries of a group's log. Default: 1,000,000.
    pub retention_entries: Option<u64>,
}

/// When a change is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamDurability {
    /// When it is on disk.
    #[default]
    Durable,
    /// When it can be read. A crash of the machine may lose it, one of the process does not.
    Ephemeral,
}

/// What applies to a stream, nothing left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) durability: Durability,
    pub(crate) items_max: u64,
    pub(crate) item_bytes_max: u64,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) retention_ms: u64,
    pub(crate) retention_bytes: u64,
    pub(crate) retention_entries: u64,
}

impl Config {
    pub(crate) fn rules(&self, stream: &str) -> Rules {
        let default = &self.default;
        let own = self.streams.get(stream).unwrap_or(default);
        let durability = match own.durability.or(default.durability).unwrap_or_default() {
            StreamDurability::Durable => Durability::Durable,
            StreamDurability::Ephemeral => Durability::Ephemeral,
        };
        Rules {
            durability,
            items_max: own.items_max.or(default.items_max).unwrap_or(1_000_000),
            item_bytes_max: own.item_bytes_max.or(default.item_bytes_max).unwrap_or(1 << 30),
            ttl_ms: own.ttl_ms.or(default.ttl_ms),
            retention_ms: own.retention_ms.or(default.retention_ms).unwrap_or(7 * 24 * 60 * 60 * 1000),
            retention_bytes: own.retention_bytes.or(default.retention_bytes).unwrap_or(1 << 30),
            retention_entries: own.retention_entries.or(default.retention_entries).unwrap_or(1_000_000),
        }
    }

    /// Finds the first setting that cannot be obeyed.
    ///
    /// # Errors
    /// Which one, what was wanted and what was found.
    pub fn check(&self) -> Result<(), String> {
        if self.value_bytes_max == 0 || self.value_bytes_max > VALUE_BYTES_MAX {
            let found = self.value_bytes_max;
            return Err(format!(
                "value_bytes_max is {found}, 1 to {VALUE_BYTES_MAX} was wanted: keep larger things elsewhere and \
                 their address here"
            ));
        }
        let mut positive = vec![
            ("ops_max".to_owned(), self.ops_max as u64),
            ("list_bytes_max".to_owned(), self.list_bytes_max as u64),
            ("page_bytes_max".to_owned(), self.page_bytes_max as u64),
            ("subscriber_lag_max".to_owned(), self.subscriber_lag_max),
            ("threads".to_owned(), self.threads as u64),
            ("delivery_timeout_ms".to_owned(), self.delivery_timeout_ms),
            ("retry_ms".to_owned(), self.retry_ms),
            ("backlog_max".to_owned(), self.backlog_max),
            ("retention_check_ms".to_owned(), self.retention_check_ms),
        ];
        let named = self.streams.iter().map(|(name, config)| (format!("streams.{name}"), config));
        for (name, config) in named.chain([("default".to_owned(), &self.default)]) {
            let fields = [
                ("items_max", config.items_max),
                ("item_bytes_max", config.item_bytes_max),
                ("ttl_ms", config.ttl_ms),
                ("retention_ms", config.retention_ms),
                ("retention_bytes", config.retention_bytes),
                ("retention_entries", config.retention_entries),
            ];
            positive.extend(
                fields.iter().filter_map(|(field, value)| Some((format!("{name}.{field}"), (*value)?))),
            );
        }
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => {
                Err(format!("{name} is 0, at least 1 was wanted: leave it out for what it is by default"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_stream_has_its_own_rules_then_the_defaults() {
        assert_eq!(read("{}").unwrap(), Config::default());
        let config = read(
            r#"{"default": {"items_max": 7, "ttl_ms": 5}, "streams": {"chat": {"durability": "ephemeral", "ttl_ms": 9}}}"#,
        )
        .unwrap();
        let (chat, other) = (config.rules("chat"), config.rules("other"));
        assert_eq!((chat.durability, chat.items_max, chat.ttl_ms), (Durability::Ephemeral, 7, Some(9)));
        assert_eq!((other.durability, other.items_max, other.ttl_ms), (Durability::Durable, 7, Some(5)));
        assert_eq!(other.retention_entries, 1_000_000);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        assert_eq!(Config::default().check(), Ok(()));
        let check = |text: &str, words: &str| {
            let error = read(text).unwrap().check().unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        check(r#"{"value_bytes_max": 0}"#, "value_bytes_max is 0");
        check(r#"{"value_bytes_max": 99000000}"#, "7340032");
        check(r#"{"threads": 0}"#, "threads is 0");
        check(r#"{"streams": {"chat": {"items_max": 0}}}"#, "streams.chat.items_max is 0");
        assert!(read(r#"{"ttl": 1}"#).unwrap_err().to_string().contains("unknown field"));
    }
}
