//! The description of all routes (OpenAPI 3.1): their paths and parameters, what must be shown, what may be answered, with the
//! JSON Schemas that the functions have in the catalog. Made when it is asked for, and kept for a moment. It must not know how
//! routes are served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use ringway::CallOptions;
use ringway::protocol::naming;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::body::Body;
use crate::config::auth::Scheme;
use crate::config::route::Respond;
use crate::door::Door;
use crate::route::Route;
use crate::routes::{Method, Segment};

/// How long a description is used.
const FRESH: Duration = Duration::from_secs(1);

/// How long the engine may take to tell of a function.
const ASK_MAX: Duration = Duration::from_secs(5);

/// The description as it was last made; held while it is being made, so that it is made once for all who wait.
#[derive(Debug, Default)]
pub(crate) struct OpenApi {
    made: Mutex<Option<(Instant, Bytes)>>,
}

impl OpenApi {
    pub(crate) async fn answer(&self, door: &Door) -> Response<Body> {
        let mut made = self.made.lock().await;
        let text = match made.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            Some((_, text)) => text.clone(),
            None => {
                let text = Bytes::from(document(door).await.to_string());
                *made = Some((Instant::now(), text.clone()));
                text
            }
        };
        drop(made);
        let mut response = Response::new(Body::full(text));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

async fn document(door: &Door) -> Value {
    let mut functions: Map<String, Value> = Map::new();
    let routes = door.routes.all();
    for route in routes.iter().filter(|route| !route.config.openapi.hidden) {
        if !functions.contains_key(&route.function_id) {
            let asked = json!({"function_id": route.function_id});
            let options = CallOptions::new().timeout(ASK_MAX);
            let known = door.worker.trigger_json_async(naming::FUNCTIONS_INFO, &asked, &options).await;
            functions.insert(route.function_id.clone(), known.unwrap_or(Value::Null));
        }
    }
    let mut paths: Map<String, Value> = Map::new();
    for route in routes.iter().filter(|route| !route.config.openapi.hidden) {
        let function = functions.get(&route.function_id).unwrap_or(&Value::Null);
        for method in operations(&route.methods) {
            let path = paths.entry(route.pattern.template()).or_insert_with(|| json!({}));
            path[method.as_str().to_ascii_lowercase()] = operation(door, route, method, function);
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": door.config.openapi.title, "version": door.config.openapi.version},
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem_schema()},
            "responses": {"Problem": {
                "description": "The request ended badly",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
        },
    });
    let schemes: Map<String, Value> = door
        .config
        .auth
        .schemes
        .iter()
        .filter_map(|(name, scheme)| Some((name.clone(), security(scheme)?)))
        .collect();
    if !schemes.is_empty() {
        document["components"]["securitySchemes"] = Value::Object(schemes);
    }
    document
}

/// The methods that a description can name.
fn operations(methods: &[Method]) -> Vec<Method> {
    let nameable = |method: &Method| !matches!(method, Method::Any | Method::Query);
    let every = methods.contains(&Method::Any);
    Method::ALL.into_iter().filter(nameable).filter(|method| every || methods.contains(method)).collect()
}

fn operation(door: &Door, route: &Arc<Route>, method: Method, function: &Value) -> Value {
    let described = &route.config.openapi;
    let mut operation = json!({
        "operationId": format!("{}:{}", method.as_str().to_ascii_lowercase(), route.pattern),
        "parameters": parameters(route),
        "responses": responses(route, method, function),
    });
    let summary = described.summary.clone().or_else(|| function["description"].as_str().map(str::to_owned));
    if let Some(summary) = summary {
        operation["summary"] = summary.into();
    }
    if let Some(description) = &described.description {
        operation["description"] = description.clone().into();
    }
    if !described.tags.is_empty() {
        operation["tags"] = json!(described.tags);
    }
    if described.deprecated {
        operation["deprecated"] = true.into();
    }
    if matches!(method, Method::Post | Method::Put | Method::Patch)
        && let Some(schema) = request_schema(route, function)
    {
        operation["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
    }
    if !route.auth.is_empty() {
        let wanted =
            route.auth.iter().filter(|name| door.config.auth.schemes.get(*name).and_then(security).is_some());
        operation["security"] = wanted.map(|name| json!({name.as_str(): []})).collect();
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let of_path = route.pattern.segments().iter().filter_map(|segment| match segment {
        Segment::Fixed(_) => None,
        Segment::One(name) | Segment::Rest(name) => {
            Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        }
    });
    let of_query = route
        .config
        .openapi
        .query
        .iter()
        .map(|(name, schema)| json!({"name": name, "in": "query", "required": false, "schema": schema}));
    let key = route.config.idempotency.as_ref().map(|settings| {
        json!({"name": "Idempotency-Key", "in": "header", "required": settings.required,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255}})
    });
    of_path.chain(of_query).chain(key).collect()
}

fn responses(route: &Route, method: Method, function: &Value) -> Value {
    let schema = route.config.openapi.response_schema.clone().or_else(|| response_schema(function));
    let kind = match route.config.respond {
        Respond::Sse => "text/event-stream",
        Respond::Ndjson => "application/x-ndjson",
        Respond::Auto | Respond::Once | Respond::Websocket => "application/json",
    };
    let mut answered = json!({"description": "What the function answers"});
    if let Some(schema) = schema.filter(|_| method != Method::Head) {
        answered["content"] = json!({kind: {"schema": schema}});
    }
    let mut responses = if route.config.respond == Respond::Websocket {
        json!({"101": {"description": "The WebSocket is open"}})
    } else {
        json!({"200": answered, "204": {"description": "There is nothing to answer"}})
    };
    responses["default"] = json!({"$ref": "#/components/responses/Problem"});
    responses
}

/// What the body is to be: what the trigger says, or what the function takes under `body`.
fn request_schema(route: &Route, function: &Value) -> Option<Value> {
    if let Some(schema) = &route.config.openapi.request_schema {
        return Some(schema.clone());
    }
    let whole = function.get("request_schema").filter(|schema| schema.is_object())?;
    let body = whole.pointer("/properties/body")?;
    Some(with_definitions(whole, body))
}

/// What the body of an answer is: what the function answers under `body`, or all that it answers.
fn response_schema(function: &Value) -> Option<Value> {
    let whole = function.get("response_schema").filter(|schema| schema.is_object())?;
    let shaped = whole.pointer("/properties/status_code").is_some();
    let body = if shaped { whole.pointer("/properties/body")? } else { whole };
    Some(with_definitions(whole, body))
}

/// A part of a schema, with what it may refer to, under its own name in it.
fn with_definitions(whole: &Value, part: &Value) -> Value {
    let mut part = part.clone();
    if let (Some(definitions), Some(fields)) = (whole.get("$defs"), part.as_object_mut()) {
        fields.entry("$defs").or_insert_with(|| definitions.clone());
        // References are to the document's root unless the schema is a resource of its own.
        let _own = fields.entry("$id").or_insert_with(|| format!("urn:uuid:{}", unique()).into());
    }
    if let Some(fields) = part.as_object_mut() {
        fields.remove("$schema");
    }
    part
}

fn unique() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

fn security(scheme: &Scheme) -> Option<Value> {
    Some(match scheme {
        Scheme::Bearer { .. } => json!({"type": "http", "scheme": "bearer"}),
        Scheme::Jwt { .. } => json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
        Scheme::Basic { .. } => json!({"type": "http", "scheme": "basic"}),
        Scheme::ApiKey { header, .. } => json!({"type": "apiKey", "in": "header", "name": header}),
        Scheme::Certificate {} => json!({"type": "mutualTLS"}),
        Scheme::Function { .. } => return None,
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "request_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
            "request_id": {"type": "string"},
            "trace_id": {"type": "string"},
        },
    })
}
