//! The processes of the example: each is started with a file for what it says, ends when its standard input does, and is
//! waited for. So nothing is left, whichever way this program ends. It must not know what they do.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long what must happen may take. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(8);
/// Lines of what a process said that are shown when something goes wrong.
const LINES_SHOWN: usize = 12;

/// Everybody who was started, in order.
pub(crate) struct Cast {
    folder: tempfile::TempDir,
    members: Vec<Member>,
    interrupted: Arc<AtomicBool>,
}

struct Member {
    name: &'static str,
    child: Child,
}

impl Cast {
    /// Nobody yet. From here on Ctrl-C is noticed where something is waited for.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Pressed again, it ends this program at once; the others end with their standard input.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))?;
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self { folder: tempfile::tempdir()?, members: Vec::new(), interrupted })
    }

    /// A folder that goes with the cast.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a process, which must end when its standard input does.
    pub(crate) fn start(&mut self, name: &'static str, command: &mut Command) -> anyhow::Result<()> {
        let log = File::create(self.log(name))?;
        // In a group of its own: Ctrl-C is for this program, which ends the others in order.
        let command = command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let program = command.get_program().to_owned();
        let child = command
            .spawn()
            .with_context(|| format!("{name}: {} cannot be started", Path::new(&program).display()))?;
        self.members.push(Member { name, child });
        Ok(())
    }

    /// Starts a program that does not end with its standard input.
    pub(crate) fn start_kept(&mut self, name: &'static str, command: &Command) -> anyhow::Result<()> {
        let mut keeper = Command::new(std::env::current_exe()?);
        keeper.arg("keep").arg(command.get_program()).args(command.get_args());
        keeper.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            keeper.current_dir(folder);
        }
        self.start(name, &mut keeper)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Asks again and again until there is an answer.
    ///
    /// # Errors
    /// When it takes too long, Ctrl-C is pressed or a process ends meanwhile.
    pub(crate) fn until<T>(&mut self, what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ask() {
                return Ok(found);
            }
            if Instant::now() > end {
                bail!("waited {} s for {what}, in vain\n{}", PATIENCE.as_secs(), self.said_by_all());
            }
            self.rest(Duration::from_millis(20))?;
        }
    }

    /// Waits until Ctrl-C is pressed.
    ///
    /// # Errors
    /// When a process ends before.
    pub(crate) fn until_interrupted(&mut self) -> anyhow::Result<()> {
        while !self.interrupted.load(Ordering::SeqCst) {
            self.check()?;
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        self.check()?;
        thread::sleep(time);
        Ok(())
    }

    /// Whether everybody is still there.
    fn check(&mut self) -> anyhow::Result<()> {
        let ended = self
            .members
            .iter_mut()
            .find_map(|member| member.child.try_wait().ok().flatten().map(|status| (member.name, status)));
        match ended {
            None => Ok(()),
            Some((name, status)) => bail!("{name} ended: {status}\n{}", self.said_by(name)),
        }
    }

    fn said_by(&self, name: &str) -> String {
        let said = fs::read(self.log(name)).unwrap_or_default();
        let mut last = VecDeque::new();
        for line in String::from_utf8_lossy(&said).lines() {
            last.push_back(format!("  {name}: {line}\n"));
            if last.len() > LINES_SHOWN {
                last.pop_front();
            }
        }
        last.into_iter().collect()
    }

    fn said_by_all(&self) -> String {
        self.members.iter().map(|member| self.said_by(member.name)).collect()
    }
}

impl Drop for Cast {
    /// Ends everybody, who was started last first: workers have their engine until they are gone.
    fn drop(&mut self) {
        while let Some(mut member) = self.members.pop() {
            drop(member.child.stdin.take());
            let end = Instant::now() + GRACE;
            while Instant::now() < end && matches!(member.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(10));
            }
            // It has ended, or it must.
            let _ended = member.child.kill();
            let _status = member.child.wait();
        }
    }
}

/// Runs a program until standard input ends, then asks it to end as Ctrl-C would; if it ends by itself, so does this.
pub(crate) fn keep(words: &[OsString]) -> anyhow::Result<()> {
    let (program, words) = words.split_first().context("wanted a program to keep")?;
    let mut child = Command::new(program).args(words).stdin(Stdio::null()).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("it has no process id")?;
    thread::spawn(move || {
        let _end = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _gone_already = kill_process(pid, Signal::TERM);
        // It has its time to end in order, less than whoever started this has patience.
        thread::sleep(GRACE / 2);
        let _gone_already = kill_process(pid, Signal::KILL);
    });
    let status = child.wait()?;
    if status.success() { Ok(()) } else { bail!("{} ended: {status}", Path::new(program).display()) }
}
