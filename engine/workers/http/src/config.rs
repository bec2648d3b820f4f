//! What can be set for the worker in `ringway.yaml`, and what is wrong with it. What a route says is in `config/route.rs`. It
//! must not know how any of it is done.

pub mod auth;
pub mod route;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use auth::Scheme;

/// The port of iii's HTTP triggers.
pub const PORT: u16 = 3111;

/// The port where it is asked whether this lives.
pub const ADMIN_PORT: u16 = 3110;

/// The HTTP front door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen at. One that others can reach needs `auth.default`, or `behind_proxy: true`. Default: 127.0.0.1.
    pub host: IpAddr,
    /// The port; 0 is any that is free. Default: 3111, or any that is free where that is taken.
    pub port: Option<u16>,
    /// Whether a proxy stands in front and decides who comes in; only then may `host` be an address that others can reach
    /// while routes need no authentication. Default: false.
    pub behind_proxy: bool,
    /// Addresses or networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` is believed. Default: none.
    pub trusted_proxies: Vec<String>,
    /// `/livez` and `/readyz`, at a port of their own.
    pub admin: Admin,
    /// Threads that read and write; none is held while a function runs. Default: 0, one for each core, at most 8.
    #[schemars(range(max = 1024))]
    pub threads: usize,
    /// How long a function may take, in milliseconds, where its route says nothing. Default: 30000.
    #[schemars(range(min = 1))]
    pub timeout_ms: u64,
    /// How long the head of a request may take, and how long a connection may be idle, in milliseconds. Default: 15000.
    #[schemars(range(min = 1))]
    pub header_timeout_ms: u64,
    /// How long a body may pause, in either direction, in milliseconds. Default: 30000.
    #[schemars(range(min = 1))]
    pub body_timeout_ms: u64,
    /// How long requests may take to end when the worker is shut down, in milliseconds. Default: 10000.
    pub drain_ms_max: u64,
    /// The longest head of a request, in bytes. Default: 65536.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub header_bytes_max: usize,
    /// The longest body, in bytes, where its route says nothing. Default: 10485760 (10 MiB).
    pub body_bytes_max: u64,
    /// The most connections; more wait to be accepted. Default: 20000.
    #[schemars(range(min = 1))]
    pub connections_max: usize,
    /// The most requests at a time; more are told to come again (503). Default: 1024.
    #[schemars(range(min = 1))]
    pub concurrency_max: usize,
    /// How often a client may ask. Default: as often as it likes.
    pub rate: Option<Rate>,
    /// Whether `/a` and `/a/` are one where only one of them is a route. Default: true.
    pub trailing_slash_ignored: bool,
    /// Whether answers say what a function said of its error where it gave no code of its own. Default: false; the trace has it.
    pub errors_shown: bool,
    /// Whether answers are compressed for those who take it. Default: true.
    pub compression: bool,
    /// Whether answers to `GET` that are held in memory get an `ETag`. Default: true.
    pub etag: bool,
    /// Which other origins may ask from browsers. Default: none.
    pub cors: Option<Cors>,
    /// Functions that are asked before or after every route's own, in the order of their priorities.
    pub middleware: Vec<Middleware>,
    /// Who may come in.
    pub auth: Auth,
    /// Certificates. Default: none, plain HTTP.
    pub tls: Option<Tls>,
    /// Folders whose files are served.
    pub static_files: Vec<StaticFiles>,
    /// The description of all routes.
    pub openapi: OpenApi,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: None,
            behind_proxy: false,
            trusted_proxies: Vec::new(),
            admin: Admin::default(),
            threads: 0,
            timeout_ms: 30_000,
            header_timeout_ms: 15_000,
            body_timeout_ms: 30_000,
            drain_ms_max: 10_000,
            header_bytes_max: 65_536,
            body_bytes_max: 10 << 20,
            connections_max: 20_000,
            concurrency_max: 1024,
            rate: None,
            trailing_slash_ignored: true,
            errors_shown: false,
            compression: true,
            etag: true,
            cors: None,
            middleware: Vec::new(),
            auth: Auth::default(),
            tls: None,
            static_files: Vec::new(),
            openapi: OpenApi::default(),
        }
    }
}

/// Where it is asked whether this lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Whether it is asked at all. Default: true.
    pub enabled: bool,
    /// The address. Default: 127.0.0.1.
    pub host: IpAddr,
    /// The port; 0 is any that is free. Default: 3110, or any that is free where that is taken.
    pub port: Option<u16>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { enabled: true, host: IpAddr::from([127, 0, 0, 1]), port: None }
    }
}

/// How often somebody may ask: a bucket that holds `burst` and is filled with `requests` in `per_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many requests.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// In so many milliseconds. Default: 1000.
    #[serde(default = "second")]
    #[schemars(range(min = 1))]
    pub per_ms: u64,
    /// So many at once, after a pause. Default: as many as `requests`.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Who is counted together. Default: `client`.
    #[serde(default)]
    pub by: RateBy,
}

const fn second() -> u64 {
    1000
}

/// Who is counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateBy {
    /// Each address; of IPv6 the first 64 bits.
    #[default]
    Client,
    /// Each who has authenticated; the address of who has not.
    Subject,
    /// All.
    Everybody,
}

/// Which other origins may ask from browsers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Origins such as `https://app.example`; `*` is every one, `https://*.example` those below. Default: `*`.
    pub origins: Vec<String>,
    /// Methods that may be used. Default: those that the path has.
    pub methods: Vec<String>,
    /// Headers that may be sent. Default: those that the browser asks for.
    pub headers: Vec<String>,
    /// Headers of answers that pages may read, beside those that every page may. Default: none.
    pub expose: Vec<String>,
    /// Whether cookies and other credentials go along. Not with the origin `*`. Default: false.
    pub credentials: bool,
    /// How long a browser may remember the answer, in seconds. Default: 600.
    pub max_age_seconds: u32,
    /// Whether servers of the user's own network may be asked by public pages. Default: false.
    pub private_network: bool,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: vec!["*".to_owned()],
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age_seconds: 600,
            private_network: false,
        }
    }
}

/// A function that is asked at every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Middleware {
    /// The function.
    pub function_id: String,
    /// When it is asked. Default: `preHandler`.
    #[serde(default)]
    pub phase: Phase,
    /// The lowest is asked first. Default: 0.
    #[serde(default)]
    pub priority: i64,
}

/// When middleware is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Before the function.
    #[default]
    #[serde(rename = "preHandler", alias = "before")]
    Before,
    /// After it, with its answer.
    #[serde(rename = "postHandler", alias = "after")]
    After,
}

/// Who may come in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Ways to show who one is, by names that routes use.
    pub schemes: BTreeMap<String, Scheme>,
    /// The names of those of which one is wanted where a route says nothing. Default: none, everybody.
    pub default: Vec<String>,
}

/// Certificates. Paths are relative to the folder in which the engine was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the server's certificate and those that lead to its root.
    pub certificate: PathBuf,
    /// A PEM file with its key.
    pub key: PathBuf,
    /// A PEM file with the roots of clients' certificates. With it clients must show one (mTLS). Default: none.
    #[serde(default)]
    pub client_roots: Option<PathBuf>,
    /// Whether clients may come without a certificate although `client_roots` is there. Default: false.
    #[serde(default)]
    pub client_optional: bool,
    /// How often the files are looked at, in milliseconds; one that changed is taken for connections from then on.
    /// Default: 5000.
    #[serde(default = "five_seconds")]
    #[schemars(range(min = 10))]
    pub reload_ms: u64,
}

const fn five_seconds() -> u64 {
    5000
}

/// A folder whose files are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticFiles {
    /// The beginning of their paths, such as `/assets`.
    pub path: String,
    /// The folder; relative to the one in which the engine was started.
    pub folder: PathBuf,
    /// A file of the folder that is served where there is none, for applications of a single page. Default: none.
    #[serde(default)]
    pub fallback: Option<PathBuf>,
    /// `Cache-Control` of what is found. Default: none.
    #[serde(default)]
    pub cache_control: Option<String>,
    /// Whether `name.br`, `name.gz`, `name.zst` beside a file are served to who takes them. Default: false.
    #[serde(default)]
    pub precompressed: bool,
}

/// The description of all routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenApi {
    /// Whether it is served. Default: true.
    pub enabled: bool,
    /// Where. Default: `/openapi.json`.
    pub path: String,
    /// Its title. Default: `Ringway`.
    pub title: String,
    /// Its version. Default: `1`.
    pub version: String,
}

impl Default for OpenApi {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/openapi.json".to_owned(),
            title: "Ringway".to_owned(),
            version: "1".to_owned(),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub(crate) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Finds what keeps the worker from starting.
    ///
    /// # Errors
    /// [`ConfigError`]: what is wrong, and what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError(text));
        if !self.host.is_loopback() && self.auth.default.is_empty() && !self.behind_proxy {
            return wrong(format!(
                "`host` is {}, which others can reach, and routes need no authentication: set `auth.default` to schemes of \
                 `auth.schemes`, or `behind_proxy: true` if a proxy in front decides who comes in, or `host: 127.0.0.1`",
                self.host
            ));
        }
        for name in &self.auth.default {
            if !self.auth.schemes.contains_key(name) {
                let known: Vec<_> = self.auth.schemes.keys().map(String::as_str).collect();
                return wrong(format!(
                    "`auth.default` names the scheme `{name}`; `auth.schemes` has {known:?}"
                ));
            }
        }
        for (name, scheme) in &self.auth.schemes {
            scheme.check().map_err(|why| ConfigError(format!("the scheme `{name}`: {why}")))?;
        }
        if let Some(cors) = &self.cors {
            cors.check().map_err(ConfigError)?;
        }
        for proxy in &self.trusted_proxies {
            crate::proxy::Network::parse(proxy).map_err(ConfigError)?;
        }
        for files in &self.static_files {
            if !files.path.starts_with('/') {
                return wrong(format!(
                    "`static_files` has the path `{}`: it begins with a slash",
                    files.path
                ));
            }
        }
        Ok(())
    }

    /// How many threads.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(2, |cores| cores.get().min(8));
        if self.threads == 0 { cores() } else { self.threads }
    }

    pub(crate) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(crate) const fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }
}

impl Cors {
    pub(crate) fn check(&self) -> Result<(), String> {
        // An empty list is every origin too; with credentials each would be told that it may.
        if self.credentials && (self.origins.is_empty() || self.origins.iter().any(|origin| origin == "*")) {
            return Err(
                "`cors` has `credentials: true` and every origin, which browsers refuse: name the origins"
                    .to_owned(),
            );
        }
        let token =
            |text: &&String| !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte));
        let names = self.methods.iter().chain(&self.headers).chain(&self.expose);
        match names.clone().find(token) {
            Some(odd) => Err(format!("`cors` names `{odd}`, which is no method or header")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: serde_json::Value) -> String {
        serde_json::from_value::<Config>(value).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_right() {
        Config::default().check().unwrap();
        assert_eq!(serde_json::from_value::<Config>(json!({})).unwrap(), Config::default());
    }

    #[test]
    fn an_address_that_others_reach_wants_authentication_or_a_proxy() {
        let text = refused(json!({"host": "0.0.0.0"}));
        assert!(text.contains("auth.default") && text.contains("behind_proxy: true"), "{text}");
        let open = |value| serde_json::from_value::<Config>(value).unwrap().check();
        open(json!({"host": "0.0.0.0", "behind_proxy": true})).unwrap();
        let schemes = json!({"key": {"kind": "api_key", "keys": {"me": "0123456789abcdef"}}});
        open(json!({"host": "::", "auth": {"schemes": schemes, "default": ["key"]}})).unwrap();
        open(json!({"host": "::1"})).unwrap();
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (value, expected) in [
            (json!({"auth": {"default": ["nobody"]}}), "`nobody`"),
            (json!({"cors": {"credentials": true}}), "name the origins"),
            (json!({"cors": {"credentials": true, "origins": []}}), "name the origins"),
            (json!({"cors": {"methods": ["a b"]}}), "`a b`"),
            (json!({"trusted_proxies": ["10.0.0.0/33"]}), "10.0.0.0/33"),
            (json!({"static_files": [{"path": "a", "folder": "."}]}), "`a`"),
        ] {
            let text = refused(value);
            assert!(text.contains(expected), "{text}");
        }
    }
}
