//! The demo's processes: starts them, replaces them, hears of each death at once, and sees to it that none outlives the demo. Three
//! things end a worker: the end of its standard input, the signal that its parent's death sends, and being killed here.
//! Used by `run`. It must not know what the workers do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::setup::{Part, Setup};

/// How long workers may take to leave before they are killed.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);

/// How to start this executable again as a worker: the part's name and the setup follow these arguments, and go to
/// [`crate::workers::run_worker`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The executable.
    pub program: PathBuf,
    /// What stands before the part's name.
    pub arguments: Vec<OsString>,
}

impl WorkerCommand {
    /// This executable, with a hidden argument.
    ///
    /// # Errors
    /// When the system cannot say what this executable is.
    pub fn current(hidden: &str) -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec![hidden.into()] })
    }
}

/// A worker that ended before it was told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Death {
    /// Its part.
    pub part: String,
    /// Its process.
    pub pid: u32,
    /// How it ended.
    pub status: String,
    /// Whether other processes go on with its work.
    pub replaced: bool,
}

struct Process {
    part: Part,
    child: Child,
    pidfd: OwnedFd,
    ended: bool,
}

impl Process {
    fn start(command: &WorkerCommand, part: Part, setup: &Setup) -> io::Result<Self> {
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .args(setup.arguments(part)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = pid.ok_or(rustix::io::Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match opened {
            Ok(pidfd) => Ok(Self { part, child, pidfd, ended: false }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }
}

#[derive(Default)]
struct Shared {
    processes: Mutex<Vec<Process>>,
    deaths: Mutex<Vec<Death>>,
    leaving: AtomicBool,
    interrupted: AtomicBool,
}

impl Shared {
    /// Notes which processes have ended; returns whether any is left.
    fn look(&self) -> bool {
        let mut left = false;
        for process in self.processes.lock().iter_mut().filter(|process| !process.ended) {
            let Ok(Some(status)) = process.child.try_wait() else {
                left = true;
                continue;
            };
            process.ended = true;
            if !self.leaving.load(Ordering::Acquire) {
                self.note_death(process, status);
            }
        }
        left
    }

    fn note_death(&self, process: &Process, status: ExitStatus) {
        let death = Death {
            part: process.part.to_string(),
            pid: process.child.id(),
            status: status.to_string(),
            replaced: process.part.has_replicas(),
        };
        tell(&format!("worker {} (process {}) died: {}", death.part, death.pid, death.status));
        self.deaths.lock().push(death);
    }

    /// Kills those that have not ended. The descriptors name them, so no other process can be hit.
    fn kill(&self) {
        for process in self.processes.lock().iter().filter(|process| !process.ended) {
            // It may have ended this moment.
            let _ended = pidfd_send_signal(&process.pidfd, Signal::KILL);
        }
    }

    /// Sleeps until a process ends, or a while.
    fn wait(&self, longest: Duration) {
        let pidfds: Vec<OwnedFd> = {
            let processes = self.processes.lock();
            let running = processes.iter().filter(|process| !process.ended);
            running.filter_map(|process| process.pidfd.try_clone().ok()).collect()
        };
        let mut polled: Vec<PollFd<'_>> =
            pidfds.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        // An interruption only means to look earlier.
        let _ready = poll(&mut polled, Timespec::try_from(longest).ok().as_ref());
    }
}

/// Says something to whoever watches the demo; the result alone goes to standard output.
pub(crate) fn tell(line: &str) {
    // Nobody may be listening any more.
    let _unheard = writeln!(io::stderr(), "demo: {line}");
}

/// The processes of a demo. Dropping it ends them.
pub(crate) struct Processes {
    command: WorkerCommand,
    setup: Setup,
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
    signals: Handle,
}

impl Processes {
    /// Starts the engine's process. The calling thread must outlive all of them, for its end counts as their parent's.
    pub(crate) fn start(command: &WorkerCommand, setup: &Setup) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let mut processes = Self {
            command: command.clone(),
            setup: setup.clone(),
            shared: Arc::clone(&shared),
            watcher: None,
            signals: signals.handle(),
        };
        let on_signal = Arc::clone(&shared);
        std::thread::Builder::new().name("demo-signals".to_owned()).spawn(move || {
            for _ in signals.forever() {
                on_signal.interrupted.store(true, Ordering::Release);
                on_signal.leaving.store(true, Ordering::Release);
                on_signal.kill();
            }
        })?;
        processes.add(Part::Engine)?;
        let watching = Arc::clone(&shared);
        let watch = move || {
            while watching.look() && !watching.leaving.load(Ordering::Acquire) {
                watching.wait(Duration::from_millis(500));
            }
        };
        processes.watcher = Some(std::thread::Builder::new().name("demo-watcher".to_owned()).spawn(watch)?);
        Ok(processes)
    }

    /// Starts the process of a part.
    pub(crate) fn add(&self, part: Part) -> io::Result<()> {
        let mut processes = self.shared.processes.lock();
        if !self.is_interrupted() {
            processes.push(Process::start(&self.command, part, &self.setup)?);
        }
        Ok(())
    }

    /// Kills the process of a part with SIGKILL, on purpose, and starts another in its place.
    pub(crate) fn replace(&self, part: Part) -> io::Result<()> {
        let mut processes = self.shared.processes.lock();
        let running = processes.iter_mut().filter(|process| process.part == part && !process.ended);
        for process in running {
            process.child.kill()?;
            process.child.wait()?;
            process.ended = true;
        }
        drop(processes);
        self.add(part)
    }

    /// Whether the user asked for an end.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::Acquire)
    }

    /// Who died so far.
    pub(crate) fn deaths(&self) -> Vec<Death> {
        self.shared.look();
        self.shared.deaths.lock().clone()
    }

    /// The parts that run.
    pub(crate) fn running(&self) -> Vec<(Part, u32)> {
        self.shared.look();
        let processes = self.shared.processes.lock();
        let running = processes.iter().filter(|process| !process.ended);
        running.map(|process| (process.part, process.child.id())).collect()
    }

    /// Has those parts leave, and gives them a while.
    fn dismiss(&self, whom: impl Fn(Part) -> bool) {
        let left = |process: &Process| whom(process.part) && !process.ended;
        for process in self.shared.processes.lock().iter_mut().filter(|process| left(process)) {
            // The end of its input is what a process leaves on.
            drop(process.child.stdin.take());
        }
        let until = Instant::now() + LEAVE_TIME_MAX;
        let is_there = || self.shared.processes.lock().iter().any(left);
        while self.shared.look() && is_there() && Instant::now() < until {
            self.shared.wait(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        }
    }

    fn end(&mut self) {
        self.shared.leaving.store(true, Ordering::Release);
        // Workers leave while their engine is still there.
        self.dismiss(|part| part != Part::Engine);
        self.dismiss(|_| true);
        self.shared.kill();
        while self.shared.look() {
            self.shared.wait(Duration::from_millis(100));
        }
        if let Some(watcher) = self.watcher.take()
            && watcher.join().is_err()
        {
            tell("the thread that watched the workers panicked");
        }
        self.signals.close();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end();
    }
}
