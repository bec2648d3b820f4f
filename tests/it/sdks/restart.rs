//! Engines and actors that die: everybody is back where it was, once. It must not know how clients find back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use ringway_tests::effort;

use super::stage::{NATIVE, PATIENCE, Stage, until};

/// Every function of the actors must be there once, and every worker once.
fn assert_nothing_is_there_twice(stage: &Stage) {
    let known = stage.client.catalog();
    let mut functions: BTreeMap<&str, usize> = BTreeMap::new();
    for function in &known.functions {
        *functions.entry(function.id.as_str()).or_default() += 1;
    }
    let twice: Vec<_> = functions.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "registered more than once: {twice:?}");
    for name in stage.everybody() {
        let count = known.workers.iter().filter(|worker| worker.name == name).count();
        assert_eq!(count, 1, "workers called {name}");
    }
    let listed =
        stage.client.trigger_json("engine::registered-triggers::list", &json!({})).expect("the list");
    let mut triggers: BTreeMap<&str, usize> = BTreeMap::new();
    for trigger in listed["registered_triggers"].as_array().into_iter().flatten() {
        *triggers.entry(trigger["function_id"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let twice: Vec<_> = triggers.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "bound more than once: {twice:?}");
}

#[test]
fn everybody_is_back_after_the_engine_was_killed() {
    let mut stage = Stage::new();
    let bind = |name: &str| {
        json!({
            "key": "news", "type": "subscribe", "function": format!("{name}::note"),
            "config": { "topic": "news" }, "metadata": { "bound": name },
        })
    };
    for name in stage.everybody() {
        stage.ask(name, "bind", &bind(name));
    }
    for round in 0..effort::rounds(1) {
        stage.kill_engine();
        stage.start_engine();
        // The first functions are the last that the catalog of before the kill still shows.
        until("the client's own way back", || {
            stage
                .client
                .trigger_json("engine::workers::list", &json!({}))
                .map_err(|error| json!(error.message))
        });
        let started = Instant::now();
        stage.wait_for_all();
        for caller in stage.everybody() {
            for callee in stage.everybody() {
                until(&format!("{caller} calls {callee} after the restart"), || {
                    let request =
                        json!({ "function": format!("{callee}::add"), "data": { "a": 1, "b": 1.5 } });
                    match stage.client.trigger_json(&format!("{caller}::call"), &request) {
                        Ok(answer) if answer == json!({ "ok": { "sum": 2.5 } }) => Ok(()),
                        other => Err(json!(format!("{other:?}"))),
                    }
                });
            }
        }
        println!("everybody calls everybody {:?} after the engine came back", started.elapsed());
        triggers_fire_once(&stage, round);
        assert_nothing_is_there_twice(&stage);
    }
}

/// Their bindings came back too, each once. A worker brings back those that it registered itself; what 0.26 asked the engine
/// to register was the engine's, and it was killed.
fn triggers_fire_once(stage: &Stage, round: u64) {
    let bound: Vec<&str> = stage.everybody().into_iter().filter(|&name| name != "rs026").collect();
    let mark = |attempt: u64| json!({ "round": round, "attempt": attempt });
    let mut attempt = 0;
    let is_of_round = |note: &Value| note["data"]["round"] == round;
    for name in bound {
        until(&format!("news at {name} after the restart"), || {
            attempt += 1;
            let news = json!({ "topic": "news", "data": mark(attempt) });
            stage.client.trigger_json("publish", &news).map_err(|error| json!(error.message))?;
            std::thread::sleep(Duration::from_millis(100));
            let notes = stage.notes(name, is_of_round);
            if notes.is_empty() { Err(json!(attempt)) } else { Ok(()) }
        });
    }
    std::thread::sleep(Duration::from_millis(300));
    for name in stage.everybody() {
        for attempt in 1..=attempt {
            let count = stage.notes(name, |note| note["data"] == mark(attempt)).len();
            assert!(count <= 1, "{name} was told {count} times of one thing");
        }
    }
}

#[test]
fn calls_end_when_their_callee_is_killed() {
    let mut stage = Stage::with(&["npm022", "pypi022", "pypi025", "rs023", "rs026"]);
    for callee in ["npm022", "pypi025", "rs026"] {
        let callers: Vec<&str> = stage.everybody().into_iter().filter(|&name| name != callee).collect();
        let started = Instant::now();
        let ends: Vec<(&str, Value)> = std::thread::scope(|scope| {
            let waiting: Vec<_> = callers
                .iter()
                .map(|&caller| {
                    let client = stage.client.clone();
                    let request = json!({ "function": format!("{callee}::wait"), "data": { "ms": 60_000 } });
                    (caller, scope.spawn(move || client.trigger_json(&format!("{caller}::call"), &request)))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(700));
            stage.kill_actor(callee);
            waiting
                .into_iter()
                .map(|(caller, end)| (caller, end.join().expect("no panic").expect("an end")))
                .collect()
        });
        assert!(started.elapsed() < PATIENCE / 2, "they end when it dies, not when they have waited enough");
        for (caller, end) in ends {
            let code = if caller == NATIVE { "worker_gone" } else { "invocation_stopped" };
            assert_eq!(end["error"]["code"], code, "{caller} waits for {callee}: {end}");
        }
        until(&format!("a catalog without {callee}"), || {
            let known = stage.client.catalog();
            let left = known.functions.iter().filter(|function| function.id.as_str().starts_with(callee));
            let left = left.count();
            if left == 0 { Ok(()) } else { Err(json!(left)) }
        });
        stage.start_actor(callee);
        stage.wait_for_all();
        assert_nothing_is_there_twice(&stage);
    }
}
