//! Another zone's socket: whoever attaches there is in that zone, whatever it claims.

use ringway_engine::{Engine, StartError, ZoneSocket};
use ringway_engine_core::{Action, Policy, Rule};
use ringway_protocol::control::{Hello, WorkerMessage};

use crate::client::{self, Client, sees};

#[test]
fn the_door_decides_the_zone() {
    let door = client::address();
    let policy = Policy::new(vec![Rule::new(Action::Allow, "sandbox", "open::*")]);
    let builder = Engine::builder().zone_socket(ZoneSocket::new("sandbox", &door)).policy(policy);
    let engine = client::start(builder);
    let mut inside = Client::attach(engine.address(), "inside");
    inside.register(&["open::f", "secret::f"]);
    let mut boxed = Client::connect(&door);
    let mut hello = Hello::new(boxed.id, "boxed", std::process::id());
    hello.zone = Some("default".into());
    boxed.say(&WorkerMessage::Hello(Box::new(hello)));
    let (welcome, _) = boxed.welcome();
    assert_eq!(welcome.zone, "sandbox");
    assert!(sees(&boxed.catalog, "open::f") && !sees(&boxed.catalog, "secret::f"));
    let open = boxed.catalog.functions.values().next().unwrap();
    assert_eq!((open.worker, open.relay.is_some()), (engine.id(), true), "reached through the engine");
    boxed.register(&["boxed::f"]);
    assert!(!inside.sees("boxed::f"));
}

#[test]
fn a_zone_may_not_be_the_default_one() {
    for zone in ["default", ""] {
        let builder = Engine::builder().address(client::address());
        let error = builder.zone_socket(ZoneSocket::new(zone, client::address())).start().unwrap_err();
        assert!(matches!(error, StartError::Zone { .. }), "{error}");
    }
}
