//! Links where a seccomp filter refuses `io_uring`, as the ones of containers do: everything goes by epoll, and says so.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use ringway::{Credentials, Encoding, Function, Message, Worker};
use ringway_access::{Doorkeeper, Grant};
use ringway_engine::{Engine, Otlp};
use ringway_link::driver::{Driver, DriverConfig, Path};
use ringway_links::{Links, Settings, StartError};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::json;

const VARIABLE: &str = "RINGWAY_HOSTS_REFUSED";
/// The number of `io_uring_setup` on every processor.
const IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;

fn refuse_uring() {
    let rules = BTreeMap::from([(IO_URING_SETUP, Vec::new())]);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EPERM), arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    // For this thread and all that it starts from now on.
    seccompiler::apply_filter(&program).unwrap();
}

fn config(path: Path) -> DriverConfig {
    DriverConfig { path, ..DriverConfig::default() }
}

#[test]
fn epoll_is_taken_where_io_uring_is_refused() {
    let own = std::env::current_exe().unwrap();
    let words = ["--exact", "uring_refused::under_the_filter", "--nocapture", "--test-threads", "1"];
    let output = Command::new(own).args(words).env(VARIABLE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("refused: all went by epoll"), "it has to have run: {said}");
}

#[test]
fn under_the_filter() {
    // By itself this is no test: the one above runs it in a process of its own.
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    refuse_uring();
    let refused = Driver::start(config(Path::Uring)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{refused}");
    let driver = Driver::start(config(Path::Probe)).unwrap();
    assert_eq!(driver.path(), Path::Epoll);
    println!("why not io_uring: {}", driver.why_not_uring().unwrap());
    let engine = Engine::builder().address("@ringway-refused").otlp(Otlp::Off).start().unwrap();
    let settings = |path| Settings {
        name: "home".to_owned(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        doorkeeper: Arc::new(Doorkeeper::default().with_open_loopback(Grant::everything())),
        driver: config(path),
        ..Settings::default()
    };
    let error = Links::start(engine.address(), settings(Path::Uring)).unwrap_err();
    assert!(matches!(error, StartError::System(_)), "{error}");
    println!("with io_uring alone: {error}");
    let links = Links::start(engine.address(), settings(Path::Probe)).unwrap();
    assert_eq!(links.path(), Path::Epoll);
    assert!(links.why_not_uring().is_some());
    let local = Worker::builder("local").address(engine.address()).connect().unwrap();
    let address = format!("ringway://{}", links.address().unwrap());
    let remote = Worker::builder("remote").address(address).credentials(Credentials::default());
    let remote = remote.connect().unwrap();
    for (worker, at) in [(&local, "here"), (&remote, "there")] {
        let id = |what: &str| format!("{at}::{what}");
        let echo = Function::raw(&id("echo"), |_, request| Ok(Message::bytes(request.body())));
        let stream = Function::stream(&id("stream"), |_, request, input, output| {
            while let Some(item) = input.recv()? {
                output.send(item)?;
            }
            Ok(request)
        });
        let double = Function::json(&id("double"), |_, number: u64| Ok(number * 2));
        worker.register_all(vec![echo, stream, double]).unwrap();
    }
    for (caller, at) in [(&local, "there"), (&remote, "here")] {
        caller.wait_for(&format!("{at}::double"), crate::scene::PATIENCE).unwrap();
        for number in 0..200u64 {
            let answer = caller.trigger_json(&format!("{at}::double"), &json!(number)).unwrap();
            assert_eq!(answer, json!(number * 2));
        }
        for len in [0, 100, 20_000, 20_000_000] {
            let bytes = vec![7; len];
            let message = Message::from_vec(Encoding::Bytes, bytes.clone());
            assert_eq!(caller.handle(&format!("{at}::echo")).call(&message).unwrap().body(), bytes);
        }
        let mut stream = caller
            .handle(&format!("{at}::stream"))
            .stream(&Message::empty(), &ringway::CallOptions::new())
            .unwrap();
        for number in 0..100u64 {
            stream.send(Message::bytes(&number.to_le_bytes())).unwrap();
            assert_eq!(stream.recv().unwrap().unwrap().body(), number.to_le_bytes());
        }
        stream.finish();
        assert!(stream.recv().unwrap().is_none());
        stream.end().unwrap();
    }
    println!("refused: all went by epoll");
}
