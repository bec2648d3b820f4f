//! Others' judgement of the front door of HTTP: Autobahn's fuzzing client at a WebSocket, schemathesis at every route of the
//! description. Installs both below `target/tools`, from the lists in `tests/conformance`, and starts what they ask. It must not
//! know what is asked.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::process::{End, Job};
use crate::say;
use crate::sdks::once;
use crate::tools;

/// Installing takes one to four minutes; some of Autobahn's parts are built from source.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Examples of each route that schemathesis makes up, unless told otherwise.
const EXAMPLES: &str = "200";

/// The check that whatever fits a schema is accepted. 1.0 is an integer to JSON Schema and none to serde; and an
/// `Idempotency-Key` that was used for something else is refused, as it should be.
const LEFT_OUT: &str = "positive_data_acceptance";

/// The suite is written for Python 2.7.
const PYTHON2: &str = "RINGWAY_PYTHON2";

/// What is asked: a program of its own, which ends when it is dropped.
struct Served {
    child: Child,
    /// `HOST:PORT`.
    address: String,
    /// What routes want that ask who comes.
    key: String,
}

impl Served {
    /// Builds and starts it.
    fn start() -> Result<Self, String> {
        let program = ["--package", "ringway-worker-http", "--example", "conformance"];
        run(&Job::cargo().arg("build").args(program).dir(tools::root()))?;
        let path = tools::target().join("debug/examples/conformance");
        let mut command = Job::new(&path).command();
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        let mut served = Self { child, address: String::new(), key: String::new() };
        let (address, key) = line
            .trim()
            .split_once(' ')
            .ok_or_else(|| format!("wanted its address and a key, found `{}`", line.trim()))?;
        (served.address, served.key) = (address.to_owned(), key.to_owned());
        Ok(served)
    }

    /// Whether it runs still: a fault that ends it would otherwise look like a refusal.
    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}

fn run(job: &Job) -> Result<(), String> {
    match job.run().end {
        End::Passed => Ok(()),
        End::Failed(reason) => Err(format!("{}: {reason}", job.line())),
    }
}

/// The list of what is installed.
fn list(name: &str) -> PathBuf {
    tools::root().join(format!("tests/conformance/{name}.txt"))
}

/// Has Autobahn's fuzzing client ask a WebSocket in every case of its suite; `cases` chooses some, such as `9.*`.
pub(crate) fn autobahn(cases: &[String]) -> Result<(), String> {
    let python = python2()?;
    let own = tools::target().join("tools/autobahn");
    let wanted = list("autobahn");
    once(&wanted, &own, || {
        say!("installing Autobahn's suite for {} into {}", python.display(), own.display());
        drop(fs::remove_dir_all(&own));
        fs::create_dir_all(&own).map_err(|error| error.to_string())?;
        let install =
            Job::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        let install =
            install.args(["--no-warn-script-location", "--no-deps", "--ignore-installed", "--user"]);
        // A folder of the user's in place of theirs: Python 2 has no environments of its own.
        let install = install.arg("--requirement").arg(&wanted).env("PYTHONUSERBASE", own.to_string_lossy());
        run(&install.limit(INSTALL_LIMIT))
    })?;
    let mut served = Served::start()?;
    let reports = tools::target().join("autobahn");
    drop(fs::remove_dir_all(&reports));
    fs::create_dir_all(&reports).map_err(|error| error.to_string())?;
    let spec = reports.join("spec.json");
    fs::write(&spec, spec_of(&served.address, &reports, cases)).map_err(|error| error.to_string())?;
    let ask = Job::new(&python).args(["-m", "autobahntestsuite.wstest", "--mode", "fuzzingclient", "--spec"]);
    let ask = ask.arg(&spec).dir(&reports).env("PYTHONUSERBASE", own.to_string_lossy());
    say!("autobahn: {}; the reports go to {}", ask.line(), reports.display());
    run(&ask)?;
    if !served.is_running() {
        return Err("what was asked has ended".to_owned());
    }
    let index = reports.join("index.json");
    let text = fs::read_to_string(&index).map_err(|error| format!("{}: {error}", index.display()))?;
    judge(&text)
}

fn spec_of(address: &str, reports: &Path, cases: &[String]) -> String {
    let all = ["*".to_owned()];
    let cases = if cases.is_empty() { &all } else { cases };
    let cases: Vec<String> = cases.iter().map(|case| format!("{case:?}")).collect();
    format!(
        "{{\"outdir\": {:?}, \"servers\": [{{\"agent\": \"ringway\", \"url\": \"ws://{address}/echo\"}}], \"cases\": [{}], \
         \"exclude-cases\": [], \"exclude-agent-cases\": {{}}}}",
        reports.display().to_string(),
        cases.join(", ")
    )
}

/// Reads the index of reports: for each case how the other side behaved, and how it closed.
fn judge(index: &str) -> Result<(), String> {
    let (mut case, mut counts, mut failed) = (String::new(), [0_usize; 3], Vec::new());
    for line in index.lines().map(str::trim) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let (name, value) = (name.trim_matches('"'), value.trim_end_matches(',').trim_matches('"'));
        match (name, value) {
            (name, "{") => case = name.to_owned(),
            ("behavior", "OK" | "NON-STRICT")
            | ("behaviorClose", "OK" | "INFORMATIONAL" | "UNIMPLEMENTED") => {
                counts[0] += usize::from(name == "behavior");
            }
            ("behavior", "INFORMATIONAL") => counts[1] += 1,
            ("behavior", "UNIMPLEMENTED") => counts[2] += 1,
            ("behavior" | "behaviorClose", found) => failed.push(format!("{case}: {name} is {found}")),
            _ => {}
        }
    }
    let [passed, informational, unimplemented] = counts;
    say!(
        "autobahn: {passed} cases passed, {informational} are for information, {unimplemented} are of extensions that are \
         not offered (permessage-deflate), {} failed",
        failed.len()
    );
    if failed.is_empty() && passed > 0 {
        Ok(())
    } else {
        Err(format!("cases failed, or there were none:\n{}", failed.join("\n")))
    }
}

/// Finds a Python 2.7 with pip.
fn python2() -> Result<PathBuf, String> {
    let named = std::env::var_os(PYTHON2).map(PathBuf::from);
    let usual = ["python2.7", "pypy2.7", "pypy"].map(PathBuf::from);
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let kept = pyenv.into_iter().flat_map(|root| fs::read_dir(root.join("versions")).into_iter().flatten());
    let kept = kept.flatten().map(|version| version.path().join("bin/python2.7"));
    named.into_iter().chain(usual).chain(kept).find(|python| is_python2(python)).ok_or_else(|| {
        format!(
            "Autobahn's suite wants Python 2.7 with pip, and none was found: `pyenv install 2.7.18` builds one, or set \
             {PYTHON2} to where one or PyPy 2.7 is"
        )
    })
}

fn is_python2(python: &Path) -> bool {
    let probe = "import pip, sys; sys.exit(sys.version_info[:2] != (2, 7))";
    Job::new(python).args(["-c", probe]).succeeds()
}

/// Has schemathesis ask every route of the description, with what fits it and what does not.
pub(crate) fn schemathesis(rest: &[String]) -> Result<(), String> {
    let own = tools::target().join("tools/schemathesis");
    let wanted = list("schemathesis");
    once(&wanted, &own, || {
        say!("installing schemathesis into {}", own.display());
        run(&Job::new("python3").args(["-m", "venv", "--clear"]).arg(&own))?;
        let install =
            Job::new(own.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check"]);
        run(&install.args(["--no-deps", "--requirement"]).arg(&wanted).limit(INSTALL_LIMIT))
    })?;
    let mut served = Served::start()?;
    let examples = rest.first().map_or(EXAMPLES, String::as_str);
    let ask =
        Job::new(own.join("bin/schemathesis")).args(["run", "--checks", "all", "--max-examples", examples]);
    let ask =
        ask.args(["--header", &format!("x-api-key: {}", served.key), "--continue-on-failure", "--no-color"]);
    let ask = ask
        .args(["--exclude-checks", LEFT_OUT, "--seed", "1"])
        .arg(format!("http://{}/openapi.json", served.address));
    let ask = ask.dir(tools::target().join("tools")).limit(Duration::from_secs(60 * 60));
    say!("schemathesis: {}", ask.line());
    run(&ask)?;
    if served.is_running() { Ok(()) } else { Err("what was asked has ended".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(behavior: &str, close: &str) -> String {
        format!(
            "{{\n   \"ringway\": {{\n      \"1.1.1\": {{\n         \"behavior\": \"{behavior}\",\n         \"behaviorClose\": \
             \"{close}\",\n         \"duration\": 1\n      }}\n   }}\n}}\n"
        )
    }

    #[test]
    fn a_failed_case_fails_and_is_named() {
        for (behavior, close) in [("OK", "OK"), ("NON-STRICT", "INFORMATIONAL")] {
            assert_eq!(judge(&index(behavior, close)), Ok(()));
        }
        for (behavior, close) in
            [("FAILED", "OK"), ("OK", "WRONG CODE"), ("OK", "UNCLEAN"), ("NO_CLOSE", "OK")]
        {
            assert!(judge(&index(behavior, close)).unwrap_err().contains("1.1.1"), "{behavior} {close}");
        }
        assert!(judge("{}").is_err());
        assert!(judge(&index("UNIMPLEMENTED", "OK")).is_err(), "nothing was asked");
    }

    #[test]
    fn cases_can_be_chosen() {
        let spec = |cases: &[String]| spec_of("127.0.0.1:1", Path::new("/r"), cases);
        assert!(spec(&[]).contains("\"cases\": [\"*\"]") && spec(&[]).contains("\"ws://127.0.0.1:1/echo\""));
        assert!(spec(&["1.*".to_owned(), "9.1.1".to_owned()]).contains("[\"1.*\", \"9.1.1\"]"));
    }

    #[test]
    fn lists_name_no_registry() {
        for name in ["autobahn", "schemathesis"] {
            let text = fs::read_to_string(list(name)).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            for line in lines {
                assert!(
                    line.contains("==") && !line.contains("://") && !line.starts_with('-'),
                    "{name}: {line}"
                );
            }
        }
    }
}
