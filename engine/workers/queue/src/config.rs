//! What can be set: of the worker, of a queue, of a subscription. Read from `ringway.yaml`, from `queue::configure` and
//! from the configuration of triggers; iii's names and defaults are kept. It must not know how a setting is obeyed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the worker.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Settings of single queues, by name. A queue that is not named here has those of `default`, and if that is not named
    /// either, the defaults below.
    pub queue_configs: BTreeMap<String, QueueSettings>,
    /// Threads that read messages and wait for replies. A reply that is awaited holds no thread. Default 2, at least 1.
    #[schemars(range(min = 1))]
    pub delivery_threads: usize,
    /// How long the receipt of a message that has ended is kept, in milliseconds; 0 for not at all. Default 3,600,000, an
    /// hour.
    pub receipt_retention_ms: u64,
    /// Data that is longer lies in a file of its own, as a blob, in bytes. Default 262,144.
    pub blob_bytes_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_configs: BTreeMap::new(),
            delivery_threads: 2,
            receipt_retention_ms: 3_600_000,
            blob_bytes_min: 256 << 10,
        }
    }
}

impl Config {
    /// The settings of a queue that has none of its own by `queue::configure`.
    pub(crate) fn of(&self, queue: &str) -> QueueSettings {
        let named = self.queue_configs.get(queue).or_else(|| self.queue_configs.get("default"));
        named.cloned().unwrap_or_default()
    }

    /// Finds the first setting that cannot be obeyed.
    ///
    /// # Errors
    /// Which one, what was wanted and what was found.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.delivery_threads == 0 {
            return Err(SettingsError("wanted `delivery_threads` of at least 1, found 0".into()));
        }
        let check = |(name, settings): (&String, &QueueSettings)| {
            settings.check().map_err(|error| SettingsError(format!("queue `{name}`: {error}")))
        };
        self.queue_configs.iter().try_for_each(check)
    }
}

/// A setting that cannot be obeyed: which one, what was wanted, what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(crate) String);

/// Whether a queue keeps an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueType {
    /// By priority, then by age; a message that is tried again lets others pass.
    #[default]
    Standard,
    /// In order within each message group, also while one is tried again; groups run side by side.
    Fifo,
}

/// How the wait before the next attempt grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackoffType {
    /// Doubles with each attempt.
    #[default]
    Exponential,
    /// Stays the same.
    Fixed,
}

/// Settings of a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    /// Attempts after the first one that failed, before a message becomes a dead letter: `max_retries: 3` is at most four
    /// attempts. Default 3.
    pub max_retries: u32,
    /// Calls under way at once. Default 10, at least 1.
    #[schemars(range(min = 1))]
    pub concurrency: usize,
    /// Whether order is kept. Default `standard`.
    #[serde(rename = "type")]
    pub kind: QueueType,
    /// For `fifo`: the field of `data` that names a message's group; it must be there and not null, unless the message
    /// names its `group` itself. Default none: messages without a `group` are one group.
    pub message_group_field: Option<String>,
    /// Wait before the second attempt, in milliseconds. Default 1000.
    pub backoff_ms: u64,
    /// How the wait grows. Default `exponential`.
    pub backoff_type: BackoffType,
    /// The longest wait between attempts, in milliseconds. Default 3,600,000, an hour.
    pub backoff_ms_max: u64,
    /// How much of each wait is left to chance, from 0 (none) to 1 (all of it). Default 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub backoff_jitter: f64,
    /// Codes of errors that no further attempt can mend: the message becomes a dead letter at once. Default none.
    pub fatal_codes: Vec<String>,
    /// What holds for errors with single codes, in place of what holds for all. Default none.
    pub by_code: BTreeMap<String, CodeSettings>,
    /// How long one attempt may take, in milliseconds; 0 for as long as its worker lives. Default 0.
    pub timeout_ms: u64,
    /// Messages that may wait and run; more are refused with `QUEUE_FULL`. Default 10,000,000.
    pub max_messages: usize,
    /// How long a message may wait, in milliseconds, unless it says so itself; 0 for ever. Then it becomes a dead letter
    /// with the code `EXPIRED`. Default 0.
    pub ttl_ms: u64,
    /// Attempts that may begin within a second, fractions allowed; 0 for no limit. Default 0.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub rate_per_second: f64,
    /// For `standard`: what shares the queue fairly. Default none.
    pub fairness: Option<Fairness>,
    /// Accepted so that files written for iii can be read. Ringway wakes instead of looking every so often.
    pub poll_interval_ms: Option<u64>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            max_retries: 3,
            concurrency: 10,
            kind: QueueType::Standard,
            message_group_field: None,
            backoff_ms: 1000,
            backoff_type: BackoffType::Exponential,
            backoff_ms_max: 3_600_000,
            backoff_jitter: 0.0,
            fatal_codes: Vec::new(),
            by_code: BTreeMap::new(),
            timeout_ms: 0,
            max_messages: 10_000_000,
            ttl_ms: 0,
            rate_per_second: 0.0,
            fairness: None,
            poll_interval_ms: None,
        }
    }
}

/// How attempts that fail with one code are made again; what is not named is as for all of the queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CodeSettings {
    /// See `max_retries` of the queue: a message that has failed more often, with whatever codes, becomes a dead letter
    /// when this code comes.
    pub max_retries: Option<u32>,
    /// See `backoff_ms` of the queue.
    pub backoff_ms: Option<u64>,
    /// See `backoff_type` of the queue.
    pub backoff_type: Option<BackoffType>,
    /// See `backoff_ms_max` of the queue.
    pub backoff_ms_max: Option<u64>,
}

/// How a message is tried again after an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Retries {
    pub(crate) max: u32,
    backoff_ms: u64,
    backoff_type: BackoffType,
    backoff_ms_max: u64,
    jitter: f64,
}

/// Keys that share a queue: each has its limits, and none waits because another has much to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fairness {
    /// The field of `data` with the key, such as a tenant. Messages without it share the key `""`. A message's `group`
    /// comes before it.
    pub key_field: String,
    /// Calls under way at once for one key; 0 for no limit of its own. Default 0.
    #[serde(default)]
    pub concurrency: usize,
    /// Attempts for one key that may begin within a second; 0 for no limit of its own. Default 0.
    #[schemars(range(min = 0.0, max = 1e6))]
    #[serde(default)]
    pub rate_per_second: f64,
    /// Shares of single keys; 1 where none is named. A key of weight 2 has twice the turns while both have messages.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
}

impl QueueSettings {
    /// Finds the first setting that cannot be obeyed.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let fail = |text: String| Err(SettingsError(text));
        if self.concurrency == 0 {
            return fail("wanted `concurrency` of at least 1, found 0".into());
        }
        if !(0.0..=1.0).contains(&self.backoff_jitter) {
            return fail(format!("wanted `backoff_jitter` from 0 to 1, found {}", self.backoff_jitter));
        }
        let good_rate = |rate: f64| (0.0..=1e6).contains(&rate);
        if !good_rate(self.rate_per_second) {
            return fail(format!("wanted `rate_per_second` from 0 to 1e6, found {}", self.rate_per_second));
        }
        let Some(fairness) = &self.fairness else { return Ok(()) };
        if self.kind == QueueType::Fifo {
            return fail(
                "wanted `fairness` in a standard queue only: a fifo queue takes turns by group".into(),
            );
        }
        if !good_rate(fairness.rate_per_second) {
            return fail(format!("wanted a rate per key from 0 to 1e6, found {}", fairness.rate_per_second));
        }
        match fairness.weights.iter().find(|(_, weight)| !(1e-3..=1e3).contains(*weight)) {
            Some((key, weight)) => fail(format!("wanted a weight from 0.001 to 1000, `{key}` has {weight}")),
            None => Ok(()),
        }
    }

    /// How a message is tried again after an error with this code.
    pub(crate) fn retries_after(&self, code: &str) -> Retries {
        let special = self.by_code.get(code).cloned().unwrap_or_default();
        Retries {
            max: special.max_retries.unwrap_or(self.max_retries),
            backoff_ms: special.backoff_ms.unwrap_or(self.backoff_ms),
            backoff_type: special.backoff_type.unwrap_or(self.backoff_type),
            backoff_ms_max: special.backoff_ms_max.unwrap_or(self.backoff_ms_max),
            jitter: self.backoff_jitter,
        }
    }
}

impl Retries {
    /// The wait after the failed attempt of this number, counted from 1; `dice` gives a number from 0 to 1.
    pub(crate) fn wait_after(self, attempt: u32, dice: impl FnOnce() -> f64) -> u64 {
        let doublings = if self.backoff_type == BackoffType::Fixed { 0 } else { attempt.saturating_sub(1) };
        let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let wait = self.backoff_ms.saturating_mul(factor).min(self.backoff_ms_max);
        if self.jitter == 0.0 {
            return wait;
        }
        scale(wait, 1.0 - self.jitter * dice())
    }
}

/// A part of a number, for a factor from 0 to 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "beyond 2^53 ms nobody counts single ones, and the factor is between 0 and 1"
)]
fn scale(number: u64, factor: f64) -> u64 {
    (number as f64 * factor.clamp(0.0, 1.0)) as u64
}

/// `queue_config` of a `durable:subscriber` trigger, with iii's names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SubscriberSettings {
    /// See `type` of a queue.
    #[serde(rename = "type")]
    pub kind: Option<QueueType>,
    /// See `max_retries` of a queue.
    pub max_retries: Option<u32>,
    /// See `concurrency` of a queue.
    pub concurrency: Option<usize>,
    /// Accepted and without effect: a message is on lease while its call is under way, however long.
    pub visibility_timeout: Option<u64>,
    /// How long each message waits before its first attempt, in seconds.
    pub delay_seconds: Option<u64>,
    /// See `backoff_type` of a queue.
    pub backoff_type: Option<BackoffType>,
    /// See `backoff_ms` of a queue.
    pub backoff_delay_ms: Option<u64>,
    /// Accepted and without effect: what is published has no priority.
    pub max_priority: Option<u8>,
    /// See `message_group_field` of a queue.
    pub message_group_field: Option<String>,
}

impl SubscriberSettings {
    /// As settings of a queue.
    pub(crate) fn over(&self, base: QueueSettings) -> QueueSettings {
        QueueSettings {
            kind: self.kind.unwrap_or(base.kind),
            max_retries: self.max_retries.unwrap_or(base.max_retries),
            concurrency: self.concurrency.unwrap_or(base.concurrency),
            backoff_type: self.backoff_type.unwrap_or(base.backoff_type),
            backoff_ms: self.backoff_delay_ms.unwrap_or(base.backoff_ms),
            message_group_field: self.message_group_field.clone().or(base.message_group_field),
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit() {
        let check = |settings: &QueueSettings, attempt, dice, expected| {
            assert_eq!(settings.retries_after("E").wait_after(attempt, || dice), expected, "{attempt}");
        };
        let plain = QueueSettings::default();
        check(&plain, 1, 0.5, 1000);
        check(&plain, 3, 0.5, 4000);
        check(&plain, 40, 0.5, 3_600_000);
        check(&plain, 400, 0.5, 3_600_000);
        let fixed = QueueSettings { backoff_type: BackoffType::Fixed, ..plain.clone() };
        check(&fixed, 9, 0.5, 1000);
        let jitter = QueueSettings { backoff_jitter: 0.5, ..plain.clone() };
        check(&jitter, 1, 0.0, 1000);
        check(&jitter, 1, 1.0, 500);
        let special =
            CodeSettings { backoff_ms: Some(7), backoff_ms_max: Some(20), ..CodeSettings::default() };
        let coded = QueueSettings { by_code: [("E".to_owned(), special)].into(), ..plain };
        check(&coded, 2, 0.5, 14);
        check(&coded, 9, 0.5, 20);
        assert_eq!(coded.retries_after("F").wait_after(2, || 0.5), 2000);
    }

    #[test]
    fn settings_that_cannot_be_obeyed_are_named() {
        let check = |settings: QueueSettings, word: &str| {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        };
        QueueSettings::default().check().unwrap();
        check(QueueSettings { concurrency: 0, ..QueueSettings::default() }, "concurrency");
        check(QueueSettings { backoff_jitter: 2.0, ..QueueSettings::default() }, "jitter");
        check(QueueSettings { rate_per_second: f64::NAN, ..QueueSettings::default() }, "rate");
        let unknown = serde_json::from_str::<Config>(r#"{"queue_configs":{"a":{"max_retires":1}}}"#);
        assert!(unknown.unwrap_err().to_string().contains("max_retires"));
    }
}
