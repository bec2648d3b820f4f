//! The demo's workers: each is a process that attaches to the demo's engine, serves the functions of one part, and leaves
//! when its standard input ends, which is when the process that started it closes it or dies. Used by whoever starts
//! a demo, through a hidden argument. It must not know how the parts are started or what they are for together.

mod agents;
mod desk;
mod docs;
mod engine;
mod pipeline;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway::{CallError, Failure, Function, HandlerResult, Message, Worker, payload_counters};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::calls::{Calls, RingCalls, json_message, parse};
use crate::corpus::CorpusError;
use crate::pipeline::digest::DigestError;
use crate::pipeline::files::FilesError;
use crate::search::SearchError;
use crate::setup::{Part, Setup, UnknownPart};
use crate::socket;

/// What the part `floor` is called in the hidden arguments: the other process of a floor, and no worker.
pub(crate) const FLOOR: &str = "floor";
/// How long a call may take that names no time itself. The longest is the whole pipeline's.
const CALL_TIME_MAX: Duration = Duration::from_secs(100);

/// Why a worker could not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The hidden arguments are not those of a worker.
    #[error("wanted a part of the demo and its setup, found {found:?}")]
    Arguments {
        /// What was found.
        found: Vec<OsString>,
    },
    /// No such part.
    #[error(transparent)]
    Part(#[from] UnknownPart),
    /// The setup cannot be read.
    #[error("the setup does not fit: {0}")]
    Setup(#[from] serde_json::Error),
    /// It could not attach or register.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There are no documents.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// They could not be indexed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// There are no files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// There is no compressor.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A floor could not be measured.
    #[error(transparent)]
    Floor(#[from] ringway_bench::floors::FloorError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] ringway_engine::StartError),
    /// A built-in worker of the engine did not start.
    #[error(transparent)]
    BuiltIn(#[from] ringway_workers::StartError),
    /// The settings of the built-in workers do not fit.
    #[error("{0}")]
    Settings(String),
    /// The system refused something.
    #[error("the worker could not be set up: {0}")]
    System(#[from] io::Error),
}

/// What a worker has done, asked with `stats::` and its part's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Calls it worked on.
    pub calls: u64,
    /// Bytes it looked at.
    pub bytes: u64,
    /// Time spent working, without waiting for others, in nanoseconds.
    pub busy_ns: u64,
    /// Payload bytes that it passed on by reference.
    pub lent_bytes: u64,
    /// Payload bytes that had to be copied to be passed on.
    pub copied_bytes: u64,
}

/// Returns the function that tells what a part has done.
#[must_use]
pub fn stats_function(part: Part) -> String {
    format!("stats::{part}")
}

/// Runs a worker to its end, given what follows the hidden argument: the part's name and the setup.
///
/// # Errors
/// [`WorkerError`] when it cannot do its part.
pub fn run_worker(arguments: &[OsString]) -> Result<(), WorkerError> {
    if let [first, floor @ ..] = arguments
        && first == FLOOR
    {
        return Ok(ringway_bench::floors::run_floor_child(floor)?);
    }
    let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let &[part, setup] = words.as_slice() else {
        return Err(WorkerError::Arguments { found: arguments.to_vec() });
    };
    serve(part.parse()?, &serde_json::from_str(setup)?)
}

fn serve(part: Part, setup: &Setup) -> Result<(), WorkerError> {
    if part == Part::Engine {
        return engine::serve(setup);
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(setup.parent) {
        // It died before the signal was asked for.
        return Ok(());
    }
    // A process may have a subscriber already; then its events go there.
    let _installed = tracing_subscriber::registry().with(ringway::layer()).try_init();
    let worker = Worker::builder(&format!("demo-{part}"))
        .address(&setup.address)
        .default_timeout(Some(CALL_TIME_MAX))
        .description(describe(part))
        .connect()?;
    let mut service = Service::default();
    match part {
        Part::Engine => {}
        Part::Search => docs::search(&mut service, setup)?,
        Part::Read(_) => docs::read(&mut service, setup)?,
        Part::Summarize => agents::summarize(&mut service),
        Part::Researcher => agents::researcher(&mut service, setup),
        Part::Critic => agents::critic(&mut service, setup),
        Part::Desk => desk::desk(&mut service),
        Part::Files => pipeline::files(&mut service, setup)?,
        Part::Cut => pipeline::cut(&mut service, setup),
        Part::Digest(_) => pipeline::digest(&mut service)?,
        Part::Ledger => pipeline::ledger(&mut service),
    }
    service.start(part, setup, &worker)?;
    wait_for_end_of_input()?;
    worker.shut_down();
    Ok(())
}

/// Sleeps until the process that holds the other end of standard input closes it.
fn wait_for_end_of_input() -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

fn describe(part: Part) -> &'static str {
    match part {
        Part::Engine => "routes, and keeps what it acknowledges",
        Part::Search => "indexes documents and finds them",
        Part::Read(_) => "reads documents",
        Part::Summarize => "ranks sentences",
        Part::Researcher => "answers questions",
        Part::Critic => "judges answers by their sources",
        Part::Desk => "takes questions in and counts answers",
        Part::Files => "reads files into loans",
        Part::Cut => "cuts blocks at content-defined boundaries",
        Part::Digest(_) => "hashes and compresses chunks",
        Part::Ledger => "accounts for chunks",
    }
}

/// Counts a worker's own work.
#[derive(Debug, Default)]
pub(crate) struct Work {
    calls: AtomicU64,
    bytes: AtomicU64,
    busy_ns: AtomicU64,
}

impl Work {
    /// Counts one call that looked at `bytes` since `began`.
    pub(crate) fn did(&self, began: Instant, bytes: u64) {
        let busy_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.busy_ns.fetch_add(busy_ns, Ordering::Relaxed);
    }

    fn stats(&self) -> Stats {
        let payload = payload_counters();
        Stats {
            calls: self.calls.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            busy_ns: self.busy_ns.load(Ordering::Relaxed),
            lent_bytes: payload.lent_bytes,
            copied_bytes: payload.copied_bytes,
        }
    }
}

/// What a worker serves.
#[derive(Default)]
pub(crate) struct Service {
    functions: Vec<Function>,
    over_socket: HashMap<String, socket::Handler>,
    /// How handlers that were called over a socket make their own calls.
    calls: Arc<socket::SocketCalls>,
    work: Arc<Work>,
}

impl Service {
    /// Serves a function of JSON over the rings and over a socket alike.
    pub(crate) fn both<Request, Reply>(
        &mut self,
        id: &str,
        description: &str,
        handler: impl Fn(&dyn Calls, Request) -> HandlerResult<Reply> + Send + Sync + 'static,
    ) where
        Request: DeserializeOwned + JsonSchema + 'static,
        Reply: Serialize + JsonSchema + 'static,
    {
        let handler = Arc::new(handler);
        let (calls, over_socket) = (Arc::clone(&self.calls), Arc::clone(&handler));
        self.function::<Request, Reply>(id, description, move |worker, request| {
            handler(&RingCalls::new(worker), request)
        });
        self.over_socket.insert(
            id.to_owned(),
            Box::new(move |request, reply| {
                Ok(serde_json::to_writer(reply, &over_socket(&*calls, parse(request)?)?)?)
            }),
        );
    }

    /// Serves a function of JSON over the rings. Repeating a call must do no harm.
    pub(crate) fn function<Request, Reply>(
        &mut self,
        id: &str,
        description: &str,
        handler: impl Fn(&Worker, Request) -> HandlerResult<Reply> + Send + Sync + 'static,
    ) where
        Request: DeserializeOwned + JsonSchema + 'static,
        Reply: Serialize + JsonSchema + 'static,
    {
        let function = Function::raw(id, move |context, request| {
            let body = if request.body().is_empty() { b"null" } else { request.body() };
            let reply = handler(context.worker(), parse(body)?)?;
            Ok(json_message(context.worker(), &reply)?)
        });
        let schema = |schema: schemars::Schema| Some(schema.to_value());
        self.push(
            function
                .description(description)
                .schema(schema(schemars::schema_for!(Request)), schema(schemars::schema_for!(Reply)))
                .idempotent(),
        );
    }

    /// Serves any function over the rings.
    pub(crate) fn push(&mut self, function: Function) {
        self.functions.push(function);
    }

    /// The counters to count work with.
    pub(crate) fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }

    /// Says where handlers that were called over a socket find what they call.
    pub(crate) fn calls_over_socket(&mut self, servers: HashMap<String, Vec<String>>) {
        self.calls = Arc::new(socket::SocketCalls::new(servers));
    }

    fn start(mut self, part: Part, setup: &Setup, worker: &Worker) -> Result<(), WorkerError> {
        let work = self.work();
        self.function::<(), Stats>(&stats_function(part), "what this worker has done", move |_, ()| {
            Ok(work.stats())
        });
        if !self.over_socket.is_empty() {
            socket::serve(&setup.socket_name(part), self.over_socket)?;
        }
        Ok(worker.register_all(self.functions)?)
    }
}

/// Says where each function is served over sockets.
#[must_use]
pub(crate) fn socket_servers(setup: &Setup) -> HashMap<String, Vec<String>> {
    let at = |part: Part| vec![setup.socket_name(part)];
    let readers = (1..=setup.read_replicas).map(|number| setup.socket_name(Part::Read(number))).collect();
    HashMap::from([
        (docs::PING.to_owned(), at(Part::Search)),
        (docs::SEARCH.to_owned(), at(Part::Search)),
        (docs::READ.to_owned(), readers),
        (agents::SUMMARIZE.to_owned(), at(Part::Summarize)),
        (agents::RESEARCHER.to_owned(), at(Part::Researcher)),
        (agents::CRITIC.to_owned(), at(Part::Critic)),
    ])
}

/// Returns the attachment that a block travels as.
pub(crate) fn only_attachment(attachments: &[ringway::Attachment]) -> HandlerResult<&ringway::Payload> {
    match attachments {
        [block] => Ok(block.payload()),
        _ => Err(Failure::invalid(format!("wanted one attachment, found {}", attachments.len()))),
    }
}

/// Replies nothing but that it is done.
pub(crate) fn done() -> Message {
    Message::empty()
}

pub(crate) use agents::RESEARCHER;
pub(crate) use desk::{ACCEPT, TICK};
pub(crate) use docs::{PING, PING_BYTES, READ, REPORT};
pub(crate) use pipeline::{Progress, READ_ALL, REPORT_LEDGER};
