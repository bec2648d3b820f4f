//! The worker `links`, which answers who is linked. It must not know how links are made.

use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;

use ringway::{CallError, Context, Failure, Function, Worker};
use ringway_links::{LinkStatus, Links};
use ringway_links_nats::{EngineStatus, NatsLinks, NatsStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What it is called.
const WORKER: &str = "links";

/// Nothing is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
struct Nothing {}

/// Which links there are.
#[derive(Debug, Serialize, JsonSchema)]
struct ListAnswer {
    /// Where this engine is dialled.
    #[schemars(with = "Option<String>")]
    address: Option<SocketAddr>,
    /// How bytes are moved: `io_uring` or `epoll`.
    path: &'static str,
    /// Why not by `io_uring`, where that was tried.
    why_not_io_uring: Option<String>,
    links: Vec<Listed>,
    /// Engines that are seen through a NATS server, where the settings have one.
    nats: Option<ListedNats>,
}

/// A NATS server and the engines behind it.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedNats {
    /// The servers that were named.
    servers: String,
    project: String,
    /// The one that it is connected to; null while there is no connection.
    server: Option<String>,
    /// Why there is no connection.
    why_not: Option<String>,
    engines: Vec<ListedEngine>,
}

/// An engine behind the server.
#[derive(Debug, Serialize, JsonSchema)]
struct ListedEngine {
    name: String,
    /// Its id.
    engine: String,
    /// Whether it is heard. Workers of one that is not cannot be called.
    heard: bool,
    /// Whether there is a link to it: the first call opens one, and it is closed when it was idle for a minute.
    linked: bool,
}

impl ListedNats {
    fn of(status: NatsStatus) -> Self {
        let NatsStatus { servers, project, server, why_not, engines } = status;
        let engines = engines.into_iter().map(|EngineStatus { id, name, silent, linked }| ListedEngine {
            name,
            engine: id.to_string(),
            heard: !silent,
            linked,
        });
        Self { servers, project, server, why_not, engines: engines.collect() }
    }
}

/// One link.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    /// What whoever is at its other end is called.
    name: String,
    /// Its id.
    worker: String,
    /// `worker`, or `engine` for one with its workers behind it.
    kind: &'static str,
    /// The other host, or `NATS`.
    host: String,
    /// The id of the token by which it was let in.
    token: Option<String>,
    /// When that ends, in seconds since 1970.
    expires_s: Option<u64>,
    /// The shortest round trip of late; 0 before the first.
    round_trip_ns: u64,
    /// What must be added to a time of this host's clock to have the other's.
    offset_ns: i64,
    frames_in: u64,
    frames_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Channels that it carries now.
    channels: u64,
    /// Frames whose payloads found no room here.
    refused: u64,
}

impl Listed {
    fn of(status: LinkStatus) -> Self {
        let LinkStatus { name, id, is_engine, host, token_id, expires_s, distance, stats, .. } = status;
        Self {
            name,
            worker: id.to_string(),
            kind: if is_engine { "engine" } else { "worker" },
            // Over NATS no host is known.
            host: if host.port() == 0 { "NATS".to_owned() } else { host.to_string() },
            token: token_id,
            expires_s,
            round_trip_ns: distance.round_trip_ns,
            offset_ns: distance.offset_ns,
            frames_in: stats.frames_in,
            frames_out: stats.frames_out,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            channels: stats.channels,
            refused: stats.refused,
        }
    }
}

/// The worker `links`.
#[derive(Debug)]
pub(super) struct Lister {
    worker: Worker,
}

impl Lister {
    pub(super) fn start(
        address: &str,
        links: Weak<Links>,
        nats: Option<Weak<NatsLinks>>,
    ) -> Result<Self, CallError> {
        let worker =
            Worker::builder(WORKER).address(address).description("the links of this engine").connect()?;
        let started = Self { worker };
        let list = move |_: &Context, _: Nothing| {
            let links =
                links.upgrade().ok_or_else(|| Failure::with_code("LEAVING", "the links are being closed"))?;
            Ok(ListAnswer {
                address: links.address(),
                path: links.path().as_str(),
                why_not_io_uring: links.why_not_uring().map(str::to_owned),
                links: links.status().into_iter().map(Listed::of).collect(),
                nats: nats.as_ref().and_then(Weak::upgrade).map(|nats| ListedNats::of(nats.status())),
            })
        };
        let list = Function::json("links::list", list);
        started.worker.register(list.description("Lists the links of this engine to other hosts"))?;
        Ok(started)
    }

    pub(super) fn end(&self) {
        self.worker.drain(Duration::from_secs(1));
        self.worker.shut_down();
    }
}
