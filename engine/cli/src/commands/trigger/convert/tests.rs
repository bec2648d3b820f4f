//! Tables: what was typed, and the request or the problems that come of it.

use serde_json::json;

use super::*;

/// As schemars writes it: optional fields, an enum behind a reference, a nested object, lists.
fn order() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "item": {"type": "string", "description": "What is wanted"},
            "count": {"type": "integer", "format": "uint32", "minimum": 0},
            "price": {"type": "number"},
            "gift": {"type": "boolean", "default": false},
            "note": {"type": ["string", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "speed": {"$ref": "#/$defs/Speed"},
            "address": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
            "extra": true
        },
        "required": ["item", "count"],
        "$defs": {
            "Speed": {"oneOf": [
                {"type": "string", "const": "slow", "description": "By ship"},
                {"type": "string", "const": "quick"}
            ]},
            "Address": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
                "required": ["street"]
            }
        }
    })
}

fn try_request(arguments: &[&str], schema: Option<&Value>) -> Result<Value, String> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let found = request(&arguments, schema.map(Schema::new));
    found.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[test]
fn without_a_schema_values_are_what_they_look_like() {
    let check = |arguments: &[&str], expected: Value| {
        assert_eq!(try_request(arguments, None), Ok(expected), "{arguments:?}");
    };
    check(&[], json!({}));
    check(&["a=1", "b=-2.5", "c=true", "d=null"], json!({"a": 1, "b": -2.5, "c": true, "d": null}));
    check(&["a=hello world", "b=\"7\"", "c="], json!({"a": "hello world", "b": "7", "c": ""}));
    check(&["a={\"b\":[1,2]}"], json!({"a": {"b": [1, 2]}}));
    check(&["a.b=1", "a.c=2"], json!({"a": {"b": 1, "c": 2}}));
    check(&["a[]=1", "a[]=x"], json!({"a": [1, "x"]}));
    check(&["Ringway"], json!("Ringway"));
    check(&["[1,2]"], json!([1, 2]));
    check(&["a={broken"], json!({"a": "{broken"}));
}

#[test]
fn a_schema_decides() {
    let schema = order();
    let check = |more: &[&str], expected: Value| {
        let mut arguments = vec!["item=tea", "count=2"];
        arguments.extend(more);
        let mut whole = json!({"item": "tea", "count": 2});
        whole.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
        assert_eq!(try_request(&arguments, Some(&schema)), Ok(whole), "{more:?}");
    };
    check(&[], json!({}));
    check(&["note=5"], json!({"note": "5"}));
    check(&["note=null"], json!({"note": null}));
    check(&["price=3"], json!({"price": 3}));
    check(&["tags=a", "tags=1"], json!({"tags": ["a", "1"]}));
    check(&["tags=[\"a\",\"b\"]"], json!({"tags": ["a", "b"]}));
    check(&["tags[]=true"], json!({"tags": ["true"]}));
    check(&["speed=quick"], json!({"speed": "quick"}));
    check(
        &["address.street=Long Lane", "address.number=4"],
        json!({"address": {"street": "Long Lane", "number": 4}}),
    );
    check(&["address=null"], json!({"address": null}));
    check(&["extra=7"], json!({"extra": 7}));
    check(&["extra.deep=x"], json!({"extra": {"deep": "x"}}));
}

#[test]
fn problems_say_what_to_do() {
    let schema = order();
    let check = |arguments: &[&str], expected: &str| {
        assert_eq!(try_request(arguments, Some(&schema)), Err(expected.to_owned()), "{arguments:?}");
    };
    check(&[], "`item` is missing (text); `count` is missing (integer)");
    check(
        &["item=tea", "coutn=2"],
        "there is no field `coutn`; did you mean `count`?; `count` is missing (integer)",
    );
    check(&["item=tea", "count=two"], "`count`: wanted integer, found `two`");
    check(&["item=tea", "count=2.5"], "`count`: wanted integer, found `2.5`");
    check(&["item=tea", "count=1", "gift=yes"], "`gift`: wanted true or false, found `yes`");
    check(
        &["item=tea", "count=1", "speed=quik"],
        "`speed`: wanted slow|quick, found `quik`; did you mean `quick`?",
    );
    check(&["item=tea", "count=1", "address.number=1"], "`address.street` is missing (text)");
    check(&["item=tea", "item=milk", "count=1"], "`item` is given twice; use `[]=` to make a list");
    check(
        &["item=tea", "count=1", "zzzzzz=1"],
        "there is no field `zzzzzz`; there are item, count, price, gift, note, tags, speed, address, extra",
    );
}

#[test]
fn functions_that_take_one_value_get_one() {
    let text = json!({"type": "string"});
    assert_eq!(try_request(&["a=b"], Some(&text)), Ok(json!("a=b")));
    assert_eq!(try_request(&["5"], Some(&text)), Ok(json!("5")));
    assert_eq!(try_request(&[], Some(&text)), Err("wanted one value: text, found none".to_owned()));
    assert_eq!(try_request(&["a", "b"], Some(&text)), Err("wanted one value: text, found 2".to_owned()));
    assert_eq!(try_request(&[], Some(&json!({"type": "null"}))), Ok(Value::Null));
}

#[test]
fn schemas_that_go_in_circles_end() {
    let circle =
        json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}});
    assert_eq!(try_request(&["a=1"], Some(&circle)), Ok(json!({"a": 1})));
    let tree = json!({"$ref": "#/$defs/Node", "$defs": {"Node": {
        "type": "object",
        "properties": {"left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}, "value": {"type": "integer"}},
        "required": ["value"]
    }}});
    assert_eq!(
        try_request(&["value=1", "left.value=2"], Some(&tree)),
        Ok(json!({"value": 1, "left": {"value": 2}}))
    );
    for odd in [json!(true), json!(null), json!(3), json!({"type": 7}), json!({"properties": []})] {
        assert!(try_request(&["a=1"], Some(&odd)).is_ok(), "{odd}");
    }
}
