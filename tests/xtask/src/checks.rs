//! The slow checks, one row each: the verb, what it proves, what it runs, and how much of it `cargo verify` runs.
//! A new check is a new row; a new test of a kind that is here already needs nothing. Used by `verify` (short) and
//! by the verbs (in full). It must not know how commands are run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Job;
use crate::tools::{self, Runner, Selection};

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// A part of `cargo verify`.
    Short,
    /// A verb by itself.
    Full,
}

/// What a row runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Tests whose names begin with `tests`, in `package`; they read how far to go from the environment.
    Tests { package: &'static str, target: &'static [&'static str], tests: &'static [&'static str] },
    /// The same, of tests that do what not every container permits: mount a file system, lay out a network.
    Permitted {
        package: &'static str,
        target: &'static [&'static str],
        tests: &'static [&'static str],
        /// Tries it; the reason if it is refused.
        refused: fn() -> Option<String>,
    },
    /// Loom models: the same code, compiled with `--cfg loom`.
    Models { package: &'static str, tests: &'static [&'static str] },
    /// A program of ours, optimised.
    Program {
        package: &'static str,
        bin: &'static str,
        short: &'static [&'static str],
        full: &'static [&'static str],
    },
}

/// One slow check.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) verb: &'static str,
    pub(crate) proves: &'static str,
    /// The folder or file that holds it. A row whose source is not there is shown as absent, never as passed.
    pub(crate) source: &'static str,
    pub(crate) kind: Kind,
    /// The environment variable that says how far to go, with the value for `verify` and the one for the verb.
    pub(crate) rounds: Option<(&'static str, &'static str, &'static str)>,
    pub(crate) limit_minutes: u64,
    pub(crate) in_verify: bool,
    /// Whether the verb, in full, runs under `AddressSanitizer`.
    pub(crate) sanitized: bool,
}

/// Tests of `ringway-tests` whose module has the verb's name.
const fn integration(tests: &'static [&'static str]) -> Kind {
    Kind::Tests { package: "ringway-tests", target: &["--test", "it"], tests }
}

pub(crate) const CHECKS: &[Check] = &[
    Check {
        verb: "model",
        proves: "every interleaving of ring, arena, lease, lock and the turns of those who wait (loom)",
        source: "ipc/src/sync.rs",
        kind: Kind::Models { package: "ringway-ipc", tests: &["loom"] },
        rounds: Some(("LOOM_MAX_PREEMPTIONS", "2", "3")),
        limit_minutes: 10,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "sim",
        proves: "catalog, zones and brokering in any order of events, from a printed seed",
        source: "engine/core/src/core/simulation.rs",
        kind: Kind::Tests {
            package: "ringway-engine-core",
            target: &["--lib"],
            tests: &["core::simulation::"],
        },
        rounds: Some(("RINGWAY_SIM_STEPS", "1000", "100000")),
        limit_minutes: 5,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "hostile",
        proves: "a peer that scribbles on everything it may write harms nobody",
        source: "tests/it/hostile.rs",
        kind: integration(&["hostile::"]),
        rounds: Some(("RINGWAY_ROUNDS", "300000", "10000000")),
        limit_minutes: 10,
        in_verify: true,
        sanitized: true,
    },
    Check {
        verb: "crash",
        proves: "kill -9 of anyone, at named points and at random: every call ends, nothing leaks",
        source: "tests/it/crash.rs",
        kind: integration(&["crash::"]),
        rounds: Some(("RINGWAY_ROUNDS", "40", "2000")),
        limit_minutes: 5,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "links",
        proves: "hosts in network namespaces, cut off and killed at random, come together again (installs iproute2)",
        source: "engine/links/tests/hosts/main.rs",
        kind: Kind::Permitted {
            package: "ringway-links",
            target: &["--test", "hosts"],
            tests: &["hosts_agree::", "hosts_cut::"],
            refused: tools::namespaces_refused,
        },
        rounds: Some(("RINGWAY_ROUNDS", "8", "500")),
        limit_minutes: 10,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "store",
        proves: "the store keeps what it acknowledged: kill -9, cut power, a flipped bit anywhere",
        source: "engine/store/src/lib.rs",
        kind: Kind::Tests {
            package: "ringway-store",
            target: &["--test", "it"],
            tests: &["kill::", "power::", "damage::"],
        },
        rounds: Some(("RINGWAY_ROUNDS", "20", "500")),
        limit_minutes: 10,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "nats",
        proves: "the store on NATS keeps what it acknowledged: kill -9 of server and engine (installs nats-server)",
        source: "engine/store-nats/src/lib.rs",
        kind: Kind::Tests {
            package: "ringway-store-nats",
            target: &["--test", "it"],
            tests: &["nats_kill::"],
        },
        rounds: Some(("RINGWAY_ROUNDS", "6", "500")),
        limit_minutes: 10,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "durable",
        proves: "what queue, state and cron acknowledged outlives kill -9 of the engine and of whoever does the jobs",
        source: "tests/it/durable.rs",
        kind: integration(&["durable::"]),
        rounds: Some(("RINGWAY_ROUNDS", "12", "1000")),
        limit_minutes: 5,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "power",
        proves: "what queue, state and cron acknowledged outlives cut power under the whole engine; needs FUSE",
        source: "tests/it/cut_power.rs",
        kind: Kind::Permitted {
            package: "ringway-tests",
            target: &["--test", "it"],
            tests: &["cut_power::"],
            refused: tools::mounting_refused,
        },
        rounds: Some(("RINGWAY_ROUNDS", "12", "200")),
        limit_minutes: 5,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "sdks",
        proves: "iii's published SDKs, unchanged, work with each other and with native workers (installs them)",
        source: "tests/iii/README.md",
        kind: integration(&["sdks::"]),
        rounds: Some(("RINGWAY_ROUNDS", "1", "10")),
        limit_minutes: 5,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "leaks",
        proves: "attach, call, die: nothing that the engine and the survivors hold grows with rounds",
        source: "tests/it/leaks.rs",
        kind: integration(&["leaks::"]),
        rounds: Some(("RINGWAY_ROUNDS", "200", "10000")),
        limit_minutes: 5,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "instructions",
        proves: "no step of a call takes more instructions than its budget (callgrind); --update counts anew",
        source: "benches/budget.txt",
        kind: Kind::Program { package: "ringway-benches", bin: "instructions", short: &[], full: &[] },
        rounds: None,
        limit_minutes: 15,
        in_verify: true,
        sanitized: false,
    },
    Check {
        verb: "perf",
        proves: "the benchmarks run; figures with their floors in the same run",
        source: "engine/cli/src/main.rs",
        kind: Kind::Program {
            package: "ringway-cli",
            bin: "ringway",
            short: &["bench", "--quick"],
            full: &["bench"],
        },
        rounds: None,
        limit_minutes: 20,
        in_verify: false,
        sanitized: false,
    },
];

impl Check {
    pub(crate) fn find(verb: &str) -> Option<&'static Self> {
        CHECKS.iter().find(|check| check.verb == verb)
    }

    pub(crate) fn exists(&self) -> bool {
        tools::root().join(self.source).exists()
    }

    /// Beginnings of the names of tests that this row runs, to be left out of the ordinary run.
    pub(crate) fn test_names(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Tests { tests, .. } | Kind::Permitted { tests, .. } => tests,
            Kind::Models { .. } | Kind::Program { .. } => &[],
        }
    }

    /// Tries what this machine may refuse; the reason if it does.
    pub(crate) fn refused(&self) -> Option<String> {
        if let Kind::Permitted { refused, .. } = self.kind { refused() } else { None }
    }

    /// The command; `rest` is what the user added to the verb (a number of rounds, or a program's own words).
    pub(crate) fn job(&self, runner: &Runner, effort: Effort, rest: &[String]) -> Job {
        let full = effort == Effort::Full;
        let sanitizer = tools::host().filter(|_| full && self.sanitized);
        let job = match self.kind {
            Kind::Tests { package, target, tests } | Kind::Permitted { package, target, tests, .. } => {
                // `verify` has built the workspace as a whole; one package by itself has fewer features of its
                // dependencies, and they would all be built again.
                let whose: &[&str] = if full { &["--package", package] } else { &["--workspace"] };
                let mut targets: Vec<String> =
                    whose.iter().chain(target).map(|&word| word.to_owned()).collect();
                targets.extend(sanitizer.iter().flat_map(|host| sanitized_targets(host)));
                runner.job(&Selection {
                    targets,
                    only: tests.iter().map(|&name| name.to_owned()).collect(),
                    show_output: true,
                    long: full,
                    ..Selection::default()
                })
            }
            Kind::Models { package, tests } => models(package, tests),
            Kind::Program { package, bin, short, full: all } => Job::cargo()
                .args(["run", "--release", "--package", package, "--bin", bin, "--"])
                .args(if full { all } else { short })
                .args(rest),
        };
        let minutes = if full { 12 * 60 } else { self.limit_minutes };
        let job =
            self.with_rounds(job, effort, rest).dir(tools::root()).limit(Duration::from_secs(minutes * 60));
        if sanitizer.is_some() {
            job.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address")
        } else {
            job
        }
    }

    fn with_rounds(&self, job: Job, effort: Effort, rest: &[String]) -> Job {
        let Some((name, short, full)) = self.rounds else { return job };
        // What the user has set in the environment stays as it is.
        if std::env::var_os(name).is_some() {
            return job;
        }
        let usual = if effort == Effort::Short { short } else { full };
        job.env(name, rest.first().map_or(usual, String::as_str))
    }
}

/// A build folder of their own for sanitized tests, and the platform by name, so that build scripts are left alone.
fn sanitized_targets(host: &str) -> Vec<String> {
    let folder = tools::target().join("asan").to_string_lossy().into_owned();
    ["--target", host, "--target-dir", &folder].map(str::to_owned).to_vec()
}

/// Loom changes every atomic, so the models have a build folder of their own.
fn models(package: &str, tests: &[&str]) -> Job {
    Job::cargo()
        .args(["test", "--package", package, "--lib", "--target-dir"])
        .arg(tools::target().join("loom"))
        .arg("--")
        .args(tests)
        .args(["--test-threads", "2"])
        .env("RUSTFLAGS", "--cfg loom")
}

/// The fuzz targets that need the feature `faces` of their package.
pub(crate) const FACES: &[&str] =
    &["http_requests", "http_routes", "iii_frames", "link_frames", "stream_frames"];

/// The fuzz targets: one program per file, built without a fuzzing tool besides the toolchain.
#[derive(Debug)]
pub(crate) struct Fuzz {
    folder: PathBuf,
}

impl Fuzz {
    /// The package is outside the workspace, since its flags change every crate.
    pub(crate) fn find() -> Self {
        Self { folder: tools::root().join("tests/fuzz") }
    }

    pub(crate) fn exists(&self) -> bool {
        self.folder.join("Cargo.toml").exists()
    }

    /// Names of the targets that `verify` runs: all but those of the faces, which take minutes to build.
    pub(crate) fn quick_targets(&self) -> Vec<String> {
        self.targets().into_iter().filter(|name| !FACES.contains(&name.as_str())).collect()
    }

    /// Names of the targets: the files in `fuzz_targets`.
    pub(crate) fn targets(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.join("fuzz_targets"));
        let mut names: Vec<String> = files
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
            .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }

    /// Builds the targets, those of the faces if asked for, with coverage feedback and `AddressSanitizer`. The sanitizer is a flag that the stable
    /// compiler has but hides, hence `RUSTC_BOOTSTRAP`; it only reaches this build folder.
    pub(crate) fn build(&self, faces: bool) -> Option<Job> {
        let host = tools::host()?;
        Some(
            Job::cargo()
                .args(["build", "--release", "--bins", "--target", &host, "--target-dir"])
                .arg(Self::folder_of_build())
                .args(if faces { &["--features", "faces"][..] } else { &[] })
                .dir(&self.folder)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", FUZZ_FLAGS.join(" "))
                .limit(Duration::from_secs(15 * 60)),
        )
    }

    /// Runs one target for so many seconds, starting from its committed corpus. New inputs go to a scratch folder
    /// beside the build, so that a run leaves the repository as it was.
    pub(crate) fn job(&self, target: &str, seconds: u64, effort: Effort) -> Option<Job> {
        let program = Self::folder_of_build().join(tools::host()?).join("release").join(target);
        let scratch = Self::folder_of_build().join("corpus").join(target);
        std::fs::create_dir_all(&scratch).ok()?;
        let mut job = Job::new(program)
            .arg(format!("-max_total_time={seconds}"))
            .args(["-rss_limit_mb=4096", "-timeout=10", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", scratch.display()))
            .arg(&scratch)
            .dir(&self.folder)
            .limit(Duration::from_secs(seconds + 120));
        if effort == Effort::Short {
            // Hundreds of lines for each target would bury what else `verify` has to say.
            job = job.arg("-verbosity=0");
        }
        let committed = self.folder.join("corpus").join(target);
        if Path::new(&committed).is_dir() {
            job = job.arg(committed);
        }
        Some(job)
    }

    fn folder_of_build() -> PathBuf {
        tools::target().join("fuzz")
    }
}

/// What libFuzzer wants of the compiler: coverage counters, comparisons traced, checks on.
const FUZZ_FLAGS: &[&str] = &[
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
    "-Zsanitizer=address",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_an_alias() {
        let aliases = std::fs::read_to_string(tools::root().join(".cargo/config.toml")).unwrap();
        for check in CHECKS {
            assert!(aliases.contains(&format!("-- {}\"", check.verb)), "no alias for {}", check.verb);
        }
    }

    #[test]
    fn a_program_takes_the_words_after_its_verb() {
        let check = Check::find("instructions").unwrap();
        let line = check.job(&Runner::Cargo, Effort::Full, &["--update".to_owned()]).line();
        assert!(line.ends_with("--package ringway-benches --bin instructions -- --update"), "{line}");
    }

    #[test]
    fn rounds_come_from_the_user_first() {
        let check = Check::find("sim").unwrap();
        let line = |effort, rest: &[String]| check.job(&Runner::Cargo, effort, rest).line();
        assert!(line(Effort::Short, &[]).starts_with("RINGWAY_SIM_STEPS=1000 "));
        assert!(line(Effort::Full, &[]).starts_with("RINGWAY_SIM_STEPS=100000 "));
        assert!(line(Effort::Full, &["7".to_owned()]).starts_with("RINGWAY_SIM_STEPS=7 "));
        assert!(line(Effort::Short, &[]).contains(" --workspace --lib "), "{}", line(Effort::Short, &[]));
        assert!(line(Effort::Full, &[]).contains(" --package ringway-engine-core --lib "));
    }
}
