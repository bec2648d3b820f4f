//! What `ringway bench` measures, in groups: calls, payloads, streams, matrices, the catalog, idleness, what is durable,
//! many keys, many messages. Used by [`crate::run()`]. Here is what all groups share; it must not know how results are shown.

mod calls;
mod catalog;
mod durable;
mod idle;
mod keys;
mod matrix;
mod series;
mod stream;
mod waiting;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, anyhow};
use ringway::{Builder, Handle, Message, Sampler, Worker};
use ringway_config::Settings;
use ringway_engine::{Engine, Otlp};
use ringway_workers::{Workers, silent_sections};
use tempfile::TempDir;

use crate::callee::{Process, Role, wait_mode};
use crate::machine::{CpuPair, pin_current_thread};
use crate::payload::{COPIED, TYPED};
use crate::report::Wait;
use crate::stats::Clock;

pub(crate) use catalog::catalog;
pub(crate) use durable::durable;
pub(crate) use idle::idle;
pub(crate) use keys::keys;
pub(crate) use matrix::matrix;
pub(crate) use series::{Series, visit};
pub(crate) use stream::stream;
pub(crate) use waiting::waiting;

/// How long a function may take to show up.
const SIGHT_TIME_MAX: Duration = Duration::from_secs(20);

/// What every group needs.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    /// The engine of the run, in this process.
    pub(crate) engine: &'a Engine,
    /// What tells the time.
    pub(crate) clock: &'a Clock,
    /// Where the two sides are pinned.
    pub(crate) cpus: CpuPair,
    /// Rounds of each case; the median counts.
    pub(crate) rounds: usize,
    /// Length of one round of a case.
    pub(crate) run_time: Duration,
    /// Whether to be quick.
    pub(crate) quick: bool,
    /// Which cases are wanted: those with one of these in their names, or all.
    pub(crate) filters: &'a [String],
    /// What to put before a callee's own arguments when this executable is started again.
    pub(crate) hidden: Vec<OsString>,
    /// Told what is being measured.
    pub(crate) progress: fn(&str),
}

impl Bench<'_> {
    /// Says whether a case was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// Starts another process.
    pub(crate) fn start(&self, role: Role) -> anyhow::Result<Process> {
        Process::start(&self.hidden, self.engine.address(), role)
    }

    /// Starts settings of a worker of this process.
    pub(crate) fn builder(&self, name: &str, wait: Wait, sampler: Sampler) -> Builder {
        let builder = Worker::builder(name).address(self.engine.address());
        builder.wait_mode(wait_mode(wait)).sampler(sampler)
    }

    /// Runs `measured` with a caller of its own, on a thread of its own that is pinned after the worker has attached: a
    /// worker counts the processors it may use, and this one is to wait as in an unpinned program.
    pub(crate) fn with_caller<T: Send>(
        &self,
        wait: Wait,
        sampler: Sampler,
        cpu: Option<usize>,
        measured: impl FnOnce(&Worker) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let builder = self.builder("bench-caller", wait, sampler);
        let on_its_thread = || {
            let worker = builder.connect()?;
            worker.wait_for(TYPED, SIGHT_TIME_MAX)?;
            worker.handle(TYPED).bind()?;
            if let Some(cpu) = cpu {
                pin_current_thread(cpu)?;
            }
            let result = measured(&worker);
            worker.shut_down();
            result
        };
        std::thread::scope(|scope| scope.spawn(on_its_thread).join())
            .map_err(|_| anyhow!("a measuring thread panicked"))?
    }
}

/// An engine with its built-in workers and a store of its own, for what must begin empty.
struct Own {
    address: String,
    _workers: Workers,
    _engine: Engine,
    _folder: TempDir,
}

impl Own {
    fn start(name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = format!("@ringway-bench-{name}-{}", std::process::id());
        let engine = Engine::builder().address(&address).otlp(Otlp::Off).start()?;
        let settings = Settings::defaults(&silent_sections())?;
        let workers = Workers::start(&address, &folder.path().join("store"), &settings)?;
        Ok(Self { address, _workers: workers, _engine: engine, _folder: folder })
    }

    fn attach(&self, name: &str) -> anyhow::Result<Worker> {
        attach(&self.address, name)
    }
}

/// A worker that waits as `RINGWAY_WAIT` says, as the built-in workers of its engine do.
fn attach(address: &str, name: &str) -> anyhow::Result<Worker> {
    Ok(Worker::builder(name).address(address).sampler(Sampler::never()).connect()?)
}

/// Counts payload bytes that were copied, in this process and in the callee's.
struct Copies {
    callee: Handle,
}

impl Copies {
    fn of(worker: &Worker) -> Self {
        Self { callee: worker.handle(COPIED) }
    }

    fn read(&self) -> anyhow::Result<u64> {
        let reply = self.callee.call(&Message::empty())?;
        let theirs = reply.body().first_chunk().context("the callee's counter is no number")?;
        Ok(ringway::payload_counters().copied_bytes + u64::from_le_bytes(*theirs))
    }
}
