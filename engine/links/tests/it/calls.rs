//! Calls both ways over a link.

use ringway::{Encoding, ErrorCode, Function, Message};
use ringway_access::Grant;
use serde_json::json;

use crate::drains::no_call_is_lost;
use crate::stage::{PATHS, Stage, until};

#[test]
fn a_remote_worker_calls_and_is_called() {
    for path in PATHS {
        let stage = Stage::open(path, Grant::everything());
        let local = stage.local("local");
        let remote = stage.remote("remote");
        local.register(Function::json("here::double", |_, number: u64| Ok(number * 2))).unwrap();
        remote.register(Function::json("there::triple", |_, number: u64| Ok(number * 3))).unwrap();
        for number in 0..200u64 {
            assert_eq!(
                remote.trigger_json("here::double", &json!(number)).unwrap(),
                json!(number * 2),
                "{path:?}"
            );
            assert_eq!(local.trigger_json("there::triple", &json!(number)).unwrap(), json!(number * 3));
        }
        let error = remote.trigger_json("no::such", &json!(1)).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound);
        assert_eq!(stage.links.status().len(), 1);
        drop(remote);
        until("the remote worker's function is gone", || {
            local
                .trigger_json("there::triple", &json!(1))
                .is_err_and(|error| error.code == ErrorCode::NotFound)
        });
        until("the link is gone", || stage.links.status().is_empty());
    }
}

#[test]
fn large_payloads_go_both_ways() {
    for path in PATHS {
        let stage = Stage::open(path, Grant::everything());
        let local = stage.local("local");
        let remote = stage.remote("remote");
        remote
            .register(Function::raw("there::echo", |_, request| Ok(Message::bytes(request.body()))))
            .unwrap();
        local.register(Function::raw("here::echo", |_, request| Ok(Message::bytes(request.body())))).unwrap();
        for len in [10, 1000, 100_000, 20_000_000] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 255).unwrap()).collect();
            for (caller, function) in [(&local, "there::echo"), (&remote, "here::echo")] {
                let message = Message::from_vec(Encoding::Bytes, bytes.clone());
                let reply = caller.handle(function).call(&message).unwrap();
                assert_eq!(reply.body(), bytes, "{path:?} {function} {len}");
            }
        }
    }
}

#[test]
fn a_link_that_is_cut_ends_its_calls_and_comes_back() {
    for path in PATHS {
        let stage = Stage::open(path, Grant::everything());
        let local = stage.local("local");
        let remote = stage.remote("remote");
        remote.register(Function::json("there::triple", |_, number: u64| Ok(number * 3))).unwrap();
        assert_eq!(local.trigger_json("there::triple", &json!(2)).unwrap(), json!(6));
        let Stage { links, engine, .. } = stage;
        let address = links.address().unwrap();
        drop(links);
        until("the function went with its link", || local.trigger_json("there::triple", &json!(1)).is_err());
        let settings = ringway_links::Settings {
            name: "home".to_owned(),
            listen: Some(address),
            doorkeeper: std::sync::Arc::new(
                ringway_access::Doorkeeper::default().with_open_loopback(Grant::everything()),
            ),
            ..ringway_links::Settings::default()
        };
        let _links = ringway_links::Links::start(engine.address(), settings).unwrap();
        until("the worker dials again and is called", || {
            local.trigger_json("there::triple", &json!(5)).is_ok_and(|answer| answer == json!(15))
        });
        assert_eq!(remote.name(), "remote");
    }
}

/// Not those that were on their way to it either: it waits for them before it leaves.
#[test]
fn a_remote_worker_that_drains_loses_no_call() {
    for stage in Stage::all(&Grant::everything()) {
        no_call_is_lost(&stage);
    }
}
