//! Observers, which 0.25 brought: each client that knows them observes the functions of every other one, old or new, and
//! its own, and is told of calls by whoever makes them. It must not know how clients ask for observers.

use serde_json::{Value, json};

use super::stage::{NATIVE, Stage, until};

/// Clients that know observers.
const OBSERVING: [&str; 3] = ["pypi025", "rs025", "rs026"];

/// Has a client observe a function, and call its own `note` for it.
#[track_caller]
fn observe(stage: &Stage, name: &str, source: &str, more: &Value) -> Value {
    let mut observer = json!({ "key": source, "source": source, "target": format!("{name}::note"),
        "metadata": { "observed": source } });
    if let (Value::Object(observer), Value::Object(more)) = (&mut observer, more) {
        observer.extend(more.clone());
    }
    stage.ask(name, "observe", &observer)
}

/// What an observer of a function was told.
fn told(stage: &Stage, name: &str, source: &str) -> Vec<Value> {
    stage.notes(name, |note| note["metadata"]["observed"] == source)
}

#[test]
fn everybody_who_knows_observers_observes_everybody() {
    let stage = Stage::new();
    let sdks = stage.sdks();
    for name in OBSERVING {
        for host in &sdks {
            let source = format!("{host}::add");
            let filters =
                json!({ "filters": { "input.a": { "$gte": 10 }, "output.sum": { "$exists": true } } });
            let settled = observe(&stage, name, &source, &filters);
            assert_eq!(settled["state"], "active", "{name} observes {source}: {settled}");
        }
    }
    // The native worker calls, every client calls, and each host calls itself, which the engine does not see.
    let callers: Vec<&str> = sdks.iter().copied().chain([NATIVE]).collect();
    for host in &sdks {
        for (number, caller) in callers.iter().enumerate() {
            for a in [1, 10 + number] {
                let sum = stage.call(caller, &format!("{host}::add"), &json!({ "a": a, "b": 0.5 }));
                assert!(sum["ok"]["sum"].is_f64(), "{caller} calls {host}: {sum}");
            }
        }
    }
    for name in OBSERVING {
        for host in &sdks {
            let source = format!("{host}::add");
            let what = format!("{} calls of {source} at {name}", callers.len());
            let notes = until(&what, || {
                let notes = told(&stage, name, &source);
                if notes.len() >= callers.len() { Ok(notes) } else { Err(json!(notes)) }
            });
            assert_eq!(notes.len(), callers.len(), "{what}: {notes:#?}");
            for (number, caller) in callers.iter().enumerate() {
                let data = notes.iter().map(|note| &note["data"]);
                let of_caller = data.filter(|data| data["input"]["a"] == 10 + number).collect::<Vec<_>>();
                let [data] = &of_caller[..] else { panic!("{what}, of {caller}: {of_caller:#?}") };
                assert_eq!(data["caller"]["worker_name"], *caller, "{data:#}");
                assert_eq!(
                    (&data["function_id"], &data["status"], &data["input"]["b"]),
                    (&json!(source), &json!("success"), &json!(0.5))
                );
                assert!(data["input"].get("_caller_worker_id").is_none(), "{data:#}");
            }
        }
    }
}

#[test]
fn what_cannot_be_observed_is_said_and_harms_nothing() {
    let stage = Stage::with(&OBSERVING);
    for name in OBSERVING {
        let refused = |source: &str, more: Value, code: &str| {
            let settled = observe(&stage, name, source, &more);
            assert_eq!(settled["state"], "error", "{name} observes {source}: {settled}");
            assert!(settled["reason"].to_string().contains(code), "{name} observes {source}: {settled}");
        };
        refused(&format!("{NATIVE}::add"), json!({}), "NOT_OBSERVABLE");
        refused(&format!("{name}::note"), json!({}), "SELF_TARGET");
        refused(&format!("{name}::add"), json!({ "args": { "x": 1 } }), "INVALID_ARGS");
        refused("cron::on-tick", json!({ "args": {} }), "INVALID_ARGS");
        let sum = stage.call(name, &format!("{name}::add"), &json!({ "a": 1, "b": 1.5 }));
        assert_eq!(sum, json!({ "ok": { "sum": 2.5 } }), "{name}");
    }
}

#[test]
fn an_observer_that_is_taken_back_hears_no_more() {
    let stage = Stage::with(&["npm022", "rs026", "pypi025"]);
    for name in ["rs026", "pypi025"] {
        let source = "npm022::add";
        let settled = observe(&stage, name, source, &json!({}));
        assert_eq!(settled["state"], "active", "{settled}");
        let call = || stage.call("npm022", source, &json!({ "a": 1, "b": 1 }));
        call();
        until("a call", || match told(&stage, name, source).len() {
            1 => Ok(()),
            found => Err(json!(found)),
        });
        stage.ask(name, "unobserve", &json!({ "key": source }));
        call();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(told(&stage, name, source).len(), 1);
    }
}
