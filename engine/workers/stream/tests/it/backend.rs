//! Streams that somebody else keeps, through functions with names such as `stream::get(todos)`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ringway::Function;
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, bind, hear};

#[test]
fn functions_of_a_stream_take_the_place_of_the_store() {
    let bed = Bed::new();
    let keeper = bed.another("keeper");
    let kept: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    let key = |request: &Value| request["item_id"].as_str().unwrap().to_owned();
    let (set, get, delete, list) =
        (Arc::clone(&kept), Arc::clone(&kept), Arc::clone(&kept), Arc::clone(&kept));
    keeper
        .register_all(vec![
            Function::json("stream::set(todos)", move |_, request: Value| {
                let data = request["data"].clone();
                let old = set.lock().unwrap().insert(key(&request), data.clone());
                Ok(json!({"old_value": old, "new_value": data, "also": "this"}))
            }),
            Function::json("stream::get(todos)", move |_, request: Value| {
                Ok(get.lock().unwrap().get(&key(&request)).cloned())
            }),
            Function::json("stream::delete(todos)", move |_, request: Value| {
                Ok(json!({"old_value": delete.lock().unwrap().remove(&key(&request))}))
            }),
            Function::json("stream::list(todos)", move |_, _: Value| {
                Ok(list.lock().unwrap().values().cloned().collect::<Vec<_>>())
            }),
            Function::json("stream::list_groups(todos)", |_, _: Value| Ok(json!(["made up"]))),
            Function::json("stream::update(todos)", |_, _: Value| Ok(json!("no object"))),
        ])
        .unwrap();
    let told = hear(&keeper, "keeper::hear");
    bind(&keeper, "t", "stream", "keeper::hear", json!({"stream_name": "todos"})).unwrap();
    let item = json!({"stream_name": "todos", "group_id": "g", "item_id": "k"});
    let mut with_data = item.clone();
    with_data["data"] = json!(1);
    // The worker hears of functions of others a moment after they are there.
    bed.wait_until("they are found", || {
        bed.call("list_groups", json!({"stream_name": "todos"})) == json!(["made up"])
    });
    assert_eq!(bed.call("set", with_data), json!({"old_value": null, "new_value": 1, "also": "this"}));
    assert_eq!(bed.call("get", item.clone()), json!(1));
    assert_eq!(bed.call("list", json!({"stream_name": "todos", "group_id": "g"})), json!([1]));
    assert_eq!(bed.call("delete", item.clone()), json!({"old_value": 1}));
    assert_eq!(bed.call("delete", item.clone()), json!({"old_value": null}));
    assert_eq!(bed.call("get", item.clone()), Value::Null);
    let mut update = item;
    update["ops"] = json!([]);
    assert_eq!(bed.refusal("update", update).0, "JSON_ERROR");
    for (kind, data) in [("create", 1), ("delete", 1)] {
        let told = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(told["event"], json!({"type": kind, "data": data}));
        assert_eq!(told["id"], "k");
    }
    assert!(told.try_recv().is_err());
    assert_eq!(bed.count("stream.item"), 0);
}
