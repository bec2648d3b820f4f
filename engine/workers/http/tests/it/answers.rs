//! Requests become calls, and what functions return becomes answers.

use ringway::protocol::trace::TraceContext;
use ringway::{Attachment, CallError, ErrorCode, Failure, Function, HandlerResult, Message};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::stage::Stage;

#[test]
fn a_function_is_told_what_was_asked() {
    let stage = Stage::new();
    stage.echo();
    stage.bind("test::echo", json!({"api_path": "users/:id/*rest", "http_method": "POST"}));
    let headers = [("content-type", "application/json"), ("x-own", "a")];
    let got = stage.ask("POST", "/users/a%2Fb/c/d?q=1&q=2", &headers, "{\"name\": \"é\"}".as_bytes());
    assert_eq!(got.status, 200);
    let told = got.json();
    assert_eq!(told["path_params"], json!({"id": "a/b", "rest": "c/d"}));
    assert_eq!(told["query_params"], json!({"q": "2"}));
    assert_eq!(told["query_values"], json!({"q": ["1", "2"]}));
    assert_eq!(told["body"], json!({"name": "é"}));
    assert_eq!(told["headers"]["x-own"], "a");
    assert_eq!((&told["path"], &told["method"]), (&json!("users/:id/*rest"), &json!("POST")));
    assert_eq!(told["trigger"], json!({"type": "http", "path": "users/:id/*rest", "method": "POST"}));
    assert_eq!(told["request_path"], "/users/a%2Fb/c/d");
    assert_eq!(told["client"]["address"], "127.0.0.1");
}

#[test]
fn any_value_is_an_answer() {
    let stage = Stage::new();
    stage.serve("POST", "/say", |_, told| Ok(told["body"].clone()));
    for value in [json!("text"), json!([1, "a"]), json!(7), json!({"id": 1}), json!(false)] {
        let got = stage.post("/say", &value);
        assert_eq!(
            (got.status, got.json(), got.header("content-type")),
            (200, value, Some("application/json"))
        );
    }
    let nothing = stage.post("/say", &Value::Null);
    assert_eq!((nothing.status, nothing.body.len()), (204, 0));
    let shaped =
        json!({"status_code": 201, "headers": {"X-A": "b", "Content-Type": "text/plain"}, "body": "hi"});
    let got = stage.post("/say", &shaped);
    assert_eq!((got.status, got.text().as_str(), got.header("x-a")), (201, "hi", Some("b")));
}

#[test]
fn bytes_pass_both_ways() {
    let stage = Stage::new();
    let image: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let bytes = image.clone();
    stage.client.register(Function::raw("test::bytes", move |_, _| Ok(Message::bytes(&bytes)))).unwrap();
    stage.bind("test::bytes", json!({"api_path": "/bytes"}));
    let got = stage.get("/bytes");
    assert_eq!((got.header("content-type"), &got.body), (Some("application/octet-stream"), &image));
    let (worker, bytes) = (stage.client.clone(), image.clone());
    let attached = move |_: &ringway::Context, _: &ringway::Request<'_>| {
        let mut loan = worker.loan(bytes.len())?;
        loan.copy_from_slice(&bytes);
        let answer = json!({"status_code": 200, "headers": {"content-type": "image/x"}});
        Ok(Message::json(&answer)?.attach(Attachment::bytes(loan.freeze().into())))
    };
    stage.client.register(Function::raw("test::attached", attached)).unwrap();
    stage.bind("test::attached", json!({"api_path": "/attached"}));
    let got = stage.get("/attached");
    assert_eq!((got.header("content-type"), &got.body), (Some("image/x"), &image));
    stage.serve("POST", "/base64", |_, told| {
        Ok(json!({"status_code": 200, "body_base64": told["body_base64"]}))
    });
    assert_eq!(stage.ask("POST", "/base64", &[("content-type", "image/x")], &image).body, image);
}

#[test]
fn errors_are_problems_with_their_statuses() {
    let stage = Stage::new();
    stage.serve("GET", "/own", |_, _| {
        let error = CallError::new(ErrorCode::HandlerError, "none left").with_user_code("SOLD_OUT");
        Err(Failure::from(error.with_details(json!({"status_code": 409}))))
    });
    stage.serve("GET", "/leak", |_, _| Err(Failure::new("password is hunter2")));
    stage.serve("GET", "/panic", |_, _| panic!("on purpose"));
    stage.bind("nobody::here", json!({"api_path": "/nobody"}));
    assert_eq!(stage.get("/own").problem(), (409, "SOLD_OUT".to_owned()));
    let leak = stage.get("/leak");
    assert_eq!(leak.problem(), (500, "handler_error".to_owned()));
    assert!(!leak.text().contains("hunter2"));
    assert_eq!(leak.json()["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(leak.json()["error"]["error_id"], leak.header("x-request-id").unwrap());
    assert_eq!(stage.get("/panic").problem().0, 500);
    let nobody = stage.get("/nobody");
    assert_eq!(nobody.problem(), (503, "function_unavailable".to_owned()));
    assert_eq!(nobody.header("retry-after"), Some("1"));
    assert_eq!(stage.get("/nowhere").problem(), (404, "NOT_FOUND".to_owned()));
    let wrong = stage.ask("POST", "/own", &[], b"");
    assert_eq!(wrong.problem(), (405, "method_not_allowed".to_owned()));
    assert_eq!(wrong.header("allow"), Some("GET, HEAD, OPTIONS"));
    let other = Stage::with(json!({"errors_shown": true}));
    other.serve("GET", "/leak", |_, _| Err(Failure::new("a reason")));
    assert_eq!(other.get("/leak").json()["detail"], "a reason");
}

#[test]
fn bodies_that_cannot_be_read_are_refused() {
    let stage = Stage::with(json!({"body_bytes_max": 1000}));
    stage.echo();
    stage.bind("test::echo", json!({"api_path": "/echo", "http_method": "POST"}));
    stage.bind("test::echo", json!({"api_path": "/large", "http_method": "POST", "body_bytes_max": 5000}));
    let json = [("content-type", "application/json")];
    assert_eq!(stage.ask("POST", "/echo", &json, b"{").problem(), (400, "invalid_body".to_owned()));
    let long = vec![b' '; 2000];
    assert_eq!(stage.ask("POST", "/echo", &json, &long).problem(), (413, "payload_too_large".to_owned()));
    assert_eq!(stage.ask("POST", "/large", &[("content-type", "text/plain")], &long).status, 200);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(stage.ask("POST", "/echo", &form, b"a=1&b=x+y").json()["body"], json!({"a": "1", "b": "x y"}));
}

#[test]
fn head_and_options_are_answered() {
    let stage = Stage::new();
    stage.serve("GET", "/a", |_, _| Ok(json!({"a": 1})));
    let head = stage.ask("HEAD", "/a", &[], b"");
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some("7")));
    let options = stage.ask("OPTIONS", "/a", &[], b"");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(stage.get("/a/").json(), json!({"a": 1}));
}

#[test]
fn a_request_and_its_call_are_one_trace() {
    let stage = Stage::new();
    stage.serve("GET", "/trace", |context, _| Ok(json!(context.trace().trace_id.to_string())));
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let got = stage.ask("GET", "/trace", &[("traceparent", sent), ("x-request-id", "mine-1")], b"");
    assert_eq!(got.json(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(got.header("x-request-id"), Some("mine-1"));
    let answered = TraceContext::parse_traceparent(got.header("traceparent").unwrap()).unwrap();
    assert_eq!(answered.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    let own = stage.get("/trace");
    assert!(own.header("traceparent").unwrap().contains(own.json().as_str().unwrap()));
    // What could not stand in a log is not taken over.
    let odd = stage.ask("GET", "/trace", &[("x-request-id", "a b\"c")], b"");
    assert_eq!(odd.header("x-request-id").unwrap().len(), 16);
}

#[test]
fn routes_come_and_go_and_wrong_ones_harm_nothing() {
    let stage = Stage::new();
    stage.echo();
    stage.bind("test::echo", json!({"api_path": "/u/:id"}));
    stage.bind("test::echo", json!({"api_path": "/u/:userId", "http_method": "DELETE"}));
    let refused = stage.try_bind("test::echo", json!({"api_path": "/u/:other"})).unwrap_err();
    assert!(refused.message.contains("conflicts"), "{refused}");
    for config in [json!({}), json!({"api_path": "/a b"}), json!({"api_path": "/", "http_method": "FETCH"})] {
        assert!(stage.try_bind("test::echo", config).is_err());
    }
    assert_eq!(stage.get("/u/7").json()["path_params"], json!({"id": "7"}));
    assert_eq!(stage.ask("DELETE", "/u/7", &[], b"").json()["path_params"], json!({"userId": "7"}));
    let another = stage.another("another");
    ringway_worker_bed::bind(&another, "theirs", "http", "test::echo", json!({"api_path": "/theirs"}))
        .unwrap();
    assert_eq!(stage.get("/theirs").status, 200);
    another.shut_down();
    stage.wait_until("the route goes with who bound it", || stage.get("/theirs").status == 404);
    let listed = stage.call("routes", json!({}));
    assert_eq!(listed["routes"].as_array().unwrap().len(), 2);
}

#[test]
fn the_description_names_every_route() {
    let stage =
        Stage::with(json!({"auth": {"schemes": {"key": {"kind": "api_key", "keys": {"me": "0123456789"}}}}}));
    stage.echo();
    stage.bind(
        "test::echo",
        json!({
            "api_path": "/users/:id", "http_method": "POST", "auth": "key",
            "openapi": {"summary": "Makes one", "tags": ["users"], "request_schema": {"type": "object"}},
        }),
    );
    stage.bind("test::echo", json!({"api_path": "/hidden", "openapi": {"hidden": true}}));
    let document = stage.get("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let operation = &document["paths"]["/users/{id}"]["post"];
    assert_eq!(operation["summary"], "Makes one");
    assert_eq!(operation["parameters"][0]["name"], "id");
    assert_eq!(operation["security"], json!([{"key": []}]));
    assert_eq!(operation["requestBody"]["content"]["application/json"]["schema"], json!({"type": "object"}));
    assert_eq!(document["components"]["securitySchemes"]["key"]["name"], "x-api-key");
    assert!(document["paths"].get("/hidden").is_none());
    assert_eq!(operation["requestBody"]["required"], true);
}

#[test]
fn the_description_has_the_schemas_of_functions() {
    #[derive(Deserialize, JsonSchema)]
    struct Asked {
        #[expect(dead_code, reason = "its schema counts")]
        body: Draft,
    }
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Draft {
        title: String,
    }
    #[derive(Serialize, JsonSchema)]
    struct Answered {
        status_code: u16,
        body: Draft,
    }
    let stage = Stage::new();
    let make = |_: &ringway::Context, _: Asked| -> HandlerResult<Answered> { Err(Failure::new("unused")) };
    stage.client.register(Function::json("notes::make", make).description("Makes a note")).unwrap();
    let numbers = json!({"path": {"id": {"type": "integer"}}});
    stage.bind("notes::make", json!({"api_path": "/notes/:id", "http_method": "PUT", "openapi": numbers}));
    let document = stage.get("/openapi.json").json();
    let operation = &document["paths"]["/notes/{id}"]["put"];
    assert_eq!(
        (&operation["summary"], &operation["parameters"][0]["schema"]["type"]),
        (&json!("Makes a note"), &json!("integer"))
    );
    for (place, name) in [
        ("/requestBody/content/application~1json/schema/$ref", "notes.make.request.Draft"),
        ("/responses/2XX/content/application~1json/schema/$ref", "notes.make.response.Draft"),
    ] {
        assert_eq!(
            operation.pointer(place),
            Some(&json!(format!("#/components/schemas/{name}"))),
            "{operation}"
        );
        assert_eq!(document["components"]["schemas"][name]["properties"]["title"]["type"], "string");
    }
}

#[test]
fn whoever_watches_is_told() {
    let stage = Stage::new();
    assert_eq!(stage.watch("/livez").status, 200);
    assert_eq!(stage.watch("/readyz").json()["status"], "ready");
    assert_eq!(stage.watch("/other").status, 404);
    assert_eq!(stage.get("/readyz").status, 404);
}
