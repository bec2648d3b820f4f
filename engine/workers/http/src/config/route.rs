//! What a trigger of type `http` says, read and checked when it is bound. It must not know which routes there are.

use std::collections::BTreeMap;

use ringway::{CallError, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::auth::Secret;
use super::{Config, Cors, Rate};
use crate::routes::{Method, Pattern};
use crate::webhook::Webhook;

/// The most functions that are asked before or after one function.
pub const MIDDLEWARE_MAX: usize = 32;

/// The longest time that a trigger may name, in milliseconds: a year. Clocks do not reach as far as numbers do.
const TIME_MS_MAX: u64 = 366 * 86_400_000;

/// The configuration of an `http` trigger.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The path: `:name` stands for one segment, `*name` at the end for the rest. The slash at the beginning may be left out.
    pub api_path: String,
    /// The method, or a list of them; `ANY` is every one that no other route has. Default: `GET`.
    #[serde(default)]
    pub http_method: Option<Methods>,
    /// A function that is asked whether a request is wanted. Default: none.
    #[serde(default)]
    pub condition_function_id: Option<Value>,
    /// An expression that says whether a request is wanted. Default: none.
    #[serde(default)]
    pub condition: Option<Value>,
    /// Functions that are asked before this one, in this order, after those of the worker.
    #[serde(default)]
    pub middleware_function_ids: Vec<String>,
    /// Functions that are asked after it, in this order, before those of the worker.
    #[serde(default)]
    pub after_function_ids: Vec<String>,
    /// How long the function may take, in milliseconds. Default: as the worker's `timeout_ms`.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// The longest body, in bytes. Default: as the worker's `body_bytes_max`.
    #[serde(default)]
    pub body_bytes_max: Option<u64>,
    /// The most requests at a time; more are told to come again (503). Default: as many as the worker takes.
    #[serde(default)]
    pub concurrency_max: Option<usize>,
    /// How often somebody may ask; whoever asks more is told when to come again (429). Default: as often as anybody likes.
    #[serde(default)]
    pub rate: Option<Rate>,
    /// Names of the worker's schemes of which one is wanted, or `false` for none. Default: as the worker's `auth.default`.
    #[serde(default)]
    pub auth: Option<Wanted>,
    /// How the body is read. Default: `auto`.
    #[serde(default)]
    pub body: BodyMode,
    /// How the function answers. Default: `auto`.
    #[serde(default)]
    pub respond: Respond,
    /// What a WebSocket carries. Default: texts of JSON, no subprotocol.
    #[serde(default)]
    pub websocket: Option<WebSocket>,
    /// Which other origins may ask. Default: as the worker's `cors`.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// Remembers answers by `Idempotency-Key`. Default: it means nothing.
    #[serde(default)]
    pub idempotency: Option<Idempotency>,
    /// Checks the signature of a webhook. Default: none.
    #[serde(default)]
    pub webhook: Option<Webhook>,
    /// Whether answers are compressed. Default: as the worker's `compression`.
    #[serde(default)]
    pub compression: Option<bool>,
    /// Whether answers get an `ETag`. Default: as the worker's `etag`.
    #[serde(default)]
    pub etag: Option<bool>,
    /// What `/openapi.json` says of it.
    #[serde(default)]
    pub openapi: Described,
}

/// A method or several.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Methods {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Which authentication is wanted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Wanted {
    /// `false`: none.
    Whether(bool),
    /// This scheme.
    One(String),
    /// One of these schemes.
    Many(Vec<String>),
}

/// How the body of a request is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyMode {
    /// As its content type says; a function with streams gets the bytes as items besides.
    #[default]
    Auto,
    /// JSON, whatever the content type says.
    Json,
    /// A text, whatever the content type says.
    Text,
    /// Bytes, in base64 under `body_base64`, whatever the content type says.
    Bytes,
    /// As items of a stream, as they come; `body` is null. For functions with streams.
    Stream,
}

/// How a function answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Respond {
    /// A function with streams streams, any other answers once.
    #[default]
    Auto,
    /// Once, by what it returns.
    Once,
    /// Items of its stream are the events of `text/event-stream`.
    Sse,
    /// Items of its stream are lines of JSON.
    Ndjson,
    /// Items of streams in both directions are the messages of a WebSocket.
    Websocket,
}

/// What a WebSocket carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// Subprotocols, the best first. Default: none.
    pub protocols: Vec<String>,
    /// Whether texts may be anything and become texts of JSON, in place of being JSON themselves. Default: false.
    pub plain_text: bool,
    /// The longest message, in bytes. Default: as the route's `body_bytes_max`.
    pub message_bytes_max: Option<u64>,
    /// How often a ping is sent, in milliseconds; a client that answers none of two is let go. Default: 30000.
    pub ping_ms: Option<u64>,
}

/// How answers are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    /// Whether a request without a key is refused. Default: false.
    pub required: bool,
    /// How long an answer is remembered, in seconds. Default: 86400.
    #[schemars(range(min = 1))]
    pub keep_seconds: u64,
    /// The longest answer that is remembered, in bytes; a longer one is given once. Default: 1048576.
    pub answer_bytes_max: usize,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { required: false, keep_seconds: 86_400, answer_bytes_max: 1 << 20 }
    }
}

/// What the description of all routes says of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Described {
    /// Whether it is left out. Default: false.
    pub hidden: bool,
    /// In a few words. Default: the function's own description.
    pub summary: Option<String>,
    /// At length.
    pub description: Option<String>,
    /// Names under which it is listed.
    pub tags: Vec<String>,
    /// Whether it should be used no more.
    pub deprecated: bool,
    /// JSON Schema of the body of a request. Default: the function's request schema under `properties.body`, if it has one.
    pub request_schema: Option<Value>,
    /// JSON Schema of the body of an answer. Default: the function's.
    pub response_schema: Option<Value>,
    /// JSON Schemas of query parameters by their names.
    pub query: BTreeMap<String, Value>,
    /// JSON Schemas of parameters of the path by their names. Default: a text that is not empty.
    pub path: BTreeMap<String, Value>,
}

/// A trigger that was found right.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) pattern: Pattern,
    pub(crate) methods: Vec<Method>,
    /// Schemes of which one is wanted; none: everybody may come.
    pub(crate) auth: Vec<String>,
    pub(crate) config: RouteConfig,
}

impl Bound {
    /// Reads the config of a trigger, under the worker's own settings.
    pub(crate) fn parse(value: &Value, settings: &Config) -> Result<Self, CallError> {
        if value.get("api_path").is_none_or(Value::is_null) {
            return Err(wrong("api_path is required for http triggers, such as `/users/:id`".to_owned()));
        }
        let config: RouteConfig = serde_json::from_value(value.clone())
            .map_err(|error| wrong(format!("the configuration of an http trigger does not fit: {error}")))?;
        let pattern = Pattern::parse(&config.api_path).map_err(|error| wrong(error.to_string()))?;
        let methods = methods(config.http_method.as_ref())?;
        let auth = schemes(config.auth.as_ref(), settings)?;
        if config.middleware_function_ids.len() + config.after_function_ids.len() > MIDDLEWARE_MAX {
            return Err(wrong(format!(
                "more than {MIDDLEWARE_MAX} functions are to be asked around this one"
            )));
        }
        if config.respond == Respond::Websocket
            && methods.iter().any(|method| !matches!(method, Method::Get | Method::Any))
        {
            return Err(wrong("a WebSocket is opened by GET: leave `http_method` out".to_owned()));
        }
        let ping_ms = config.websocket.as_ref().and_then(|settings| settings.ping_ms);
        let positive = [
            ("timeout_ms", config.timeout_ms),
            ("concurrency_max", config.concurrency_max.map(|max| max as u64)),
            ("rate.requests", config.rate.as_ref().map(|rate| u64::from(rate.requests))),
            ("rate.per_ms", config.rate.as_ref().map(|rate| rate.per_ms)),
            ("idempotency.keep_seconds", config.idempotency.as_ref().map(|settings| settings.keep_seconds)),
            ("websocket.ping_ms", ping_ms),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == Some(0)) {
            return Err(wrong(format!(
                "`{name}` is 0, which nothing could pass: wanted is 1 or more, or nothing"
            )));
        }
        let times = [("timeout_ms", config.timeout_ms), ("websocket.ping_ms", ping_ms)];
        if let Some((name, _)) = times.iter().find(|(_, value)| value.is_some_and(|ms| ms > TIME_MS_MAX)) {
            return Err(wrong(format!("`{name}` is more than {TIME_MS_MAX}, a year")));
        }
        if let Some(cors) = &config.cors {
            cors.check().map_err(wrong)?;
        }
        if let Some(webhook) = &config.webhook {
            webhook.check().map_err(wrong)?;
        }
        let streams = !matches!(config.respond, Respond::Auto | Respond::Once);
        if config.idempotency.is_some() && (streams || config.body == BodyMode::Stream) {
            return Err(wrong(
                "`idempotency` remembers answers, not streams: leave it out, or `respond` and `body: stream`"
                    .to_owned(),
            ));
        }
        Ok(Self { pattern, methods, auth, config })
    }
}

fn methods(found: Option<&Methods>) -> Result<Vec<Method>, CallError> {
    let names: &[String] = match found {
        None => return Ok(vec![Method::Get]),
        Some(Methods::One(name)) => std::slice::from_ref(name),
        Some(Methods::Many(names)) => names,
    };
    if names.is_empty() {
        return Err(wrong(
            "`http_method` is an empty list: name a method, or leave it out for GET".to_owned(),
        ));
    }
    let mut methods = Vec::new();
    for name in names {
        let method = Method::parse(name).ok_or_else(|| {
            let known = Method::ALL.map(Method::as_str).join(", ");
            wrong(format!("`http_method` is `{name}`, wanted is one of {known}"))
        })?;
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Ok(methods)
}

fn schemes(wanted: Option<&Wanted>, settings: &Config) -> Result<Vec<String>, CallError> {
    let names = match wanted {
        None => return Ok(settings.auth.default.clone()),
        Some(Wanted::Whether(false)) => {
            if !settings.host.is_loopback() && !settings.behind_proxy && settings.tls.is_none() {
                tracing::info!(target: "ringway", "a route that others can reach wants no authentication");
            }
            return Ok(Vec::new());
        }
        Some(Wanted::Whether(true)) => {
            if settings.auth.default.is_empty() {
                return Err(wrong(
                    "`auth` is true, but the worker's `auth.default` names no scheme".to_owned(),
                ));
            }
            return Ok(settings.auth.default.clone());
        }
        Some(Wanted::One(name)) => vec![name.clone()],
        Some(Wanted::Many(names)) => names.clone(),
    };
    // An empty list would let everybody in by a slip.
    if names.is_empty() {
        return Err(wrong("`auth` is an empty list: name a scheme, or say `false` for none".to_owned()));
    }
    match names.iter().find(|name| !settings.auth.schemes.contains_key(*name)) {
        Some(name) => {
            let known: Vec<&str> = settings.auth.schemes.keys().map(String::as_str).collect();
            Err(wrong(format!(
                "`auth` names the scheme `{name}`; `http.auth.schemes` of ringway.yaml has {known:?}"
            )))
        }
        None => Ok(names),
    }
}

/// A secret that a trigger writes out, or the variable of the engine's environment that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretSource {
    /// Written out.
    Text(Secret),
    /// The name of a variable of the engine's environment.
    Variable {
        /// Its name.
        env: String,
    },
}

impl SecretSource {
    /// The secret; an error that says which variable is not there.
    pub(crate) fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(secret) => Ok(secret.0.clone()),
            Self::Variable { env } => std::env::var(env)
                .map_err(|_| format!("the variable `{env}` is not in the engine's environment")),
        }
    }
}

pub(crate) fn wrong(message: String) -> CallError {
    CallError::new(ErrorCode::InvalidRegistration, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Bound, CallError> {
        let settings =
            json!({"auth": {"schemes": {"key": {"kind": "api_key", "keys": {"me": "0123456789"}}}}});
        Bound::parse(value, &serde_json::from_value(settings).unwrap())
    }

    #[test]
    fn what_iii_says_is_understood() {
        let bound = parse(&json!({
            "api_path": "users/:id", "http_method": "post", "condition_function_id": "a::b",
            "middleware_function_ids": ["c::d"],
        }))
        .unwrap();
        assert_eq!(bound.methods, [Method::Post]);
        assert_eq!(bound.pattern.to_string(), "/users/:id");
        assert_eq!(parse(&json!({"api_path": "/"})).unwrap().methods, [Method::Get]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (value, expected) in [
            (json!({}), "api_path is required"),
            (json!({"api_path": null}), "api_path is required"),
            (json!({"api_path": 7}), "does not fit"),
            (json!({"api_path": "/", "http_metod": "GET"}), "http_metod"),
            (json!({"api_path": "/", "http_method": "FETCH"}), "`FETCH`"),
            (json!({"api_path": "/", "http_method": []}), "empty list"),
            (json!({"api_path": "/:a/:a"}), "twice"),
            (json!({"api_path": "/", "auth": "nobody"}), "`nobody`"),
            (json!({"api_path": "/", "auth": []}), "say `false`"),
            (json!({"api_path": "/", "auth": true}), "auth.default"),
            (json!({"api_path": "/", "timeout_ms": 0}), "timeout_ms"),
            (json!({"api_path": "/", "rate": {"requests": 0}}), "rate.requests"),
            (json!({"api_path": "/", "respond": "websocket", "http_method": "POST"}), "GET"),
            (json!({"api_path": "/", "respond": "sse", "idempotency": {}}), "not streams"),
            (json!({"api_path": "/", "body": "stream", "idempotency": {}}), "not streams"),
            (json!({"api_path": "/", "idempotency": {"keep_seconds": 0}}), "keep_seconds"),
            (json!({"api_path": "/", "websocket": {"ping_ms": 0}}), "ping_ms"),
            (json!({"api_path": "/", "timeout_ms": u64::MAX}), "a year"),
        ] {
            let refused = parse(&value).unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidRegistration);
            assert!(refused.message.contains(expected), "{value}: {refused}");
        }
        assert_eq!(parse(&json!({"api_path": "/", "auth": ["key"]})).unwrap().auth, ["key"]);
        assert!(parse(&json!({"api_path": "/", "auth": false})).unwrap().auth.is_empty());
    }
}
