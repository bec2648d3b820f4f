//! A server that is away, and links that nobody uses.

use std::time::{Duration, Instant};

use ringway::{ErrorCode, Function};
use serde_json::json;

use crate::stage::{OnNats, PATIENCE, until};
use crate::suite::{host, wait_for};

#[test]
fn catalogs_are_whole_again_after_a_server_was_away() {
    let mut nats = OnNats::start();
    let first = host(&nats, &[]);
    let second = host(&nats, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    a.register(Function::json("a::short", |_, number: u64| Ok(number))).unwrap();
    b.register(Function::json("b::triple", |_, number: u64| Ok(number * 3))).unwrap();
    wait_for(&a, "b::triple");
    wait_for(&b, "a::short");
    assert_eq!(a.trigger_json("b::triple", &json!(1)).unwrap(), json!(3));
    for (round, away) in [(0u64, Duration::ZERO), (1, Duration::from_secs(1)), (2, Duration::from_secs(8))] {
        let id = format!("a::new_{round}");
        nats.server.kill();
        // What changes in the meantime is told later.
        a.register(Function::json(&id, |_, number: u64| Ok(number + 1))).unwrap();
        if round == 0 {
            a.unregister("a::short").unwrap();
        }
        std::thread::sleep(away);
        if away > Duration::from_secs(5) {
            until("whoever is not heard is not called", || {
                b.trigger_json("a::double", &json!(1)).is_err_and(|error| error.code == ErrorCode::NotFound)
            });
        }
        nats.server.restart();
        wait_for(&b, &id);
        wait_for(&a, "b::triple");
        until("calls go both ways again", || {
            b.trigger_json(&id, &json!(round)).is_ok_and(|answer| answer == json!(round + 1))
                && a.trigger_json("b::triple", &json!(round)).is_ok_and(|answer| answer == json!(round * 3))
        });
        until("what was taken back is gone", || {
            b.trigger_json("a::short", &json!(1)).is_err_and(|error| error.code == ErrorCode::NotFound)
        });
    }
}

#[test]
fn an_engine_starts_before_its_server() {
    let mut nats = OnNats::start();
    nats.server.kill();
    let first = host(&nats, &[]);
    let second = host(&nats, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    nats.server.restart();
    wait_for(&b, "a::double");
    assert_eq!(b.trigger_json("a::double", &json!(4)).unwrap(), json!(8));
}

/// A minute after the last channel went, the link goes; the next call opens another.
#[test]
fn an_idle_link_is_closed_and_opened_again() {
    const IDLE: Duration = Duration::from_secs(2);
    let nats = OnNats { idle_max: IDLE, ..OnNats::start() };
    let first = host(&nats, &[]);
    let second = host(&nats, &[&first]);
    let a = first.worker("a");
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    let linked = || second.joined.as_ref().unwrap().nats.status().engines.iter().any(|engine| engine.linked);
    for round in 0..2u64 {
        let caller = second.worker("caller");
        wait_for(&caller, "a::double");
        assert!(!linked(), "what is offered needs no link");
        assert_eq!(caller.trigger_json("a::double", &json!(round)).unwrap(), json!(round * 2));
        assert!(linked() && first.joined.as_ref().unwrap().links.status().len() == 1);
        drop(caller);
        if round == 0 {
            let begun = Instant::now();
            while linked() {
                assert!(begun.elapsed() < PATIENCE, "the link stays");
                std::thread::sleep(Duration::from_millis(100));
            }
            assert!(begun.elapsed() > IDLE / 2, "it is there for whoever calls soon");
            until("its other end is closed too", || first.joined.as_ref().unwrap().links.status().is_empty());
        }
    }
}
