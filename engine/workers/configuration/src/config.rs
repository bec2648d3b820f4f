//! What `ringway.yaml` may say of this worker. Plain data; it must not know how the file is read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the worker `configuration`. All of them change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Versions of each configuration that are kept, the current one included. Default: 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub history_max: u32,
    /// The longest value, in bytes of JSON. Default: 1048576.
    #[schemars(range(min = 1, max = 8_388_608))]
    pub value_bytes_max: u32,
    /// How long a function may take that is told of a change, in milliseconds. Default: 30000.
    #[schemars(range(min = 1))]
    pub delivery_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { history_max: 100, value_bytes_max: 1 << 20, delivery_timeout_ms: 30_000 }
    }
}
