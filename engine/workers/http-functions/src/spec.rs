//! What a function over HTTP is: address, method, headers, proof of who asks. Its JSON is that of iii's `registerfunction`,
//! with a few fields more. It must not know how a request is made.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method as HttpMethod, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::Rules;

/// Time that a call may take unless it is said, in milliseconds.
const TIMEOUT_MS: u64 = 30_000;

/// The longest time that can be said, in milliseconds: a year. Clocks do not reach as far as numbers do.
const TIMEOUT_MS_MAX: u64 = 366 * 86_400_000;

/// Headers that belong to the connection or are made for each request.
const RESERVED: &[&str] =
    &["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// How a function is called over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invocation {
    /// The whole address.
    pub url: String,
    /// The method. Default: POST.
    #[serde(default)]
    pub method: Method,
    /// Milliseconds that a call may take, all its attempts together. Default: 30,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Headers of every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Proof of who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Repeating a call does no harm: it is tried again also where it may have been done. GET, PUT and DELETE are so anyhow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// Attempts after the first, at most 10. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// The payload's fields go into the query, in place of a body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub query: bool,
}

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Does something.
    #[default]
    Post,
    /// Puts something in the place of what is there.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl From<Method> for HttpMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HttpMethod::from(*self).as_str())
    }
}

/// Proof of who asks. Secrets are never written down: these are names of environment variables of the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    /// A signature over time and body in `x-iii-Signature`.
    Hmac {
        /// The variable with the key.
        secret_key: String,
    },
    /// A token in `Authorization`.
    Bearer {
        /// The variable with the token.
        token_key: String,
    },
    /// A value in a header.
    ApiKey {
        /// The header.
        header: String,
        /// The variable with the value.
        value_key: String,
    },
}

impl Auth {
    /// The variable that it needs, and the code of a call that does not find it.
    pub(crate) fn variable(&self) -> (&str, &'static str) {
        match self {
            Self::Hmac { secret_key } => (secret_key, "secret_not_found"),
            Self::Bearer { token_key } => (token_key, "token_not_found"),
            Self::ApiKey { value_key, .. } => (value_key, "api_key_not_found"),
        }
    }
}

/// Why a function cannot be called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// The code that iii gives it.
    pub code: &'static str,
    /// What was wanted, what was found.
    pub message: String,
}

impl SpecError {
    pub(crate) fn url(message: impl Into<String>) -> Self {
        Self { code: "url_validation_failed", message: message.into() }
    }
}

/// Where environment variables are looked up.
#[derive(Clone)]
pub struct Environment(Arc<LookUp>);

type LookUp = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    /// Another.
    #[must_use]
    pub fn new(look_up: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look_up))
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment").finish()
    }
}

/// A function over HTTP whose parts are sound.
#[derive(Debug, Clone)]
pub struct Target {
    pub(crate) uri: Uri,
    pub(crate) method: HttpMethod,
    pub(crate) headers: HeaderMap,
    pub(crate) auth: Option<Auth>,
    pub(crate) timeout: Duration,
    /// Whether a call that may have been done may be done again.
    pub(crate) repeatable: bool,
    pub(crate) attempts: u32,
    pub(crate) query: bool,
}

impl Target {
    /// Checks everything that can be told before a call. The address behind a name cannot: it is checked at each connection.
    pub(crate) fn check(
        spec: &Invocation,
        rules: &Rules,
        environment: &Environment,
    ) -> Result<Self, SpecError> {
        let uri = rules.check(&spec.url)?;
        let wrong = |message: String| SpecError { code: "invalid_registration", message };
        let retries = spec.retries.unwrap_or(2);
        if retries > 10 {
            return Err(wrong(format!("`retries` is {retries}, 0 to 10 was wanted")));
        }
        let timeout_ms = spec.timeout_ms.unwrap_or(TIMEOUT_MS);
        if !(1..=TIMEOUT_MS_MAX).contains(&timeout_ms) {
            return Err(wrong(format!("`timeout_ms` is {timeout_ms}, 1 to {TIMEOUT_MS_MAX} was wanted")));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.headers {
            let name = header_name(name)?;
            let value = HeaderValue::from_str(value).map_err(|_| {
                wrong(format!("the value of header `{name}` cannot be sent: it has line breaks or the like"))
            })?;
            headers.append(name, value);
        }
        if let Some(auth) = &spec.auth {
            if let Auth::ApiKey { header, .. } = auth {
                header_name(header)?;
            }
            let (variable, _) = auth.variable();
            if !rules.may_read(variable) {
                return Err(wrong(format!(
                    "the environment variable `{variable}` is not among `environment_allowed` of the settings"
                )));
            }
            if environment.get(variable).is_none() {
                let message = format!(
                    "the engine has no environment variable `{variable}`: set it and start the engine again"
                );
                return Err(SpecError { code: "missing_env_var", message });
            }
        }
        Ok(Self {
            uri,
            method: spec.method.into(),
            headers,
            auth: spec.auth.clone(),
            timeout: Duration::from_millis(timeout_ms),
            repeatable: spec.idempotent || matches!(spec.method, Method::Get | Method::Put | Method::Delete),
            attempts: retries + 1,
            query: spec.query,
        })
    }
}

fn header_name(name: &str) -> Result<HeaderName, SpecError> {
    let wrong = |message: String| SpecError { code: "invalid_registration", message };
    let found: HeaderName = name.parse().map_err(|_| wrong(format!("`{name}` is no name of a header")))?;
    if RESERVED.contains(&found.as_str()) {
        return Err(wrong(format!("the header `{found}` is made for each request and cannot be set")));
    }
    Ok(found)
}
