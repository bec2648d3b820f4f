//! The demo as processes: runs to its end on a small folder, and survives or reports the death of each part. Not a libtest
//! binary: it starts itself again as the demo, and as the demo's workers. It must not know how the demo is wired.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test that is its own harness")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ringway_demo::run::{DemoOptions, WorkerCommand, run};
use ringway_demo::workers::run_worker;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What makes this executable a worker, and what makes it the demo.
const WORKER: &str = "demo-worker";
const DEMO: &str = "demo-run";
/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

type Test = (&'static str, fn());

const TESTS: [Test; 5] = [
    ("both_jobs_are_done_without_a_copy", both_jobs_are_done_without_a_copy),
    ("chaos_changes_no_answer", chaos_changes_no_answer),
    ("a_folder_that_cannot_be_used_is_refused", a_folder_that_cannot_be_used_is_refused),
    ("the_death_of_any_worker_is_reported", the_death_of_any_worker_is_reported),
    ("the_death_or_interruption_of_the_demo_ends_all", the_death_or_interruption_of_the_demo_ends_all),
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some(WORKER) => match run_worker(&arguments[1..]) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => return failed(&error, 1),
        },
        Some(DEMO) => return run_demo(&arguments[1..]),
        _ => {}
    }
    // What test runners ask of a binary: to list its tests, or to run some of them.
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if asked("--ignored") {
        return ExitCode::SUCCESS;
    }
    if asked("--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&OsString> =
        arguments.iter().filter(|argument| !argument.to_string_lossy().starts_with('-')).collect();
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|argument| name.contains(&*argument.to_string_lossy())) {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // There is nowhere left to complain if this fails too.
    let _unheard = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}

fn run_demo(arguments: &[OsString]) -> ExitCode {
    let mut options = DemoOptions::new(WorkerCommand::current(WORKER).unwrap());
    options.input = arguments.first().map(Into::into);
    options.block_bytes = 1 << 20;
    options.repeats = 1;
    options.latency_time = Duration::from_millis(50);
    options.kills = arguments.get(1).map_or(0, |kills| kills.to_str().unwrap().parse().unwrap());
    match run(&options) {
        Ok(summary) => {
            println!("{}", summary.json().unwrap());
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error, error.exit_code()),
    }
}

/// A few documents, and a file of a few MiB whose second half repeats its first.
fn small_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write(
        "locks.md",
        b"# Locks between threads\n\nA lock lets one thread at a time use a value. Threads that wait for locks sleep \
          until the lock is free. Locks between threads keep values safe.\n",
    );
    write(
        "rings.md",
        b"# Rings in memory\n\nA ring is a circular queue of slots in memory. The producer publishes a slot by its stamp. \
          Rings in memory carry news from one thread to another.\n",
    );
    let mut state = 1_u64;
    let mut noise = Vec::with_capacity(3 << 20);
    while noise.len() < 3 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    let twice = [&noise[..], &noise[..]].concat();
    write("noise.bin", &twice);
    folder
}

/// The demo as a process of its own.
struct Demo {
    child: Child,
    /// Where it puts what it keeps for a while.
    scratch: tempfile::TempDir,
    lines: std::sync::mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Demo {
    fn start(folder: &Path) -> Self {
        Self::start_with_kills(folder, 0)
    }

    fn start_with_kills(folder: &Path, kills: u32) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(DEMO)
            .arg(folder)
            .arg(kills.to_string())
            .env("TMPDIR", scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (to, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self { child, scratch, lines, said: Vec::new() }
    }

    /// What the command lines of all its workers hold.
    fn mark(&self) -> String {
        format!("ringway-demo-{}-", self.child.id())
    }

    /// Waits until it says something.
    fn wait_for(&mut self, words: &str) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let Ok(line) = self.lines.recv_timeout(Duration::from_secs(30)) else { break };
            let found = line.contains(words);
            self.said.push(line);
            if found {
                return;
            }
        }
        panic!("the demo did not say `{words}`: {:#?}", self.said);
    }

    /// Its workers, by the names of their parts.
    fn workers(&self) -> BTreeMap<String, i32> {
        let mark = self.mark();
        let mut workers = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            if command.contains(&mark) {
                let part = command.split('\0').nth(2).unwrap_or_default();
                workers.insert(part.to_owned(), pid);
            }
        }
        workers
    }

    /// Waits for its end; nothing of it may be left then. Returns its code, what it printed and what it said.
    fn end(mut self) -> (Option<i32>, String, Vec<String>) {
        let mut output = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        let status = self.child.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let kept = || std::fs::read_dir(self.scratch.path()).unwrap().count();
        while !self.workers().is_empty() || sockets().contains(&self.mark()) || kept() > 0 {
            assert!(Instant::now() < until, "left behind: {} {:?}\n{}", kept(), self.workers(), sockets());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.said.extend(self.lines.iter());
        (status.code(), output, self.said)
    }
}

fn sockets() -> String {
    std::fs::read_to_string("/proc/net/unix").unwrap()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn both_jobs_are_done_without_a_copy() {
    let folder = small_folder();
    let (code, output, said) = Demo::start(folder.path()).end();
    assert_eq!(code, Some(0), "{said:#?}");
    let summary: Value = serde_json::from_str(&output).unwrap();
    let total = &summary["pipeline"]["ledger"]["total"];
    assert_eq!(total["files"], 3);
    assert_eq!(total["missing_bytes"], 0);
    // The repeated half is found but for the chunks around the seam.
    assert!(total["duplicate_bytes"].as_u64().unwrap() > 2 << 20, "{total}");
    for run in summary["agents"]["runs"].as_array().unwrap() {
        assert!(!run["answer"]["draft"]["sources"].as_array().unwrap().is_empty(), "{run}");
    }
    let payload = summary["payload"].as_array().unwrap();
    assert!(payload.len() >= 12, "{payload:?}");
    for line in payload {
        assert_eq!(line["copied_bytes"], 0, "{line}");
    }
    let lent = |part: &str| {
        let of_part = payload.iter().filter(|line| line["part"] == part);
        of_part.map(|line| line["lent_bytes"].as_u64().unwrap()).sum::<u64>()
    };
    // What the reader lends, the cutter lends on.
    assert!(lent("files") >= 6 << 20 && lent("cut") >= 6 << 20, "{payload:?}");
    let trace = &summary["trace"];
    assert!(trace["workers"].as_u64().unwrap() >= 5, "{trace}");
    assert!(trace["logs"].as_u64().unwrap() >= 5, "{trace}");
    assert_eq!(trace["orphans"], 0, "{trace}");
    for case in ["bytes_over_ring", "traced_over_ring", "adaptive_over_ring", "json_over_socket"] {
        assert!(summary["latency"][case]["p50_ns"].as_u64().unwrap() > 0, "{case}");
    }
    assert_eq!(summary["deaths"].as_array().unwrap().len(), 0);
    let desk = &summary["desk"];
    for line in desk["questions"].as_array().unwrap() {
        assert_eq!((&line["status"], &line["same"]), (&"answered".into(), &true.into()), "{line}");
        assert_eq!(line["begun"], 2, "once, and once after the critic: {line}");
    }
    assert_eq!(desk["count"]["answered"], desk["questions"].as_array().unwrap().len());
}

fn chaos_changes_no_answer() {
    const KILLS: u32 = 8;
    let folder = small_folder();
    let (code, output, said) = Demo::start_with_kills(folder.path(), KILLS).end();
    assert_eq!(code, Some(0), "{said:#?}");
    let summary: Value = serde_json::from_str(&output).unwrap();
    let (desk, plain) = (&summary["desk"], summary["agents"]["runs"].as_array().unwrap().len());
    let questions = desk["questions"].as_array().unwrap();
    assert_eq!(questions.len(), plain + KILLS as usize);
    for line in questions {
        assert_eq!((&line["status"], &line["same"]), (&"answered".into(), &true.into()), "{line}");
    }
    let killed = |kind: &str| desk[kind].as_u64().unwrap();
    assert_eq!(killed("engines_killed") + killed("workers_killed"), u64::from(KILLS));
    assert_eq!((&desk["dead_letters"], &desk["ticks_repeated"]), (&0.into(), &0.into()));
    assert_eq!(summary["deaths"].as_array().unwrap().len(), 0, "those were wanted");
}

fn a_folder_that_cannot_be_used_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (path, words) in [
        (folder.path().join("missing"), "cannot read the folder"),
        (folder.path().to_owned(), "wanted a folder with texts"),
    ] {
        let (code, output, said) = Demo::start(&path).end();
        assert_eq!((code, output.as_str()), (Some(2), ""), "{said:#?}");
        assert!(said.iter().any(|line| line.contains(words)), "{said:#?}");
    }
}

fn the_death_of_any_worker_is_reported() {
    let folder = small_folder();
    let parts = [
        "engine",
        "search",
        "read-1",
        "summarize",
        "researcher",
        "critic",
        "desk",
        "files",
        "cut",
        "digest-1",
        "ledger",
    ];
    for part in parts {
        let mut demo = Demo::start(folder.path());
        demo.wait_for("all workers are ready");
        kill(demo.workers()[part], Signal::KILL);
        let (code, output, said) = demo.end();
        let named = |line: &String| line.contains(&format!("worker {part} (process"));
        assert!(said.iter().any(named), "{part}: {said:#?}");
        if matches!(part, "read-1" | "digest-1") {
            assert_eq!(code, Some(0), "{part}: {said:#?}");
            let summary: Value = serde_json::from_str(&output).unwrap();
            assert_eq!(summary["deaths"][0]["part"], part);
            assert_eq!(summary["pipeline"]["ledger"]["total"]["missing_bytes"], 0);
        } else {
            assert_eq!(code, Some(1), "{part}: {said:#?}");
            let last = said.iter().find(|line| line.starts_with("error:")).unwrap();
            assert!(named(last), "{part}: {said:#?}");
        }
    }
}

fn the_death_or_interruption_of_the_demo_ends_all() {
    let folder = small_folder();
    for (signal, expected) in [(Signal::KILL, None), (Signal::INT, Some(130)), (Signal::TERM, Some(130))] {
        let mut demo = Demo::start(folder.path());
        demo.wait_for("all workers are ready");
        assert!(demo.workers().len() >= 13, "{:?}", demo.workers());
        kill(i32::try_from(demo.child.id()).unwrap(), signal);
        let (code, _, said) = demo.end();
        assert_eq!(code, expected, "{signal:?}: {said:#?}");
    }
}
