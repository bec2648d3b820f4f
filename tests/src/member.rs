//! Processes that play a part in a test: started, told things, listened to, killed. The program is `ringway-test-worker`;
//! both sides speak in lines over its standard input and output. It must not know the parts.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_ipc::clock::now_ns;

use crate::repository;

/// How long a line that must come may take. Machines that test are busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// A process of the test's own. It ends when this is dropped, or when the test does.
#[derive(Debug)]
pub struct Member {
    child: Child,
    input: Option<ChildStdin>,
    lines: Mutex<Receiver<String>>,
}

impl Member {
    /// Starts a part and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(words: &[&str]) -> Self {
        let member = Self::spawn(words, &[]);
        member.hear("ready");
        member
    }

    /// Starts a part with variables in its environment, without waiting for it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn spawn(words: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = repository::program("ringway-test-worker").expect("the test's own program is built");
        let mut command = Command::new(program);
        command.args(words).envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the test's own program starts");
        let input = child.stdin.take();
        let output = child.stdout.take().expect("its output is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let all = BufReader::new(output).lines().map_while(Result::ok);
            // Nobody may be listening any more; the pipe is read to its end all the same.
            all.for_each(|line| drop(sender.send(line)));
        });
        Self { child, input, lines: Mutex::new(lines) }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something. One that has died hears nothing.
    pub fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _dead = writeln!(input, "{line}");
        }
    }

    /// Waits for a line that begins with a word and returns what follows; skips all others.
    ///
    /// # Panics
    /// When it does not come.
    pub fn hear(&self, word: &str) -> String {
        self.hear_or_end(word)
            .unwrap_or_else(|| panic!("wanted `{word}` from process {}, which ended", self.pid()))
    }

    /// As [`Member::hear`]; none when the process has ended instead.
    ///
    /// # Panics
    /// When neither happens.
    pub fn hear_or_end(&self, word: &str) -> Option<String> {
        let lines = self.lines.lock();
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(word) {
                        return Some(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("process {} does not say `{word}`", self.pid()),
            }
        }
    }

    /// Tells it something and waits for the line that answers.
    pub fn ask(&mut self, line: &str, word: &str) -> String {
        self.say(line);
        self.hear(word)
    }

    /// Kills it with SIGKILL and returns when, in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn kill(&mut self) -> u64 {
        let at = now_ns();
        let _ended_already = self.child.kill();
        at
    }

    /// Kills it and waits until it is gone, and what it listened at with it.
    pub fn kill_and_wait(&mut self) {
        self.kill();
        let _not_ours_to_judge = self.child.wait();
    }

    /// Waits until it has ended and returns the lines that nobody has heard.
    pub fn rest(mut self) -> Vec<String> {
        let _not_ours_to_judge = self.child.wait();
        self.lines.lock().iter().collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        let _not_ours_to_judge = self.child.wait();
    }
}
