//! Settings of the worker, as `ringway.yaml` holds them. Read once, when the worker starts. It must not know how a setting
//! is used.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addresses::ParseNetworkError;
use crate::rules::Rules;
use crate::spec::Invocation;

/// Settings of functions over HTTP. Every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What may be called.
    pub security: Security,
    /// Environment variables of the engine that functions may use as proof, with `*` for any run of characters. Whoever
    /// registers a function decides where it is sent, so name few where not all are trusted. Default: all.
    pub environment_allowed: Vec<String>,
    /// Functions that are always there, by id. Default: none.
    pub functions: BTreeMap<String, Invocation>,
    /// Bytes of a response. Default: 16,777,216.
    pub response_bytes_max: usize,
    /// Requests under way at a time; more wait. Default: 256.
    #[schemars(range(min = 1))]
    pub concurrency_max: usize,
    /// Milliseconds that a connection may take to come about. Default: 5,000.
    pub connect_timeout_ms: u64,
    /// Connections to one host that are kept open. Default: 50.
    pub idle_connections_max: usize,
    /// A file with certificates in PEM that are trusted beside those of the public internet. Default: none.
    pub roots: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            security: Security::default(),
            environment_allowed: vec!["*".to_owned()],
            functions: BTreeMap::new(),
            response_bytes_max: 16 << 20,
            concurrency_max: 256,
            connect_timeout_ms: 5_000,
            idle_connections_max: 50,
            roots: None,
        }
    }
}

/// What may be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Hosts that may be called, with `*` for any run of characters; empty means any. Default: any.
    pub url_allowlist: Vec<String>,
    /// Whether only addresses of the public internet are connected to. Default: true.
    pub block_private_ips: bool,
    /// Whether only https is spoken. Default: true.
    pub require_https: bool,
    /// Addresses and networks that may be connected to all the same, such as 10.1.0.0/16. Default: none.
    pub addresses_allowed: Vec<String>,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            url_allowlist: vec!["*".to_owned()],
            block_private_ips: true,
            require_https: true,
            addresses_allowed: Vec::new(),
        }
    }
}

/// Why settings cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An address that is none.
    #[error("`security.addresses_allowed`: {0}")]
    Network(#[from] ParseNetworkError),
    /// A number out of bounds.
    #[error("`concurrency_max` is 0, at least 1 was wanted")]
    Concurrency,
}

impl Config {
    /// Holds the settings against what the worker can do.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.concurrency_max == 0 {
            return Err(ConfigError::Concurrency);
        }
        Rules::of(self).map(drop)
    }
}
