//! Settings of the worker, as `ringway.yaml` holds them. Read once, when the worker starts. It must not know how a setting
//! is used.

use std::collections::BTreeMap;

use ringway_store::Durability;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::VALUE_BYTES_MAX;

/// Settings of the state worker. Every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of a value, JSON text or raw, at most 7 MiB. Default: 1,048,576.
    #[schemars(range(min = 1, max = 7_340_032))]
    pub value_bytes_max: u64,
    /// Operations of one `state::update` or `state::transaction`. Default: 1,000.
    #[schemars(range(min = 1))]
    pub ops_max: usize,
    /// What applies to single scopes, by name. Default: none, every scope is durable.
    pub scopes: BTreeMap<String, ScopeConfig>,
    /// Bytes of a reply of `state::list`; a larger scope is read with `state::scan`. Default: 67,108,864.
    #[schemars(range(min = 1))]
    pub list_bytes_max: usize,
    /// Bytes after which a page of `state::scan` ends early. Default: 8,388,608.
    #[schemars(range(min = 1))]
    pub page_bytes_max: usize,
    /// Changes that `state::watch` can begin in the past with, and that a slow watcher may be behind, unless their bytes
    /// reach their limit first. Default: 8,192.
    #[schemars(range(min = 1))]
    pub watch_entries_max: usize,
    /// Bytes of those changes, old and new values. Default: 33,554,432.
    #[schemars(range(min = 1))]
    pub watch_bytes_max: usize,
    /// Whether changes make events for `state` triggers. Events from before are told all the same. Default: true.
    pub triggers_enabled: bool,
    /// Events that wait for their functions; beyond that, changes that would add one are refused. Default: 100,000.
    #[schemars(range(min = 1))]
    pub outbox_entries_max: usize,
    /// Threads that call functions of triggers, started when needed; one trigger has half of them at most. Default: 32.
    #[schemars(range(min = 1))]
    pub delivery_threads: usize,
    /// Milliseconds that a function of a trigger may take before it is called again. Default: 60,000.
    pub delivery_timeout_ms: u64,
    /// Milliseconds until the second attempt; doubled for each further one. Default: 100.
    pub retry_ms: u64,
    /// Milliseconds between attempts at most. Default: 30,000.
    pub retry_ms_max: u64,
    /// Milliseconds after which an event that its function does not take is set aside. Default: 86,400,000, a day.
    pub retention_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            value_bytes_max: 1 << 20,
            ops_max: 1000,
            scopes: BTreeMap::new(),
            list_bytes_max: 64 << 20,
            page_bytes_max: 8 << 20,
            watch_entries_max: 8192,
            watch_bytes_max: 32 << 20,
            triggers_enabled: true,
            outbox_entries_max: 100_000,
            delivery_threads: 32,
            delivery_timeout_ms: 60_000,
            retry_ms: 100,
            retry_ms_max: 30_000,
            retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// What applies to one scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScopeConfig {
    /// When a change is acknowledged. Default: durable.
    pub durability: ScopeDurability,
}

/// When a change is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScopeDurability {
    /// When it is on disk.
    #[default]
    Durable,
    /// When it can be read. A crash of the machine may lose it, one of the process does not.
    Ephemeral,
}

impl Config {
    /// When changes of a scope are acknowledged.
    #[must_use]
    pub fn durability(&self, scope: &str) -> ScopeDurability {
        self.scopes.get(scope).copied().unwrap_or_default().durability
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
        let positive = [
            ("ops_max", self.ops_max),
            ("list_bytes_max", self.list_bytes_max),
            ("page_bytes_max", self.page_bytes_max),
            ("watch_entries_max", self.watch_entries_max),
            ("watch_bytes_max", self.watch_bytes_max),
            ("outbox_entries_max", self.outbox_entries_max),
            ("delivery_threads", self.delivery_threads),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} is 0, at least 1 was wanted")),
            None => Ok(()),
        }
    }
}

impl From<ScopeDurability> for Durability {
    fn from(durability: ScopeDurability) -> Self {
        match durability {
            ScopeDurability::Durable => Self::Durable,
            ScopeDurability::Ephemeral => Self::Ephemeral,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_read_and_checked() {
        let read = |text: &str| serde_json::from_str::<Config>(text);
        assert_eq!(read("{}").unwrap(), Config::default());
        assert_eq!(Config::default().check(), Ok(()));
        let config = read(r#"{"scopes": {"cache": {"durability": "ephemeral"}}}"#).unwrap();
        assert_eq!(config.durability("cache"), ScopeDurability::Ephemeral);
        assert_eq!(config.durability("orders"), ScopeDurability::Durable);
        assert!(read(r#"{"value_bytes": 1}"#).unwrap_err().to_string().contains("unknown field"));
        let check = |text: &str, words: &str| {
            let error = read(text).unwrap().check().unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        check(r#"{"value_bytes_max": 0}"#, "value_bytes_max is 0");
        check(r#"{"value_bytes_max": 99000000}"#, "7340032");
        check(r#"{"ops_max": 0}"#, "ops_max is 0");
    }
}
