//! Counts the instructions of every step and holds them against the budget: the gate that a busy machine cannot move.
//! Each step is run twice under callgrind, for a few turns and for many; the difference is the steps alone, without the
//! start of the program. `--update` writes the budget anew. It must not know what a step does.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use ringway_benches::STEPS;
use ringway_benches::budget::{Budget, TOLERANCE_PERCENT};

/// Turns of the short run: enough to fill every cache and list that grows.
const TURNS_FEW: u64 = 1_000;
/// Turns of the long run.
const TURNS_MANY: u64 = 11_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => gate(false),
        ["--update"] => gate(true),
        ["turns", name, count] => turns(name, count),
        _ => Err(anyhow::anyhow!("wanted nothing or --update, found {words:?}")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A closed terminal ends our output, not the check.
fn say(words: &str) {
    drop(writeln!(std::io::stdout(), "{words}"));
}

/// Takes a step so many times: what callgrind runs.
fn turns(name: &str, count: &str) -> anyhow::Result<bool> {
    let step = STEPS.iter().find(|step| step.name == name).context("no such step")?;
    let mut take = (step.prepare)();
    let mut sum = 0_u64;
    for _ in 0..count.parse::<u64>()? {
        sum = sum.wrapping_add(take());
    }
    Ok(std::hint::black_box(sum) > 0)
}

fn gate(update: bool) -> anyhow::Result<bool> {
    if cfg!(debug_assertions) {
        bail!("the budget is for an optimised build: add --release");
    }
    if !cfg!(target_arch = "x86_64") {
        say("skipped: the budget is for x86-64");
        return Ok(true);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        say(
            "skipped: instructions are counted by valgrind, which is not here (Debian: apt-get install valgrind)",
        );
        return Ok(true);
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budget.txt");
    let mut counted = Budget::default();
    for step in STEPS {
        let few = count(step.name, TURNS_FEW)?;
        let many = count(step.name, TURNS_MANY)?;
        ensure!(many > few, "{}: {many} instructions for more turns, {few} for fewer", step.name);
        counted.set(step.name, (many - few) / (TURNS_MANY - TURNS_FEW));
    }
    if update {
        std::fs::write(&file, counted.to_text())?;
    }
    let text = std::fs::read_to_string(&file).context("there is no budget; --update writes one")?;
    let budget = Budget::parse(&text)?;
    say(&format!("{:<40} {:>8} {:>8}", "instructions of", "budget", "counted"));
    let deviations = budget.deviations(&counted);
    for step in STEPS {
        let shown = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), |count| count.to_string());
        let verdict = if deviations.iter().any(|found| found.name == step.name) { "differs" } else { "" };
        let (budget, counted) = (shown(budget.get(step.name)), shown(counted.get(step.name)));
        say(&format!("{:<40} {budget:>8} {counted:>8} {verdict}", step.name));
    }
    for lost in deviations.iter().filter(|found| found.counted.is_none()) {
        say(&format!("{} has a budget and is no step any more", lost.name));
    }
    if !deviations.is_empty() {
        say(&format!(
            "{} of {} steps differ from their budget by more than {TOLERANCE_PERCENT} %; if that is meant, `--update`",
            deviations.len(),
            STEPS.len()
        ));
    }
    Ok(deviations.is_empty())
}

/// Returns the instructions of a whole run of so many turns.
fn count(name: &str, turns: u64) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    let output = command.args(["turns", name]).arg(turns.to_string()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed under callgrind:\n{said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = line.with_context(|| format!("callgrind said no count:\n{said}"))?;
    Ok(number.trim().parse()?)
}
