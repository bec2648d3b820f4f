//! An engine with the stream worker, the socket, and clients of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ringway_worker_bed::{Bed, PATIENCE};
use ringway_worker_stream::{Config as StreamConfig, Stream};
use ringway_worker_stream_socket::{Config, StreamSocket};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) struct Stage {
    pub(crate) socket: StreamSocket,
    pub(crate) runtime: Runtime,
    pub(crate) bed: Bed<Stream>,
}

/// A browser.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

pub(crate) fn config() -> Config {
    Config { port: Some(0), ..Config::default() }
}

pub(crate) fn stage(config: Config) -> Stage {
    stage_with(config, StreamConfig::default())
}

pub(crate) fn stage_with(config: Config, stream: StreamConfig) -> Stage {
    let mut bed = Bed::new("stream", "unsubscribe", move |address, store, clock| {
        Stream::start_with_clock(address, Arc::clone(&store), stream.clone(), clock)
    });
    bed.start();
    let socket = StreamSocket::start(&bed.address, config).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    Stage { socket, runtime, bed }
}

impl Stage {
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.socket.address().unwrap())
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { socket: connect_async(self.url()).await.unwrap().0 }
    }

    /// Tries to connect with a header; gives the status of a refusal.
    pub(crate) async fn knock(
        &self,
        query: &str,
        header: Option<(&'static str, &str)>,
    ) -> Result<Client, u16> {
        let mut request = format!("{}{query}", self.url()).into_client_request().unwrap();
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Client { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Puts an item.
    pub(crate) fn set(&self, item: &str, data: Value) {
        self.bed
            .call("set", json!({"stream_name": "chat", "group_id": "room", "item_id": item, "data": data}));
    }
}

pub(crate) fn join(id: &str) -> Value {
    json!({"type": "join", "data": {"subscriptionId": id, "streamName": "chat", "groupId": "room"}})
}

impl Client {
    pub(crate) async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next message; a Close is its code.
    pub(crate) async fn hear(&mut self) -> Value {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(frame))) => return json!(frame.map(|frame| u16::from(frame.code))),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Makes sure that nothing is said for a moment.
    pub(crate) async fn hear_nothing(&mut self) {
        let heard = tokio::time::timeout(Duration::from_millis(200), self.hear()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}
