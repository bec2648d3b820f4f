//! The engine hands channels on: the caller's socket, handles on both processes, and a permission page for both.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringway_engine::Engine;
use ringway_engine_core::{Action, Policy, Rule};
use ringway_ipc::permission::PermissionView;
use ringway_ipc::sys::{process, socket};
use ringway_protocol::ErrorCode;
use ringway_protocol::control::{EngineMessage, WorkerMessage};

use crate::client::{self, Client};

fn connect(caller: &mut Client, callee: &Client) -> (u64, OwnedFd) {
    let (near, far) = socket::seqpacket_pair().unwrap();
    let request = caller.request();
    caller.say_with(&WorkerMessage::Connect { request, to: callee.id }, vec![Arc::new(far)]);
    (request, near)
}

/// Hears until a message that is no catalog change.
fn answer(client: &mut Client) -> (EngineMessage, Vec<OwnedFd>) {
    loop {
        let (message, fds) = client.hear_with();
        if !matches!(message, EngineMessage::CatalogChange { .. }) {
            return (message, fds);
        }
    }
}

#[test]
fn a_channel_reaches_the_callee_with_all_that_belongs_to_it() {
    let engine = client::engine();
    let mut callee = Client::attach(engine.address(), "callee");
    callee.register(&["a::one", "a::two"]);
    let mut caller = Client::attach(engine.address(), "caller");
    let (request, near) = connect(&mut caller, &callee);

    let (message, mut fds) = answer(&mut callee);
    let EngineMessage::Incoming { from, name, zone, .. } = message else { panic!("{message:?}") };
    assert_eq!((from, &*name, &*zone), (caller.id, "caller", "default"));
    assert_eq!(fds.len(), 3);
    let callee_page = PermissionView::map(fds.pop().unwrap()).unwrap();
    assert!(!process::has_exited(fds.pop().unwrap()).unwrap());
    let far = fds.pop().unwrap();
    assert_eq!(socket::send(&near, &[IoSlice::new(b"direct")], &[]).unwrap(), 6);
    let mut bytes = [0; 16];
    let received = socket::receive(&far, &mut [IoSliceMut::new(&mut bytes)], &mut Vec::new()).unwrap();
    assert_eq!(&bytes[..received.bytes], b"direct");

    let (message, mut fds) = answer(&mut caller);
    assert!(matches!(message, EngineMessage::Connected { request: answered, .. } if answered == request));
    assert_eq!(fds.len(), 2);
    let caller_page = PermissionView::map(fds.pop().unwrap()).unwrap();
    for page in [&callee_page, &caller_page] {
        assert!(page.allows(1) && page.allows(2) && !page.allows(3));
    }
    engine.set_policy(Policy::new(vec![Rule::new(Action::Deny, "default", "a::two")]));
    caller.until(|catalog| !client::sees(catalog, "a::two"));
    assert!(callee_page.allows(1) && !callee_page.allows(2) && !caller_page.allows(2));
    assert_eq!(engine.counters().permission_pages, 1);
    caller.say(&WorkerMessage::Disconnected { peer: callee.id });
    caller.register(&["caller::f"]);
    assert_eq!((engine.counters().permission_pages, engine.counters().channels_opened), (0, 1));
}

#[test]
fn nobody_gets_a_channel_who_may_call_nothing() {
    let engine = client::start(
        Engine::builder()
            .policy(Policy::new(vec![Rule::new(Action::Deny, "*", "secret::*").with_caller("eve")])),
    );
    let mut callee = Client::attach(engine.address(), "callee");
    callee.register(&["secret::f"]);
    let mut eve = Client::attach(engine.address(), "eve");
    let (_, near) = connect(&mut eve, &callee);
    let (message, fds) = answer(&mut eve);
    let EngineMessage::ConnectFailed { error, .. } = message else { panic!("{message:?}") };
    assert_eq!((error.code, fds.len()), (ErrorCode::Forbidden, 0));
    let mut bytes = [0; 1];
    let received = socket::receive(&near, &mut [IoSliceMut::new(&mut bytes)], &mut Vec::new()).unwrap();
    assert_eq!(received.bytes, 0, "the engine has closed the other end");
}

#[test]
fn a_channel_to_nobody_fails() {
    let engine = client::engine();
    let mut caller = Client::attach(engine.address(), "caller");
    let nobody = Client::connect(engine.address());
    let (_, _near) = connect(&mut caller, &nobody);
    let (message, _) = answer(&mut caller);
    let EngineMessage::ConnectFailed { error, .. } = message else { panic!("{message:?}") };
    assert_eq!(error.code, ErrorCode::WorkerGone);
}
