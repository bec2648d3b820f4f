//! Triggers of type `state`: order, conditions, retries, the outbox.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{Failure, Function, Worker};
use ringway_worker_bed::{hear_traced, in_trace};
use ringway_worker_state::Config;
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, PATIENCE};

/// A function that passes on what it is told, and metadata.
fn hear(worker: &Worker, id: &str) -> mpsc::Receiver<(Value, Option<Value>)> {
    let (tell, told) = mpsc::channel();
    let hear = move |context: &ringway::Context, event: Value| {
        tell.send((event, context.metadata().cloned())).map_err(|_| Failure::new("nobody listens"))
    };
    worker.register(Function::json(id, hear)).unwrap();
    told
}

fn bind(worker: &Worker, id: &str, function: &str, config: Value) -> Result<(), ringway::CallError> {
    bind_with(worker, id, function, config, json!({"trigger": id}))
}

fn bind_with(
    worker: &Worker,
    id: &str,
    function: &str,
    config: Value,
    metadata: Value,
) -> Result<(), ringway::CallError> {
    let mut trigger = TriggerSpec::new(id, "state", FunctionId::new(function).unwrap());
    trigger.config = config;
    trigger.metadata = Some(metadata);
    worker.register_trigger(trigger)
}

fn outbox(bed: &Bed) -> usize {
    bed.count("state.outbox")
}

/// Waits until nothing is left to be told, and looks at the store itself.
fn wait_for_quiet(bed: &Bed) {
    bed.wait_until("events stay", || outbox(bed) == 0);
}

#[test]
fn a_function_is_told_of_every_change_that_its_trigger_watches_for() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear(&listener, "listener::hear");
    bind(&listener, "t", "listener::hear", json!({"scope": "s", "key": "k"})).unwrap();
    bed.set("s", "other", json!(0));
    bed.set("other", "k", json!(0));
    bed.set("s", "k", json!(1));
    bed.set("s", "k", json!(1));
    bed.call("delete", json!({"scope": "s", "key": "k"}));
    bed.call("delete", json!({"scope": "s", "key": "k"}));
    bed.set("s", "k", json!(2));
    let event = |kind: &str, old: Value, new: Value| json!({"type": "state", "event_type": kind, "scope": "s", "key": "k", "old_value": old, "new_value": new});
    for expected in [
        event("state:created", json!(null), json!(1)),
        event("state:updated", json!(1), json!(1)),
        event("state:deleted", json!(1), json!(null)),
        event("state:created", json!(null), json!(2)),
    ] {
        let (found, metadata) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(found, expected);
        assert_eq!(metadata, Some(json!({"trigger": "t"})));
    }
    wait_for_quiet(&bed);
}

#[test]
fn each_key_is_told_in_order_under_many_writers() {
    const KEYS: usize = 8;
    const EACH: usize = 30;
    let bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear(&listener, "listener::hear");
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..KEYS * EACH {
                    let key = (number % KEYS).to_string();
                    let ops = json!([{"type": "increment", "path": "n", "by": 1}]);
                    bed.call("update", json!({"scope": "s", "key": key, "ops": ops}));
                }
            });
        }
    });
    let mut last: HashMap<String, Value> = HashMap::new();
    for _ in 0..4 * KEYS * EACH {
        let (event, _) = told.recv_timeout(PATIENCE).unwrap();
        let key = event["key"].as_str().unwrap().to_owned();
        let before = last.insert(key, event["new_value"].clone()).unwrap_or(Value::Null);
        assert_eq!(event["old_value"], before, "out of order");
    }
    assert!(last.values().all(|value| value["n"] == json!(4 * EACH)));
    wait_for_quiet(&bed);
}

#[test]
fn a_change_without_a_matching_trigger_costs_no_entry() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    // Never answers, so that an entry would stay.
    let _told = hear(&listener, "listener::hear");
    bind(&listener, "t", "listener::missing", json!({"scope": "s", "condition": "status == \"pending\""}))
        .unwrap();
    bed.set("t", "k", json!({"status": "pending"}));
    bed.set("s", "k", json!({"status": "done"}));
    assert_eq!(outbox(&bed), 0);
    bed.set("s", "k", json!({"status": "pending"}));
    assert_eq!(outbox(&bed), 1);
}

#[test]
fn conditions_hold_both_ways() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let by_expression = hear(&listener, "listener::expression");
    let by_function = hear(&listener, "listener::function");
    listener
        .register(Function::json("listener::even", |_, event: Value| {
            Ok(event["new_value"]["n"].as_u64().unwrap_or(0).is_multiple_of(2))
        }))
        .unwrap();
    bind(&listener, "e", "listener::expression", json!({"scope": "s", "condition": "n > 2"})).unwrap();
    let config = json!({"scope": "s", "condition_function_id": "listener::even"});
    bind(&listener, "f", "listener::function", config).unwrap();
    for n in 1..=4 {
        bed.set("s", "k", json!({ "n": n }));
    }
    let heard = |told: &mpsc::Receiver<(Value, Option<Value>)>| {
        [(); 2].map(|()| told.recv_timeout(PATIENCE).unwrap().0["new_value"]["n"].as_u64().unwrap())
    };
    assert_eq!(heard(&by_expression), [3, 4]);
    assert_eq!(heard(&by_function), [2, 4]);
    wait_for_quiet(&bed);
    assert!(by_expression.try_recv().is_err() && by_function.try_recv().is_err());
    let delivered = &bed.call("info", json!({}))["events"]["delivered"];
    assert_eq!(*delivered, 4, "what a condition held back was told to nobody");
}

#[test]
fn a_wrong_trigger_is_refused_where_it_is_made() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let check = |config: Value, words: &str| {
        let error = bind(&listener, "t", "listener::hear", config).unwrap_err();
        assert!(error.message.contains(words), "{error}");
    };
    check(json!({"scope": 7}), "`scope`");
    check(json!([]), "an object");
    check(json!({"condition": "status =="}), "status ==");
}

#[test]
fn a_function_that_fails_is_called_again_and_the_next_event_waits() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let calls = Arc::new(AtomicUsize::new(0));
    let (tell, told) = mpsc::channel();
    let counted = Arc::clone(&calls);
    let fails_twice = move |_: &ringway::Context, event: Value| {
        if event["key"] == "k" && counted.fetch_add(1, Ordering::SeqCst) < 2 {
            tell.send(json!("failed")).unwrap();
            return Err(Failure::new("not yet"));
        }
        tell.send(event["new_value"].clone()).unwrap();
        Ok(())
    };
    listener.register(Function::json("listener::hear", fails_twice)).unwrap();
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    bed.set("s", "k", json!(1));
    bed.set("s", "k", json!(2));
    let next = || told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next(), json!("failed"));
    // Other keys do not wait for this one.
    bed.set("s", "other", json!("other"));
    assert_eq!(next(), json!("other"));
    for at_ms in [100, 300] {
        wait_for_failures(&bed, calls.load(Ordering::SeqCst));
        bed.clock.set(NOW_MS + at_ms);
        if at_ms == 100 {
            assert_eq!(next(), json!("failed"));
        }
    }
    assert_eq!((next(), next()), (json!(1), json!(2)));
    wait_for_quiet(&bed);
}

/// Waits until the worker has seen that so many attempts have failed: from then on it waits for the clock.
fn wait_for_failures(bed: &Bed, count: usize) {
    wait_for_info(bed, "attempts_failed", count);
}

fn wait_for_info(bed: &Bed, counter: &str, count: usize) {
    bed.wait_until(counter, || bed.call("info", json!({}))["events"][counter] == json!(count));
}

#[test]
fn events_outlive_a_restart_and_find_the_trigger_again() {
    let mut bed = Bed::new();
    let works = Arc::new(AtomicBool::new(false));
    let listener = bed.another("listener");
    let (tell, told) = mpsc::channel();
    let (tried, attempts) = mpsc::channel();
    let working = Arc::clone(&works);
    let hear = move |_: &ringway::Context, event: Value| {
        if !working.load(Ordering::SeqCst) {
            tried.send(()).unwrap();
            return Err(Failure::new("not before the restart"));
        }
        tell.send((event["key"].clone(), event["new_value"].clone())).unwrap();
        Ok(())
    };
    listener.register(Function::json("listener::hear", hear)).unwrap();
    bind(&listener, "first", "listener::hear", json!({"scope": "s"})).unwrap();
    for n in 0..10 {
        bed.set("s", "k", json!(n));
    }
    attempts.recv_timeout(PATIENCE).unwrap();
    bed.stop();
    works.store(true, Ordering::SeqCst);
    listener.unregister_trigger("first").unwrap();
    bed.start();
    assert_eq!(bed.call("info", json!({}))["events"]["waiting"], 10);
    assert!(told.try_recv().is_err(), "told without a trigger");
    // Another id, as an SDK chooses it at each start.
    bind_with(&listener, "second", "listener::hear", json!({"scope": "s"}), json!({"trigger": "first"}))
        .unwrap();
    for n in 0..10 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (json!("k"), json!(n)));
    }
    wait_for_quiet(&bed);
}

#[test]
fn after_a_restart_only_those_are_told_who_were_not() {
    let mut bed = Bed::new();
    let works = Arc::new(AtomicBool::new(false));
    let listener = bed.another("listener");
    let quick = hear(&listener, "listener::quick");
    let (tell, told) = mpsc::channel();
    let working = Arc::clone(&works);
    let late = move |_: &ringway::Context, event: Value| {
        if !working.load(Ordering::SeqCst) {
            return Err(Failure::new("not before the restart"));
        }
        tell.send(event["new_value"].clone()).unwrap();
        Ok(())
    };
    listener.register(Function::json("listener::late", late)).unwrap();
    bind(&listener, "quick", "listener::quick", json!({"scope": "s"})).unwrap();
    bind(&listener, "late", "listener::late", json!({"scope": "s"})).unwrap();
    for n in 0..5 {
        bed.set("s", &n.to_string(), json!(n));
    }
    wait_for_info(&bed, "delivered", 5);
    for _ in 0..5 {
        quick.recv_timeout(PATIENCE).unwrap();
    }
    bed.stop();
    works.store(true, Ordering::SeqCst);
    bed.start();
    let mut late: Vec<Value> = (0..5).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    late.sort_by_key(Value::as_u64);
    assert_eq!(json!(late), json!([0, 1, 2, 3, 4]));
    wait_for_quiet(&bed);
    assert!(quick.try_recv().is_err(), "told again of what it had confirmed");
    let left = bed.count("state.told");
    assert_eq!(left, 0, "marks stay when their event has gone");
}

#[test]
fn what_was_noted_of_an_event_that_has_gone_goes_at_the_next_start() {
    let mut bed = Bed::new();
    // As two threads leave it that tell the last two targets of event 0, when the slower one is the first.
    let mark = ringway_store::Batch::new().put("state.told", &[0; 12], vec![1]);
    bed.store().commit(mark, ringway_store::Durability::Durable).unwrap();
    bed.restart();
    assert_eq!(bed.count("state.told"), 0, "the next event 0 would not be told");
}

#[test]
fn triggers_that_differ_in_metadata_only_are_told_each_with_its_own() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear(&listener, "listener::hear");
    for id in ["a", "b"] {
        bind(&listener, id, "listener::hear", json!({"scope": "s"})).unwrap();
    }
    bed.set("s", "k", json!(1));
    let mut heard = [(); 2].map(|()| told.recv_timeout(PATIENCE).unwrap().1.unwrap()["trigger"].to_string());
    heard.sort_unstable();
    assert_eq!(heard, ["\"a\"", "\"b\""]);
}

#[test]
fn a_trigger_is_known_again_whatever_the_order_of_its_keys() {
    let mut bed = Bed::new();
    let listener = bed.another("listener");
    let bind = |keys: [&str; 2]| {
        let config: serde_json::Map<String, Value> =
            keys.iter().map(|key| ((*key).to_owned(), json!("x"))).collect();
        bind(&listener, "t", "listener::hear", Value::Object(config)).unwrap();
    };
    bind(["scope", "key"]);
    bed.set("x", "x", json!(1));
    listener.unregister_trigger("t").unwrap();
    bed.restart();
    bind(["key", "scope"]);
    let told = hear(&listener, "listener::hear");
    // The first attempt may have been before there was a function.
    bed.clock.set(NOW_MS + 60_000);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().0["new_value"], 1);
}

#[test]
fn a_function_that_fails_is_called_again_whatever_it_calls_its_error() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let calls = AtomicUsize::new(0);
    let (tell, told) = mpsc::channel();
    let fails_once = move |_: &ringway::Context, event: Value| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(Failure::with_code("CONDITION_ERROR", "it is mine"));
        }
        tell.send(event).unwrap();
        Ok(())
    };
    listener.register(Function::json("listener::hear", fails_once)).unwrap();
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    bed.set("s", "k", json!(1));
    wait_for_failures(&bed, 1);
    bed.clock.set(NOW_MS + 60_000);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap()["new_value"], 1);
}

#[test]
fn a_binding_has_its_function_told_before_the_next_attempt_is_due() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    bed.set("s", "k", json!(1));
    wait_for_failures(&bed, 1);
    // The worker goes, and comes back with its function. The clock stands still.
    listener.unregister_trigger("t").unwrap();
    let told = hear(&listener, "listener::hear");
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().0["new_value"], 1);
}

#[test]
fn a_binding_that_replaces_one_has_its_function_told_before_the_next_attempt_is_due() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    bed.set("s", "k", json!(1));
    wait_for_failures(&bed, 1);
    // Another worker takes over with the function, before the one that it follows has gone. The clock stands still.
    let next = bed.another("next");
    let told = hear(&next, "listener::hear");
    bind(&next, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().0["new_value"], 1);
}

#[test]
fn a_full_outbox_refuses_changes_and_says_why() {
    let bed = Bed::with(Config { outbox_entries_max: 3, ..Config::default() });
    let listener = bed.another("listener");
    bind(&listener, "t", "listener::missing", json!({"scope": "s"})).unwrap();
    for n in 0..3 {
        bed.set("s", "k", json!(n));
    }
    let (code, error) = bed.refusal("set", json!({"scope": "s", "key": "k", "value": 3}));
    assert_eq!(code, "SET_ERROR");
    assert!(error.message.contains("listener::missing") && error.message.contains("retention_ms"), "{error}");
    assert_eq!(bed.get("s", "k"), json!(2));
    bed.set("other", "k", json!("is not in the way"));
    let told = hear(&listener, "listener::missing");
    // The next attempt is due.
    bed.clock.set(NOW_MS + 60_000);
    for n in 0..3 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().0["new_value"], json!(n));
    }
    wait_for_quiet(&bed);
    bed.set("s", "k", json!(4));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().0["new_value"], json!(4));
}

#[test]
fn an_event_that_nobody_takes_is_set_aside_in_the_end() {
    let bed = Bed::with(Config { retention_ms: 5000, ..Config::default() });
    let listener = bed.another("listener");
    bind(&listener, "t", "listener::missing", json!({"scope": "s"})).unwrap();
    bed.set("s", "k", json!(1));
    wait_for_failures(&bed, 1);
    bed.clock.set(NOW_MS + 5000);
    wait_for_quiet(&bed);
    assert_eq!(bed.count("state.undelivered"), 1);
    // Counted once it is on disk, where the event has gone by then.
    wait_for_info(&bed, "set_aside", 1);
    wait_for_info(&bed, "waiting", 0);
}

#[test]
fn a_slow_function_holds_up_no_other() {
    let bed = Bed::with(Config { delivery_threads: 4, ..Config::default() });
    let listener = bed.another("listener");
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (enter, entered) = mpsc::channel();
    // Ends when the test lets it.
    let slow = move |_: &ringway::Context, _: Value| {
        let _nobody_listens = enter.send(());
        let _ended = released.lock().unwrap().recv();
        Ok(())
    };
    listener.register(Function::json("listener::slow", slow).pooled()).unwrap();
    let told = hear(&listener, "listener::quick");
    bind(&listener, "slow", "listener::slow", json!({"scope": "a"})).unwrap();
    bind(&listener, "quick", "listener::quick", json!({"scope": "b"})).unwrap();
    // What comes when every thread that was needed so far waits for the slow one.
    bed.set("a", "first", json!(0));
    entered.recv_timeout(PATIENCE).unwrap();
    bed.set("b", "first", json!(0));
    told.recv_timeout(PATIENCE).unwrap();
    // And when more waits for the slow one than may be with it.
    for n in 1..20 {
        bed.set("a", &n.to_string(), json!(n));
        bed.set("b", &n.to_string(), json!(n));
    }
    for _ in 1..20 {
        told.recv_timeout(PATIENCE).unwrap();
    }
    assert!(outbox(&bed) >= 20, "the slow function was not slow: {} events wait", outbox(&bed));
    drop(release);
    wait_for_quiet(&bed);
}

#[test]
fn what_is_told_belongs_to_the_trace_of_who_changed_it() {
    let mut bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear_traced(&listener, "listener::hear");
    bind(&listener, "t", "listener::hear", json!({"scope": "s"})).unwrap();
    let caller = bed.another("caller");
    let set = |value: u8| {
        let (options, trace_id) = in_trace(value);
        let request = json!({"scope": "s", "key": "k", "value": value});
        caller.trigger_json_with("state::set", &request, &options).unwrap();
        (json!(value), trace_id)
    };
    let next = || {
        let (event, trace_id) = told.next();
        (event["new_value"].clone(), trace_id)
    };
    let first = set(1);
    assert_eq!(next(), first);
    // What waits over a restart belongs there just as well.
    told.works(false);
    let second = set(2);
    bed.stop();
    told.works(true);
    bed.start();
    assert_eq!(next(), second);
}
