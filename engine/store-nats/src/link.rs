//! The connection to the server: made once, mended by the client for as long as the store is open. Says whether it is up,
//! and waits until it is. It must not know what is sent over it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context, ContextBuilder};
use async_nats::{Client, Event};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::access::{self, words};
use crate::error::OpenError;
use crate::limits::{ANSWER, PAYLOAD_BYTES_MIN, SERVER_MIN, WINDOW};
use crate::names::Names;
use crate::options::NatsOptions;

/// How often a server that is not there is asked, at most.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// An open connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    pub(crate) names: Names,
    pub(crate) servers: String,
    up: watch::Receiver<bool>,
    /// What the client said last, for words.
    said: Arc<Mutex<Option<String>>>,
}

impl Link {
    /// Connects, and looks whether the server is one that we can use.
    pub(crate) async fn connect(options: &NatsOptions) -> Result<Self, OpenError> {
        let names = Names::of(&options.name)?;
        let addresses = access::addresses(&options.servers)?;
        let servers = access::all_told(&options.servers);
        let (tell, up) = watch::channel(true);
        let said = Arc::new(Mutex::new(None));
        let last = Arc::clone(&said);
        let begun = access::options(&options.identity, &options.tls).await?;
        let begun = begun.event_callback(move |event| {
            match event {
                Event::Connected => drop(tell.send_replace(true)),
                Event::Disconnected | Event::Closed => drop(tell.send_replace(false)),
                other => *last.lock() = Some(other.to_string()),
            }
            async {}
        });
        let client = begun
            .name(format!("ringway {}", options.name))
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(10))
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                let doubled = Duration::from_millis(10 << attempt.min(10));
                doubled.min(RECONNECT_MAX)
            })
            .connect(addresses)
            .await
            .map_err(|error| OpenError::Connect { servers: servers.clone(), reason: words(&error) })?;
        let info = client.server_info();
        let (major, minor, patch) = SERVER_MIN;
        if !client.is_server_compatible(major, minor, patch) {
            let wanted = format!("{major}.{minor}.{patch}");
            return Err(OpenError::Version { servers, wanted, found: info.version });
        }
        if info.max_payload < PAYLOAD_BYTES_MIN {
            return Err(OpenError::Payload { wanted: PAYLOAD_BYTES_MIN, found: info.max_payload });
        }
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER)
            .max_ack_inflight(4 * WINDOW)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let account = jetstream.query_account().await;
        account.map_err(|error| OpenError::JetStream { servers: servers.clone(), reason: words(&error) })?;
        Ok(Self { client, jetstream, names, servers, up, said })
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Returns when the connection is up, at once if it is.
    pub(crate) async fn until_up(&self) {
        self.until(true).await;
    }

    /// Returns when the connection is down, at once if it is.
    pub(crate) async fn until_down(&self) {
        self.until(false).await;
    }

    async fn until(&self, wanted: bool) {
        let mut up = self.up.clone();
        if up.wait_for(|up| *up == wanted).await.is_err() {
            // The client has gone, which it does only with its runtime.
            std::future::pending::<()>().await;
        }
    }

    /// What is known of a server that does not answer.
    pub(crate) fn told(&self) -> String {
        let said = self.said.lock().clone();
        let said = said.map_or_else(String::new, |said| format!(" ({said})"));
        format!("no connection to NATS at {}{said}", self.servers)
    }

    /// The stream of the log, without asking the server.
    pub(crate) async fn log(&self) -> Result<jetstream::stream::Stream<()>, String> {
        self.jetstream.get_stream_no_info(&self.names.log_stream).await.map_err(|error| words(&error))
    }

    /// The stream behind the bucket, without asking the server.
    pub(crate) async fn bucket(&self) -> Result<jetstream::stream::Stream<()>, String> {
        let name = format!("KV_{}", self.names.bucket);
        self.jetstream.get_stream_no_info(name).await.map_err(|error| words(&error))
    }
}
