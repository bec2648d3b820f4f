//! What functions are told, read back as JSON.

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::config::route::{BodyMode, Bound};

fn route(path: &str) -> Route {
    Route::unserved("t", "f::f", Bound::parse(&json!({"api_path": path}), &Config::default()).unwrap())
}

fn told(
    route: &Route,
    params: &[&str],
    query: Option<&str>,
    headers: &HeaderMap,
    content: &Content,
) -> Value {
    let asked = Asked {
        route,
        method: "GET",
        path: "/users/a%2Fb",
        query,
        headers,
        params,
        client: IpAddr::from([1, 2, 3, 4]),
        certificate: None,
        request_id: "id-1",
    };
    serde_json::from_slice(&asked.object(content, None, &Map::new()).unwrap()).unwrap()
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn content(mode: BodyMode, kind: &str, body: &[u8]) -> Result<Content, Box<Problem>> {
    now(read(mode, Some(kind), &Bytes::copy_from_slice(body)))
}

#[test]
fn a_function_is_told_what_iii_tells_and_more() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.append("x-two", HeaderValue::from_static("a"));
    headers.append("x-two", HeaderValue::from_static("b \"quoted\""));
    headers.append("cookie", HeaderValue::from_static("a=1"));
    headers.append("cookie", HeaderValue::from_static("b=2"));
    headers.insert("x-odd", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let body = Content::Json(Bytes::from_static(b"{\"name\":\"a\"}"));
    let told = told(&route("users/:id"), &["a%2Fb"], Some("q=1&q=2&r=%C3%A9&s"), &headers, &body);
    assert_eq!(
        told,
        json!({
            "query_params": {"q": "2", "r": "é", "s": ""},
            "query_values": {"q": ["1", "2"], "r": ["é"], "s": [""]},
            "path_params": {"id": "a/b"},
            "headers": {
                "content-type": "application/json", "x-two": "a, b \"quoted\"", "cookie": "a=1; b=2",
                "x-odd": "caf\u{fffd}",
            },
            "path": "users/:id",
            "method": "GET",
            "trigger": {"type": "http", "path": "users/:id", "method": "GET"},
            "request_path": "/users/a%2Fb",
            "request_id": "id-1",
            "client": {"address": "1.2.3.4"},
            "body": {"name": "a"},
        })
    );
}

#[test]
fn bodies_are_read_as_their_types_say() {
    let read = |mode, kind: &str, body: &[u8]| {
        let mut text = Text::default();
        content(mode, kind, body).unwrap().write(text.raw("{"));
        serde_json::from_slice::<Value>(&text.raw("}").0.clone()).unwrap()
    };
    let auto = |kind, body| read(BodyMode::Auto, kind, body);
    assert_eq!(auto("application/json", b" [1] "), json!({"body": [1]}));
    assert_eq!(auto("application/ld+json; charset=utf-8", b"7"), json!({"body": 7}));
    assert_eq!(
        auto("application/x-www-form-urlencoded", b"a=1&b=x+y&a=2"),
        json!({"body": {"a": ["1", "2"], "b": "x y"}})
    );
    assert_eq!(auto("text/plain", "é\n".as_bytes()), json!({"body": "é\n"}));
    assert_eq!(auto("image/png", b"\x89"), json!({"body": null, "body_base64": "iQ=="}));
    assert_eq!(auto("application/json", b""), json!({"body": null}));
    assert_eq!(read(BodyMode::Text, "image/png", b"a"), json!({"body": "a"}));
    assert_eq!(read(BodyMode::Bytes, "application/json", b"{"), json!({"body": null, "body_base64": "ew=="}));
    assert_eq!(read(BodyMode::Json, "text/plain", b"{}"), json!({"body": {}}));
}

#[test]
fn the_parts_of_a_form_are_fields_and_files() {
    let body = "--X\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\none\r\n--X\r\ncontent-disposition: form-data; \
                name=\"f\"; filename=\"n.txt\"\r\ncontent-type: text/plain\r\n\r\nhi\r\n--X\r\ncontent-disposition: \
                form-data; name=\"a\"\r\n\r\ntwo\r\n--X--\r\n";
    let found = content(BodyMode::Auto, "multipart/form-data; boundary=X", body.as_bytes()).unwrap();
    let Content::Parts { fields, files } = found else { panic!("{found:?}") };
    assert_eq!(Value::Object(fields), json!({"a": ["one", "two"]}));
    let file = json!({"name": "f", "file_name": "n.txt", "content_type": "text/plain", "bytes": 2, "base64": "aGk="});
    assert_eq!(files, [file]);
}

#[test]
fn a_body_that_is_none_of_its_type_is_refused() {
    for (kind, body) in [
        ("application/json", &b"{"[..]),
        ("application/json", b"\xff"),
        ("application/json", b"{} {}"),
        ("text/plain", b"\xff"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=X", b"--X\r\n"),
    ] {
        assert_eq!(
            content(BodyMode::Auto, kind, body).unwrap_err().code,
            Code::InvalidBody,
            "{kind} {body:?}"
        );
    }
    let deep = "[".repeat(121) + &"]".repeat(121);
    assert!(content(BodyMode::Auto, "application/json", deep.as_bytes()).is_err());
    assert!(Fields::read("a&".repeat(FIELDS_MAX + 1).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn whatever_comes_the_text_is_json(
        query in "\\PC{0,60}|([a-c]=[0-9%&+]{0,3}&?){0,12}",
        params in prop::collection::vec("\\PC{0,20}", 2),
        value in prop::collection::vec(any::<u8>(), 0..30),
        body in prop::collection::vec(any::<u8>(), 0..60),
        kind in prop::sample::select(vec!["application/json", "text/plain", "application/x-www-form-urlencoded", "a/b",
            "multipart/form-data; boundary=a"]),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.insert(HeaderName::from_static("x"), value);
        }
        let content = content(BodyMode::Auto, kind, &body).unwrap_or_default();
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        let told = told(&route("/:a/:b"), &params, Some(&query), &headers, &content);
        prop_assert_eq!(told["path_params"].as_object().unwrap().len(), 2);
        let last: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        prop_assert_eq!(&told["query_params"], &json!(last));
    }
}

#[test]
fn names_that_no_field_can_have_are_refused() {
    let name = "$serde_json::private::RawValue";
    let form = format!("{name}=1");
    let parts = format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n1\r\n--b--\r\n");
    let json = format!("{{\"{name}\":\"1\"}}");
    for (kind, body) in [
        ("application/x-www-form-urlencoded", &form),
        ("multipart/form-data; boundary=b", &parts),
        ("application/json", &json),
    ] {
        let refused = content(BodyMode::Auto, kind, body.as_bytes()).unwrap_err();
        assert_eq!(refused.code, Code::InvalidBody, "{kind}");
        assert!(refused.detail.contains("no field has a name"), "{}", refused.detail);
        let taken = body.replace(name, "serde_json::private::RawValue");
        assert!(content(BodyMode::Auto, kind, taken.as_bytes()).is_ok(), "{kind}");
    }
    assert!(Fields::read(form.as_bytes()).is_err());
}
