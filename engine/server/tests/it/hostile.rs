//! Workers that break the protocol: they are put out with the reason, the others do not notice.

use std::io::{IoSlice, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use ringway_ipc::sys::{event, socket};
use ringway_protocol::ErrorCode;
use ringway_protocol::control::{EngineMessage, Hello, WorkerMessage};

use crate::client::{self, Client};

fn refusal(client: &mut Client) -> ringway_protocol::CallError {
    match client.hear_the_end() {
        Some(EngineMessage::Refused { error }) => error,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn what_is_no_message_is_refused_with_the_reason() {
    let engine = client::engine();
    let mut bystander = Client::attach(engine.address(), "bystander");
    let check = |bytes: &[u8], attached: bool, reason: &str| {
        let mut client = Client::connect(engine.address());
        if attached {
            client.hello("hostile", vec![]);
            client.welcome();
        }
        client.say_raw(bytes, vec![]);
        let error = refusal(&mut client);
        assert_eq!(error.code, ErrorCode::ProtocolViolation);
        assert!(error.message.contains(reason), "{error} does not say {reason}");
    };
    for attached in [false, true] {
        check(b"not json", attached, "control message");
        check(b"", attached, "control message");
        check(br#"{"type":"sing"}"#, attached, "sing");
        check(&[0xff; 100], attached, "control message");
        let deep = format!(r#"{{"type":"logs","records":{}"#, "[".repeat(100_000));
        check(deep.as_bytes(), attached, "recursion");
    }
    check(br#"{"type":"heartbeat"}"#, false, "hello");
    check(br#"{"type":"connect","request":1,"to":"00000000000000ff"}"#, true, "descriptor");
    bystander.register(&["bystander::f"]);
    assert_eq!(engine.counters().violations, 11);
}

#[test]
fn hostile_prefixes_end_a_connection() {
    let engine = client::engine();
    for bytes in
        [&[0xff; 8][..], &[0, 0, 0, 0, 9, 0, 0, 0], &[4, 0, 0, 0, 1, 0, 0, 0, b'n', b'u', b'l', b'l']]
    {
        let mut client = Client::attach(engine.address(), "hostile");
        let fd = client.stream.as_fd().try_clone_to_owned().unwrap();
        std::os::unix::net::UnixStream::from(fd).write_all(bytes).unwrap();
        assert_eq!(refusal(&mut client).code, ErrorCode::ProtocolViolation);
    }
}

#[test]
fn descriptors_that_do_not_belong_are_refused() {
    let engine = client::engine();
    let fd = || Arc::new(event::eventfd().unwrap());
    let mut client = Client::attach(engine.address(), "w");
    client.say_with(&WorkerMessage::Heartbeat {}, vec![fd()]);
    assert!(refusal(&mut client).message.contains("heartbeat"));
    let mut client = Client::connect(engine.address());
    client.hello("w", vec![fd()]);
    assert!(refusal(&mut client).message.contains("telemetry segment"));
    let mut client = Client::connect(engine.address());
    client.hello("w", vec![fd(), fd()]);
    assert!(refusal(&mut client).message.contains("at most one"));
    let mut client = Client::attach(engine.address(), "w");
    client.say_with(&WorkerMessage::Connect { request: 1, to: client.id }, vec![fd()]);
    assert!(refusal(&mut client).message.contains("seqpacket"));
}

#[test]
fn the_engines_own_id_is_not_for_others() {
    let engine = client::engine();
    let mut thief = Client::connect(engine.address());
    let mut hello = Hello::new(ringway_protocol::WorkerId::new(77), "thief", std::process::id());
    hello.protocol = 99;
    thief.say(&WorkerMessage::Hello(Box::new(hello)));
    assert_eq!(refusal(&mut thief).code, ErrorCode::IncompatibleVersion);
}

#[test]
fn a_worker_that_does_not_read_is_put_out() {
    let engine = client::start(ringway_engine::Engine::builder().queued_bytes_max(1 << 20));
    let mut bystander = Client::attach(engine.address(), "bystander");
    let _silent = Client::attach(engine.address(), "silent");
    let functions: Vec<String> = (0..1_000).map(|at| format!("big::function_{at:0>200}")).collect();
    let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
    // Each round tells every worker a third of a megabyte; one of them does not listen.
    for round in 0.. {
        assert!(round < 100, "the silent worker was never put out");
        if engine.counters().slow_readers > 0 {
            break;
        }
        let mut noisy = Client::attach(engine.address(), "noisy");
        noisy.register(&functions);
        bystander.until(|catalog| client::sees(catalog, functions[0]));
        drop(noisy);
        bystander.until(|catalog| !client::sees(catalog, functions[0]));
    }
    bystander.until(|catalog| catalog.workers.values().all(|worker| worker.name != "silent"));
    assert_eq!(engine.counters().slow_readers, 1);
}

#[test]
fn a_connection_cut_inside_a_packet_is_only_a_death() {
    let engine = client::engine();
    let client = Client::attach(engine.address(), "w");
    socket::send(client.stream.as_fd(), &[IoSlice::new(&[9, 0, 0])], &[]).unwrap();
    drop(client);
    let mut watcher = Client::attach(engine.address(), "watcher");
    watcher.until(|catalog| catalog.workers.len() == 1);
    assert_eq!((engine.counters().deaths, engine.counters().violations), (1, 0));
}
