//! An engine with links, and workers that dial it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway::{Credentials, Worker};
use ringway_access::{Doorkeeper, Grant};
use ringway_engine::{Engine, Otlp};
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, Settings};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PATHS: [Path; 2] = [Path::Epoll, Path::Uring];

pub(crate) struct Stage {
    pub(crate) links: Links,
    pub(crate) engine: Engine,
}

impl Stage {
    pub(crate) fn open(path: Path, grant: Grant) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-links-{}-{number}", std::process::id());
        let engine = Engine::builder().address(address).otlp(Otlp::Off).start().unwrap();
        let settings = Settings {
            name: "home".to_owned(),
            listen: Some(([127, 0, 0, 1], 0).into()),
            doorkeeper: Arc::new(Doorkeeper::default().with_open_loopback(grant)),
            driver: DriverConfig { path, ..DriverConfig::default() },
            ..Settings::default()
        };
        let links = Links::start(engine.address(), settings).unwrap();
        Self { links, engine }
    }

    /// A worker of this host.
    pub(crate) fn local(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.engine.address()).connect().unwrap()
    }

    /// A worker that dials.
    pub(crate) fn remote(&self, name: &str) -> Worker {
        let address = format!("ringway://{}", self.links.address().unwrap());
        Worker::builder(name).address(address).credentials(Credentials::default()).connect().unwrap()
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
