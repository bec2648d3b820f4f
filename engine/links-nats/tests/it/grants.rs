//! What an engine offers and what it lets be called: nothing else crosses, and changes of it are told.

use ringway::{ErrorCode, Function, Worker};
use ringway_engine::Engine;
use ringway_link::driver::Path;
use serde_json::{Value, json};

use crate::stage::{Joined, OnNats, engine, join, until, wait_for};

struct Side {
    worker: Worker,
    _joined: Joined,
    engine: Engine,
}

fn side(nats: &OnNats, offer: &[&str], call: &[&str]) -> Side {
    let engine = engine();
    let mut settings = nats.settings("shop");
    settings.offer = offer.iter().map(|pattern| (*pattern).to_owned()).collect();
    settings.call = call.iter().map(|pattern| (*pattern).to_owned()).collect();
    let joined = join(&engine, settings, Path::Probe);
    let worker = Worker::builder("worker").address(engine.address()).connect().unwrap();
    Side { worker, _joined: joined, engine }
}

fn echo(id: &str) -> Function {
    Function::json(id, |_, value: Value| Ok(value))
}

fn knows(worker: &Worker, id: &str) -> bool {
    worker.catalog().functions.iter().any(|function| function.id.as_str() == id)
}

#[test]
fn what_is_not_offered_or_not_to_be_called_is_neither_seen_nor_called() {
    let nats = OnNats::start();
    let shop = side(&nats, &["shop::*", "back::*"], &["edge::*"]);
    let edge = side(&nats, &["*"], &["shop::*", "vault::*"]);
    shop.worker.register_all(["shop::sell", "back::room", "vault::open"].map(echo).into()).unwrap();
    edge.worker.register_all(["edge::read", "other::read"].map(echo).into()).unwrap();
    wait_for(&edge.worker, "shop::sell");
    wait_for(&shop.worker, "edge::read");
    assert_eq!(edge.worker.trigger_json("shop::sell", &json!(1)).unwrap(), json!(1));
    assert_eq!(shop.worker.trigger_json("edge::read", &json!(2)).unwrap(), json!(2));
    // One is offered and may not be called, one may be called and is not offered.
    for (worker, id) in
        [(&edge.worker, "back::room"), (&edge.worker, "vault::open"), (&shop.worker, "other::read")]
    {
        assert!(!knows(worker, id), "{id}");
        assert_eq!(worker.trigger_json(id, &json!(1)).unwrap_err().code, ErrorCode::NotFound, "{id}");
    }
}

#[test]
fn an_engine_that_is_told_nothing_of_this_one_still_offers() {
    let nats = OnNats::start();
    let (serves, calls) = (side(&nats, &["shop::*"], &[]), side(&nats, &[], &["*"]));
    serves.worker.register(echo("shop::sell")).unwrap();
    calls.worker.register(echo("calls::own")).unwrap();
    wait_for(&calls.worker, "shop::sell");
    assert_eq!(calls.worker.trigger_json("shop::sell", &json!(1)).unwrap(), json!(1));
    assert!(!knows(&serves.worker, "calls::own"));
}

/// One trace, whichever engines a call goes through.
#[test]
fn a_trace_goes_there_and_back() {
    let nats = OnNats::start();
    let (first, second) = (side(&nats, &["*"], &["*"]), side(&nats, &["*"], &["*"]));
    let trace = |context: &ringway::Context| format!("{:?}", context.trace().trace_id);
    second
        .worker
        .register(
            Function::json("b::trace", move |context, _: Value| {
                let below = context.worker().trigger_json("a::trace", &json!(0))?;
                Ok(json!([trace(context), below]))
            })
            .pooled(),
        )
        .unwrap();
    first.worker.register(Function::json("a::trace", move |context, _: Value| Ok(trace(context)))).unwrap();
    wait_for(&first.worker, "b::trace");
    wait_for(&second.worker, "a::trace");
    for _ in 0..10 {
        let told = first.worker.trigger_json("b::trace", &json!(0)).unwrap();
        assert_eq!(told[0], told[1], "both handlers are of one trace");
    }
}

#[test]
fn every_change_of_the_catalog_is_told_in_order() {
    let nats = OnNats::start();
    let (first, second) = (side(&nats, &["*"], &["*"]), side(&nats, &["*"], &["*"]));
    for round in 0..100u32 {
        let id = format!("a::at_{round}");
        first.worker.register(Function::json(&id, move |_, _: Value| Ok(round))).unwrap();
        wait_for(&second.worker, &id);
        assert_eq!(second.worker.trigger_json(&id, &json!(0)).unwrap(), json!(round));
        first.worker.unregister(&id).unwrap();
        until("it is gone", || !knows(&second.worker, &id));
    }
    // Many at once, and of workers that come and go.
    let all: Vec<Function> = (0..2000).map(|number| echo(&format!("many::number_{number}"))).collect();
    let guest = Worker::builder("guest").address(first.engine.address()).connect().unwrap();
    guest.register_all(all).unwrap();
    let count = || {
        let functions = second.worker.catalog().functions;
        functions.iter().filter(|function| function.id.as_str().starts_with("many::")).count()
    };
    until("all are known", || count() == 2000);
    drop(guest);
    until("none is", || count() == 0);
}
