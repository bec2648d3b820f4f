//! Links to other hosts as `ringway.yaml` wants them: reads the files that it names, starts the links, follows the list of
//! revoked tokens, and answers who is linked. It must not know what links carry.
//!
//! - `config`: what may stand in the file;
//! - `lister`: the worker that answers.

mod config;
mod lister;

use std::path::{Path as FilePath, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway::CallError;
use ringway_access::doorkeeper::CertificateIdentity;
use ringway_access::file::{FileError, read_public};
use ringway_access::key::KeyError;
use ringway_access::tls::{ClientCertificates, ServerTls, TlsError};
use ringway_access::token::{RevocationError, Revocations};
use ringway_access::{Credentials, credentials::CredentialsError, doorkeeper::ExposureError};
use ringway_access::{Doorkeeper, PublicKey, check_exposure};
use ringway_config::Settings;
use ringway_link::connection::Preparation;
use ringway_link::driver::{DriverConfig, Path};
use ringway_links::{Links, PeerSettings};
use ringway_links_nats::{NatsLinks, NatsSettings, check_project};

pub(crate) use config::Config;
use config::{Certificate, Issuer, Listen, Nats};
use lister::Lister;

use crate::nats;

/// How often the list of revoked tokens is read.
const REVOKED_EVERY: Duration = Duration::from_secs(2);

/// Why there are no links.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinksError {
    #[error("`links.tls`: {0}")]
    Tls(#[from] TlsError),
    #[error("`links.congestion`: {0}")]
    Congestion(#[source] std::io::Error),
    #[error("`links.{key}`: {source}")]
    File { key: &'static str, source: FileError },
    #[error("`links.issuers`: {}: {source}, in line {line}", path.display())]
    Issuer { path: PathBuf, line: usize, source: KeyError },
    #[error("`links.issuers`: wanted a public key in {}, found none", path.display())]
    NoIssuer { path: PathBuf },
    #[error("`links.revoked`: {0}")]
    Revoked(#[from] RevocationError),
    #[error("`links.peers`: {}: {source}", path.display())]
    Credentials { path: PathBuf, source: CredentialsError },
    #[error("`links.peers`: {}: {source}", path.display())]
    Exposed { path: PathBuf, source: ExposureError },
    #[error(transparent)]
    Start(#[from] ringway_links::StartError),
    #[error(transparent)]
    Worker(#[from] CallError),
    #[error("`links.nats`: {0}")]
    Nats(#[from] ringway_links_nats::StartError),
    #[error(
        "`links.nats`: the engine's project cannot be that of its links, `links.nats.project` names another: {0}"
    )]
    Project(ringway_links_nats::SettingsError),
    #[error("cannot follow the list of revoked tokens: {0}")]
    System(#[from] std::io::Error),
}

/// What the file says, with the files that it names.
struct Plan {
    settings: ringway_links::Settings,
    doorkeeper: Doorkeeper,
    revoked: Option<(PathBuf, Revocations)>,
    nats: Option<NatsSettings>,
}

/// Reads what the file names.
fn plan(config: &Config, settings: &Settings) -> Result<Plan, LinksError> {
    let connection = Preparation { congestion: config.congestion.clone() };
    connection.check().map_err(LinksError::Congestion)?;
    let beside = |path: &FilePath| settings.beside(path);
    let tls = config.tls.as_ref().map(|tls| {
        let authorities = tls.client_authorities.as_deref().map(|path| read_public(&beside(path)));
        let authorities = authorities.transpose().map_err(TlsError::from)?;
        let clients =
            authorities.as_deref().map_or(ClientCertificates::NotAsked, ClientCertificates::Optional);
        ServerTls::from_files(&beside(&tls.certificate), &beside(&tls.key), clients)
    });
    let mut doorkeeper = Doorkeeper::default();
    for issuer in &config.issuers {
        let keys = match issuer {
            Issuer::Key(key) => vec![*key],
            Issuer::File(path) => keys(&beside(path))?,
        };
        doorkeeper = keys.into_iter().fold(doorkeeper, Doorkeeper::with_issuer);
    }
    for Certificate { fingerprint, common_name, grant } in &config.certificates {
        let name = || CertificateIdentity::CommonName(common_name.clone().unwrap_or_default());
        let identity = fingerprint.map_or_else(name, CertificateIdentity::Fingerprint);
        doorkeeper = doorkeeper.with_certificate(identity, grant.grant());
    }
    if let Some(open) = &config.open {
        doorkeeper = doorkeeper.with_open_loopback(open.grant());
    }
    let revoked = match config.revoked.as_deref().map(beside) {
        Some(path) => {
            let read = Revocations::read(&path)?;
            Some((path, read))
        }
        None => None,
    };
    let now = revoked.iter().fold(doorkeeper.clone(), |now, (_, ids)| now.with_revocations(ids.clone()));
    let peers = config.peers.iter().map(|peer| {
        let credentials = peer.credentials.as_deref().map(beside);
        credentials.iter().try_for_each(|path| check_credentials(peer, path))?;
        let (address, offer, call) = (peer.address.clone(), peer.offer.clone(), peer.call.clone());
        Ok(PeerSettings { address, credentials, offer, call })
    });
    let name = config.name.clone().unwrap_or_else(host_name);
    let nats = config.nats.as_ref().map(|found| over_nats(found, &name, settings)).transpose()?;
    let settings = ringway_links::Settings {
        name,
        listen: config.listen.map(|Listen(address)| address),
        tls: tls.transpose()?,
        doorkeeper: Arc::new(now),
        connection,
        driver: driver(config),
        peers: peers.collect::<Result<_, LinksError>>()?,
        offer: config.offer.clone(),
    };
    Ok(Plan { settings, doorkeeper, revoked, nats })
}

/// What links over NATS are told. Files that the client reads later are looked at now.
fn over_nats(found: &Nats, name: &str, settings: &Settings) -> Result<NatsSettings, LinksError> {
    let access = found.access();
    let project = found.project.as_deref().unwrap_or_else(|| nats::project(settings));
    check_project(project).map_err(LinksError::Project)?;
    let tls = access.tls;
    let files = [
        ("nats.credentials", access.credentials),
        ("nats.tls.roots", tls.and_then(|tls| tls.roots.as_deref())),
        ("nats.tls.certificate", tls.and_then(|tls| tls.certificate.as_deref())),
        ("nats.tls.key", tls.and_then(|tls| tls.key.as_deref())),
    ];
    for (key, file) in files {
        let read = file.map(|file| read_public(&settings.beside(file)).map(drop)).transpose();
        read.map_err(|source| LinksError::File { key, source })?;
    }
    let mut over = NatsSettings::new(project, name);
    if let Some(servers) = access.servers {
        over.servers = servers.to_vec();
    }
    over.identity = nats::identity(settings, &access);
    over.tls = nats::tls(settings, &access);
    over.offer.clone_from(&found.offer);
    over.call.clone_from(&found.call);
    Ok(over)
}

/// What is shown to a peer must be readable, and enough for where it is.
fn check_credentials(peer: &config::Peer, path: &FilePath) -> Result<(), LinksError> {
    let read = Credentials::from_file(path);
    let read = read.map_err(|source| LinksError::Credentials { path: path.to_owned(), source })?;
    let enough = check_exposure(&peer.address, read.tls.is_some(), read.has_authentication());
    enough.map_err(|source| LinksError::Exposed { path: path.to_owned(), source })
}

/// The keys of a file: one on each line; what stands behind `#` is a comment.
fn keys(path: &FilePath) -> Result<Vec<PublicKey>, LinksError> {
    let text = read_public(path).map_err(|source| LinksError::File { key: "issuers", source })?;
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let key = line.parse();
        let wrong = |source| LinksError::Issuer { path: path.to_owned(), line: at + 1, source };
        keys.push(key.map_err(wrong)?);
    }
    if keys.is_empty() { Err(LinksError::NoIssuer { path: path.to_owned() }) } else { Ok(keys) }
}

fn driver(config: &Config) -> DriverConfig {
    let mut driver = DriverConfig {
        path: match config.path {
            config::Path::Probe => Path::Probe,
            config::Path::IoUring => Path::Uring,
            config::Path::Epoll => Path::Epoll,
        },
        ping_every: Duration::from_millis(config.ping_ms),
        silence_max: Duration::from_millis(config.silence_ms),
        ..DriverConfig::default()
    };
    if let Some(bytes) = config.memory_bytes {
        driver.arena.bytes_max = bytes;
        driver.arena.keep_bytes = driver.arena.keep_bytes.min(bytes);
    }
    driver
}

/// What this host is called.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "engine".to_owned() } else { name.to_owned() }
}

/// Says what of the files that the section names cannot be used.
pub(crate) fn check(config: &Config, settings: &Settings) -> Result<(), LinksError> {
    plan(config, settings).map(drop)
}

/// Links that run. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Linked {
    // Dropped in this order: who asks, who changes, what runs.
    lister: Lister,
    watch: Option<Watch>,
    nats: Option<Arc<NatsLinks>>,
    links: Arc<Links>,
}

impl Linked {
    pub(crate) fn start(address: &str, settings: &Settings, config: &Config) -> Result<Self, LinksError> {
        let Plan { settings, doorkeeper, revoked, nats } = plan(config, settings)?;
        let links = Arc::new(Links::start(address, settings)?);
        let nats = nats.map(|nats| NatsLinks::start(&links, nats)).transpose()?.map(Arc::new);
        let lister = Lister::start(address, Arc::downgrade(&links), nats.as_ref().map(Arc::downgrade))?;
        let watch = match revoked {
            Some((path, known)) => Some(Watch::start(path, known, doorkeeper, Arc::downgrade(&links))?),
            None => None,
        };
        Ok(Self { lister, watch, nats, links })
    }

    /// Where others find this engine, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let listens = self.links.address().map(|address| format!("others dial it at ringway://{address}"));
        let joined = self.nats.as_ref().map(|nats| nats.status()).map(|nats| match nats.server {
            Some(server) => {
                format!("it sees engines of project {} by NATS at {} ({server})", nats.project, nats.servers)
            }
            None => format!(
                "NATS at {} does not answer ({}); engines of project {} are seen once it does",
                nats.servers,
                nats.why_not.unwrap_or_else(|| "no connection".to_owned()),
                nats.project
            ),
        });
        listens.into_iter().chain(joined).collect()
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // Both may be asked by the links for as long as these last.
        self.lister.end();
        drop(self.watch.take());
    }
}

/// Follows the list of revoked tokens. Dropping it ends that.
#[derive(Debug)]
struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(
        path: PathBuf,
        mut known: Revocations,
        doorkeeper: Doorkeeper,
        links: Weak<Links>,
    ) -> Result<Self, LinksError> {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut failed = None;
        let look = move || {
            while stopped.recv_timeout(REVOKED_EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(links) = links.upgrade() else { return };
                match Revocations::read(&path) {
                    Ok(read) => {
                        if read != known {
                            let (path, tokens) = (path.display(), read.len());
                            tracing::info!(%path, tokens, "the list of revoked tokens has changed");
                        }
                        (known, failed) = (read, None);
                    }
                    // Those that were revoked stay so.
                    Err(error) => {
                        let text = error.to_string();
                        if failed.as_ref() != Some(&text) {
                            tracing::error!(%error, "the list of revoked tokens cannot be read; the last one stays in force");
                        }
                        failed = Some(text);
                    }
                }
                // Also where nothing has changed: somebody may have been greeted while it did.
                links.set_doorkeeper(doorkeeper.clone().with_revocations(known.clone()));
            }
        };
        let thread = std::thread::Builder::new().name("ringway-revoked".to_owned()).spawn(look)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows revoked tokens panicked");
        }
    }
}
