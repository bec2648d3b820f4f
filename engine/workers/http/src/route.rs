//! One route, made ready: everything that its requests need and that is the same for all of them. It must not know paths of
//! others.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use ringway::protocol::control::TriggerSpec;
use ringway::protocol::telemetry::SpanName;
use ringway::{CallError, Handle, Worker};
use ringway_worker_kit::Condition;
use ringway_worker_listen::Places;
use serde_json::{Value, json};

use crate::config::Config;
use crate::config::route::{Bound, RouteConfig, wrong};
use crate::cors;
use crate::rate::Limiter;
use crate::routes::{Method, Pattern};
use crate::webhook::Checker;

/// Whoever is counted when it is told how often somebody may ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    Address(IpAddr),
    Subject(String),
    Everybody,
}

/// A route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) id: String,
    pub(crate) function_id: String,
    pub(crate) pattern: Pattern,
    pub(crate) methods: Vec<Method>,
    pub(crate) names: Vec<String>,
    pub(crate) config: RouteConfig,
    pub(crate) auth: Vec<String>,
    pub(crate) condition: Condition,
    pub(crate) metadata: Option<Value>,
    /// The function; none in tests of trees.
    pub(crate) handle: Option<Handle>,
    pub(crate) before: Vec<Handle>,
    pub(crate) after: Vec<Handle>,
    pub(crate) span: SpanName,
    /// `{"type":"http","path":…,"method":` of every request, up to its method.
    pub(crate) trigger: String,
    /// The path as it was registered, as a text of JSON.
    pub(crate) path_json: String,
    pub(crate) timeout: Duration,
    pub(crate) body_bytes_max: u64,
    pub(crate) compression: bool,
    pub(crate) etag: bool,
    pub(crate) gate: Option<Arc<Places>>,
    pub(crate) limiter: Option<Limiter<Asker>>,
    pub(crate) webhook: Option<Checker>,
    pub(crate) cors: Option<Arc<cors::Policy>>,
}

impl Route {
    /// Makes a trigger ready.
    pub(crate) fn new(
        worker: &Worker,
        spec: &TriggerSpec,
        settings: &Config,
        cors: Option<&Arc<cors::Policy>>,
    ) -> Result<Self, CallError> {
        let bound = Bound::parse(&spec.config, settings)?;
        let function = spec.function_id.to_string();
        let handles = |ids: &[String]| ids.iter().map(|id| worker.handle(id)).collect::<Vec<_>>();
        let before = handles(&bound.config.middleware_function_ids);
        let after = handles(&bound.config.after_function_ids);
        let condition = Condition::of(&spec.config)?;
        let webhook =
            bound.config.webhook.as_ref().map(crate::webhook::Webhook::checker).transpose().map_err(wrong)?;
        let own_cors = bound.config.cors.as_ref().map(|config| Arc::new(cors::Policy::new(config)));
        let mut route = Self::unserved(&spec.id, &function, bound);
        let config = &route.config;
        route.timeout = config.timeout_ms.map_or_else(|| settings.timeout(), Duration::from_millis);
        route.body_bytes_max = config.body_bytes_max.unwrap_or(settings.body_bytes_max);
        route.compression = config.compression.unwrap_or(settings.compression);
        route.etag = config.etag.unwrap_or(settings.etag);
        route.gate = config.concurrency_max.map(Places::new);
        route.limiter = config.rate.as_ref().map(Limiter::new);
        route.cors = own_cors.or_else(|| cors.cloned());
        route.handle = Some(worker.handle(&function));
        route.metadata.clone_from(&spec.metadata);
        (route.before, route.after, route.condition, route.webhook) = (before, after, condition, webhook);
        Ok(route)
    }

    /// A route whose function is nobody's yet.
    pub(crate) fn unserved(id: &str, function_id: &str, bound: Bound) -> Self {
        let Bound { pattern, methods, auth, config } = bound;
        let path = config.api_path.clone();
        let method = methods.first().copied().unwrap_or(Method::Get);
        let settings = Config::default();
        Self {
            id: id.to_owned(),
            function_id: function_id.to_owned(),
            names: pattern.names().map(|name| Value::from(name).to_string()).collect(),
            span: SpanName::new(&format!("{method} {pattern}")),
            trigger: format!("{{\"type\":\"http\",\"path\":{},\"method\":", json!(path)),
            path_json: json!(path).to_string(),
            pattern,
            methods,
            config,
            auth,
            condition: Condition::Always,
            metadata: None,
            handle: None,
            before: Vec::new(),
            after: Vec::new(),
            timeout: settings.timeout(),
            body_bytes_max: settings.body_bytes_max,
            compression: settings.compression,
            etag: settings.etag,
            gate: None,
            limiter: None,
            webhook: None,
            cors: None,
        }
    }
}

/// A header's text, if it is there and can be read as one.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
