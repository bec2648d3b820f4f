//! What `ringway.yaml` says of the iii listener. It must not know how it is obeyed.

use std::net::IpAddr;

use ringway_worker_listen::{HostError, host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// The listener for iii's SDKs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen on. Default: `127.0.0.1`. Any other than loopback wants `rbac.auth_function_id`.
    pub host: String,
    /// The port. Default: 49134, and if that is taken, no listener and a warning; a port that is named here and taken is an
    /// error.
    pub port: Option<u16>,
    /// How long a client may take to send the head of its request, in milliseconds. Default: 10000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub handshake_timeout_ms: u64,
    /// Origins that pages in browsers may come from, such as `https://app.example.com`, beside those of this host. Default:
    /// none.
    pub origins: Vec<String>,
    /// A function that every call of this listener's workers goes to in place of the one that they call. Default: none.
    pub middleware_function_id: Option<String>,
    /// Who may connect, and what they may do. Default: everybody on this host, everything.
    pub rbac: Option<Rbac>,
    /// Further addresses, each with rules of its own. Default: none.
    pub listeners: Vec<Listener>,
    /// How long a new connection's registrations wait for it to say its namespace, in milliseconds. Default: 5000. The
    /// variable `III_NAMESPACE_GRACE_MS` overrides it.
    #[schemars(range(max = 600_000))]
    pub registration_namespace_grace_ms: u64,
    /// What happens when a worker registers a function that another one has.
    pub replicas: Replicas,
    /// How often an idle connection is asked whether it is there, in milliseconds. Default: 25000.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub ping_ms: u64,
    /// After how long without any frame a connection is closed, in milliseconds. Default: 90000.
    #[schemars(range(min = 20, max = 86_400_000))]
    pub idle_ms: u64,
    /// Connections at once, of all kinds. Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// Threads that serve connections. One alone stays awake for a moment while much comes; with few processors a second one
    /// takes time from the clients. Default: 0, one for every four processors, 8 at most.
    #[schemars(range(max = 256))]
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: None,
            handshake_timeout_ms: 10_000,
            origins: Vec::new(),
            middleware_function_id: None,
            rbac: None,
            listeners: Vec::new(),
            registration_namespace_grace_ms: 5000,
            replicas: Replicas::default(),
            ping_ms: 25_000,
            idle_ms: 90_000,
            connections_max: 10_000,
            threads: 0,
        }
    }
}

/// What happens when a worker registers a function that another one has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replicas {
    /// It is refused, as iii does, with `FUNCTION_NAMESPACE_CONFLICT`.
    #[default]
    Reject,
    /// Both serve it; calls go to the one with less to do.
    Share,
}

/// One more address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The address to listen on. Default: `127.0.0.1`.
    #[serde(default = "loopback")]
    pub host: String,
    /// The port; 0 for any.
    pub port: u16,
    /// As above. Default: 10000.
    #[serde(default = "ten_seconds")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub handshake_timeout_ms: u64,
    /// As above. Default: none.
    #[serde(default)]
    pub origins: Vec<String>,
    /// As above. Default: none.
    #[serde(default)]
    pub middleware_function_id: Option<String>,
    /// As above. Default: everybody on this host, everything.
    #[serde(default)]
    pub rbac: Option<Rbac>,
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}

const fn ten_seconds() -> u64 {
    10_000
}

/// Who may connect to a listener, and what they may do. The functions are called in the namespace `default`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rbac {
    /// Is asked for each connection with its headers, query and address, and says what it may do. Default: none, everybody
    /// may connect.
    pub auth_function_id: Option<String>,
    /// Functions that everybody who is connected may call. Default: none.
    pub expose_functions: Vec<Expose>,
    /// Is asked before a function is registered, and may change it. Default: none.
    pub on_function_registration_function_id: Option<String>,
    /// Is asked before a trigger is bound, and may change it. Default: none.
    pub on_trigger_registration_function_id: Option<String>,
    /// Is asked before a trigger type is registered, and may change it. Default: none.
    pub on_trigger_type_registration_function_id: Option<String>,
}

/// Functions that may be called, by their ids or by what their metadata says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Expose {
    /// `match("svc::*")` or a plain pattern, in the namespace `default`.
    Pattern(String),
    /// By id or by metadata, in a namespace.
    Rule(ExposeRule),
}

/// A rule of [`Expose`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExposeRule {
    /// A pattern of ids; `*` stands for any run of characters.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Values that the function's metadata has; a text `match("…")` is a pattern.
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// The functions' namespace. Default: `default`.
    pub namespace: Option<String>,
}

/// A setting that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is no address to listen on.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A rule says both or neither.
    #[error("a rule of `expose_functions` wants either `match` or `metadata`")]
    Rule,
    /// Idle connections would be closed before they are asked.
    #[error("`idle_ms` is {idle_ms} and must be more than `ping_ms`, {ping_ms}")]
    Idle {
        /// What was set.
        idle_ms: u64,
        /// What was set.
        ping_ms: u64,
    },
}

impl Config {
    /// The addresses to listen on, the main one first.
    #[must_use]
    pub fn all(&self) -> Vec<Listener> {
        let main = Listener {
            host: self.host.clone(),
            port: self.port.unwrap_or(limits::PORT),
            handshake_timeout_ms: self.handshake_timeout_ms,
            origins: self.origins.clone(),
            middleware_function_id: self.middleware_function_id.clone(),
            rbac: self.rbac.clone(),
        };
        std::iter::once(main).chain(self.listeners.iter().cloned()).collect()
    }

    /// How many threads.
    pub(crate) fn threads(&self) -> usize {
        let share = || std::thread::available_parallelism().map_or(1, |all| (all.get() / 4).clamp(1, 8));
        if self.threads == 0 { share() } else { self.threads }
    }

    /// Holds the settings against what their types cannot say.
    ///
    /// # Errors
    /// The first that cannot be obeyed.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.idle_ms <= self.ping_ms {
            return Err(ConfigError::Idle { idle_ms: self.idle_ms, ping_ms: self.ping_ms });
        }
        self.all().iter().try_for_each(|listener| listener.check().map(drop))
    }
}

impl Listener {
    /// The address, checked to be one that may be listened on.
    pub(crate) fn check(&self) -> Result<IpAddr, ConfigError> {
        let is_guarded = self.rbac.as_ref().is_some_and(|rbac| rbac.auth_function_id.is_some());
        let address = host(&self.host, "rbac.auth_function_id", is_guarded)?;
        let rules = self.rbac.iter().flat_map(|rbac| &rbac.expose_functions);
        for rule in rules {
            if let Expose::Rule(rule) = rule
                && rule.pattern.is_some() == rule.metadata.is_some()
            {
                return Err(ConfigError::Rule);
            }
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn strangers_are_not_let_in_unchecked() {
        let check = |text: &str, expected: Result<(), &str>| {
            let found = read(text).check().map_err(|error| error.to_string());
            match expected {
                Ok(()) => assert_eq!(found, Ok(())),
                Err(words) => assert!(found.unwrap_err().contains(words), "{text}"),
            }
        };
        check("{}", Ok(()));
        check(r#"{"host": "::1"}"#, Ok(()));
        check(r#"{"host": "localhost"}"#, Ok(()));
        check(r#"{"host": "0.0.0.0"}"#, Err("auth_function_id"));
        check(r#"{"host": "0.0.0.0", "rbac": {}}"#, Err("auth_function_id"));
        check(r#"{"host": "0.0.0.0", "rbac": {"auth_function_id": "my::auth"}}"#, Ok(()));
        check(r#"{"host": "everywhere"}"#, Err("everywhere"));
        check(r#"{"listeners": [{"host": "10.0.0.1", "port": 1}]}"#, Err("10.0.0.1"));
        check(r#"{"rbac": {"expose_functions": [{"namespace": "a"}]}}"#, Err("either"));
        check(r#"{"idle_ms": 100, "ping_ms": 100}"#, Err("idle_ms"));
    }
}
