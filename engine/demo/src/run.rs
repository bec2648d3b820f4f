//! The whole demo: an engine and its workers, a process each, all jobs, and what they cost. Used by
//! `ringway demo`. It must not know terminals: progress goes to standard error, the outcome is returned.

mod agents;
mod desk;
mod latency;
mod pipeline;
mod summary;
mod trace;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringway::{CallError, ErrorCode, Sampler, Worker};

pub use self::agents::{Comparison, Side};
pub use self::desk::{DeskLine, DeskReport};
pub use self::latency::Latency;
pub use self::summary::{PayloadLine, Summary, TracePicture};
pub use crate::processes::{Death, WorkerCommand};

use crate::corpus::{Corpus, CorpusBudget, CorpusError};
use crate::pipeline::files::FilesError;
use crate::pipeline::{FileList, FilesBudget};
use crate::processes::{Processes, tell};
use crate::researcher;
use crate::setup::Setup;
use crate::workers::{READ, RESEARCHER, stats_function};

/// Questions made up for a folder of the user's.
const QUESTIONS_MAX: usize = 3;
/// How long the engine may take to listen.
const ENGINE_TIME_MAX: Duration = Duration::from_secs(20);
/// Functions of the engine's built-in workers that a job needs.
const BUILT_IN: [&str; 4] = ["state::set", "queue::enqueue", "queue::configure", "cron::list"];
/// Documents looked at to make them up.
const DOCUMENTS_LOOKED_AT: usize = 200;

/// What to run.
#[derive(Debug, Clone, PartialEq)]
pub struct DemoOptions {
    /// How to start the workers.
    pub command: WorkerCommand,
    /// The user's folder; none means cargo's registry and the toolchain's libraries.
    pub input: Option<PathBuf>,
    /// The question to ask instead of the demo's own.
    pub question: Option<String>,
    /// Documents to take.
    pub documents: CorpusBudget,
    /// How long indexing may take.
    pub index_time_max: Duration,
    /// Files to take.
    pub files: FilesBudget,
    /// Length of a block of the pipeline; at least the longest chunk, 256 KiB.
    pub block_bytes: u64,
    /// How often each loop is timed over rings and over sockets; the median counts.
    pub repeats: usize,
    /// How long each latency is measured.
    pub latency_time: Duration,
    /// How often the engine or a worker is killed in the middle of the durable loop.
    pub kills: u32,
    /// Columns of the trace's picture.
    pub width: usize,
    /// Whether the trace's picture has colours.
    pub colour: bool,
}

impl DemoOptions {
    /// The demo as `cargo demo` runs it: under two minutes on two slow cores.
    #[must_use]
    pub fn new(command: WorkerCommand) -> Self {
        Self {
            command,
            input: None,
            question: None,
            documents: CorpusBudget::default(),
            index_time_max: Duration::from_secs(12),
            files: FilesBudget::default(),
            block_bytes: 16 << 20,
            repeats: 5,
            latency_time: Duration::from_millis(300),
            kills: 0,
            width: 120,
            colour: false,
        }
    }
}

/// Why a demo came to no end of its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The documents cannot be used.
    #[error(transparent)]
    Documents(#[from] CorpusError),
    /// The files cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The folder holds no question and none was asked.
    #[error("the documents in {folder} have no heading to ask about; ask a question of your own")]
    NoQuestion {
        /// The folder.
        folder: PathBuf,
    },
    /// A process did not start.
    #[error("a process of the demo could not be started: {0}")]
    Start(#[source] io::Error),
    /// A worker died that nobody replaces.
    #[error("worker {} (process {}) died during {during}: {}", death.part, death.pid, death.status)]
    Died {
        /// Who.
        death: Death,
        /// What was going on.
        during: &'static str,
    },
    /// A worker did not come up.
    #[error("{function} is not there after {waited_s} s")]
    Late {
        /// What was waited for.
        function: String,
        /// How long.
        waited_s: u64,
    },
    /// A call failed.
    #[error("{during} failed: {error}")]
    Call {
        /// What was going on.
        during: &'static str,
        /// How the call ended.
        error: CallError,
    },
    /// The floors could not be measured.
    #[error(transparent)]
    Floor(#[from] ringway_bench::floors::FloorError),
    /// The outcome is not what it must be.
    #[error("{during} went wrong: {what}")]
    Wrong {
        /// What was going on.
        during: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The engine's answer is no trace.
    #[error(transparent)]
    Trace(#[from] ringway_telemetry::waterfall::read::ReadError),
    /// The trace did not arrive.
    #[error("the trace of the agent loop did not arrive")]
    NoTrace,
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    /// What the program should exit with: 2 for input that cannot be used, 130 for an interruption, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Documents(_) | Self::Files(_) | Self::NoQuestion { .. } => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

/// A demo that runs.
struct Demo<'a> {
    options: &'a DemoOptions,
    setup: Setup,
    questions: Vec<String>,
    list: FileList,
    // Ended in this order: workers leave while their engine is still there.
    /// Calls that are timed; sockets trace nothing either.
    untraced: Worker,
    /// Calls whose trace is shown.
    worker: Worker,
    processes: Processes,
    /// What the engine keeps.
    _data: tempfile::TempDir,
}

/// Runs the demo. Blocks until it is over; every process it started is gone then, however it ends.
///
/// # Errors
/// [`DemoError`], with the worker that died where one did.
pub fn run(options: &DemoOptions) -> Result<Summary, DemoError> {
    let began = Instant::now();
    let questions = questions(options)?;
    let list = match &options.input {
        Some(folder) => FileList::folder(folder, options.files)?,
        None => FileList::toolchain(options.files)?,
    };
    let data = tempfile::Builder::new().prefix("ringway-demo-").tempdir().map_err(DemoError::Start)?;
    let setup = setup(options, data.path());
    let processes = Processes::start(&options.command, &setup).map_err(DemoError::Start)?;
    let worker = attach(&processes, &setup, "demo", Sampler::always())?;
    for part in setup.workers() {
        processes.add(part).map_err(DemoError::Start)?;
    }
    tell(&format!("an engine and {} workers, a process each", setup.workers().len()));
    let untraced = attach(&processes, &setup, "demo-untraced", Sampler::never())?;
    let demo = Demo { options, setup, questions, list, untraced, worker, processes, _data: data };
    demo.wait_for_workers()?;
    let (agents, comparison) = demo.answer_questions()?;
    let trace = demo.last_loop()?;
    let pipeline = demo.find_duplicates()?;
    let latency = demo.measure_latency()?;
    let desk = demo.answer_durably(&agents)?;
    let payload = demo.payload_lines()?;
    let mut summary = Summary {
        agents,
        comparison,
        desk,
        pipeline,
        latency,
        payload,
        trace,
        deaths: demo.processes.deaths(),
        elapsed_ns: 0,
    };
    drop(demo);
    summary.elapsed_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(summary)
}

/// Attaches to the engine as soon as it listens.
fn attach(processes: &Processes, setup: &Setup, name: &str, sampler: Sampler) -> Result<Worker, DemoError> {
    let during = "attaching";
    let until = Instant::now() + ENGINE_TIME_MAX;
    loop {
        // A fresh builder each time: connecting uses one up.
        let connected = Worker::builder(name).address(&setup.address).sampler(sampler).connect();
        match connected {
            Ok(worker) => return Ok(worker),
            Err(error) if error.code == ErrorCode::EngineUnavailable && Instant::now() < until => {
                ended(processes, during)?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(DemoError::Call { during, error }),
        }
    }
}

/// Says why the demo must end, if it must: the user wants it, or somebody died whom nobody replaces.
fn ended(processes: &Processes, during: &'static str) -> Result<(), DemoError> {
    if processes.is_interrupted() {
        return Err(DemoError::Interrupted);
    }
    match processes.deaths().into_iter().find(|death| !death.replaced) {
        Some(death) => Err(DemoError::Died { death, during }),
        None => Ok(()),
    }
}

fn setup(options: &DemoOptions, data: &Path) -> Setup {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // Two at least, so that one can die.
    let replicas = u32::try_from(cores).unwrap_or(2).clamp(2, 4);
    Setup {
        address: format!("@ringway-demo-{}-{:016x}", std::process::id(), random()),
        parent: std::process::id(),
        data: data.to_owned(),
        input: options.input.clone(),
        documents: options.documents,
        index_ms_max: u64::try_from(options.index_time_max.as_millis()).unwrap_or(u64::MAX),
        files: options.files,
        block_bytes: options.block_bytes.max(512 << 10),
        read_replicas: 2,
        digest_replicas: replicas,
    }
}

/// A number that nobody guesses. The standard library's hash keys come from the system's random source.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn questions(options: &DemoOptions) -> Result<Vec<String>, DemoError> {
    let Some(folder) = &options.input else {
        let asked = options.question.iter().cloned();
        let own = researcher::DEFAULT_QUESTIONS.map(str::to_owned);
        return Ok(if options.question.is_some() { asked.collect() } else { own.to_vec() });
    };
    // Looked at even with a question of the user's: a folder that cannot be used is best reported before anything starts.
    let corpus = Corpus::folder(folder, options.documents)?;
    if let Some(question) = &options.question {
        return Ok(vec![question.clone()]);
    }
    let documents = corpus.documents().iter().take(DOCUMENTS_LOOKED_AT);
    let texts: Vec<String> = documents.filter_map(|document| corpus.text(document.id).ok()).collect();
    let questions = researcher::questions_about(texts.iter().map(String::as_str), QUESTIONS_MAX);
    if questions.is_empty() { Err(DemoError::NoQuestion { folder: folder.clone() }) } else { Ok(questions) }
}

impl Demo<'_> {
    /// Waits until every part serves, or one of those that nobody replaces has died.
    fn wait_for_workers(&self) -> Result<(), DemoError> {
        let longest = self.options.index_time_max + Duration::from_secs(60);
        let began = Instant::now();
        let mut told = Instant::now();
        let own: Vec<String> = self.setup.workers().into_iter().map(stats_function).collect();
        loop {
            self.check("start-up")?;
            let catalog = self.worker.catalog();
            let dead = self.processes.deaths();
            let is_dead = |function: &str| {
                dead.iter().any(|death| function.strip_prefix("stats::") == Some(death.part.as_str()))
            };
            let serves = |function: &str| catalog.functions.iter().any(|known| known.id.as_str() == function);
            let missing = own.iter().find(|function| !serves(function) && !is_dead(function));
            let missing = missing.map(String::as_str).or_else(|| {
                // Replicas may have died, but not all of them.
                [READ, RESEARCHER].into_iter().chain(BUILT_IN).find(|function| !serves(function))
            });
            let Some(missing) = missing else { break };
            if began.elapsed() > longest {
                return Err(DemoError::Late {
                    function: missing.to_owned(),
                    waited_s: began.elapsed().as_secs(),
                });
            }
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                tell(&format!("waiting for {missing}"));
            }
            // Deaths of workers that never attached are no change of the catalog, so look again soon.
            let revision = catalog.revision;
            self.worker.wait_until(Duration::from_millis(200), |now| now.revision != revision);
        }
        self.wait_for_the_same_view()?;
        tell(&format!("all workers are ready after {:.1} s", began.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Waits until the worker that makes the timed calls knows all that the other knows: each hears of changes by itself.
    fn wait_for_the_same_view(&self) -> Result<(), DemoError> {
        let known = self.worker.catalog().functions;
        let longest = Duration::from_secs(10);
        for function in known {
            self.untraced.wait_for(&function.id, longest).or_else(|error| {
                // Whoever served it may have died meanwhile.
                let is_there = self.worker.catalog().functions.iter().any(|now| now.id == function.id);
                if is_there { Err(self.explain("start-up", error)) } else { Ok(()) }
            })?;
        }
        Ok(())
    }

    /// Ends the demo when it must end.
    fn check(&self, during: &'static str) -> Result<(), DemoError> {
        ended(&self.processes, during)
    }

    /// Turns a failed call into what is behind it: a death, an interruption, or the failure itself.
    fn explain(&self, during: &'static str, error: CallError) -> DemoError {
        // The channel tells of a death before the process can be waited for.
        let until = Instant::now() + Duration::from_millis(500);
        loop {
            if let Err(reason) = self.check(during) {
                return reason;
            }
            if Instant::now() >= until {
                return DemoError::Call { during, error };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
