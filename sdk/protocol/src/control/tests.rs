//! Checks the JSON that people see on the control socket, and how a view follows its changes.

use serde_json::json;

use super::*;
use crate::error::ErrorCode;

fn id(text: &str) -> FunctionId {
    FunctionId::new(text).unwrap()
}

fn check_worker(message: &WorkerMessage, expected: Value) {
    let json = serde_json::to_value(message).unwrap();
    assert_eq!(json, expected);
    assert_eq!(json["type"], message.name());
    assert_eq!(&serde_json::from_value::<WorkerMessage>(json).unwrap(), message);
}

fn check_engine(message: &EngineMessage, expected: Value) {
    let json = serde_json::to_value(message).unwrap();
    assert_eq!(json, expected);
    assert_eq!(json["type"], message.name());
    assert_eq!(&serde_json::from_value::<EngineMessage>(json).unwrap(), message);
}

#[test]
fn a_hello_may_be_short() {
    let json =
        json!({"type": "hello", "protocol": 1, "worker_id": "00000000000000ff", "name": "shop", "pid": 7});
    let WorkerMessage::Hello(hello) = serde_json::from_value(json).unwrap() else { panic!("no hello") };
    let mut expected = Hello::new(WorkerId::new(255), "shop", 7);
    expected.os.clear();
    assert_eq!(*hello, expected);
    assert_eq!(hello.namespace, "default");
}

#[test]
fn worker_messages_read_as_they_are_written() {
    let mut function = FunctionSpec::new(id("orders::validate"), 1);
    function.encodings = vec![crate::header::Encoding::Json];
    let register = Register {
        request: 3,
        functions: vec![function],
        triggers: vec![TriggerSpec::new("t1", "cron", id("orders::validate"))],
        ..Register::default()
    };
    check_worker(
        &WorkerMessage::Register(register),
        json!({"type": "register", "request": 3,
            "functions": [{"id": "orders::validate", "index": 1, "generation": 0, "encodings": ["json"]}],
            "triggers": [{"id": "t1", "trigger_type": "cron", "function_id": "orders::validate", "config": null}]}),
    );
    check_worker(
        &WorkerMessage::Connect { request: 4, to: WorkerId::new(1) },
        json!({"type": "connect", "request": 4, "to": "0000000000000001"}),
    );
    check_worker(&WorkerMessage::Heartbeat {}, json!({"type": "heartbeat"}));
    check_worker(&WorkerMessage::Draining {}, json!({"type": "draining"}));
}

#[test]
fn engine_messages_read_as_they_are_written() {
    check_engine(
        &EngineMessage::Registered {
            request: 3,
            results: vec![
                RegistrationResult::done("t1", RegistrationOutcome::Parked),
                RegistrationResult::refused("x", CallError::new(ErrorCode::RegistrationConflict, "taken")),
            ],
        },
        json!({"type": "registered", "request": 3, "results": [
            {"id": "t1", "outcome": "parked"},
            {"id": "x", "outcome": "refused", "error": {"code": "registration_conflict", "message": "taken"}}]}),
    );
    check_engine(
        &EngineMessage::CatalogChange {
            revision: 9,
            changes: vec![Change::WorkerGone { id: WorkerId::new(2), cause: GoneCause::Died }],
        },
        json!({"type": "catalog_change", "revision": 9,
            "changes": [{"change": "worker_gone", "id": "0000000000000002", "cause": "died"}]}),
    );
    check_engine(
        &EngineMessage::TriggerAccepted { id: "t1".into() },
        json!({"type": "trigger_accepted", "id": "t1"}),
    );
}

#[test]
fn unknown_fields_pass_and_unknown_types_do_not() {
    let read = |json: Value| serde_json::from_value::<WorkerMessage>(json);
    assert!(read(json!({"type": "heartbeat", "later": 1})).is_ok());
    assert!(read(json!({"type": "sing"})).is_err());
    assert!(
        read(json!({"type": "register", "request": 1, "functions": [{"id": "a b", "index": 1}]})).is_err()
    );
}

fn function(name: &str, worker: u64, index: u32) -> CatalogFunction {
    CatalogFunction {
        id: id(name),
        namespace: "default".into(),
        worker: WorkerId::new(worker),
        index,
        generation: 0,
        encodings: Vec::new(),
        type_key: None,
        idempotent: false,
        streams_in: false,
        streams_out: false,
        streams_optional: false,
        relay: None,
    }
}

#[test]
fn a_view_follows_its_changes() {
    let worker = |id: u64| CatalogWorker {
        id: WorkerId::new(id),
        name: "w".into(),
        namespace: "default".into(),
        zone: "default".into(),
        pid: 1,
        runtime: "rust".into(),
        status: WorkerStatus::Ready,
        remote: None,
    };
    let mut view = Catalog { revision: 5, ..Catalog::default() };
    let added = [
        Change::WorkerAdded { worker: worker(1) },
        Change::WorkerAdded { worker: worker(2) },
        Change::FunctionAdded { function: function("a::f", 1, 1) },
        Change::FunctionAdded { function: function("a::f", 2, 1) },
        Change::FunctionAdded { function: function("a::g", 2, 2) },
    ];
    view.apply(10, &added).unwrap();
    assert_eq!((view.workers.len(), view.functions.len()), (2, 3));
    assert_eq!(view.apply(11, &[]), Err(catalog::RevisionGapError { wanted: 10, found: 11 }));
    assert_eq!(view.apply(15, &added), Ok(()), "the same again changes nothing but the revision");
    assert_eq!((view.workers.len(), view.functions.len()), (2, 3));
    assert_eq!(view.apply(16, &added), Err(catalog::RevisionGapError { wanted: 20, found: 16 }));
    let removed = [
        Change::WorkerDraining { id: WorkerId::new(1) },
        Change::FunctionRemoved {
            id: id("a::g"),
            namespace: "default".into(),
            worker: WorkerId::new(2),
            index: 2,
        },
    ];
    view.apply(17, &removed).unwrap();
    assert_eq!(view.workers[0].status, WorkerStatus::Draining);
    view.apply(18, &[Change::WorkerGone { id: WorkerId::new(1), cause: GoneCause::Died }]).unwrap();
    assert_eq!(view.functions, [function("a::f", 2, 1)]);
}
