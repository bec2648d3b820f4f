//! Checks the listings against the shapes, filters, orders and errors that iii's clients know.

use ringway_protocol::control::{
    FunctionSpec, Hello, Limits, Register, TriggerSpec, TriggerTypeSpec, WorkerMessage,
};
use ringway_protocol::ids::FunctionId;
use serde_json::json;

use super::*;
use crate::core::Config;
use crate::event::{Credentials, Event};
use crate::policy::{Action, Policy, Rule};
use crate::zones::Zones;

const ENGINE: WorkerId = WorkerId::new(1);
const SHOP: WorkerId = WorkerId::new(2);
const OTHER: WorkerId = WorkerId::new(3);
const BOX: WorkerId = WorkerId::new(4);

fn function(id: &str, index: u32, description: &str) -> FunctionSpec {
    let mut spec = FunctionSpec::new(FunctionId::new(id).unwrap(), index);
    spec.description = (!description.is_empty()).then(|| description.to_owned());
    spec
}

fn attach(core: &mut Core, hello: Hello, register: Register) {
    let connection = hello.worker_id.get();
    let credentials = Credentials { uid: 0, pid: hello.pid, engine: hello.worker_id == ENGINE };
    for event in [
        Event::Opened { connection, credentials },
        Event::Message { connection, message: WorkerMessage::Hello(Box::new(hello)) },
        Event::Message { connection, message: WorkerMessage::Register(register) },
    ] {
        assert!(
            core.handle(7_000_000, event).iter().all(|effect| !matches!(effect, crate::Effect::Close { .. }))
        );
    }
}

fn core() -> Core {
    let rules = vec![
        Rule::new(Action::Allow, "box", "orders::get"),
        Rule::new(Action::Allow, "box", "reports::order").with_caller("reader"),
        Rule::new(Action::Allow, "box", "engine::*"),
    ];
    let mut core = Core::new(Config {
        engine_id: ENGINE,
        engine_pid: 1,
        engine_version: "test".into(),
        unix_anchor_ms: 1_000,
        zones: Zones::new(0),
        policy: Policy::new(rules),
        limits: Limits::default(),
    });
    let engine = Register {
        functions: vec![
            function(naming::FUNCTIONS_LIST, 1, "Lists functions"),
            function("engine::queue::publish", 2, ""),
        ],
        trigger_types: vec![
            TriggerTypeSpec { id: "engine::functions-available".into(), ..TriggerTypeSpec::default() },
            TriggerTypeSpec {
                id: "cron".into(),
                description: "Fires on time".into(),
                configuration_schema: Some(json!({"type": "object"})),
                ..TriggerTypeSpec::default()
            },
        ],
        ..Register::default()
    };
    attach(&mut core, Hello::new(ENGINE, "engine", 1), engine);
    let mut hidden = function("orders::hidden", 3, "");
    hidden.metadata = Some(json!({"internal": true}));
    let mut trigger = TriggerSpec::new("b1", "cron", FunctionId::new("orders::get").unwrap());
    trigger.config = json!({"expression": "é".repeat(100)});
    let parked = TriggerSpec::new("b2", "nobody", FunctionId::new("orders::get").unwrap());
    let shop = Register {
        functions: vec![
            function("orders::get", 1, "Gets one order"),
            function("orders::validate", 2, "Checks"),
            hidden,
        ],
        triggers: vec![trigger, parked],
        ..Register::default()
    };
    attach(&mut core, Hello { runtime: "rust".into(), ..Hello::new(SHOP, "shop", 22) }, shop);
    let other = Register {
        functions: vec![function("orders::get", 1, ""), function("reports::order", 2, "")],
        ..Register::default()
    };
    attach(&mut core, Hello { namespace: "blue".into(), ..Hello::new(OTHER, "shop", 33) }, other);
    attach(&mut core, Hello { zone: Some("box".into()), ..Hello::new(BOX, "box", 44) }, Register::default());
    core
}

fn ids(
    core: &Core,
    caller: Option<WorkerId>,
    function: &str,
    input: &Value,
    list: &str,
    field: &str,
) -> Vec<String> {
    let answer = core.query(caller, function, input).unwrap();
    answer[list].as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
}

fn code(core: &Core, caller: Option<WorkerId>, function: &str, input: &Value) -> String {
    core.query(caller, function, input).unwrap_err().user_code.unwrap()
}

#[test]
fn functions_are_filtered_ranked_and_sorted() {
    let core = core();
    let check = |input: Value, expected: &[&str]| {
        assert_eq!(
            ids(&core, Some(SHOP), naming::FUNCTIONS_LIST, &input, "functions", "function_id"),
            expected,
            "{input}"
        );
    };
    check(
        Value::Null,
        &["engine::queue::publish", "orders::get", "orders::get", "orders::validate", "reports::order"],
    );
    check(json!({"include_internal": true, "prefix": "engine::f", "later": 1}), &["engine::functions::list"]);
    check(json!({"include_internal": true, "prefix": "orders::h"}), &["orders::hidden"]);
    check(json!({"search": "ORDER"}), &["orders::get", "orders::get", "orders::validate", "reports::order"]);
    check(json!({"search": "date"}), &["orders::validate"]);
    check(json!({"search": "one order"}), &["orders::get"]);
    check(json!({"worker": "engine"}), &["engine::queue::publish"]);
    check(
        json!({"workers": ["engine", "0000000000000003"]}),
        &["engine::queue::publish", "orders::get", "reports::order"],
    );
    check(json!({"worker": "nobody"}), &[]);
    assert_eq!(code(&core, None, naming::FUNCTIONS_LIST, &json!({"search": 1})), "deserialization_error");
}

#[test]
fn a_summary_has_the_fields_that_clients_know() {
    let core = core();
    let answer = core.query(Some(SHOP), naming::FUNCTIONS_LIST, &json!({"search": "validate"})).unwrap();
    assert_eq!(
        answer,
        json!({"functions": [{"function_id": "orders::validate", "namespace": "default", "worker_name": "shop", "description": "Checks"}]})
    );
}

#[test]
fn one_function_is_described_or_refused() {
    let core = core();
    let info = |input: Value| core.query(Some(SHOP), naming::FUNCTIONS_INFO, &input).unwrap();
    let detail = info(json!({"function_id": "orders::get"}));
    assert_eq!(detail["namespace"], "default");
    assert_eq!(detail["registered_triggers"][0]["id"], "b1");
    assert_eq!(detail["replicas"][0]["worker_id"], SHOP.to_string());
    assert_eq!(
        info(json!({"function_id": "reports::order"}))["namespace"],
        "blue",
        "the only namespace that has it"
    );
    let many = info(json!({"function_ids": ["orders::get", "x::y"]}));
    assert_eq!(many["functions"][1], json!({"function_id": "x::y", "error": "not_found"}));
    let check = |caller, input: Value, expected: &str| {
        assert_eq!(code(&core, Some(caller), naming::FUNCTIONS_INFO, &input), expected, "{input}");
    };
    check(SHOP, json!({"function_id": "x::y"}), "NOT_FOUND");
    check(SHOP, json!({"function_id": "reports::order", "namespace": "default"}), "NOT_FOUND");
    check(SHOP, json!({}), "INVALID_ARGUMENTS");
    check(SHOP, json!({"function_id": "a", "function_ids": ["b"]}), "INVALID_ARGUMENTS");
    check(SHOP, json!({"function_ids": []}), "INVALID_ARGUMENTS");
    check(SHOP, json!({"function_ids": vec!["a"; 33]}), "INVALID_ARGUMENTS");
    check(BOX, json!({"function_id": "reports::order"}), "FORBIDDEN");
    check(BOX, json!({"function_id": "orders::validate"}), "NOT_FOUND");
}

#[test]
fn a_restricted_caller_sees_what_it_may_call() {
    let core = core();
    let seen = ids(&core, Some(BOX), naming::FUNCTIONS_LIST, &Value::Null, "functions", "function_id");
    assert_eq!(seen, ["engine::queue::publish", "orders::get", "orders::get"]);
    assert_eq!(
        ids(&core, Some(BOX), naming::WORKERS_LIST, &Value::Null, "workers", "name"),
        ["box", "engine"]
    );
    let many = json!({"function_ids": ["reports::order", "orders::validate"]});
    let answer = core.query(Some(BOX), naming::FUNCTIONS_INFO, &many).unwrap();
    assert_eq!(answer["functions"][0]["error"], "forbidden", "somebody of its zone may call it");
    assert_eq!(answer["functions"][1]["error"], "not_found", "nobody of its zone may know of it");
    let bound = core.query(Some(BOX), naming::REGISTERED_TRIGGERS_LIST, &Value::Null).unwrap();
    assert_eq!(bound, json!({"registered_triggers": []}));
}

/// What is hidden must look like what is not there, word for word but for the name asked for.
#[test]
fn what_is_hidden_looks_like_what_is_not_there() {
    let core = core();
    for namespace in [None, Some("default"), Some("blue")] {
        let said = |id: &str| {
            let input = json!({"function_id": id, "namespace": namespace});
            let error = core.query(Some(BOX), naming::FUNCTIONS_INFO, &input).unwrap_err();
            (error.code, error.user_code, error.message.replace(id, "ID"), error.details)
        };
        for hidden in ["orders::validate", "orders::hidden"] {
            assert_eq!(said(hidden), said("no::such"), "{hidden} in {namespace:?}");
        }
    }
}

#[test]
fn workers_are_listed_and_described() {
    let core = core();
    let list =
        |input: Value| core.query(Some(SHOP), naming::WORKERS_LIST, &input).unwrap()["workers"].clone();
    assert_eq!(list(json!({"runtime": "engine"}))[0]["status"], "available");
    let shop = &list(json!({"runtime": "rust", "status": "connected"}))[0];
    for (field, value) in [
        ("name", json!("shop")),
        ("id", json!(SHOP)),
        ("function_count", json!(3)),
        ("connected_at_ms", json!(1_007)),
        ("active_invocations", Value::Null),
        ("isolation", Value::Null),
        ("ip_address", Value::Null),
        ("description", Value::Null),
    ] {
        assert_eq!(shop.get(field), Some(&value), "{field}");
    }
    let info = |input: Value| core.query(Some(SHOP), naming::WORKERS_INFO, &input);
    let detail = info(json!({"name": "shop", "namespace": "default"})).unwrap();
    assert_eq!(detail["worker"]["pid"], 22);
    assert_eq!(detail["functions"].as_array().unwrap().len(), 3);
    assert_eq!(detail["registered_triggers"].as_array().unwrap().len(), 1, "the parked one is not shown");
    assert_eq!(info(json!({"name": SHOP})).unwrap()["worker"]["name"], "shop");
    let ambiguous = info(json!({"name": "shop"})).unwrap_err();
    assert!(ambiguous.message.contains("default") && ambiguous.message.contains("blue"), "{ambiguous}");
    assert_eq!(code(&core, None, naming::WORKERS_INFO, &json!({"name": "nobody"})), "NOT_FOUND");
}

#[test]
fn trigger_types_are_listed_and_described() {
    let core = core();
    let list = |input: Value| ids(&core, None, naming::TRIGGERS_LIST, &input, "triggers", "id");
    assert_eq!(list(Value::Null), ["cron"]);
    assert_eq!(list(json!({"include_internal": true})), ["cron", "engine::functions-available"]);
    assert_eq!(list(json!({"search": "on time"})), ["cron"]);
    assert_eq!(
        core.query(None, naming::TRIGGERS_INFO, &json!({"id": "cron"})).unwrap(),
        json!({"id": "cron", "namespace": "default", "worker_name": "engine", "description": "Fires on time",
            "configuration_schema": {"type": "object"}, "instance_count": 1})
    );
    assert_eq!(
        code(&core, None, naming::TRIGGERS_INFO, &json!({"id": "cron", "namespace": "blue"})),
        "NOT_FOUND"
    );
}

#[test]
fn bound_triggers_are_listed_and_described() {
    let core = core();
    let list = |input: Value| {
        ids(&core, None, naming::REGISTERED_TRIGGERS_LIST, &input, "registered_triggers", "id")
    };
    assert_eq!(list(Value::Null), ["b1"]);
    assert_eq!(list(json!({"trigger_type": "http"})), [""; 0]);
    assert_eq!(list(json!({"function_id": "orders::get", "worker": "shop"})), ["b1"]);
    let info = core.query(None, naming::REGISTERED_TRIGGERS_INFO, &json!({"id": "b1"})).unwrap();
    let summary = info["config_summary"].as_str().unwrap();
    assert!(summary.chars().count() == 81 && summary.ends_with('…'), "{summary}");
    assert_eq!(info["trigger"]["id"], "cron");
    assert_eq!(info["function"]["function_id"], "orders::get");
    assert_eq!(code(&core, None, naming::REGISTERED_TRIGGERS_INFO, &json!({"id": "b2"})), "NOT_FOUND");
}

#[test]
fn what_is_no_listing_is_not_answered() {
    let core = core();
    assert_eq!(core.query(None, "engine::nothing", &Value::Null).unwrap_err().code, ErrorCode::NotFound);
    for function in LISTING_FUNCTIONS {
        assert_ne!(
            core.query(None, function, &json!([])).map_err(|error| error.code),
            Err(ErrorCode::NotFound),
            "{function}"
        );
    }
}
