//! Everybody binds every type of trigger that the engine has, and those that others provide. It must not know how events
//! come about.

use std::time::Duration;

use ringway::Function;
use serde_json::{Value, json};

use super::stage::{NATIVE, Stage, until};

/// A type of trigger, what a binding of it is told, and how its event is made to happen.
struct Type {
    name: &'static str,
    config: Value,
    /// Makes it happen once; rounds tell events apart.
    fire: fn(&Stage, u64),
    /// Whether what was delivered is what the reference says.
    is_right: fn(&Value) -> bool,
}

fn call(stage: &Stage, id: &str, data: &Value) {
    stage.client.trigger_json(id, data).unwrap_or_else(|error| panic!("{id} of {data}: {error:?}"));
}

/// Somebody joins a group of a stream, and leaves.
fn follow(stage: &Stage, _: u64) {
    let group = json!({ "port": stage.ports.streams, "stream_name": "feed", "group_id": "g" });
    let event = stage.ask("npm022", "follow", &group);
    assert_eq!(event["event"]["type"], "sync", "{event}");
}

fn is_subscription(data: &Value) -> bool {
    data["subscription_id"].is_string()
        && (&data["stream_name"], &data["group_id"]) == (&json!("feed"), &json!("g"))
        && data.get("id").is_some_and(Value::is_null)
        && data.get("context").is_some_and(Value::is_null)
}

fn types() -> Vec<Type> {
    vec![
        Type {
            name: "subscribe",
            config: json!({ "topic": "news" }),
            fire: |stage, round| {
                call(stage, "publish", &json!({ "topic": "news", "data": { "round": round } }));
            },
            is_right: |data| data["round"].is_u64(),
        },
        Type {
            name: "durable:subscriber",
            config: json!({ "topic": "orders" }),
            fire: |stage, round| {
                call(
                    stage,
                    "iii::durable::publish",
                    &json!({ "topic": "orders", "data": { "round": round } }),
                );
            },
            is_right: |data| data["round"].is_u64(),
        },
        Type {
            name: "state",
            config: json!({ "scope": "sdks", "key": "k" }),
            fire: |stage, round| {
                // Another key of the scope is nobody's business.
                call(stage, "state::set", &json!({ "scope": "sdks", "key": "other", "value": round }));
                call(stage, "state::set", &json!({ "scope": "sdks", "key": "k", "value": round }));
            },
            is_right: |data| {
                let kind = data["event_type"].as_str().unwrap_or_default();
                data["type"] == "state"
                    && ["state:created", "state:updated"].contains(&kind)
                    && (&data["scope"], &data["key"]) == (&json!("sdks"), &json!("k"))
                    && data["new_value"].is_u64()
                    && data.get("old_value").is_some()
            },
        },
        Type {
            name: "stream",
            config: json!({ "stream_name": "feed" }),
            fire: |stage, round| {
                let item = json!({ "stream_name": "feed", "group_id": "g", "item_id": "i", "data": { "round": round } });
                call(stage, "stream::set", &item);
            },
            is_right: |data| {
                let kind = data["event"]["type"].as_str().unwrap_or_default();
                data["type"] == "stream"
                    && ["create", "update"].contains(&kind)
                    && (&data["streamName"], &data["groupId"], &data["id"])
                        == (&json!("feed"), &json!("g"), &json!("i"))
                    && data["event"]["data"]["round"].is_u64()
                    && data["timestamp"].is_u64()
            },
        },
        Type {
            name: "stream:join",
            config: json!({ "stream_name": "feed" }),
            fire: follow,
            is_right: is_subscription,
        },
        Type {
            name: "stream:leave",
            config: json!({ "stream_name": "feed" }),
            fire: follow,
            is_right: is_subscription,
        },
        Type {
            name: "cron",
            config: json!({ "expression": "* * * * * *" }),
            fire: |_, _| (),
            is_right: |data| data["trigger"] == "cron" && data["scheduled_time"].is_string(),
        },
        Type {
            name: "configuration",
            config: json!({ "configuration_id": "sdks" }),
            fire: |stage, round| {
                let schema = json!({ "type": "object" });
                let entry = json!({
                    "id": "sdks", "name": "SDKs", "description": "of the test", "schema": schema,
                    "initial_value": { "round": 0 },
                });
                call(stage, "configuration::register", &entry);
                call(stage, "configuration::set", &json!({ "id": "sdks", "value": { "round": round } }));
            },
            is_right: |data| {
                let kind = data["event_type"].as_str().unwrap_or_default();
                data["type"] == "configuration" && kind.starts_with("configuration:") && data["id"] == "sdks"
            },
        },
        Type {
            name: "log",
            config: json!({ "level": "warn" }),
            fire: |stage, round| {
                let sdks = stage.sdks();
                let name = sdks[usize::try_from(round).unwrap_or_default() % sdks.len()];
                let line = json!({ "level": "warn", "message": format!("round {round}") });
                stage.ask(name, "log", &line);
            },
            is_right: |data| {
                let text = data["body"].as_str().unwrap_or_default();
                text.starts_with("round ")
                    && data["severity_text"].as_str().is_some_and(|text| text.eq_ignore_ascii_case("warn"))
            },
        },
        Type {
            name: "trace",
            config: json!({}),
            fire: |_, _| (),
            is_right: |data| data["trace_ids"].as_array().is_some_and(|ids| !ids.is_empty()),
        },
        Type {
            name: "engine::functions-available",
            config: json!({}),
            fire: |stage, round| {
                let late = Function::json(&format!("late::f{round}"), |_, _: Value| Ok(()));
                stage.client.register(late).expect("a function more");
            },
            is_right: |data| data["event"] == "functions_changed" && data["functions"].is_array(),
        },
        Type {
            name: "engine::workers-available",
            config: json!({}),
            fire: |stage, _| drop(stage.passing_worker()),
            is_right: |data| {
                let kind = data["event"].as_str().unwrap_or_default();
                kind.starts_with("worker_") && data["worker_id"].is_string()
            },
        },
    ]
}

/// What an actor was told by its trigger of a type.
fn told(stage: &Stage, name: &str, trigger_type: &str) -> Vec<Value> {
    stage.notes(name, |note| note["metadata"]["bound"] == trigger_type)
}

#[test]
fn everybody_binds_every_type() {
    let stage = Stage::new();
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for kind in types() {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| binds(&stage, &kind))) {
            Ok(rounds) => right.push((kind, rounds)),
            Err(_) => wrong.push(kind.name),
        }
    }
    assert!(wrong.is_empty(), "these types are not right, as told above: {wrong:?}");
    nobody_is_told_any_more(&stage, &right);
}

/// Binds a type, has its event happen until everybody was told, and ends the bindings; how often it happened.
fn binds(stage: &Stage, kind: &Type) -> u64 {
    for name in stage.everybody() {
        let binding = json!({
            "key": kind.name,
            "type": kind.name,
            "function": format!("{name}::note"),
            "config": kind.config,
            "metadata": { "bound": kind.name, "by": name },
        });
        stage.ask(name, "bind", &binding);
    }
    let mut round = 0;
    for name in stage.everybody() {
        let what = format!("an event of {} at {name}", kind.name);
        let notes = until(&what, || {
            round += 1;
            (kind.fire)(stage, round);
            std::thread::sleep(Duration::from_millis(50));
            let notes = told(stage, name, kind.name);
            if notes.is_empty() { Err(stage.ask(name, "noted", &json!({}))) } else { Ok(notes) }
        });
        for note in notes {
            assert!((kind.is_right)(&note["data"]), "{what}: {note:#}");
            assert_eq!(note["metadata"]["by"], name, "{what}");
        }
    }
    unbind(stage, kind);
    println!("{}: told to everybody after {round} events", kind.name);
    round
}

/// Ends all bindings of a type.
fn unbind(stage: &Stage, kind: &Type) {
    for name in stage.everybody() {
        stage.ask(name, "unbind", &json!({ "key": kind.name }));
    }
    until(&format!("no binding of {}", kind.name), || {
        let bound = stage
            .client
            .trigger_json("engine::registered-triggers::list", &json!({ "trigger_type": kind.name }))
            .expect("the list");
        // A built-in worker may have one of its own.
        let of_actors = |one: &Value| one["function_id"].as_str().is_some_and(|id| id.ends_with("::note"));
        let left = bound["registered_triggers"].as_array().is_none_or(|all| all.iter().any(of_actors));
        if left { Err(bound) } else { Ok(()) }
    });
}

/// After the bindings have ended; how often each had happened before is known.
fn nobody_is_told_any_more(stage: &Stage, kinds: &[(Type, u64)]) {
    // What was under way when the bindings ended may still come.
    std::thread::sleep(Duration::from_millis(300));
    let count = |kind: &Type| -> Vec<usize> {
        stage.everybody().into_iter().map(|name| told(stage, name, kind.name).len()).collect()
    };
    let before: Vec<_> = kinds.iter().map(|(kind, _)| count(kind)).collect();
    for (kind, rounds) in kinds {
        (kind.fire)(stage, rounds + 1);
    }
    std::thread::sleep(Duration::from_millis(1200));
    for ((kind, _), before) in kinds.iter().zip(before) {
        assert_eq!(count(kind), before, "{} after its bindings ended", kind.name);
    }
}

#[test]
fn types_that_actors_provide_are_bound_by_everybody() {
    let stage = Stage::new();
    let providers: Vec<&str> = stage.sdks().into_iter().filter(|&name| name != "rs026").collect();
    for provider in &providers {
        let kind = format!("{provider}::tick");
        // One binding is older than its type.
        let binding = |name: &str| {
            json!({
                "key": kind,
                "type": kind,
                "function": format!("{name}::note"),
                "config": { "every": [provider, name] },
                "metadata": { "bound": kind },
            })
        };
        stage.ask("npm022", "bind", &binding("npm022"));
        stage.ask(provider, "provide", &json!({ "type": kind }));
        for name in stage.everybody().into_iter().filter(|&name| name != "npm022") {
            stage.ask(name, "bind", &binding(name));
        }
        let count = stage.everybody().len();
        let given = until(&format!("{count} bindings at {provider}"), || {
            let given = stage.ask(provider, "bindings", &json!({ "type": kind }));
            if given["bindings"].as_array().is_some_and(|all| all.len() == count) {
                Ok(given)
            } else {
                Err(given)
            }
        });
        for one in given["bindings"].as_array().into_iter().flatten() {
            assert_eq!(one["config"]["every"][0], *provider, "{one}");
            assert_eq!(one["metadata"]["bound"], kind, "{one}");
        }
        let fired = stage.ask(provider, "fire", &json!({ "type": kind, "data": { "from": provider } }));
        assert_eq!(fired["fired"], count);
        for name in stage.everybody() {
            until(&format!("the tick of {provider} at {name}"), || {
                let notes = stage.notes(name, |note| note["data"] == json!({ "from": provider }));
                match notes.as_slice() {
                    [note] if note["metadata"]["bound"] == kind || name == NATIVE => Ok(()),
                    _ => Err(json!(notes)),
                }
            });
            stage.ask(name, "unbind", &json!({ "key": kind }));
        }
        until(&format!("no binding at {provider}"), || {
            let given = stage.ask(provider, "bindings", &json!({ "type": kind }));
            if given["bindings"] == json!([]) { Ok(()) } else { Err(given) }
        });
    }
}
