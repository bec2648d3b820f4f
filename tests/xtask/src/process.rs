//! Runs one command to its end: passes its output on line by line, remembers the lines in which test runners sum
//! up, and ends the command with all its children when its time is over. Used by every verb. It must not know what
//! the commands are for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long the readers may go on after the command has ended, for the sake of a grandchild that kept its output.
const LEFTOVER_OUTPUT: Duration = Duration::from_secs(3);
/// How long a command gets between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(10);
/// Lines of a command's output that are kept, to be shown again if it fails.
const LAST_LINES: usize = 200;

/// A command to run, with what it needs around it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
    limit: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Passed,
    Failed(String),
}

/// What came of a command.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) summaries: Vec<String>,
    /// The last lines that it printed.
    pub(crate) last: Vec<String>,
}

impl Job {
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            limit: Duration::from_secs(30 * 60),
        }
    }

    /// Runs the very cargo that runs us.
    pub(crate) fn cargo() -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn args<I, A>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<OsString>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command as a person would type it.
    pub(crate) fn line(&self) -> String {
        let mut words: Vec<String> =
            self.env.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let program = PathBuf::from(&self.program);
        let name = program.file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        words.push(name);
        words.extend(self.args.iter().map(|arg| quoted(&arg.to_string_lossy())));
        words.join(" ")
    }

    /// The same command for the standard library, with the environment that cargo made for *this* program taken out.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name == "CARGO_BIN_NAME"
            {
                command.env_remove(&*name);
            }
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Runs the command without showing it; true if it ended well.
    pub(crate) fn succeeds(&self) -> bool {
        let status = self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// Runs the command, shows its output as it comes, and ends it when its time is over.
    pub(crate) fn run(&self) -> Outcome {
        let started = Instant::now();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let reason = format!("could not start {}: {error}", self.program.to_string_lossy());
                return Outcome { end: End::Failed(reason), summaries: Vec::new(), last: Vec::new() };
            }
        };
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (alive, ended) = mpsc::channel::<()>();
        if let Some(out) = child.stdout.take() {
            pass_on(out, Arc::clone(&heard), alive.clone(), io::stdout());
        }
        if let Some(err) = child.stderr.take() {
            pass_on(err, Arc::clone(&heard), alive.clone(), io::stderr());
        }
        drop(alive);
        let end = self.wait(&mut child, started);
        // Both readers drop their end when the output is over; nothing is ever sent.
        let _over = ended.recv_timeout(LEFTOVER_OUTPUT);
        let heard = std::mem::take(&mut *lock(&heard));
        Outcome { end, summaries: told_once(heard.summaries), last: heard.last.into() }
    }

    fn wait(&self, child: &mut Child, started: Instant) -> End {
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return End::Passed,
                Ok(Some(status)) => return End::Failed(ended(status)),
                Ok(None) if started.elapsed() > self.limit => {
                    end_with_children(child);
                    return End::Failed(format!("ended after its {} s were over", self.limit.as_secs()));
                }
                Ok(None) => thread::sleep(Duration::from_millis(50)),
                Err(error) => return End::Failed(format!("could not wait for it: {error}")),
            }
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_=./:,+@%".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn ended(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

/// What was heard of a command's output.
#[derive(Debug, Default)]
struct Heard {
    summaries: Vec<String>,
    last: VecDeque<String>,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        let line = without_colour(line.trim_end());
        self.summaries.extend(summary(&line));
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies `from` to `to` line by line on a thread of its own, and keeps what is worth keeping. `_alive` is dropped at the
/// end of the output.
fn pass_on(
    from: impl Read + Send + 'static,
    heard: Arc<Mutex<Heard>>,
    alive: mpsc::Sender<()>,
    mut to: impl Write + Send + 'static,
) {
    thread::spawn(move || {
        let _alive = alive;
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // A closed terminal ends our output, not the check.
            drop(to.write_all(&line).and_then(|()| to.flush()));
            lock(&heard).hear(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
}

/// Nextest shows what libtest says about each test, where output is shown at all; its own line then says it for all.
fn told_once(mut lines: Vec<String>) -> Vec<String> {
    if lines.iter().any(|line| line.starts_with("Summary [")) {
        lines.retain(|line| !line.starts_with("test result:"));
    }
    lines
}

/// The line, which has no colours, if it is one in which a runner sums up: nextest's, libtest's,
/// libFuzzer's, or a check's own `summary:`.
fn summary(line: &str) -> Option<String> {
    let plain = line.trim();
    let fuzzed = plain.starts_with("stat::number_of_executed_units:");
    let sums_up =
        fuzzed || ["Summary [", "test result:", "summary:"].iter().any(|start| plain.starts_with(start));
    let empty = plain.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored");
    (sums_up && !empty).then(|| plain.to_owned())
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // An escape sequence ends with its first letter: `ESC [ 3 2 m`.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Asks the command and all that it started to end, and kills what is still there after a while.
fn end_with_children(child: &mut Child) {
    let family = family_of(child.id());
    signal("TERM", &family);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(50));
    }
    // Children that lost their parent meanwhile are no longer below it, so the first list counts too.
    let mut rest = family_of(child.id());
    rest.extend(family);
    signal("KILL", &rest);
    drop(child.kill());
    drop(child.wait());
}

fn signal(name: &str, to: &BTreeSet<u32>) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).args(to.iter().map(u32::to_string));
    drop(kill.stdout(Stdio::null()).stderr(Stdio::null()).status());
}

/// A process and everything below it, read from procfs (elsewhere: the process alone).
fn family_of(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_in(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let below = children.get(&pid).into_iter().flatten();
        open.extend(below.filter(|&&child| family.insert(child)));
    }
    family
}

/// The parent's id in a line of `/proc/PID/stat`; the name before it may itself hold blanks and brackets.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_s_summary_is_recognised_with_and_without_colour() {
        let check = |line: &str, expected: Option<&str>| {
            let mut heard = Heard::default();
            heard.hear(line);
            assert_eq!(heard.summaries.first().map(String::as_str), expected, "{line}");
        };
        check(
            "\u{1b}[32;1m     Summary\u{1b}[0m [   0.5s] \u{1b}[1m3\u{1b}[0m tests run: 3 passed\n",
            Some("Summary [   0.5s] 3 tests run: 3 passed"),
        );
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored\n",
            Some("test result: FAILED. 1 passed; 2 failed; 0 ignored"),
        );
        check("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured\n", None);
        check("summary: 400 rounds, 0 hung calls\n", Some("summary: 400 rounds, 0 hung calls"));
        let fuzzed = "stat::number_of_executed_units: 1036119";
        check(&format!("{fuzzed}\n"), Some(fuzzed));
        check("   Compiling ringway v0.1.0\n", None);
    }

    #[test]
    fn a_summary_of_all_stands_for_those_of_each() {
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let (each, all) = ("test result: ok. 1 passed", "Summary [ 1s] 1 test run");
        assert_eq!(told_once(lines(&[each, all, "summary: x"])), [all, "summary: x"]);
        assert_eq!(told_once(lines(&[each, each])), [each, each]);
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("7 (a) b (c) S 42 7 7 0"), Some(42));
        assert_eq!(parent_in("nothing"), None);
    }

    #[test]
    fn of_much_output_the_end_is_kept() {
        let outcome = Job::new("seq").arg("1000").run();
        assert_eq!((outcome.last.len(), outcome.last.last().map(String::as_str)), (LAST_LINES, Some("1000")));
    }

    #[test]
    fn a_command_that_fails_says_so() {
        let outcome = Job::new("sh").args(["-c", "echo 'summary: seen'; exit 3"]).run();
        assert_eq!(outcome.end, End::Failed("exit status 3".to_owned()));
        assert_eq!(outcome.summaries, ["summary: seen"]);
        assert_eq!(outcome.last, ["summary: seen"]);
        let missing = Job::new("no-such-program-anywhere").run();
        assert!(matches!(missing.end, End::Failed(reason) if reason.contains("could not start")));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_command_that_hangs_is_ended_with_its_children() {
        // The grandchild notes its id, then both sleep for longer than any test may last.
        let note = std::env::temp_dir().join(format!("xtask-grandchild-{}", std::process::id()));
        let script = format!("sh -c 'echo $$ > {}; sleep 600' & sleep 600", note.display());
        let outcome = Job::new("sh").args(["-c", &script]).limit(Duration::from_millis(500)).run();
        assert!(matches!(outcome.end, End::Failed(reason) if reason.contains("were over")));
        let grandchild = fs::read_to_string(&note).unwrap();
        fs::remove_file(&note).unwrap();
        // A killed process may linger as a zombie until its new parent collects it: then it has no command line.
        let left = fs::read(format!("/proc/{}/cmdline", grandchild.trim())).unwrap_or_default();
        assert!(left.is_empty(), "the grandchild still runs");
    }

    #[test]
    fn a_command_can_be_typed_as_it_is_shown() {
        let job = Job::new("/usr/bin/cargo")
            .args(["test", "-E", "test(a) & test(b)"])
            .env("RUSTFLAGS", "--cfg loom");
        assert_eq!(job.line(), "RUSTFLAGS='--cfg loom' cargo test -E 'test(a) & test(b)'");
    }
}
