//! Engines, a NATS server, and how long to wait.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway_engine::{Engine, Otlp};
use ringway_links::{Links, Settings};
use ringway_links_nats::{NatsLinks, NatsSettings};
use ringway_store_nats::testing::Server;

use crate::suite::{Fabric, Host};

const PATIENCE: Duration = Duration::from_secs(30);

/// An engine alone.
pub(crate) fn engine() -> Engine {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = format!("@ringway-links-nats-{}-{number}", std::process::id());
    Engine::builder().address(address).otlp(Otlp::Off).start().unwrap()
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A project at a server.
pub(crate) struct OnNats {
    pub(crate) server: Server,
    pub(crate) project: String,
}

/// What an engine has of it; the first ends first.
pub(crate) struct Joined {
    _nats: NatsLinks,
    pub(crate) links: Links,
}

impl OnNats {
    pub(crate) fn start() -> Self {
        Self { server: Server::with("", "off"), project: "shop".to_owned() }
    }

    pub(crate) fn join_project(&self, engine: &Engine, project: &str) -> Joined {
        let settings = Settings { name: "host".to_owned(), ..Settings::default() };
        let links = Links::start(engine.address(), settings).unwrap();
        let mut settings = NatsSettings::new(project, "host");
        settings.servers = vec![self.server.url()];
        Joined { _nats: NatsLinks::start(&links, settings).unwrap(), links }
    }
}

impl Fabric for OnNats {
    type Joined = Joined;

    fn name(&self) -> String {
        "NATS".to_owned()
    }

    fn join(&self, engine: &Engine, _others: &[&Host<Joined>]) -> Joined {
        self.join_project(engine, &self.project)
    }

    fn cut_and_heal(&self, host: &mut Host<Joined>, before: Joined, seen: impl FnOnce()) {
        drop(before);
        seen();
        host.joined = Some(self.join_project(&host.engine, &self.project));
    }
}
