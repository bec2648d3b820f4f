//! Engines, a NATS server, and how long to wait.

use ringway_engine::Engine;
use ringway_links::{Links, Settings};
use ringway_links_nats::{NatsLinks, NatsSettings};
use ringway_store_nats::testing::Server;

use crate::suite::{Fabric, Host};
pub(crate) use crate::suite::{engine, until};

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
