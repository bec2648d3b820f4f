//! What can be set: for the worker in `ringway.yaml`, for a job in its trigger. It must not know how any of it is done.

use jiff::tz::TimeZone;
use ringway::{CallError, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::StartError;
use crate::schedule::Schedule;

/// The most slots that a job may catch up on.
pub const CATCH_UP_MAX: usize = 10_000;

/// The longest jitter, in milliseconds: a day.
pub const JITTER_MS_MAX: u64 = 86_400_000;

/// The cron worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The time zone of jobs that name none, by its IANA name. Default: `UTC`.
    pub timezone: String,
    /// How late a slot may be and still count as on time, in milliseconds; later ones were missed, and `catch_up` says what
    /// becomes of them. Default: 5000.
    pub late_ms_max: u64,
    /// Threads on which calls of functions are begun and ended; none is held while a function runs. Default: 4.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: usize,
    /// How long functions that run may take to end when the worker is shut down, in milliseconds. Default: 2000.
    pub shutdown_ms_max: u64,
    /// How long what is known of a job is kept while nobody binds it, in days. Default: 90.
    pub forget_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timezone: "UTC".to_owned(),
            late_ms_max: 5000,
            threads: 4,
            shutdown_ms_max: 2000,
            forget_days: 90,
        }
    }
}

impl Config {
    /// Finds what keeps the worker from starting.
    ///
    /// # Errors
    /// [`StartError::Zone`].
    pub fn check(&self) -> Result<(), StartError> {
        match TimeZone::get(&self.timezone) {
            Ok(_) => Ok(()),
            Err(_) => Err(StartError::Zone(self.timezone.clone())),
        }
    }
}

/// What becomes of a slot that comes while the function still runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is left out, and counted.
    #[default]
    Skip,
    /// The function is called again beside.
    Allow,
    /// It waits, `catch_up_max` of them at most; the oldest are left out first.
    Queue,
}

/// What becomes of slots that were missed: while no engine ran, or the machine slept, or the clock was put forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    #[default]
    None,
    /// The newest is made up for, unless another is due at that moment anyway.
    Last,
    /// All are, in order, `catch_up_max` at most; the newest count.
    All,
}

/// What becomes of a slot whose function had been called when the engine died, without a word of how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interrupted {
    /// It counts as fired: at most once.
    #[default]
    Skip,
    /// It is fired again, with the same `scheduled_time`: at least once.
    Repeat,
}

/// The configuration of a `cron` trigger.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobConfig {
    /// Five fields (minute, hour, day of the month, month, day of the week), six (seconds first) or seven (a year last), or
    /// `@yearly`, `@monthly`, `@weekly`, `@daily`, `@hourly`.
    pub expression: String,
    /// The time zone of the expression, by its IANA name. Default: that of the worker's configuration, `UTC`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// What becomes of a slot that comes while the function still runs. Default: `skip`.
    #[serde(default)]
    pub overlap: Overlap,
    /// What becomes of slots that were missed. Default: `none`.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// How many slots may wait, missed ones and those of `overlap: queue`; at most 10,000. Default: 100.
    #[serde(default = "hundred")]
    pub catch_up_max: usize,
    /// The function is called up to so many milliseconds later, by a number that is the same for the same slot. Default: 0.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Whether the job begins paused; `cron::resume` starts it. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// How long the function may take, in milliseconds. Default: as long as it wants.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What becomes of a slot whose function had been called when the engine died. Default: `skip`.
    #[serde(default)]
    pub if_interrupted: Interrupted,
    /// A function that is asked whether to go on. Default: none.
    #[serde(default)]
    pub condition_function_id: Option<Value>,
    /// An expression that says whether to go on. Default: none.
    #[serde(default)]
    pub condition: Option<Value>,
}

const fn hundred() -> usize {
    100
}

/// A job as it was bound: checked.
#[derive(Debug)]
pub struct Bound {
    pub(crate) schedule: Schedule,
    pub(crate) config: JobConfig,
}

impl Bound {
    /// Checks the configuration of a trigger.
    ///
    /// # Errors
    /// `invalid_registration`, with what is wrong and where.
    pub(crate) fn parse(value: &Value, zone: &str) -> Result<Self, CallError> {
        let wrong = |message: String| CallError::new(ErrorCode::InvalidRegistration, message);
        if value.get("expression").is_none() {
            return Err(wrong("a cron trigger needs an `expression`, such as `0 9 * * 1-5`".to_owned()));
        }
        let config: JobConfig = serde_json::from_value(value.clone())
            .map_err(|error| wrong(format!("the configuration of a cron trigger does not fit: {error}")))?;
        let zone = config.timezone.as_deref().unwrap_or(zone);
        let schedule = Schedule::new(&config.expression, zone).map_err(|error| wrong(error.to_string()))?;
        let limit = |name: &str, found: u64, max: u64| {
            if found <= max {
                return Ok(());
            }
            Err(wrong(format!("`{name}` of a cron trigger is {found}, at most {max} is taken")))
        };
        limit("catch_up_max", config.catch_up_max as u64, CATCH_UP_MAX as u64)?;
        limit("jitter_ms", config.jitter_ms, JITTER_MS_MAX)?;
        if config.catch_up_max == 0 {
            return Err(wrong(
                "`catch_up_max` of a cron trigger is 0; 1 is the least, `catch_up: none` is none".to_owned(),
            ));
        }
        Ok(Self { schedule, config })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        let check = |value: Value, words: &str| {
            let error = Bound::parse(&value, "UTC").map(|_| ()).unwrap_err();
            assert!(error.message.contains(words), "{value}: {error}");
        };
        check(json!({}), "needs an `expression`");
        check(json!({"expression": "* 25 * * *"}), "column 3");
        check(json!({"expression": "@daily", "timezone": "Mars/Olympus"}), "Mars/Olympus");
        check(json!({"expression": "@daily", "overlapp": "skip"}), "overlapp");
        check(json!({"expression": "@daily", "overlap": "sometimes"}), "sometimes");
        check(json!({"expression": "@daily", "catch_up_max": 20_000}), "20000");
        check(json!({"expression": "@daily", "catch_up_max": 0}), "1 is the least");
        check(json!({"expression": "@daily", "jitter_ms": 100_000_000}), "jitter_ms");
    }

    #[test]
    fn the_rest_has_defaults() {
        let bound = Bound::parse(&json!({"expression": "@daily"}), "Europe/Berlin").unwrap();
        assert_eq!((bound.schedule.zone(), bound.config.overlap), ("Europe/Berlin", Overlap::Skip));
        assert_eq!((bound.config.catch_up, bound.config.catch_up_max), (CatchUp::None, 100));
    }
}
