//! One row for each built-in worker: its section of `ringway.yaml`, how it starts, and what of it changes while it runs.
//! The order is that of their start; they end in the opposite one. It must not know what the workers do.

use std::fmt;
use std::sync::Arc;

use ringway_config::{Section, Settings};
use ringway_iii as iii;
use ringway_store::Store;
use ringway_worker_blob as blob;
use ringway_worker_configuration as configuration;
use ringway_worker_cron as cron;
use ringway_worker_http as http;
use ringway_worker_http_functions as http_functions;
use ringway_worker_pubsub as pubsub;
use ringway_worker_queue as queue;
use ringway_worker_state as state;
use ringway_worker_stream as stream;
use ringway_worker_stream_socket as stream_socket;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::browsers::Browsers;
use crate::links::{self, Linked};
use crate::workers::StartError;

/// iii's key for the choice of a store, which is the same for all workers here.
const III_ADAPTER: (&str, Option<&str>) = ("adapter", None);

/// The section of links to other hosts.
const LINKS: &str = "links";

pub(crate) fn rows() -> Vec<Row> {
    silent().into_iter().chain(listening()).collect()
}

/// Those that only workers reach.
fn silent() -> Vec<Row> {
    use configuration::{Config, Configuration};
    vec![
        Row::of::<Config, Configuration, _>("configuration", Configuration::start)
            .iii("configuration", &[III_ADAPTER, ("ttl_seconds", None)])
            .live(&["history_max", "value_bytes_max", "delivery_timeout_ms"], Configuration::reconfigure),
        Row::of::<blob::Config, blob::Blob, _>("blob", blob::Blob::start).fixed(),
        Row::of::<state::Config, state::State, _>("state", state::State::start)
            .iii(
                "iii-state",
                &[III_ADAPTER, ("max_value_bytes", Some("value_bytes_max")), ("save_interval_ms", None)],
            )
            .checked(state::Config::check)
            .fixed(),
        // The socket for browsers is a worker of its own.
        Row::of::<stream::Config, stream::Stream, _>("stream", stream::Stream::start)
            .iii(
                "iii-stream",
                &[
                    III_ADAPTER,
                    ("port", Some("stream-socket/port")),
                    ("host", Some("stream-socket/host")),
                    ("auth_function", Some("stream-socket/auth_function")),
                ],
            )
            .checked(stream::Config::check)
            .fixed(),
        Row::of::<queue::Config, queue::Queue, _>("queue", queue::Queue::start)
            .iii(
                "iii-queue",
                &[
                    III_ADAPTER,
                    ("queue_configs.*.max_priority", None),
                    ("queue_configs.*.priority_field", None),
                ],
            )
            .checked(queue::Config::check)
            .fixed(),
        Row::of::<cron::Config, cron::Cron, _>("cron", cron::Cron::start)
            .iii("iii-cron", &[III_ADAPTER])
            .checked(cron::Config::check)
            .fixed(),
        Row::of::<pubsub::Config, pubsub::PubSub, _>("pubsub", |address, _, config| {
            pubsub::PubSub::start(address, config)
        })
        .iii("iii-pubsub", &[III_ADAPTER])
        .fixed(),
        Row::of::<http_functions::Config, http_functions::HttpFunctions, _>(
            "http-functions",
            http_functions::HttpFunctions::start,
        )
        .iii("iii-http-functions", &[])
        .checked(http_functions::Config::check)
        .fixed(),
    ]
}

/// Those that listen where others than workers reach them. The last to start and the first to end: whoever connects finds
/// everything there.
fn listening() -> Vec<Row> {
    let mounts = http::Mounts::default();
    let mounted = mounts.clone();
    let start_http = move |address: &str, store, config| {
        http::Http::start_mounting(address, store, config, mounts.clone())
    };
    vec![
        Row::of::<http::Config, http::Http, _>("http", start_http)
            .iii(
                "iii-http",
                &[
                    ("default_timeout", Some("timeout_ms")),
                    ("concurrency_request_limit", Some("concurrency_max")),
                    ("cors.allowed_origins", Some("origins")),
                    ("cors.allowed_methods", Some("methods")),
                ],
            )
            .checked(http::Config::check)
            .fixed(),
        // After `http`, where it is mounted.
        Row::of::<stream_socket::Config, Browsers, _>("stream-socket", move |address, _, config| {
            Browsers::start(address, config, mounted.clone())
        })
        .checked(|config: &stream_socket::Config| config.check().map(drop))
        .fixed(),
        Row::of::<iii::Config, iii::Face, _>("iii", |address, _, config| iii::Face::start(address, config))
            .iii("iii-worker-manager", &[])
            .iii_further("listeners")
            .checked(iii::Config::check)
            .fixed(),
        // The only one that is not there by default.
        Row::of_settings::<links::Config, Linked, _>(LINKS, |address, settings, config| {
            Linked::start(address, settings, &config)
        })
        .at_top()
        .checked_parts(links::Config::faults)
        .told(Linked::words)
        .fixed(),
    ]
}

/// Says what of the files that the settings name cannot be used: nothing is started.
///
/// # Errors
/// The first that cannot.
pub fn check_files(settings: &Settings) -> Result<(), StartError> {
    let Some(config) = settings.worker::<links::Config>(LINKS) else { return Ok(()) };
    links::check(&config, settings)
        .map_err(|reason| StartError::Worker { name: LINKS, reason: Box::new(reason) })
}

/// The sections of all built-in workers, for reading `ringway.yaml`.
#[must_use]
pub fn sections() -> Vec<Section> {
    rows().into_iter().map(|row| row.section).collect()
}

/// The sections of those that only workers reach, for programs that bring an engine for themselves: with these, nothing
/// listens on the network.
#[must_use]
pub fn silent_sections() -> Vec<Section> {
    silent().into_iter().map(|row| row.section).collect()
}

type Start<W> = dyn Fn(&str, Arc<dyn Store>, &Settings) -> Result<Option<W>, StartError>;

/// A worker before it is started.
pub(crate) struct Row<W = Running> {
    pub(crate) section: Section,
    pub(crate) start: Box<Start<W>>,
}

/// A worker that runs. Dropping it ends it.
pub(crate) struct Running {
    /// Puts settings into force.
    apply: Box<dyn Fn(&Settings) + Send + Sync>,
    /// Where it is found, in words, as of its start.
    words: Vec<String>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Running {
    pub(crate) fn apply(&self, settings: &Settings) {
        (self.apply)(settings);
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }
}

/// A row whose worker still has its type.
pub(crate) struct Typed<C, W> {
    section: Section,
    name: &'static str,
    start: Box<Start<W>>,
    words: fn(&W) -> Vec<String>,
    settings: std::marker::PhantomData<fn() -> C>,
}

impl Row {
    /// A worker that reads settings of a type, and how it starts.
    fn of<C, W, E>(
        name: &'static str,
        start: impl Fn(&str, Arc<dyn Store>, C) -> Result<W, E> + 'static,
    ) -> Typed<C, W>
    where
        C: DeserializeOwned + Serialize + JsonSchema + Clone + Send + Sync + 'static,
        W: Send + Sync + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        Self::of_all(name, move |address, store, _, config| start(address, store, config))
    }

    /// The same for one that keeps nothing and is given all settings beside its own, since paths are relative to their file.
    fn of_settings<C, W, E>(
        name: &'static str,
        start: impl Fn(&str, &Settings, C) -> Result<W, E> + 'static,
    ) -> Typed<C, W>
    where
        C: DeserializeOwned + Serialize + JsonSchema + Clone + Send + Sync + 'static,
        W: Send + Sync + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        Self::of_all(name, move |address, _, settings, config| start(address, settings, config))
    }

    fn of_all<C, W, E>(
        name: &'static str,
        start: impl Fn(&str, Arc<dyn Store>, &Settings, C) -> Result<W, E> + 'static,
    ) -> Typed<C, W>
    where
        C: DeserializeOwned + Serialize + JsonSchema + Clone + Send + Sync + 'static,
        W: Send + Sync + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let start = move |address: &str, store: Arc<dyn Store>, settings: &Settings| {
            let Some(config) = settings.worker::<C>(name) else { return Ok(None) };
            let started = start(address, store, settings, config);
            started.map(Some).map_err(|reason| StartError::Worker { name, reason: Box::new(reason) })
        };
        let settings = std::marker::PhantomData;
        Typed {
            section: Section::of::<C>(name),
            name,
            start: Box::new(start),
            words: |_| Vec::new(),
            settings,
        }
    }
}

impl<C: Clone + Send + Sync + 'static, W: Send + Sync + 'static> Typed<C, W> {
    /// What iii calls it, and its keys that are called otherwise or mean nothing here.
    fn iii(mut self, name: &'static str, keys: &'static [(&'static str, Option<&'static str>)]) -> Self {
        self.section = self.section.iii(name, keys);
        self
    }

    /// Where further ones of that name are put, of which iii may have several.
    fn iii_further(mut self, key: &'static str) -> Self {
        self.section = self.section.iii_further(key);
        self
    }

    /// What the worker holds its settings against when it starts, so that a file is refused before anything is started.
    fn checked<E: fmt::Display + 'static>(mut self, check: fn(&C) -> Result<(), E>) -> Self {
        self.section = self.section.checked(check);
        self
    }

    /// The same for several parts, each with its place.
    fn checked_parts(mut self, check: fn(&C) -> Vec<(String, String)>) -> Self {
        self.section = self.section.checked_parts(check);
        self
    }

    /// Its section stands at the top of the file, and without it nothing runs.
    fn at_top(mut self) -> Self {
        self.section = self.section.at_top();
        self
    }

    /// What whoever starts it is told of where it is found.
    fn told(mut self, words: fn(&W) -> Vec<String>) -> Self {
        self.words = words;
        self
    }

    /// Nothing changes while it runs.
    fn fixed(self) -> Row {
        self.live(&[], |_, _| ())
    }

    /// Keys that it applies while it runs, and how. It is given all of its settings and takes those.
    fn live(self, keys: &'static [&'static str], reconfigure: impl Fn(&W, C) + Send + Sync + 'static) -> Row {
        let (name, start, words, reconfigure) = (self.name, self.start, self.words, Arc::new(reconfigure));
        let start = move |address: &str, store: Arc<dyn Store>, settings: &Settings| {
            let Some(worker) = start(address, store, settings)? else { return Ok(None) };
            let (words, reconfigure) = (words(&worker), Arc::clone(&reconfigure));
            let apply = move |settings: &Settings| {
                if let Some(config) = settings.worker::<C>(name) {
                    reconfigure(&worker, config);
                }
            };
            Ok(Some(Running { apply: Box::new(apply), words }))
        };
        Row { section: self.section.live(keys), start: Box::new(start) }
    }
}
