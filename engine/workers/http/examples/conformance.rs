//! What `cargo autobahn` and `cargo schemathesis` ask: an engine with a front door of HTTP, a WebSocket that says what it is
//! told, and notes that are kept, listed, changed and deleted over routes of every kind. It tells its address, and ends with its
//! standard input. By hand: `cargo run -p ringway-worker-http --example conformance`.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example for tests ends where it fails, and tells on the terminal"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ringway::{CallError, Context, ErrorCode, Failure, Function, HandlerResult, Message, Worker};
use ringway_worker_bed::{Bed, bind};
use ringway_worker_http::{Config, Http};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// As many notes as are kept.
const NOTES_MAX: usize = 1000;

/// The key that `DELETE` wants.
const KEY: &str = "conformance-0123456789";

/// What is written.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Draft {
    #[schemars(length(min = 1, max = 200))]
    title: String,
    #[serde(default)]
    tags: Vec<String>,
    #[schemars(range(min = 0, max = 5))]
    stars: Option<u8>,
}

impl Draft {
    /// Holds it against what its schema says and its type does not.
    fn checked(self) -> HandlerResult<Self> {
        if !(1..=200).contains(&self.title.chars().count()) {
            return Err(Failure::invalid("`title` has 1 to 200 characters"));
        }
        if self.stars.is_some_and(|stars| stars > 5) {
            return Err(Failure::invalid("`stars` is at most 5"));
        }
        Ok(self)
    }
}

/// What is kept.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Note {
    id: u64,
    #[serde(flatten)]
    draft: Draft,
}

/// A request as the front door tells it, as far as it is of interest.
#[derive(Debug, Deserialize, JsonSchema)]
struct Asked<B> {
    body: B,
    #[serde(default)]
    path_params: BTreeMap<String, String>,
    #[serde(default)]
    query_params: BTreeMap<String, String>,
}

impl<B> Asked<B> {
    fn id(&self) -> HandlerResult<u64> {
        let text = self.path_params.get("id").map(String::as_str).unwrap_or_default();
        text.parse().map_err(|_| Failure::invalid(format!("the id of a note is a number, found `{text}`")))
    }
}

/// An answer with a status.
#[derive(Debug, Serialize, JsonSchema)]
struct Answered<B> {
    status_code: u16,
    body: B,
}

/// Numbers to be added.
#[derive(Debug, Deserialize, JsonSchema)]
struct Numbers {
    numbers: Vec<i32>,
}

/// Their sum.
#[derive(Debug, Serialize, JsonSchema)]
struct Sum {
    sum: i64,
}

type Notes = Arc<Mutex<BTreeMap<u64, Note>>>;

fn missing(id: u64) -> Failure {
    let error = CallError::new(ErrorCode::HandlerError, format!("there is no note {id}"));
    error.with_user_code("no_such_note").with_details(json!({"status_code": 404})).into()
}

fn main() {
    let schemes = json!({"key": {"kind": "api_key", "keys": {"tester": KEY}}});
    let settings = json!({"port": 0, "admin": {"enabled": false}, "auth": {"schemes": schemes}});
    let config: Config = serde_json::from_value(settings).unwrap();
    let mut bed = Bed::new("http", "routes", move |address, store, clock| {
        Http::start_with(address, store, config.clone(), clock)
    });
    bed.start();
    notes(&bed.client);
    others(&bed.client);
    println!("{} {KEY}", bed.worker().address());
    let _ended = std::io::stdin().read_line(&mut String::new());
}

fn route(worker: &Worker, function: &str, config: &Value) {
    bind(
        worker,
        &format!("{}{}", config["http_method"], config["api_path"]),
        "http",
        function,
        config.clone(),
    )
    .unwrap();
}

fn notes(worker: &Worker) {
    let all = Notes::default();
    let (notes, next) = (Arc::clone(&all), Mutex::new(0));
    let make = move |_: &Context, asked: Asked<Draft>| {
        let draft = asked.body.checked()?;
        let mut notes = notes.lock();
        if notes.len() == NOTES_MAX {
            notes.pop_first();
        }
        let mut id = next.lock();
        *id += 1;
        let note = Note { id: *id, draft };
        notes.insert(*id, note.clone());
        Ok(Answered { status_code: 201, body: note })
    };
    let notes = Arc::clone(&all);
    let list = move |_: &Context, asked: Asked<Value>| {
        let limit = match asked.query_params.get("limit") {
            Some(text) => text.parse().ok().filter(|limit| (1..=100).contains(limit)),
            None => Some(20),
        };
        let limit = limit.ok_or_else(|| Failure::invalid("`limit` is a number from 1 to 100"))?;
        Ok(notes.lock().values().rev().take(limit).cloned().collect::<Vec<Note>>())
    };
    let notes = Arc::clone(&all);
    let read = move |_: &Context, asked: Asked<Value>| {
        let id = asked.id()?;
        notes.lock().get(&id).cloned().ok_or_else(|| missing(id))
    };
    let notes = Arc::clone(&all);
    let change = move |_: &Context, asked: Asked<Draft>| {
        let (id, mut notes) = (asked.id()?, notes.lock());
        let note = notes.get_mut(&id).ok_or_else(|| missing(id))?;
        note.draft = asked.body.checked()?;
        Ok(note.clone())
    };
    let delete = move |_: &Context, asked: Asked<Value>| -> HandlerResult<()> {
        let id = asked.id()?;
        all.lock().remove(&id).map(drop).ok_or_else(|| missing(id))
    };
    let functions = vec![
        Function::json("notes::make", make).description("Keeps a note"),
        Function::json("notes::list", list).description("The newest notes"),
        Function::json("notes::read", read).description("A note"),
        Function::json("notes::change", change).description("Changes a note"),
        Function::json("notes::delete", delete).description("Deletes a note"),
    ];
    worker.register_all(functions).unwrap();
    let number = json!({"path": {"id": {"type": "integer", "minimum": 1, "maximum": 1_000_000_000}}});
    let limit = json!({"limit": {"type": "integer", "minimum": 1, "maximum": 100}});
    for (function, config) in [
        ("notes::make", json!({"api_path": "/notes", "http_method": "POST", "idempotency": {}})),
        ("notes::list", json!({"api_path": "/notes", "http_method": "GET", "openapi": {"query": limit}})),
        ("notes::read", json!({"api_path": "/notes/:id", "http_method": "GET", "openapi": number})),
        ("notes::change", json!({"api_path": "/notes/:id", "http_method": "PUT", "openapi": number})),
        (
            "notes::delete",
            json!({"api_path": "/notes/:id", "http_method": "DELETE", "auth": "key", "openapi": number}),
        ),
    ] {
        route(worker, function, &config);
    }
}

fn others(worker: &Worker) {
    let sum = |_: &Context, asked: Asked<Numbers>| {
        Ok(Sum { sum: asked.body.numbers.iter().copied().map(i64::from).sum() })
    };
    let name = |_: &Context, asked: Asked<Value>| Ok(asked.path_params.get("rest").cloned());
    let count = |_: &Context, _, _, out: ringway::StreamWriter| {
        for number in 0..5 {
            out.send(Message::json(&json!({"number": number}))?)?;
        }
        Ok(Message::empty())
    };
    let functions = vec![
        Function::json("math::sum", sum).description("Adds numbers"),
        Function::json("files::name", name).description("The path below, decoded"),
        Function::stream("events::count", count).description("Counts to five"),
        Function::stream_async("socket::echo", |_, _, input, output| async move {
            while let Some(item) = input.recv_async().await? {
                output.send_async(item).await?;
            }
            Ok(Message::empty())
        }),
    ];
    worker.register_all(functions).unwrap();
    let socket = json!({"plain_text": true, "message_bytes_max": 64 << 20});
    let hidden = json!({"hidden": true});
    for (function, config) in [
        ("math::sum", json!({"api_path": "/sum", "http_method": "POST"})),
        ("files::name", json!({"api_path": "/files/*rest", "http_method": "GET"})),
        ("events::count", json!({"api_path": "/events", "http_method": "GET", "respond": "sse"})),
        (
            "socket::echo",
            json!({"api_path": "/echo", "http_method": "GET", "respond": "websocket", "websocket": socket,
            "openapi": hidden}),
        ),
    ] {
        route(worker, function, &config);
    }
}
