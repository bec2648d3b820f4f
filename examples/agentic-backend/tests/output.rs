//! Runs the example as a reader would: what it prints, that it fails clearly, and that nothing is left of it whichever way it
//! ends. `cargo sdks` and `cargo agents` install what it needs.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A variable that everybody who is started inherits, so that they can be found.
const MARK: &str = "RINGWAY_EXAMPLE_MARK";
/// How long processes may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

fn example(mark: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-example-agentic-backend"));
    command.env(MARK, mark_of(mark));
    command
}

/// A mark that no other run has.
fn mark_of(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// The processes with a mark, by what they are called.
fn marked(name: &str) -> Vec<String> {
    let wanted = format!("{MARK}={}", mark_of(name));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

/// Waits until nobody with a mark is left.
#[track_caller]
fn wait_for_end(name: &str) {
    let end = Instant::now() + PATIENCE;
    while !marked(name).is_empty() {
        assert!(Instant::now() < end, "these are left: {:#?}", marked(name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts the example so that it stays, and waits until it has printed everything.
fn start_staying(name: &str) -> Child {
    let mut child = example(name).arg("--stay").stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("until Ctrl-C")), "it ended by itself");
    // What it says later goes nowhere, and must not end it.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_report_is_written_and_its_trace_is_one() {
    let output = example("report").output().unwrap();
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}\n{complained}");
    let wanted = [
        "201 Created",
        "Bees find their way by the sun, and correct for its course with a clock of their own. [1]",
        "[1] The sun as a compass, http://",
        "The critic, from the queue: sound, 3 sentences checked.",
        "Everything that was started has ended.",
    ];
    for words in wanted {
        assert!(said.contains(words), "wanted `{words}`, found:\n{said}");
    }
    let (_, trace) = said.split_once("\ntrace ").unwrap();
    assert!(!trace.contains('✗') && !trace.contains('┄'), "errors, or spans without their parents:\n{trace}");
    // Each hop below the one that caused it: depth and name, in the order of their beginnings.
    let hops: Vec<(usize, String)> = trace.lines().filter_map(hop).collect();
    let below = |parent: &str, child: &str| {
        let at = hops.iter().position(|(_, name)| name == parent);
        let at = at.unwrap_or_else(|| panic!("no `{parent}` in\n{trace}"));
        let inner = hops[at + 1..].iter().take_while(|(depth, _)| *depth > hops[at].0);
        assert!(inner.clone().any(|(_, name)| name == child), "no `{child}` below `{parent}` in\n{trace}");
    };
    for (parent, child) in [
        ("POST /agents/research  http", "agents::researcher  agents"),
        ("execute agents::researcher  agents", "web::search  library"),
        ("web::search  library", "execute web::search  library"),
        ("execute agents::researcher  agents", "web::scrape  scraper"),
        ("execute agents::researcher  agents", "llm::summarize  model"),
        ("execute llm::summarize  model", "POST /v1/chat/completions  model"),
        ("execute agents::researcher  agents", "state::set  state"),
        ("state::set  state", "execute agents::librarian  library"),
        ("execute agents::researcher  agents", "attempt 1  queue"),
        ("attempt 1  queue", "execute agents::critic  agents"),
        ("execute agents::critic  agents", "web::scrape  scraper"),
        ("execute agents::critic  agents", "state::update  state"),
    ] {
        below(parent, child);
    }
    assert_eq!(marked("report"), <[String; 0]>::default());
}

/// Depth of a hop in a line of the drawing, and what was called at whom.
fn hop(line: &str) -> Option<(usize, String)> {
    let start = line.char_indices().find(|(_, c)| c.is_alphanumeric())?.0;
    let mut columns = line[start..].split("  ").filter(|column| !column.is_empty());
    Some((line[..start].chars().count(), format!("{}  {}", columns.next()?, columns.next()?)))
}

#[test]
fn ctrl_c_ends_everything() {
    let mut child = start_staying("interrupted");
    assert!(marked("interrupted").len() >= 7, "{:#?}", marked("interrupted"));
    signal(&child, Signal::INT);
    assert!(child.wait().unwrap().success());
    assert_eq!(marked("interrupted"), <[String; 0]>::default());
}

#[test]
fn nothing_outlives_one_that_is_killed() {
    let mut child = start_staying("killed");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_end("killed");
}

#[test]
fn a_part_that_fails_is_told() {
    let check = |name: &str, variable: (&str, &str), wanted: &str| {
        let output = example(name).env(variable.0, variable.1).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{name}: {said}");
        assert!(said.contains(wanted), "{name}: wanted `{wanted}`, found {said}");
        wait_for_end(name);
    };
    check("no-node", ("PATH", "/nowhere"), "node cannot be started");
    // A worker that ends as it begins, and what it had to say.
    check("no-python", ("PYTHONHOME", "/nowhere"), "library ended: exit status: 1");
}

#[test]
fn types_fit_the_published_sdk() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("typescript");
    let tsc = folder.join("node_modules/.bin/tsc");
    let output = Command::new(&tsc).arg("--noEmit").current_dir(&folder).output();
    let output =
        output.unwrap_or_else(|error| panic!("{}: {error}: `cargo agents` installs it", tsc.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_versions_that_are_told_are_those_that_are_used() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(example.join(file)).unwrap();
    let told = read("src/play.rs");
    let npm: serde_json::Value = serde_json::from_str(&read("typescript/package.json")).unwrap();
    let npm = npm["dependencies"]["iii-sdk"].as_str().unwrap();
    assert_eq!(told.matches(&format!("npm's iii-sdk {npm}")).count(), 2, "{npm}");
    let installed = read("../../tests/xtask/src/sdks.rs");
    let python = installed.split_once("EXAMPLE_PYTHON: &str = \"").unwrap().1.split_once('"').unwrap().0;
    assert!(told.contains(&format!("tools/iii/python-{python}/bin")), "{python}");
    assert!(told.contains(&format!("PyPI's iii-sdk {python}")), "{python}");
}
