//! All workers over one folder, as `ringway up` starts them.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod links;
mod links_nats;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringway::{CallOptions, ErrorCode, Message, Worker};
use ringway_config::{Settings, Variables};
use ringway_engine::{Engine, Otlp};
use ringway_store_nats::testing::Server;
use ringway_workers::{StartError, Workers, sections};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

fn engine() -> Engine {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = format!("@ringway-workers-test-{}-{number}", std::process::id());
    Engine::builder().address(address).otlp(Otlp::Off).start().unwrap()
}

fn settings(text: &str) -> Settings {
    Settings::parse("ringway.yaml", text, &sections(), &Variables::default()).unwrap()
}

fn client(engine: &Engine) -> Worker {
    Worker::builder("client").address(engine.address()).connect().unwrap()
}

fn call(client: &Worker, function: &str, request: &Value) -> Value {
    client.wait_for(function, Duration::from_secs(30)).unwrap();
    client.trigger_json(function, request).unwrap()
}

fn run(folder: &Path, text: &str) -> (Engine, Workers) {
    let engine = engine();
    let workers = Workers::start(engine.address(), folder, &settings(text)).unwrap();
    (engine, workers)
}

#[test]
fn workers_start_over_one_store_and_keep_what_they_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    {
        let (engine, workers) = run(&store, "");
        let client = client(&engine);
        call(&client, "configuration::register", &json!({"id": "a", "schema": true, "initial_value": 1}));
        workers.shut_down();
        workers.shut_down();
    }
    let (engine, _workers) = run(&store, "");
    assert_eq!(call(&client(&engine), "configuration::get", &json!({"id": "a"}))["value"], 1);
}

#[test]
fn a_file_that_was_written_for_iii_is_read() {
    let read = settings(
        "workers:\n  - name: iii-state\n    config: {adapter: {name: kv}, triggers_enabled: true, max_value_bytes: 5000, \
         save_interval_ms: 5000}\n  - name: iii-queue\n    config:\n      queue_configs:\n        default: {}\n        \
         payment: {max_retries: 3, concurrency: 10, type: fifo, message_group_field: id, backoff_ms: 1000, \
         poll_interval_ms: 100, max_priority: null, priority_field: weight}\n  - name: iii-cron\n    config: {adapter: \
         {name: kv, config: {lock_ttl_ms: 30000}}}\n  - name: iii-pubsub\n    config: {adapter: {name: local}}\n  - name: \
         configuration\n    config: {adapter: {name: fs}, ttl_seconds: 0}\n  - name: iii-observability\n  - name: iii-http\n    \
         config: {port: 4000, host: 127.0.0.1, default_timeout: 1000, concurrency_request_limit: 7, cors: {allowed_origins: \
         ['https://a.example'], allowed_methods: [GET]}}\n",
    );
    let http: ringway_worker_http::Config = read.worker("http").unwrap();
    assert_eq!((http.port, http.timeout_ms, http.concurrency_max), (Some(4000), 1000, 7));
    let cors = http.cors.unwrap();
    assert_eq!((cors.origins, cors.methods), (vec!["https://a.example".to_owned()], vec!["GET".to_owned()]));
    let state: ringway_worker_state::Config = read.worker("state").unwrap();
    assert_eq!(state.value_bytes_max, 5000);
    let warnings: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    for told in ["save_interval_ms", "priority_field", "ttl_seconds", "iii-observability"] {
        assert!(warnings.iter().any(|warning| warning.contains(told)), "{told} is not in {warnings:?}");
    }
    assert!(!warnings.iter().any(|warning| warning.contains("max_priority")), "{warnings:?}");
}

#[test]
fn what_is_one_worker_of_iii_may_be_two_here() {
    let read = settings(
        "workers:\n  - name: iii-stream\n    config: {port: 3999, host: 127.0.0.1, auth_function: 'a::b', adapter: {name: kv}}\n  \
         - name: iii-http-functions\n    config: {security: {url_allowlist: ['*.example.com'], block_private_ips: false, \
         require_https: false}}\n",
    );
    let socket: ringway_worker_stream_socket::Config = read.worker("stream-socket").unwrap();
    assert_eq!((socket.port, socket.auth_function.as_deref()), (Some(3999), Some("a::b")));
    let functions: ringway_worker_http_functions::Config = read.worker("http-functions").unwrap();
    assert_eq!(functions.security.url_allowlist, ["*.example.com"]);
    assert!(!functions.security.require_https && !functions.security.block_private_ips);
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
    let wrong = "workers:\n  - name: iii-stream\n    config:\n      host: 0.0.0.0\n";
    let error = Settings::parse("ringway.yaml", wrong, &sections(), &Variables::default()).unwrap_err();
    assert!(error.to_string().contains("auth_function"), "{error}");
}

/// The listeners of iii's own file for its tests of access: an open one, and one that asks.
#[test]
fn listeners_of_iii_are_listeners_here() {
    let read = settings(
        "workers:\n  - name: iii-worker-manager\n    config:\n      port: ${PORT:49999}\n      host: 127.0.0.1\n      \
         handshake_timeout_ms: 2000\n  - name: iii-worker-manager\n    config:\n      port: 49998\n      host: 0.0.0.0\n      \
         middleware_function_id: gate::check\n      rbac:\n        auth_function_id: gate::who\n        \
         expose_functions:\n          - match(\"api::*\")\n          - {match: 'svc::*', namespace: orders}\n          - \
         {metadata: {public: true}}\n        on_trigger_registration_function_id: gate::trigger\n",
    );
    let iii: ringway_iii::Config = read.worker("iii").unwrap();
    assert_eq!((iii.port, iii.handshake_timeout_ms, iii.listeners.len()), (Some(49999), 2000, 1));
    let second = &iii.listeners[0];
    assert_eq!((second.host.as_str(), second.port), ("0.0.0.0", 49998));
    assert_eq!(second.middleware_function_id.as_deref(), Some("gate::check"));
    assert_eq!(second.rbac.as_ref().map(|rbac| rbac.expose_functions.len()), Some(3));
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    // iii lets everybody in by default; here somebody must be asked.
    let open = "workers:\n  - name: iii-worker-manager\n    config: {host: 0.0.0.0}\n";
    let error = Settings::parse("ringway.yaml", open, &sections(), &Variables::default()).unwrap_err();
    assert!(error.to_string().contains("rbac.auth_function_id"), "{error}");
}

#[test]
fn a_setting_that_a_worker_cannot_obey_is_found_before_it_starts() {
    let check = |section: &str, words: &str| {
        let text = format!("workers: {{{section}}}");
        let error = Settings::parse("ringway.yaml", &text, &sections(), &Variables::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    check("stream: {threads: 0}", "threads is 0");
    check("stream: {streams: {chat: {items_max: 0}}}", "streams.chat.items_max is 0");
}

#[test]
fn a_worker_that_is_not_wanted_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _workers) = run(folder.path(), "workers: {configuration: false}");
    let client = client(&engine);
    call(&client, "store::verify", &json!({}));
    assert!(client.trigger_json("configuration::list", &json!({})).is_err());
}

#[test]
fn a_folder_that_is_in_use_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (_engine, _workers) = run(folder.path(), "");
    let second = engine();
    let error = Workers::start(second.address(), folder.path(), &settings("")).unwrap_err();
    assert!(matches!(error, StartError::Store { .. }));
    let text = error.to_string();
    assert!(text.contains(&folder.path().display().to_string()) && text.contains("in use"), "{text}");
}

#[test]
fn settings_are_applied_while_workers_run() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, workers) = run(folder.path(), "");
    let client = client(&engine);
    call(&client, "configuration::register", &json!({"id": "a", "schema": true, "initial_value": 1}));
    workers.apply(&settings("workers: {configuration: {value_bytes_max: 3}}"));
    let long = client.trigger_json("configuration::set", &json!({"id": "a", "value": "long"})).unwrap_err();
    assert_eq!(long.user_code.as_deref(), Some("VALUE_TOO_LARGE"));
}

#[test]
fn a_backup_is_taken_while_workers_run() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _workers) = run(&folder.path().join("store"), "");
    let client = client(&engine);
    call(&client, "configuration::register", &json!({"id": "a", "schema": true, "initial_value": 1}));
    let path = folder.path().join("backup");
    let taken = call(&client, "store::backup", &json!({"path": path}));
    // The configuration and its version, and whatever the other workers keep of themselves.
    let entries = taken["entries"].as_u64().unwrap();
    assert!(entries >= 2, "{taken}");
    assert_eq!(ringway_store::backup::check(&path).unwrap().entries, entries);
    assert!(client.trigger_json("store::backup", &json!({"path": "relative"})).is_err());
    assert_eq!(call(&client, "store::verify", &json!({})), json!({"damage": []}));
}

#[test]
fn workers_keep_what_they_acknowledged_on_nats() {
    let server = Server::start();
    let text = format!("engine: {{store: {{kind: nats, servers: ['{}'], name: shop}}}}", server.url());
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    {
        let (engine, workers) = run(Path::new("/nowhere"), &text);
        assert!(workers.place().contains("ringway-shop"), "{}", workers.place());
        let client = client(&engine);
        call(&client, "configuration::register", &json!({"id": "a", "schema": true, "initial_value": 1}));
        call(&client, "state::set", &json!({"scope": "s", "key": "k", "value": {"n": 7}}));
        call(&client, "queue::enqueue", &json!({"queue": "mail", "data": 1}));
        // What would be a blob elsewhere lies in the store here.
        call(&client, "queue::enqueue", &json!({"queue": "mail", "data": "x".repeat(600_000)}));
        let refused = client.trigger_json("blob::put", &json!("x")).unwrap_err();
        assert_eq!(refused.user_code.as_deref(), Some("BLOB_UNSUPPORTED"), "{refused}");
        let taken = call(&client, "store::backup", &json!({"path": backup}));
        assert_eq!(taken["blobs"], 0);
        assert!(taken["entries"].as_u64().is_some_and(|entries| entries >= 4), "{taken}");
        assert_eq!(call(&client, "store::verify", &json!({})), json!({"damage": []}));
        let second = self::engine();
        let error = Workers::start(second.address(), folder.path(), &settings(&text)).unwrap_err();
        assert!(matches!(error, StartError::Nats(_)) && error.to_string().contains("in use"), "{error}");
    }
    let (engine, workers) = run(Path::new("/nowhere"), &text);
    let client = client(&engine);
    assert_eq!(call(&client, "configuration::get", &json!({"id": "a"}))["value"], 1);
    assert_eq!(call(&client, "state::get", &json!({"scope": "s", "key": "k"})), json!({"n": 7}));
    assert_eq!(call(&client, "queue::stats", &json!({"topic": "mail"}))["depth"], 2);
    drop(client);
    workers.shut_down();
    // What was backed up from NATS is read by a store in a folder.
    let restored = folder.path().join("restored");
    ringway_store::backup::restore(&backup, &restored, &ringway_store::Options::default()).unwrap();
    let (engine, _workers) = run(&restored, "");
    let client = self::client(&engine);
    assert_eq!(call(&client, "state::get", &json!({"scope": "s", "key": "k"})), json!({"n": 7}));
}

#[test]
fn workers_end_while_nats_is_away() {
    let mut server = Server::start();
    let text = format!("engine: {{store: {{kind: nats, servers: ['{}'], patience_ms: 0}}}}", server.url());
    let (engine, workers) = run(Path::new("/nowhere"), &text);
    let client = client(&engine);
    call(&client, "state::set", &json!({"scope": "s", "key": "k", "value": 1}));
    server.kill();
    // What is on its way when the connection ends waits for its end; what comes later is refused.
    let message = Message::json(&json!({"scope": "s", "key": "k", "value": 2})).unwrap();
    let options = CallOptions::new().timeout(Duration::from_secs(1));
    let is_refused = || {
        let error = client.handle("state::set").call_with(&message, &options).unwrap_err();
        assert!(error.user_code.as_deref() == Some("SET_ERROR") || error.code == ErrorCode::DeadlineExceeded);
        error.user_code.is_some()
    };
    assert!((0..20).any(|_| is_refused()));
    workers.shut_down();
}

/// Opens a WebSocket at the address of the worker `http`; the status if it is refused.
fn follow(client: &Worker, path: &str, origin: &str) -> Result<Value, u16> {
    use tungstenite::client::IntoClientRequest as _;
    let there = call(client, "http::routes", &json!({}))["address"].as_str().unwrap().to_owned();
    let mut request = format!("ws://{there}{path}").into_client_request().unwrap();
    request.headers_mut().insert("origin", origin.replace("HERE", &there).parse().unwrap());
    let mut socket = match tungstenite::connect(request) {
        Ok((socket, _)) => socket,
        Err(tungstenite::Error::Http(response)) => return Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    };
    let join = json!({"type": "join", "data": {"subscriptionId": "s", "streamName": "chat", "groupId": "g"}});
    socket.send(Frame::text(join.to_string())).unwrap();
    Ok(serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap())
}

const PORTS: &str = "http: {port: 0, admin: {enabled: false}}, iii: false";

#[test]
fn browsers_follow_streams_by_the_port_of_http_too() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, workers) = run(folder.path(), &format!("workers: {{{PORTS}, stream-socket: {{port: 0}}}}"));
    let client = client(&engine);
    let item = json!({"stream_name": "chat", "group_id": "g", "item_id": "i", "data": {"n": 1}});
    call(&client, "stream::set", &item);
    for path in ["/_streams", "/_streams/"] {
        let told = follow(&client, path, "http://HERE").unwrap();
        assert_eq!(
            (&told["event"]["type"], &told["event"]["data"]),
            (&json!("sync"), &json!([{"n": 1}])),
            "{told}"
        );
    }
    assert_eq!(follow(&client, "/_streams", "https://elsewhere.example"), Err(403));
    assert_eq!(follow(&client, "/_streamsx", "http://HERE"), Err(404));
    workers.shut_down();
}

#[test]
fn browsers_are_asked_who_they_are_at_the_port_of_http_too() {
    let folder = tempfile::tempdir().unwrap();
    let section = "stream-socket: {port: 0, http_path: /live, auth_function: 'gate::who'}";
    let (engine, _workers) = run(folder.path(), &format!("workers: {{{PORTS}, {section}}}"));
    let client = client(&engine);
    let who = |_: &ringway::Context, asked: Value| {
        let is_known = asked["query_params"]["token"] == json!(["secret"]);
        let here = asked["addr"].as_str().is_some_and(|there| there.starts_with("127.0.0.1:"));
        Ok(json!({"unauthorized": !(is_known && here)}))
    };
    client.register(ringway::Function::json("gate::who", who)).unwrap();
    assert!(follow(&client, "/live?token=secret", "http://HERE").is_ok());
    assert_eq!(follow(&client, "/live?token=no", "http://HERE"), Err(401));
    assert_eq!(follow(&client, "/_streams", "http://HERE"), Err(404));
}

#[test]
fn browsers_of_others_get_in_only_where_somebody_asks_who_they_are() {
    let section = "http: {port: 0, behind_proxy: true, admin: {enabled: false}}, iii: false";
    let start = |folder: &Path, more: &str| {
        let engine = engine();
        let text = format!("workers: {{{section}, stream-socket: {{port: 0{more}}}}}");
        let workers = Workers::start(engine.address(), folder, &settings(&text))?;
        Ok::<_, StartError>((engine, workers))
    };
    let folder = tempfile::tempdir().unwrap();
    let error = start(folder.path(), ", http_path: /live").err().unwrap();
    assert!(error.to_string().contains("auth_function"), "{error}");
    let (engine, _workers) = start(folder.path(), "").unwrap();
    assert_eq!(follow(&client(&engine), "/_streams", "http://HERE"), Err(404));
}
