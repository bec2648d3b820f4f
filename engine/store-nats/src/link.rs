//! The connection to the server: made once, mended by the client for as long as the store is open. Says whether it is up,
//! and waits until it is. It must not know what is sent over it.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context, ContextBuilder};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::OpenError;
use crate::limits::{ANSWER, PAYLOAD_BYTES_MIN, SERVER_MIN, WINDOW};
use crate::names::Names;
use crate::options::{Identity, NatsOptions};

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
        let addresses = addresses(&options.servers)?;
        let servers = options.servers_told();
        let (tell, up) = watch::channel(true);
        let said = Arc::new(Mutex::new(None));
        let last = Arc::clone(&said);
        let identified = identified(options).await?.event_callback(move |event| {
            match event {
                Event::Connected => drop(tell.send_replace(true)),
                Event::Disconnected | Event::Closed => drop(tell.send_replace(false)),
                other => *last.lock() = Some(other.to_string()),
            }
            async {}
        });
        let client = secured(identified, options)
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

/// An error with what caused it, in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, OpenError> {
    if servers.is_empty() {
        let reason = "it names no server".to_owned();
        return Err(OpenError::Setting { what: "the list of servers".to_owned(), reason });
    }
    let address = |(number, server): (usize, &String)| {
        ServerAddr::from_str(server).map_err(|error| OpenError::Setting {
            what: format!("the address of server {}", number + 1),
            reason: format!("{}; wanted one like nats://HOST:4222", words(&error)),
        })
    };
    servers.iter().enumerate().map(address).collect()
}

async fn identified(options: &NatsOptions) -> Result<ConnectOptions, OpenError> {
    let connect = ConnectOptions::new();
    Ok(match &options.identity {
        Identity::Nobody => connect,
        Identity::Password { user, password } => connect.user_and_password(user.clone(), password.clone()),
        Identity::Token(token) => connect.token(token.clone()),
        Identity::Credentials(path) => {
            connect.credentials_file(path).await.map_err(|error| OpenError::Setting {
                what: format!("the credentials in {}", path.display()),
                reason: error.to_string(),
            })?
        }
    })
}

fn secured(mut connect: ConnectOptions, options: &NatsOptions) -> ConnectOptions {
    if options.tls.required {
        connect = connect.require_tls(true);
    }
    if let Some(roots) = &options.tls.roots {
        connect = connect.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &options.tls.own {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    connect
}
