//! An engine with a listener, and a client that speaks iii's protocol by hand.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway::Worker;
use ringway_engine::{Engine, Otlp};
use ringway_iii::{Config, Face};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long it is watched that nothing comes.
const QUIET: Duration = Duration::from_millis(300);

pub(crate) struct Stage {
    pub(crate) face: Face,
    pub(crate) engine: Engine,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-iii-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(address).otlp(Otlp::Off).start().unwrap();
        let face = Face::start(engine.address(), Config { port: Some(0), ..config }).unwrap();
        Self { face, engine }
    }

    pub(crate) fn native(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.engine.address()).connect().unwrap()
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect(&self) -> Client {
        let mut client = self.connect_to(0, "");
        let first = client.next().unwrap();
        assert_eq!(first["type"], "workerregistered");
        client.id = first["worker_id"].as_str().unwrap().to_owned();
        client.token = first["reattach_token"].as_str().unwrap().to_owned();
        client
    }

    /// A connection to one of the listeners, to which nothing was said yet.
    pub(crate) fn connect_to(&self, listener: usize, query: &str) -> Client {
        let url = format!("ws://{}/{query}", self.face.addresses()[listener]);
        let (socket, _) = tungstenite::connect(url).unwrap();
        let MaybeTlsStream::Plain(stream) = socket.get_ref() else { unreachable!() };
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Client { socket, heard: Vec::new(), id: String::new(), token: String::new() }
    }

    /// A connection as that of Node's SDK.
    pub(crate) fn client(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.announce(json!({"runtime": "node", "version": "0.22.1", "name": name, "pid": 1}));
        client
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<MaybeTlsStream<TcpStream>>,
    /// What came and was not asked for.
    heard: Vec<Value>,
    pub(crate) id: String,
    pub(crate) token: String,
}

impl Client {
    pub(crate) fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    /// Says who it is.
    pub(crate) fn announce(&mut self, said: Value) {
        self.send(
            &json!({"type": "invokefunction", "function_id": "engine::workers::register", "data": said,
            "action": {"type": "void"}}),
        );
    }

    pub(crate) fn register(&mut self, function: &str) {
        self.send(&json!({"type": "registerfunction", "id": function}));
    }

    /// The next message; none when the connection is over.
    fn next(&mut self) -> Option<Value> {
        self.next_by(Instant::now() + PATIENCE).expect("nothing came")
    }

    #[expect(clippy::option_option, reason = "nothing yet; nothing any more; a message")]
    fn next_by(&mut self, until: Instant) -> Option<Option<Value>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Some(Some(serde_json::from_str(&text).unwrap())),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    if Instant::now() >= until {
                        return None;
                    }
                }
                Err(_) => return Some(None),
            }
        }
    }

    /// The first message that fits; others are kept for later questions.
    pub(crate) fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.heard.iter().position(&fits) {
            return self.heard.remove(at);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next_by(until) {
                Some(Some(message)) if fits(&message) => return message,
                Some(Some(message)) => self.heard.push(message),
                Some(None) => panic!("the connection is over before {what}; heard {:?}", self.heard),
                None => panic!("no {what}; heard {:?}", self.heard),
            }
        }
    }

    pub(crate) fn of_type(&mut self, kind: &str) -> Value {
        self.wait(kind, |message| message["type"] == kind)
    }

    /// Asserts that no such message comes.
    pub(crate) fn hears_no(&mut self, kind: &str) {
        let until = Instant::now() + QUIET;
        while let Some(message) = self.next_by(until) {
            let message = message.expect("the connection is over");
            assert_ne!(message["type"], kind, "{message}");
            self.heard.push(message);
        }
        assert!(self.heard.iter().all(|message| message["type"] != kind), "{:?}", self.heard);
    }

    /// Whether the other side ends the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next_by(until) {
                Some(Some(message)) => self.heard.push(message),
                Some(None) => return true,
                None => return false,
            }
        }
    }

    /// Whether a call of it is answered, and the connection not ended instead.
    pub(crate) fn is_welcome(&mut self) -> bool {
        let id = self.start(&mut json!({"function_id": "engine::functions::list", "data": {}}));
        let until = Instant::now() + PATIENCE;
        while let Some(Some(message)) = self.next_by(until) {
            if message["invocation_id"] == id.as_str() {
                return true;
            }
        }
        false
    }

    /// Calls, and waits for the result.
    pub(crate) fn call(&mut self, function: &str, data: &Value) -> Value {
        self.call_with(json!({"function_id": function, "data": data}))
    }

    /// As [`Client::call`], with more in the message.
    pub(crate) fn call_with(&mut self, mut message: Value) -> Value {
        let id = self.start(&mut message);
        self.result(&id)
    }

    /// Begins a call.
    pub(crate) fn start(&mut self, message: &mut Value) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("00000000-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed));
        message["type"] = "invokefunction".into();
        message["invocation_id"] = id.as_str().into();
        self.send(message);
        id
    }

    pub(crate) fn result(&mut self, id: &str) -> Value {
        self.wait("result", |message| message["type"] == "invocationresult" && message["invocation_id"] == id)
    }

    /// Waits until it is called, and answers.
    pub(crate) fn answer(&mut self, answer: impl FnOnce(&Value) -> Value) -> Value {
        let asked = self.of_type("invokefunction");
        let mut result = answer(&asked);
        result["type"] = "invocationresult".into();
        result["invocation_id"] = asked["invocation_id"].clone();
        result["function_id"] = asked["function_id"].clone();
        self.send(&result);
        asked
    }

    /// Waits until a function is in the catalog.
    pub(crate) fn sees(&mut self, function: &str) {
        self.waits_until_listed(function, true);
    }

    /// Waits until it is there no longer.
    pub(crate) fn sees_no_more(&mut self, function: &str) {
        self.waits_until_listed(function, false);
    }

    fn waits_until_listed(&mut self, function: &str, wanted: bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let list = self.call("engine::functions::list", &json!({"prefix": function}));
            let functions = list["result"]["functions"].as_array().unwrap();
            if functions.iter().any(|found| found["function_id"] == function) == wanted {
                return;
            }
            assert!(Instant::now() < until, "{function} is listed otherwise: {list}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
