//! Attach, register, be told; attach again; leave; the engine stops.

use std::time::Duration;

use ringway_engine::Engine;
use ringway_protocol::control::{Change, EngineMessage, GoneCause, WorkerMessage};
use ringway_protocol::limits::PROTOCOL_VERSION;

use crate::client::{self, Client, sees};

#[test]
fn a_worker_is_told_what_there_is_and_what_comes() {
    let engine = client::engine();
    let mut server = Client::attach(engine.address(), "server");
    server.register(&["orders::validate", "orders::place"]);
    let mut caller = Client::connect(engine.address());
    caller.hello("caller", vec![]);
    let (welcome, fds) = caller.welcome();
    assert!(fds.is_empty(), "no telemetry segment came, so nothing is given for one");
    assert_eq!((welcome.worker_id, welcome.engine_id), (caller.id, engine.id()));
    assert_eq!((welcome.protocol, welcome.engine_pid), (PROTOCOL_VERSION, std::process::id()));
    assert!(caller.sees("orders::validate") && caller.sees("orders::place"));
    let mut later = Client::attach(engine.address(), "later");
    later.register(&["later::f"]);
    caller.until(|catalog| sees(catalog, "later::f"));
    later.say(&WorkerMessage::Goodbye {});
    assert_eq!(later.hear_the_end(), None);
    caller.until(|catalog| !sees(catalog, "later::f"));
    assert_eq!(engine.counters().goodbyes, 1);
}

#[test]
fn a_worker_that_attaches_again_is_not_there_twice() {
    let engine = client::engine();
    let mut watcher = Client::attach(engine.address(), "watcher");
    let mut first = Client::attach(engine.address(), "w");
    first.register(&["w::f"]);
    let mut second = Client::connect(engine.address());
    second.id = first.id;
    second.hello("w", vec![]);
    second.welcome();
    second.register(&["w::f"]);
    assert_eq!(first.hear_the_end(), None, "the old connection is closed");
    let mut marker = Client::attach(engine.address(), "marker");
    marker.register(&["marker::f"]);
    watcher.until(|catalog| sees(catalog, "marker::f"));
    assert_eq!(
        watcher.catalog.functions.values().filter(|function| function.id.as_str() == "w::f").count(),
        1
    );
    assert_eq!(watcher.catalog.workers.values().filter(|worker| worker.id == first.id).count(), 1);
}

#[test]
fn an_engine_that_stops_says_so_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    let engine =
        Engine::builder().address(path.to_str().unwrap()).otlp(ringway_engine::Otlp::Off).start().unwrap();
    let mut worker = Client::attach(engine.address(), "w");
    engine.shutdown(Duration::from_millis(10));
    assert!(matches!(worker.hear_the_end(), Some(EngineMessage::Shutdown { drain_ms: 10, .. })));
    assert!(!path.exists());
    engine.shutdown(Duration::ZERO);
    drop(engine);
}

#[test]
fn of_two_engines_at_one_address_the_second_says_who_is_there() {
    let engine = client::engine();
    let error = Engine::builder().address(engine.address()).start().unwrap_err().to_string();
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    let address = engine.address().to_owned();
    drop(engine);
    drop(Engine::builder().address(address).start().unwrap());
}

#[test]
fn a_stale_socket_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let engine = Engine::builder().address(path.to_str().unwrap()).start().unwrap();
    let mut worker = Client::attach(engine.address(), "w");
    worker.say(&WorkerMessage::Goodbye {});
    assert_eq!(worker.hear_the_end(), None);
}

#[test]
fn a_goodbye_is_announced_as_one() {
    let engine = client::engine();
    let mut watcher = Client::attach(engine.address(), "watcher");
    let mut leaver = Client::attach(engine.address(), "leaver");
    leaver.say(&WorkerMessage::Goodbye {});
    let id = leaver.id;
    loop {
        if let EngineMessage::CatalogChange { changes, .. } = watcher.hear()
            && changes.contains(&Change::WorkerGone { id, cause: GoneCause::Goodbye })
        {
            break;
        }
    }
}
