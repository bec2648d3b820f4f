//! Settings of the worker, as `ringway.yaml` holds them. It must not know how a setting is used.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_worker_listen::{HostError, host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The port where iii's clients look for streams.
pub const PORT: u16 = 3112;

/// Where the worker `http` takes the same clients, unless the settings say otherwise.
pub const HTTP_PATH: &str = "/_streams";

/// Settings of the stream socket. Every field may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The port. Default: 3112, or none where that is taken.
    pub port: Option<u16>,
    /// The address to listen on. Any but this host's own needs `auth_function`. Default: 127.0.0.1.
    pub host: String,
    /// The path below which the worker `http` takes the same clients; empty for nowhere. Default: `/_streams`, unless others than
    /// this host's own reach that worker and there is no `auth_function`.
    pub http_path: Option<String>,
    /// The function that is asked whether a client may connect, with `{headers, path, query_params, addr}`; what it answers as
    /// `context` is told to functions of `stream:join`. Nobody gets in whom it does not let in. Default: none.
    pub auth_function: Option<String>,
    /// Origins of pages that may connect, such as `https://app.example.com`, beside those of this host. Default: none.
    pub origins: Vec<String>,
    /// Clients at a time. Default: 10,000.
    pub connections_max: usize,
    /// Subscriptions of one client. Default: 64.
    pub subscriptions_max: usize,
    /// Events that wait for one client, of all its subscriptions; then its streams wait. Default: 64.
    #[schemars(range(min = 1))]
    pub queue_max: usize,
    /// Milliseconds after which a client that takes nothing is dropped. Default: 30,000.
    pub stall_ms: u64,
    /// Milliseconds that the auth function may take. Default: 10,000.
    pub auth_timeout_ms: u64,
    /// Threads that wait for sockets. Default: 2.
    #[schemars(range(min = 1))]
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: None,
            host: "127.0.0.1".to_owned(),
            http_path: None,
            auth_function: None,
            origins: Vec::new(),
            connections_max: 10_000,
            subscriptions_max: 64,
            queue_max: 64,
            stall_ms: 30_000,
            auth_timeout_ms: 10_000,
            threads: 2,
        }
    }
}

/// Why settings cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is no address to listen on.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It is no path below which something can be.
    #[error(
        "`http_path` is `{0}`: a path was wanted that begins with `/`, goes on, and has no parameters, such as `{HTTP_PATH}`"
    )]
    Path(String),
    /// A number that must not be 0.
    #[error("`{0}` is 0, at least 1 was wanted")]
    Zero(&'static str),
}

impl Config {
    /// Holds the settings against what the worker can do, and says where it is to listen.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<SocketAddr, ConfigError> {
        let host = host(&self.host, "auth_function", self.auth_function.is_some())?;
        for (name, value) in [("queue_max", self.queue_max), ("threads", self.threads)] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        if let Some(path) = self.http_path.as_deref().filter(|path| !path.is_empty())
            && (!path.starts_with('/') || path.trim_matches('/').is_empty() || !path.bytes().all(plain))
        {
            return Err(ConfigError::Path(path.to_owned()));
        }
        Ok(SocketAddr::new(host, self.port.unwrap_or(PORT)))
    }

    pub(crate) fn stall(&self) -> Duration {
        Duration::from_millis(self.stall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_let_in_only_where_somebody_is_asked() {
        let check = |host: &str, auth: Option<&str>, expected: bool| {
            let config =
                Config { host: host.to_owned(), auth_function: auth.map(str::to_owned), ..Config::default() };
            assert_eq!(config.check().is_ok(), expected, "{host} {auth:?}");
        };
        check("127.0.0.1", None, true);
        check("::1", None, true);
        check("localhost", None, true);
        check("0.0.0.0", None, false);
        check("::", None, false);
        check("192.168.1.1", None, false);
        check("0.0.0.0", Some("a::b"), true);
        check("example.com", Some("a::b"), false);
        for (path, expected) in [
            ("/streams", true),
            ("/a/b_c/", true),
            ("", true),
            ("/", false),
            ("//", false),
            ("streams", false),
            ("/:a", false),
            ("/{a}", false),
        ] {
            let config = Config { http_path: Some(path.to_owned()), ..Config::default() };
            assert_eq!(config.check().is_ok(), expected, "{path}");
        }
        assert_eq!(Config { queue_max: 0, ..Config::default() }.check(), Err(ConfigError::Zero("queue_max")));
    }
}
