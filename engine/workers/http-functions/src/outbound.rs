//! Calls over HTTP: requests made of calls, results made of responses, as iii's engine does it, and tried again where that can
//! do no harm. It must not know where functions are registered.
//!
//! A call is tried again if it was certainly not begun, since no connection came about; and if it may be repeated (GET, PUT,
//! DELETE, or what says so), also after a broken connection and after 429, 502, 503 and 504, as `Retry-After` asks. All
//! attempts have one time together.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ring::hmac;
use ringway::{CallError, Encoding, ErrorCode, Failure, HandlerResult, Message, TraceContext};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower::service_fn;

use crate::config::{Config, ConfigError};
use crate::connector::{ConnectError, Connector, Resolver};
use crate::rules::Rules;
use crate::spec::{Auth, Environment, Invocation, SpecError, Target};

/// The time before the second attempt; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest time between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long an idle connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Bytes of an answer that is no JSON which a message quotes.
const QUOTE_BYTES_MAX: usize = 200;

/// Why calls cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// A setting cannot be obeyed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates cannot be read.
    #[error("`roots`: cannot read certificates from {path}: {reason}")]
    Roots {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// Makes calls. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
}

struct Shared {
    request: Box<dyn Fn(Request<Full<Bytes>>) -> Answer + Send + Sync>,
    rules: Rules,
    environment: Environment,
    under_way: Semaphore,
    response_bytes_max: usize,
}

type Answer = hyper_util::client::legacy::ResponseFuture;

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("rules", &self.shared.rules).finish_non_exhaustive()
    }
}

/// One call of a function over HTTP.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The function's id.
    pub function: String,
    /// The call's own number, as text.
    pub invocation: String,
    /// JSON; nothing is null.
    pub body: Bytes,
    /// The span that the request belongs under.
    pub trace: TraceContext,
    /// W3C baggage.
    pub baggage: Option<String>,
    /// Time that is left.
    pub remaining: Option<Duration>,
}

/// Why an attempt did not give a result.
enum Miss {
    /// It was not begun.
    NotBegun(Failure),
    /// It may have been done; the time that the other side asks for before the next.
    Maybe(Failure, Option<Duration>),
    /// There is no use in another.
    Final(Failure),
}

impl Outbound {
    /// Sets it up. Connections are made on the tokio runtime where calls are.
    ///
    /// # Errors
    /// [`OutboundError`]: a setting, or the certificates.
    pub fn new(config: &Config, environment: Environment, resolver: Resolver) -> Result<Self, OutboundError> {
        let rules = Rules::of(config)?;
        let connector = Connector {
            resolver,
            allowed: Arc::new(rules.allowed.clone()),
            tls: tls(config.roots.as_deref())?,
            timeout: Duration::from_millis(config.connect_timeout_ms),
        };
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(config.idle_connections_max)
            .build(service_fn(move |uri: Uri| Box::pin(connector.clone().connect(uri))));
        let shared = Shared {
            request: Box::new(move |request| client.request(request)),
            rules,
            environment,
            under_way: Semaphore::new(config.concurrency_max),
            response_bytes_max: config.response_bytes_max,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Checks how a function is to be called.
    ///
    /// # Errors
    /// [`SpecError`], with iii's code.
    pub fn check(&self, spec: &Invocation) -> Result<Target, SpecError> {
        Target::check(spec, &self.shared.rules, &self.shared.environment)
    }

    /// Calls a function, on a tokio runtime. Given up before it is ready, the request is ended.
    ///
    /// # Errors
    /// With iii's codes: `http_request_failed`, `http_response_failed`, `invalid_response`, `url_validation_failed`, those of
    /// missing secrets, and what the other side says, `http_error` unless it names a code.
    pub async fn call(&self, target: &Target, asked: &Asked) -> HandlerResult<Message> {
        let time = asked.remaining.map_or(target.timeout, |left| left.min(target.timeout));
        let until = Instant::now() + time;
        match tokio::time::timeout_at(until, self.attempts(target, asked, until)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::with_code(
                "http_request_failed",
                format!("{} did not answer within {} ms", place(&target.uri), time.as_millis()),
            )),
        }
    }

    async fn attempts(&self, target: &Target, asked: &Asked, until: Instant) -> HandlerResult<Message> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let (failure, wanted) = match self.attempt(target, asked).await {
                Ok(message) => return Ok(message),
                Err(Miss::Final(failure)) => return Err(failure),
                Err(Miss::NotBegun(failure)) => (failure, None),
                Err(Miss::Maybe(failure, wanted)) if target.repeatable => (failure, wanted),
                Err(Miss::Maybe(failure, _)) => return Err(failure),
            };
            // Not all who failed together are to come back together.
            let wait = wanted.unwrap_or_else(|| pause.mul_f64(0.5 + fastrand::f64() / 2.0));
            if attempt >= target.attempts || wait >= until.saturating_duration_since(Instant::now()) {
                return Err(failure);
            }
            tracing::debug!(function = asked.function, %failure, attempt, "a call over HTTP is tried again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(Failure::new("no attempt was made"))
    }

    async fn attempt(&self, target: &Target, asked: &Asked) -> Result<Message, Miss> {
        // It is never closed. Who waits for another attempt is in nobody's way.
        let _permit = self.shared.under_way.acquire().await;
        let request = self.request(target, asked).map_err(Miss::Final)?;
        let response = (self.shared.request)(request).await.map_err(|error| no_answer(target, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(response).await?;
        result(status, &headers, &body)
    }

    /// Makes the request. The time in it is now, so it is made anew for each attempt.
    fn request(&self, target: &Target, asked: &Asked) -> HandlerResult<Request<Full<Bytes>>> {
        let (uri, body) = if target.query {
            (with_query(&target.uri, &asked.body)?, Bytes::new())
        } else {
            (target.uri.clone(), asked.body.clone())
        };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| {
            // What cannot be sent is an id with characters that headers do not have.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-iii-function-path", &asked.function);
        set("x-iii-invocation-id", &asked.invocation);
        set("x-iii-timestamp", &seconds);
        if asked.trace.is_valid() {
            set("x-iii-trace-id", &asked.trace.trace_id.to_string());
            set("traceparent", &asked.trace.to_string());
        }
        if let Some(baggage) = &asked.baggage {
            set("baggage", baggage);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Those of the function win.
        headers.extend(target.headers.clone());
        if let Some(auth) = &target.auth {
            let (name, value) = self.proof(auth, &seconds, &body)?;
            headers.insert(name, value);
        }
        let mut request = Request::builder()
            .method(target.method.clone())
            .uri(uri)
            .body(Full::new(body))
            .map_err(|error| Failure::with_code("http_request_failed", error.to_string()))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn proof(&self, auth: &Auth, seconds: &str, body: &[u8]) -> HandlerResult<(HeaderName, HeaderValue)> {
        let (variable, code) = auth.variable();
        let secret = self.shared.environment.get(variable).ok_or_else(|| {
            Failure::with_code(code, format!("the engine has no environment variable `{variable}` any more"))
        })?;
        let (name, text) = match auth {
            Auth::Hmac { .. } => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                let tag = hmac::sign(&key, format!("{seconds}:{}", STANDARD.encode(body)).as_bytes());
                let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                (HeaderName::from_static("x-iii-signature"), format!("sha256={hex}"))
            }
            Auth::Bearer { .. } => (AUTHORIZATION, format!("Bearer {secret}")),
            Auth::ApiKey { header, .. } => {
                let name = header
                    .parse()
                    .map_err(|_| Failure::with_code(code, format!("`{header}` is no header")))?;
                (name, secret)
            }
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            let text =
                format!("the value of the environment variable `{variable}` cannot be sent in a header");
            Failure::with_code(code, text)
        })?;
        value.set_sensitive(true);
        Ok((name, value))
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, Miss> {
        let max = self.shared.response_bytes_max;
        match Limited::new(response.into_body(), max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            // Another would be as long.
            Err(error) if error.is::<LengthLimitError>() => Err(Miss::Final(Failure::with_code(
                "http_response_failed",
                format!("the response has more than {max} bytes, which `response_bytes_max` allows"),
            ))),
            Err(error) => {
                let text = format!("the response broke off: {error}");
                Err(Miss::Maybe(Failure::with_code("http_response_failed", text), None))
            }
        }
    }
}

fn tls(roots: Option<&str>) -> Result<TlsConnector, OutboundError> {
    let mut store = RootCertStore::empty();
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = roots {
        let failed = |reason: String| OutboundError::Roots { path: path.to_owned(), reason };
        let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            store.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Where a request goes, without what may be secret: paths of hooks often are.
fn place(uri: &Uri) -> String {
    let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}

/// Adds the fields of a payload to an address.
fn with_query(uri: &Uri, body: &[u8]) -> HandlerResult<Uri> {
    let payload: Value = serde_json::from_slice(body)?;
    let fields = match payload {
        Value::Null => return Ok(uri.clone()),
        Value::Object(fields) => fields,
        other => {
            return Err(Failure::invalid(format!(
                "an object was wanted, whose fields go into the query, found {other}"
            )));
        }
    };
    let mut query = form_urlencoded::Serializer::new(uri.query().unwrap_or_default().to_owned());
    // iii's listener puts the caller in, who is nobody's business out there.
    for (name, value) in fields.iter().filter(|(name, _)| *name != "_caller_worker_id") {
        match value {
            Value::Null => {}
            Value::String(text) => drop(query.append_pair(name, text)),
            Value::Array(values) => {
                for value in values {
                    query.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                }
            }
            other => drop(query.append_pair(name, &other.to_string())),
        }
    }
    let mut parts = uri.clone().into_parts();
    let text = format!("{}?{}", uri.path(), query.finish());
    parts.path_and_query =
        Some(text.parse().map_err(|error| Failure::invalid(format!("the query: {error}")))?);
    Uri::from_parts(parts).map_err(|error| Failure::invalid(format!("the query: {error}")))
}

/// What a request that got no response means.
fn no_answer(target: &Target, error: &hyper_util::client::legacy::Error) -> Miss {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut last = error.to_string();
    while let Some(inner) = cause {
        if let Some(connecting) = inner.downcast_ref::<ConnectError>() {
            let text = connecting.to_string();
            return match connecting {
                ConnectError::Forbidden(_) => Miss::Final(Failure::with_code("url_validation_failed", text)),
                ConnectError::Tls { .. } => Miss::Final(Failure::with_code("http_request_failed", text)),
                _ => Miss::NotBegun(Failure::with_code("http_request_failed", text)),
            };
        }
        last = inner.to_string();
        cause = inner.source();
    }
    let failure = Failure::with_code("http_request_failed", format!("{}: {last}", place(&target.uri)));
    if error.is_connect() { Miss::NotBegun(failure) } else { Miss::Maybe(failure, None) }
}

/// What the other side says of its failure.
#[derive(Deserialize)]
struct Told {
    error: ToldError,
}

#[derive(Deserialize)]
struct ToldError {
    #[serde(default)]
    code: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
}

/// What a response means.
fn result(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Result<Message, Miss> {
    if status.as_u16() >= 400 {
        return Err(failed(status, headers, body));
    }
    let json = || Message::new(Encoding::Json, body);
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body);
    match is_json {
        Ok(_) => Ok(json()),
        Err(_) if body.is_empty() || !status.is_success() => Ok(Message::empty()),
        Err(error) => {
            let quoted = String::from_utf8_lossy(&body[..body.len().min(QUOTE_BYTES_MAX)]).into_owned();
            let text = format!("the response is {status}, JSON was wanted, found `{quoted}`: {error}");
            Err(Miss::Final(Failure::with_code("invalid_response", text)))
        }
    }
}

fn failed(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Miss {
    let words = |value: Option<Value>, otherwise: &str| match value {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        _ => otherwise.to_owned(),
    };
    let (code, message) = match serde_json::from_slice::<Told>(body) {
        Ok(told) => (words(told.error.code, "http_error"), words(told.error.message, "HTTP request failed")),
        Err(_) => ("http_error".to_owned(), format!("HTTP {status}")),
    };
    let wanted = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let wanted = wanted.map(Duration::from_secs);
    let error = CallError::new(ErrorCode::HandlerError, message)
        .with_user_code(code)
        .with_details(serde_json::json!({"status": status.as_u16()}));
    let failure = Failure::from(error);
    match status.as_u16() {
        429 | 502 | 503 | 504 => {
            Miss::Maybe(if let Some(wait) = wanted { failure.retry_after(wait) } else { failure }, wanted)
        }
        _ => Miss::Final(failure),
    }
}
