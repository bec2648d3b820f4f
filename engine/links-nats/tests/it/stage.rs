//! Engines, a NATS server, and how long to wait.
//!
//! [`Stage`] has the form of the one that tests of dialled links have: they are taken in as they are, and what they ask of a
//! remote worker is asked here of one at another engine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway::protocol::WorkerId;
use ringway::protocol::control::CatalogWorker;
use ringway::{Credentials, Worker};
use ringway_access::Grant;
use ringway_engine::Engine;
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, Settings};
use ringway_links_nats::{NatsLinks, NatsSettings};
use ringway_store_nats::testing::Server;

use crate::suite::{Fabric, Host};
pub(crate) use crate::suite::{PATIENCE, engine, until, wait_for};

pub(crate) const PATHS: [Path; 2] = [Path::Epoll, Path::Uring];

/// A project at a server.
pub(crate) struct OnNats {
    pub(crate) server: Server,
    pub(crate) project: String,
    pub(crate) idle_max: Duration,
}

/// What an engine has of it; the first ends first.
pub(crate) struct Joined {
    pub(crate) nats: NatsLinks,
    pub(crate) links: Links,
}

impl OnNats {
    pub(crate) fn start() -> Self {
        let (project, idle_max) = ("shop".to_owned(), NatsSettings::new("shop", "").idle_max);
        Self { server: Server::with("", "off"), project, idle_max }
    }

    pub(crate) fn join_project(&self, engine: &Engine, project: &str) -> Joined {
        join(engine, self.settings(project), Path::Probe)
    }

    /// What an engine is told that joins a project.
    pub(crate) fn settings(&self, project: &str) -> NatsSettings {
        let mut settings = NatsSettings::new(project, "host");
        settings.servers = vec![self.server.url()];
        settings.idle_max = self.idle_max;
        settings
    }
}

/// Has an engine join as it is told, by one of the ways to move bytes.
pub(crate) fn join(engine: &Engine, nats: NatsSettings, path: Path) -> Joined {
    let driver = DriverConfig { path, ..DriverConfig::default() };
    let settings = Settings { name: nats.name.clone(), driver, ..Settings::default() };
    let links = Links::start(engine.address(), settings).unwrap();
    Joined { nats: NatsLinks::start(&links, nats).unwrap(), links }
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

/// Two engines of one project: one with the local workers, one with the remote ones.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) links: Far,
    // In this order: each leaves before its engine, and both before the server.
    _near: Joined,
    _far: Joined,
    _server: OnNats,
}

/// The other engine.
pub(crate) struct Far {
    engine: Engine,
    /// Those of its workers that no test has started.
    own: Vec<WorkerId>,
}

impl Far {
    fn new(engine: Engine) -> Self {
        let mut far = Self { engine, own: Vec::new() };
        far.own = far.status().iter().map(|worker| worker.id).collect();
        far
    }

    /// The remote workers, who attach there.
    pub(crate) fn status(&self) -> Vec<CatalogWorker> {
        let watcher = Worker::builder("watcher").address(self.engine.address()).connect().unwrap();
        let is_remote = |worker: &CatalogWorker| {
            worker.id != watcher.id() && worker.remote.is_none() && !self.own.contains(&worker.id)
        };
        watcher.catalog().workers.into_iter().filter(is_remote).collect()
    }
}

impl Stage {
    pub(crate) fn open(path: Path, grant: Grant) -> Self {
        assert_eq!(grant, Grant::everything(), "what is granted less has tests of its own");
        let server = OnNats::start();
        let (engine, far) = (engine(), self::engine());
        let joined = [&engine, &far].map(|engine| join(engine, server.settings("shop"), path));
        let [near_joined, far_joined] = joined;
        Self { engine, links: Far::new(far), _near: near_joined, _far: far_joined, _server: server }
    }

    /// Both ways to move bytes.
    pub(crate) fn all(grant: &Grant) -> impl Iterator<Item = Self> {
        PATHS.into_iter().map(|path| Self::open(path, grant.clone()))
    }

    /// A worker of the first engine.
    pub(crate) fn local(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.engine.address()).connect().unwrap()
    }

    /// A worker of the other engine.
    pub(crate) fn remote(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.address()).connect().unwrap()
    }

    /// Where workers of the other engine attach.
    pub(crate) fn address(&self) -> String {
        self.links.engine.address().to_owned()
    }

    /// What they show: nothing is wanted.
    pub(crate) fn credentials(&self, _name: &str) -> Credentials {
        Credentials::default()
    }
}

/// Drops a flag's token when the test ends, even by a panic: threads that loop until then end.
pub(crate) struct Until<'a>(pub(crate) &'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
