//! The other processes of the cases: this executable started again with a hidden argument, as the floors do. A callee
//! attaches to the engine of the run, says `ready` on standard output, and leaves when its standard input ends, which
//! happens when the measuring process closes it or dies. It must not know what is measured.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ringway::{Function, Message, Sampler, WaitMode, Worker};

use crate::machine::pin_all_threads;
use crate::payload::{BYTES, COPIED, JSON, STREAM, TYPED, Text, Words, answer};
use crate::report::Wait;

/// How long a process may take to leave once it is told to.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a worker may take to attach where hundreds do at once.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a worker of the crowd waits for a function that it is asked about.
const SIGHT_TIME_MAX: Duration = Duration::from_secs(20);

/// What another process is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// Serves the functions of [`crate::payload`], waiting in this way, pinned to this processor or not at all.
    Serve { wait: Wait, cpu: Option<usize> },
    /// Attaches workers `first..first + workers`, each with so many functions, waiting in this way.
    Crowd { wait: Wait, first: usize, workers: usize, functions: usize },
}

impl Role {
    fn words(self) -> Vec<String> {
        match self {
            Self::Serve { wait, cpu } => {
                let cpu = cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
                vec!["serve".to_owned(), wait.name().to_owned(), cpu]
            }
            Self::Crowd { wait, first, workers, functions } => {
                let numbers = [first, workers, functions].map(|number| number.to_string());
                [vec!["crowd".to_owned(), wait.name().to_owned()], numbers.to_vec()].concat()
            }
        }
    }

    fn parse(words: &[&str]) -> Option<Self> {
        match words {
            ["serve", wait, cpu] => Some(Self::Serve {
                wait: wait_named(wait)?,
                cpu: if *cpu == "any" { None } else { Some(cpu.parse().ok()?) },
            }),
            ["crowd", wait, first, workers, functions] => Some(Self::Crowd {
                wait: wait_named(wait)?,
                first: first.parse().ok()?,
                workers: workers.parse().ok()?,
                functions: functions.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// Another process; told to leave when dropped, and ended if it does not.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts this executable again and returns when it is attached and has registered its functions.
    pub(crate) fn start(hidden: &[OsString], address: &str, role: Role) -> anyhow::Result<Self> {
        Self::launch(hidden, address, role)?.ready()
    }

    /// Starts it without waiting, so that many can start at once; see [`Process::ready`].
    pub(crate) fn launch(hidden: &[OsString], address: &str, role: Role) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(hidden).arg(address).args(role.words());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self { child: child.context("another process could not be started")? })
    }

    /// Waits until it is ready.
    pub(crate) fn ready(mut self) -> anyhow::Result<Self> {
        let output = self.child.stdout.as_mut().context("the process has no standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the other process did not start; it said {:?}", line.trim());
        }
        Ok(self)
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to leave, without waiting.
    pub(crate) fn dismiss(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.dismiss();
        let told = Instant::now();
        while told.elapsed() < LEAVE_TIME_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn wait_named(name: &str) -> Option<Wait> {
    Wait::ALL.iter().copied().find(|known| known.name() == name)
}

/// Returns how a worker waits in a case.
pub(crate) fn wait_mode(wait: Wait) -> WaitMode {
    match wait {
        Wait::Spin => WaitMode::Latency,
        Wait::Park => WaitMode::Efficient,
        Wait::Adaptive => WaitMode::Balanced,
    }
}

/// Runs another process of a case, given what follows the hidden argument: the engine's address and the role.
///
/// # Errors
/// When the words are no role, or the engine refuses the worker.
pub fn run_callee(arguments: &[OsString]) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let (address, role) = words.split_first().context("wanted the engine's address and a role")?;
    let workers = match Role::parse(role).with_context(|| format!("no such role: {role:?}"))? {
        Role::Serve { wait, cpu } => vec![serve(address, wait, cpu)?],
        Role::Crowd { wait, first, workers, functions } => {
            let attach = |worker| attach_one(address, wait, worker, functions);
            (first..first + workers).map(attach).collect::<anyhow::Result<_>>()?
        }
    };
    let mut output = std::io::stdout();
    output.write_all(b"ready\n")?;
    output.flush()?;
    // The end of input and any error mean the same: leave.
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
    workers.iter().for_each(Worker::shut_down);
    Ok(())
}

fn serve(address: &str, wait: Wait, cpu: Option<usize>) -> anyhow::Result<Worker> {
    let builder = Worker::builder("bench-callee").address(address).wait_mode(wait_mode(wait));
    let worker = builder.sampler(Sampler::never()).connect()?;
    worker.register_all(functions())?;
    if let Some(cpu) = cpu {
        pin_all_threads(cpu)?;
    }
    Ok(worker)
}

/// The functions of a callee. All but the stream run on the thread that reads the ring, as a short handler should.
fn functions() -> Vec<Function> {
    let typed = Function::typed::<Words, Words>(TYPED, |_, request| {
        Ok(Words::answer(request.words[0].to_native(), request.words[7].to_native()))
    });
    let json = Function::json(JSON, |_, request: Text| Ok(request));
    let bytes = Function::raw(BYTES, |_, request| Ok(Message::bytes(&answer(request.body()))));
    let copied = Function::raw(COPIED, |_, _| {
        Ok(Message::bytes(&ringway::payload_counters().copied_bytes.to_le_bytes()))
    });
    let stream = Function::stream(STREAM, |_, request, _, output| {
        let [items, bytes] = stream_request(request.body());
        let item = Message::bytes(&vec![0x5a; usize::try_from(bytes).unwrap_or(0)]);
        for _ in 0..items {
            output.send(item.clone())?;
        }
        Ok(Message::empty())
    });
    vec![typed.inline(), json.inline(), bytes.inline(), copied.inline(), stream]
}

/// Reads the request of a stream: items, and bytes of each.
fn stream_request(body: &[u8]) -> [u64; 2] {
    let mut numbers = body.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)]
}

/// Returns the id of a function of the crowd.
pub(crate) fn crowd_function(worker: usize, function: usize) -> String {
    format!("crowd{worker}::f{function}")
}

/// Returns the id of the function of a crowd's worker that tells when the worker saw another function: given an id, it
/// waits until that can be called there and returns the time, in nanoseconds of the monotonic clock.
pub(crate) fn crowd_sight(worker: usize) -> String {
    format!("crowd{worker}::sight")
}

fn attach_one(address: &str, wait: Wait, worker: usize, functions: usize) -> anyhow::Result<Worker> {
    let builder = Worker::builder(&format!("crowd-{worker}")).address(address);
    let builder = builder.wait_mode(wait_mode(wait)).sampler(Sampler::never());
    let attached = builder.attach_timeout(ATTACH_TIME_MAX).connect()?;
    let sight = Function::json(&crowd_sight(worker), |context, id: String| {
        context.worker().wait_for(&id, SIGHT_TIME_MAX)?;
        Ok(ringway_ipc::clock::now_ns())
    });
    let echo = |function| {
        let answering = |_: &_, request: &ringway::Request<'_>| Ok(Message::bytes(&answer(request.body())));
        Function::raw(&crowd_function(worker, function), answering).inline()
    };
    // The one that tells of sights is one of the number.
    let all = (1..functions).map(echo).chain([sight.pooled()]).collect();
    attached.register_all(all)?;
    Ok(attached)
}
