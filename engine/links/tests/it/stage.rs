//! An engine with links, and workers that dial it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway::{CallError, Credentials, Worker};
use ringway_access::issue::{Authority, ClientRequest};
use ringway_access::tls::{ClientCertificates, ServerTls};
use ringway_access::{Doorkeeper, Grant};
use ringway_engine::Engine;
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, Settings};

pub(crate) use crate::suite::{PATIENCE, engine, until};

pub(crate) const PATHS: [Path; 2] = [Path::Epoll, Path::Uring];

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct Stage {
    pub(crate) links: Links,
    pub(crate) engine: Engine,
    /// What remote workers show, if anything is wanted.
    pub(crate) secrets: Option<Secrets>,
}

/// Who signs, and what remote workers are granted.
pub(crate) struct Secrets {
    pub(crate) authority: Authority,
    pub(crate) grant: Grant,
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Secrets {
    pub(crate) fn new(grant: Grant) -> Self {
        Self { authority: Authority::new("links", now_s(), DAY).unwrap(), grant }
    }

    /// What a server of this authority listens with.
    pub(crate) fn tls(&self) -> ServerTls {
        let files = self.authority.server("home", &["127.0.0.1"], now_s(), DAY).unwrap();
        ServerTls::from_pem(&files.certificate, &files.key, ClientCertificates::NotAsked).unwrap()
    }

    pub(crate) fn request<'a>(&self, name: &'a str) -> ClientRequest<'a> {
        ClientRequest {
            name,
            grant: self.grant.clone(),
            address: None,
            server_name: Some("127.0.0.1"),
            pin: None,
            with_certificate: false,
            lifetime: DAY,
        }
    }

    pub(crate) fn credentials(&self, request: &ClientRequest<'_>) -> Credentials {
        Credentials::parse(&self.authority.client(request, now_s()).unwrap().credentials).unwrap()
    }
}

impl Stage {
    /// Whoever comes over loopback is granted this.
    pub(crate) fn open(path: Path, grant: Grant) -> Self {
        Self::with(path, Doorkeeper::default().with_open_loopback(grant), None)
    }

    /// Encrypted, and with a token that grants this.
    pub(crate) fn secured(path: Path, grant: Grant) -> Self {
        let secrets = Secrets::new(grant);
        let doorkeeper = Doorkeeper::default().with_issuer(secrets.authority.issuer().public());
        Self::with(path, doorkeeper, Some(secrets))
    }

    /// Both ways to move bytes, and one of them encrypted.
    pub(crate) fn all(grant: &Grant) -> impl Iterator<Item = Self> {
        let grant = grant.clone();
        (0..3).map(move |kind| match kind {
            0 => Self::open(Path::Epoll, grant.clone()),
            1 => Self::open(Path::Uring, grant.clone()),
            _ => Self::secured(Path::Epoll, grant.clone()),
        })
    }

    pub(crate) fn with(path: Path, doorkeeper: Doorkeeper, secrets: Option<Secrets>) -> Self {
        let engine = engine();
        let settings = Settings {
            name: "home".to_owned(),
            listen: Some(([127, 0, 0, 1], 0).into()),
            tls: secrets.as_ref().map(Secrets::tls),
            doorkeeper: Arc::new(doorkeeper),
            driver: DriverConfig { path, ..DriverConfig::default() },
            ..Settings::default()
        };
        let links = Links::start(engine.address(), settings).unwrap();
        Self { links, engine, secrets }
    }

    /// A worker of this host.
    pub(crate) fn local(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.engine.address()).connect().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        format!("ringway://{}", self.links.address().unwrap())
    }

    /// What a worker of this name shows.
    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let made = self.secrets.as_ref().map(|secrets| secrets.credentials(&secrets.request(name)));
        made.unwrap_or_default()
    }

    /// A worker that dials.
    pub(crate) fn remote(&self, name: &str) -> Worker {
        self.dial(name, self.credentials(name)).unwrap()
    }

    pub(crate) fn dial(&self, name: &str, credentials: Credentials) -> Result<Worker, CallError> {
        let builder = Worker::builder(name).address(self.address()).credentials(credentials);
        builder.attach_timeout(PATIENCE).connect()
    }
}

pub(crate) fn wait_for(worker: &Worker, function: &str) {
    worker.wait_for(function, PATIENCE).unwrap();
}

/// Drops a flag's token when the test ends, even by a panic: threads that loop until then end.
pub(crate) struct Until<'a>(pub(crate) &'a std::sync::atomic::AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
