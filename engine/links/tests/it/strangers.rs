//! Somebody who was let in and says what no SDK says: the link ends, or what was said is passed over, and nobody else notices.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway::{Function, Worker, WorkerId};
use ringway_access::handshake::{self, ClockReading, Introduction, PeerKind};
use ringway_access::{Credentials, Grant};
use ringway_link::News;
use ringway_link::driver::{Driver, DriverConfig, Link, Owner, Path};
use ringway_link::fault::Ended;
use ringway_protocol::control::{EngineMessage, Hello, WorkerMessage};
use ringway_protocol::link::{Topic, push_record, with_channel};
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage, until, wait_for};

#[derive(Default)]
struct Ear {
    said: Mutex<Vec<(u64, Vec<u8>)>>,
    over: Mutex<Option<String>>,
}

impl Owner for Ear {
    fn news(&self, news: News) {
        if let News::Message { topic, bytes } = news {
            self.said.lock().push((topic, bytes));
        }
    }

    fn over(&self, why: &Ended) {
        *self.over.lock() = Some(why.to_string());
    }
}

/// A link without an SDK behind it.
struct Stranger {
    link: Link,
    ear: Arc<Ear>,
    id: WorkerId,
    _driver: Driver,
}

impl Stranger {
    fn new(address: SocketAddr) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0xabc);
        let id = WorkerId::new(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let mut socket = TcpStream::connect(address).unwrap();
        let me =
            Introduction { kind: PeerKind::Worker, id, name: "stranger".to_owned(), release: "0".to_owned() };
        let clock = || ClockReading { monotonic_ns: 1, unix_ms: 1 };
        let deadline = Instant::now() + PATIENCE;
        handshake::connect(&mut socket, &me, &Credentials::default(), None, &clock, deadline).unwrap();
        let driver = Driver::start(DriverConfig { path: Path::Epoll, ..DriverConfig::default() }).unwrap();
        let ear = Arc::new(Ear::default());
        let owner: Arc<dyn Owner> = Arc::<Ear>::clone(&ear);
        let link = driver.add(OwnedFd::from(socket), None, owner);
        Self { link, ear, id, _driver: driver }
    }

    fn attached(address: SocketAddr) -> Self {
        let stranger = Self::new(address);
        stranger.greet("default");
        until("it is welcome", || stranger.heard(|message| matches!(message, EngineMessage::Welcome(_))));
        stranger
    }

    fn greet(&self, namespace: &str) {
        let hello = Hello { namespace: namespace.to_owned(), ..Hello::new(self.id, "stranger", 1) };
        self.tell(&WorkerMessage::Hello(Box::new(hello)));
    }

    fn tell(&self, message: &WorkerMessage) {
        self.say(Topic::Control, serde_json::to_vec(message).unwrap());
    }

    fn say(&self, topic: Topic, bytes: Vec<u8>) {
        self.link.message(topic.to_u64(), bytes);
    }

    fn heard(&self, wanted: impl Fn(&EngineMessage) -> bool) -> bool {
        let said = self.ear.said.lock();
        said.iter().any(|(topic, bytes)| {
            *topic == Topic::Control.to_u64() && serde_json::from_slice(bytes).is_ok_and(|told| wanted(&told))
        })
    }

    fn until_over(&self, what: &str) {
        until(what, || self.ear.over.lock().is_some());
    }
}

/// A stage, and a worker on either side that has to be served whatever a stranger does.
struct Scene {
    stage: Stage,
    local: Worker,
    remote: Worker,
}

impl Scene {
    fn new(grant: Grant) -> Self {
        let stage = Stage::open(Path::Epoll, grant);
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        remote.register(Function::json("edge::f", |_, value: Value| Ok(value))).unwrap();
        wait_for(&local, "edge::f");
        Self { stage, local, remote }
    }

    fn address(&self) -> SocketAddr {
        self.stage.links.address().unwrap()
    }

    fn is_unharmed(&self, what: &str) {
        for number in 0..20 {
            let told = self.local.trigger_json("edge::f", &json!(number));
            assert_eq!(told.unwrap_or_else(|error| panic!("{what}: {error}")), json!(number));
        }
        assert!(self.remote.is_attached(), "{what}");
        let more = self.stage.remote("more");
        assert!(more.is_attached(), "{what}");
    }
}

#[test]
fn messages_that_mean_nothing_end_the_link() {
    let scene = Scene::new(Grant::everything());
    let connect = |number: u32| {
        let message = WorkerMessage::Connect { request: 1, to: scene.local.id() };
        (Topic::Channel, with_channel(number, &serde_json::to_vec(&message).unwrap()))
    };
    let heartbeat = serde_json::to_vec(&WorkerMessage::Heartbeat {}).unwrap();
    let somebody_else = Hello::new(WorkerId::new(1), "me", 1);
    let somebody_else = serde_json::to_vec(&WorkerMessage::Hello(Box::new(somebody_else))).unwrap();
    let bare_connect = serde_json::to_vec(&WorkerMessage::Connect { request: 1, to: scene.local.id() });
    let cases: [(&str, (Topic, Vec<u8>)); 8] = [
        ("no JSON", (Topic::Control, b"hello".to_vec())),
        ("nothing", (Topic::Control, Vec::new())),
        ("deep JSON", (Topic::Control, b"[".repeat(1 << 20))),
        ("the greeting of another", (Topic::Control, somebody_else)),
        ("a channel without a number", (Topic::Control, bare_connect.unwrap())),
        ("a channel with a number of the engine's", connect(2)),
        ("half a number", (Topic::Channel, vec![1, 2])),
        ("a message that has no channel", (Topic::Channel, with_channel(1, &heartbeat))),
    ];
    for (what, (topic, bytes)) in cases {
        let stranger = Stranger::attached(scene.address());
        stranger.say(topic, bytes);
        stranger.until_over(what);
    }
    // Before any greeting, or twice.
    let stranger = Stranger::new(scene.address());
    stranger.tell(&WorkerMessage::Heartbeat {});
    stranger.until_over("no greeting");
    let stranger = Stranger::attached(scene.address());
    stranger.greet("other");
    stranger.until_over("a second greeting");
    scene.is_unharmed("after all that");
    until("their links are gone", || scene.stage.links.status().iter().all(|link| link.name != "stranger"));
}

#[test]
fn records_of_any_form_are_kept_or_dropped() {
    let scene = Scene::new(Grant::everything());
    let stranger = Stranger::attached(scene.address());
    let mut good = Vec::new();
    push_record(&mut good, &[1; 192]);
    let cases: [(&str, Vec<u8>); 6] = [
        ("nothing", Vec::new()),
        ("empty records", vec![0; 1000]),
        ("a record that is torn", [&good[..], &good[..50]].concat()),
        ("a record behind a torn one", good.clone()),
        ("records longer than any", [&[255; 1][..], &[7; 255]].concat()),
        ("many", good.repeat(50_000)),
    ];
    for (what, bytes) in cases {
        stranger.say(Topic::Telemetry, bytes);
        scene.is_unharmed(what);
    }
    assert_eq!(*stranger.ear.over.lock(), None);
}

#[test]
fn channels_that_are_asked_for_twice_or_to_nobody_harm_nobody() {
    let scene = Scene::new(Grant::everything());
    scene.local.register(Function::json("here::f", |_, value: Value| Ok(value))).unwrap();
    let stranger = Stranger::attached(scene.address());
    let connect = |number: u32, request: u64, to: WorkerId| {
        let message = serde_json::to_vec(&WorkerMessage::Connect { request, to }).unwrap();
        stranger.say(Topic::Channel, with_channel(number, &message));
    };
    // One number twice, one request twice, somebody who is not there, itself, the engine.
    for (number, request, to) in [
        (1, 1, scene.local.id()),
        (1, 2, scene.local.id()),
        (3, 3, scene.local.id()),
        (5, 3, scene.local.id()),
        (7, 4, WorkerId::new(99_999_999)),
        (9, 5, stranger.id),
        (u32::MAX, 6, scene.stage.engine.id()),
    ] {
        connect(number, request, to);
    }
    for number in 0..2000u32 {
        connect(1001 + 2 * number, u64::from(number) + 100, scene.local.id());
    }
    until("it has been answered, or put out", || {
        let answered =
            |message: &EngineMessage| matches!(message, EngineMessage::ConnectFailed { request: 4, .. });
        stranger.heard(answered) || stranger.ear.over.lock().is_some()
    });
    scene.is_unharmed("with channels that nobody opened");
    assert_eq!(scene.remote.trigger_json("here::f", &json!(1)).unwrap(), json!(1));
    drop(stranger);
    until("its link is gone", || scene.stage.links.status().iter().all(|link| link.name != "stranger"));
    scene.is_unharmed("when it is gone");
}

/// A caller whose callee never opens its end is told within the time that openings have.
#[test]
fn functions_of_a_stranger_that_opens_no_channel_end_in_an_error() {
    let scene = Scene::new(Grant::everything());
    let stranger = Stranger::attached(scene.address());
    let register = serde_json::from_value::<WorkerMessage>(
        json!({"type": "register", "request": 1, "functions": [{"id": "stranger::f", "index": 1}]}),
    );
    stranger.tell(&register.unwrap());
    wait_for(&scene.local, "stranger::f");
    let options = ringway::CallOptions::new().timeout(Duration::from_secs(1));
    let error = scene.local.trigger_json_with("stranger::f", &json!(1), &options).unwrap_err();
    let expected = [ringway::ErrorCode::DeadlineExceeded, ringway::ErrorCode::WorkerGone];
    assert!(expected.contains(&error.code), "{error}");
    scene.is_unharmed("while it is called");
}
