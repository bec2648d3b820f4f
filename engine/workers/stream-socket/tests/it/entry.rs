//! Who gets in, and that nobody else does.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use ringway::{Failure, Function, Worker};
use ringway_worker_bed::PATIENCE;
use ringway_worker_stream_socket::{Config, StreamSocket};
use serde_json::{Value, json};

use crate::stage::{config, join, stage};

fn guarded() -> Config {
    Config { auth_function: Some("door::check".to_owned()), ..config() }
}

#[test]
fn the_auth_function_lets_in_or_nobody_gets_in() {
    let stage = stage(guarded());
    // Nobody is there to be asked.
    assert_eq!(stage.run(stage.knock("?token=good", None)).err(), Some(503));
    let keeper = Worker::builder("keeper").address(&stage.bed.address).connect().unwrap();
    let heard = Arc::new(Mutex::new(Value::Null));
    let hearing = Arc::clone(&heard);
    let check = move |_: &ringway::Context, asked: Value| {
        *hearing.lock().unwrap() = asked.clone();
        match asked["query_params"]["token"][0].as_str() {
            Some("good") => Ok(json!({"context": {"user": "anna"}})),
            Some("null") => Ok(Value::Null),
            Some("no") => Ok(json!({"unauthorized": true})),
            Some("panic") => panic!("as the test wants it"),
            _ => Err(Failure::new("who are you")),
        }
    };
    keeper.register(Function::json("door::check", check)).unwrap();
    stage.bed.client.wait_for("door::check", PATIENCE).unwrap();
    stage.bed.wait_until("the socket hears of the function", || {
        stage.run(stage.knock("?token=good", None)).is_ok()
    });
    for (query, status) in
        [("", 401), ("?token=bad", 401), ("?token=null", 401), ("?token=no", 401), ("?token=panic", 503)]
    {
        assert_eq!(stage.run(stage.knock(query, None)).err(), Some(status), "{query}");
    }
    // What it says of the client is told to those who are asked about single streams.
    let told = Arc::new(Mutex::new(Value::Null));
    let telling = Arc::clone(&told);
    keeper
        .register(Function::json("gate::ask", move |_, asked: Value| {
            *telling.lock().unwrap() = asked;
            Ok(json!({"unauthorized": false}))
        }))
        .unwrap();
    ringway_worker_bed::bind(&keeper, "j", "stream:join", "gate::ask", json!({})).unwrap();
    let mut client = stage.run(stage.knock("?token=good", Some(("x-extra", "5")))).unwrap();
    let until = Instant::now() + PATIENCE;
    while told.lock().unwrap()["context"] != json!({"user": "anna"}) {
        assert!(Instant::now() < until, "the function is asked, with what the other said");
        stage.run(async {
            client.say(join("s")).await;
            assert_eq!(client.hear().await["event"]["type"], "sync");
        });
    }
    let heard = heard.lock().unwrap().clone();
    assert_eq!((&heard["headers"]["x-extra"], &heard["path"]), (&json!("5"), &json!("/")));
    assert!(heard["addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{heard}");
    assert!(stage.socket.counters().refused >= 6);
}

#[test]
fn pages_from_elsewhere_do_not_get_in() {
    let stage = stage(Config { origins: vec!["https://app.example.com".to_owned()], ..config() });
    let knock = |origin: &str| stage.run(stage.knock("", Some(("origin", origin)))).err();
    for origin in ["http://localhost:5173", "http://127.0.0.1:3111", "https://app.example.com"] {
        assert_eq!(knock(origin), None, "{origin}");
    }
    for origin in ["https://evil.example.com", "null", "https://app.example.com.evil.com"] {
        assert_eq!(knock(origin), Some(403), "{origin}");
    }
}

#[test]
fn there_are_only_so_many() {
    let stage = stage(Config { connections_max: 2, subscriptions_max: 2, ..config() });
    let mut client = stage.run(stage.connect());
    let second = stage.run(stage.connect());
    assert_eq!(stage.run(stage.knock("", None)).err(), Some(503));
    drop(second);
    stage.bed.wait_until("there is room again", || stage.run(stage.knock("", None)).is_ok());
    stage.run(async {
        for id in ["1", "2", "2"] {
            client.say(join(id)).await;
            assert_eq!(client.hear().await["event"]["type"], "sync", "{id}");
        }
        client.say(join("3")).await;
        let heard = client.hear().await;
        assert_eq!((&heard["error"]["code"], &heard["subscriptionId"]), (&json!("busy"), &json!("3")));
    });
}

#[test]
fn it_listens_for_others_only_where_somebody_is_asked() {
    let stage = stage(config());
    let open = Config { host: "0.0.0.0".to_owned(), ..config() };
    let error = StreamSocket::start(&stage.bed.address, open).unwrap_err().to_string();
    assert!(error.contains("auth_function"), "{error}");
    let taken = stage.socket.address().map(|address| address.port());
    let error =
        StreamSocket::start(&stage.bed.address, Config { port: taken, ..config() }).unwrap_err().to_string();
    assert!(error.contains("workers.stream-socket.port"), "{error}");
}

#[test]
fn another_server_may_have_it_under_a_path_of_its_own() {
    let stage = stage(config());
    stage.set("a", json!(1));
    let router = Router::new().nest("/live", stage.socket.router());
    let address = stage.run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    });
    stage.run(async {
        let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/live")).await.unwrap();
        let mut client = crate::stage::Client { socket };
        client.say(join("s")).await;
        assert_eq!(client.hear().await["event"], json!({"type": "sync", "data": [1]}));
        assert!(tokio_tungstenite::connect_async(format!("ws://{address}/")).await.is_err());
    });
}

#[test]
fn the_end_is_told() {
    let stage = stage(config());
    let mut client = stage.run(stage.connect());
    stage.run(async {
        client.say(join("s")).await;
        assert_eq!(client.hear().await["event"]["type"], "sync");
    });
    stage.socket.shut_down();
    assert_eq!(stage.run(client.hear()), json!(1012));
}
