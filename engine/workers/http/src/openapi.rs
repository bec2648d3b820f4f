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
    let (mut paths, mut schemas): (Map<String, Value>, Schemas) = Default::default();
    for route in routes.iter().filter(|route| !route.config.openapi.hidden) {
        let function = functions.get(&route.function_id).unwrap_or(&Value::Null);
        for method in operations(&route.methods) {
            let path = paths.entry(route.pattern.template()).or_insert_with(|| json!({}));
            path[method.as_str().to_ascii_lowercase()] =
                operation(door, route, method, function, &mut schemas);
        }
    }
    schemas.0.insert("Problem".to_owned(), problem_schema());
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": door.config.openapi.title, "version": door.config.openapi.version},
        "paths": paths,
        "components": {
            "schemas": schemas.0,
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

fn operation(
    door: &Door,
    route: &Arc<Route>,
    method: Method,
    function: &Value,
    schemas: &mut Schemas,
) -> Value {
    let described = &route.config.openapi;
    let mut operation = json!({
        "operationId": format!("{}:{}", method.as_str().to_ascii_lowercase(), route.pattern),
        "parameters": parameters(route),
        "responses": responses(route, method, function, schemas),
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
        && let Some(schema) = request_schema(route, function, schemas)
    {
        // Who sends nothing sends null, to the function.
        operation["requestBody"] =
            json!({"required": !takes_null(&schema), "content": {"application/json": {"schema": schema}}});
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
            let text = || json!({"type": "string", "minLength": 1});
            let schema = route.config.openapi.path.get(name).cloned().unwrap_or_else(text);
            Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
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

fn responses(route: &Route, method: Method, function: &Value, schemas: &mut Schemas) -> Value {
    let schema = response_schema(route, function, schemas);
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
        // A function may say 201 as well as 200.
        json!({"2XX": answered, "204": {"description": "There is nothing to answer"}})
    };
    responses["default"] = json!({"$ref": "#/components/responses/Problem"});
    responses
}

/// What the body is to be: what the trigger says, or what the function takes under `body`.
fn request_schema(route: &Route, function: &Value, schemas: &mut Schemas) -> Option<Value> {
    if let Some(schema) = &route.config.openapi.request_schema {
        return Some(schemas.part(&format!("{}.request", route.id), schema, schema));
    }
    let whole = function.get("request_schema").filter(|schema| schema.is_object())?;
    let body = whole.pointer("/properties/body")?;
    Some(schemas.part(&format!("{}.request", route.function_id), whole, body))
}

/// What the body of an answer is: what the trigger says, what the function answers under `body`, or all that it answers.
fn response_schema(route: &Route, function: &Value, schemas: &mut Schemas) -> Option<Value> {
    if let Some(schema) = &route.config.openapi.response_schema {
        return Some(schemas.part(&format!("{}.response", route.id), schema, schema));
    }
    let whole = function.get("response_schema").filter(|schema| schema.is_object())?;
    let shaped = whole.pointer("/properties/status_code").is_some();
    let body = if shaped { whole.pointer("/properties/body")? } else { whole };
    Some(schemas.part(&format!("{}.response", route.function_id), whole, body))
}

/// Whether null fits, as far as the schema says so at once.
fn takes_null(schema: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null";
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(is_null),
        Some(kind) => is_null(kind),
        None => schema.get("$ref").is_none(),
    }
}

/// Schemas to which others refer. Definitions within a schema would be right as well, but few who read descriptions find them.
#[derive(Debug, Default)]
struct Schemas(Map<String, Value>);

impl Schemas {
    /// A part of a schema. What it refers to in the whole is kept here, under names that begin with this one.
    fn part(&mut self, name: &str, whole: &Value, part: &Value) -> Value {
        let name = plain(name);
        let definitions = ["$defs", "definitions"].iter().filter_map(|field| whole.get(field)?.as_object());
        for (key, definition) in definitions.flatten() {
            let mut definition = definition.clone();
            refer(&mut definition, &name);
            self.0.entry(format!("{name}.{}", plain(key))).or_insert(definition);
        }
        if refers_to_itself(whole) && !self.0.contains_key(&name) {
            let mut whole = without_definitions(whole);
            refer(&mut whole, &name);
            self.0.insert(name.clone(), whole);
        }
        let mut part = without_definitions(part);
        refer(&mut part, &name);
        part
    }
}

fn without_definitions(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        for field in ["$schema", "$id", "$defs", "definitions"] {
            fields.remove(field);
        }
    }
    schema
}

/// Letters that names of components may have.
fn plain(name: &str) -> String {
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() || ".-_".contains(letter) { letter } else { '_' };
    name.replace("::", ".").chars().map(letter).collect()
}

fn refers_to_itself(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("$ref").is_some_and(|place| place == "#") || fields.values().any(refers_to_itself)
        }
        Value::Array(items) => items.iter().any(refers_to_itself),
        _ => false,
    }
}

/// Makes references to definitions references to components.
fn refer(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(place) if key == "$ref" => {
                        if let Some(known) = component(place, name) {
                            *place = known;
                        }
                    }
                    other => refer(other, name),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, name)),
        _ => {}
    }
}

fn component(place: &str, name: &str) -> Option<String> {
    if place == "#" {
        return Some(format!("#/components/schemas/{name}"));
    }
    let within = place.strip_prefix("#/$defs/").or_else(|| place.strip_prefix("#/definitions/"))?;
    let (key, rest) = within.find('/').map_or((within, ""), |at| within.split_at(at));
    let key =
        percent_encoding::percent_decode_str(key).decode_utf8_lossy().replace("~1", "/").replace("~0", "~");
    Some(format!("#/components/schemas/{name}.{}{rest}", plain(&key)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_become_components() {
        let whole = json!({
            "type": "object",
            "properties": {"body": {"$ref": "#/$defs/Draft"}, "again": {"$ref": "#"}},
            "$defs": {
                "Draft": {"type": "object", "properties": {"tag": {"anyOf": [{"$ref": "#/$defs/a~1b"}]}}},
                "a/b": {"type": "string"},
            },
        });
        let mut schemas = Schemas::default();
        let part = schemas.part("notes::make.request", &whole, &whole["properties"]["body"]);
        assert_eq!(part, json!({"$ref": "#/components/schemas/notes.make.request.Draft"}));
        let draft = &schemas.0["notes.make.request.Draft"];
        let tag = &draft["properties"]["tag"]["anyOf"][0]["$ref"];
        assert_eq!(tag, "#/components/schemas/notes.make.request.a_b");
        assert_eq!(schemas.0["notes.make.request.a_b"], json!({"type": "string"}));
        let again = &schemas.0["notes.make.request"]["properties"]["again"]["$ref"];
        assert_eq!(again, "#/components/schemas/notes.make.request");
        assert_eq!(schemas.0.len(), 3);
    }

    #[test]
    fn a_body_may_be_missing_where_null_fits() {
        for (schema, expected) in [
            (json!({"type": "object"}), false),
            (json!({"$ref": "#/components/schemas/a"}), false),
            (json!({"type": ["string", "null"]}), true),
            (json!({"type": "null"}), true),
            (json!({}), true),
            (json!(true), true),
        ] {
            assert_eq!(takes_null(&schema), expected, "{schema}");
        }
    }
}
