//! Installs iii's published SDKs for the tests and the example that use them, each where its language looks for packages:
//! npm's beside whoever uses it, `PyPI`'s in environments below `target/tools/iii`, crates.io's built into `target/iii`. Versions
//! and hashes stand in lock files beside the sources; what is installed already from the same file is left alone. It must not
//! know what is tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{End, Job};
use crate::say;
use crate::tools;

/// The versions of `PyPI`'s package, an environment each.
const PYTHON: &[&str] = &["0.22.1", EXAMPLE_PYTHON];

/// The version that the example's worker in Python uses.
const EXAMPLE_PYTHON: &str = "0.25.0";

/// Building the four Rust actors from nothing takes about a minute and a half on two cores.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Installs what is missing; false if it cannot be had, and says why.
pub(crate) fn installed() -> bool {
    let node = npm(&actors().join("node"));
    let python = || PYTHON.iter().try_for_each(|version| python(version));
    told(node.and_then(|()| page()).and_then(|()| python()).and_then(|()| rust()).and_then(|()| example()))
}

/// Installs what is missing for `examples/agentic-backend`; false if it cannot be had, and says why.
pub(crate) fn example_installed() -> bool {
    told(example())
}

fn told(done: Result<(), String>) -> bool {
    if let Err(reason) = &done {
        say!("installing iii's SDKs failed: {reason}");
    }
    done.is_ok()
}

fn example() -> Result<(), String> {
    npm(&tools::root().join("examples/agentic-backend/typescript"))?;
    python(EXAMPLE_PYTHON)
}

/// Installs what is missing and builds the engine that is tested, which `verify` has built before; false if one of them
/// fails.
pub(crate) fn ready() -> bool {
    let engine = Job::cargo().args(["build", "--workspace", "--bin", "ringway"]).dir(tools::root());
    installed() && run(engine).inspect_err(|reason| say!("{reason}")).is_ok()
}

/// Where the actors and their lock files are.
fn actors() -> PathBuf {
    tools::root().join("tests/iii")
}

/// Bundles npm's actor for a browser, which takes less than a second.
fn page() -> Result<(), String> {
    let bundled = tools::target().join("tools/iii/page");
    run(Job::new("node").arg(actors().join("node/page/build.mjs")).arg(bundled))
}

fn npm(folder: &Path) -> Result<(), String> {
    let modules = folder.join("node_modules");
    once(&folder.join("package-lock.json"), &modules, || {
        say!("installing npm's iii-sdk and what is used with it into {}", modules.display());
        run(Job::new("npm").args(["ci", "--loglevel=error"]).dir(folder))
    })
}

fn python(version: &str) -> Result<(), String> {
    let requirements = actors().join(format!("python/requirements-{version}.txt"));
    let own = tools::target().join(format!("tools/iii/python-{version}"));
    once(&requirements, &own, || {
        say!("installing `PyPI`'s iii-sdk {version} into {}", own.display());
        run(Job::new("python3").args(["-m", "venv", "--clear"]).arg(&own))?;
        let install = Job::new(own.join("bin/pip"));
        let install = install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        run(install.args(["--require-hashes", "--requirement"]).arg(&requirements))
    })
}

/// Cargo knows by itself what there is to do.
fn rust() -> Result<(), String> {
    let built = tools::target().join("iii");
    say!("building the actors on crates.io's iii-sdk in {} (1 to 2 minutes once)", built.display());
    let build = Job::cargo().args(["build", "--locked", "--bins", "--target-dir"]).arg(built);
    run(build.dir(actors().join("rust")))
}

/// Does something unless it was done with the same lock file, of which a copy is kept where it was done to.
pub(crate) fn once(
    lock: &Path,
    place: &Path,
    work: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let kept = place.join("installed-from");
    let wanted = fs::read(lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    if fs::read(&kept).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    work()?;
    fs::write(&kept, wanted).map_err(|error| format!("{}: {error}", kept.display()))
}

fn run(job: Job) -> Result<(), String> {
    let job = job.limit(LIMIT);
    match job.run().end {
        End::Passed => Ok(()),
        End::Failed(reason) => Err(format!("{}: {reason}", job.line())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_from_the_same_file_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("xtask-sdks-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let lock = folder.join("lock");
        let mut count = 0;
        let mut install = |text: &str, outcome: Result<(), String>| {
            fs::write(&lock, text).unwrap();
            let told = once(&lock, &folder, || {
                count += 1;
                outcome.clone()
            });
            assert_eq!(told, if text == "broken" { outcome } else { Ok(()) });
            count
        };
        assert_eq!(install("one", Ok(())), 1);
        assert_eq!(install("one", Ok(())), 1);
        assert_eq!(install("two", Ok(())), 2);
        assert_eq!(install("broken", Err("no network".to_owned())), 3);
        assert_eq!(install("two", Ok(())), 3, "what was there before is still there");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn lock_files_name_no_registry() {
        for (path, text) in lock_files() {
            let found = ["\"resolved\"", "--index-url", "--find-links"].map(|word| text.contains(word));
            assert_eq!(found, [false; 3], "{path}");
        }
    }

    fn lock_files() -> Vec<(String, String)> {
        let python = PYTHON.iter().map(|version| format!("python/requirements-{version}.txt"));
        let example = "../../examples/agentic-backend/typescript/package-lock.json".to_owned();
        let all = python.chain(["node/package-lock.json".to_owned(), example]);
        all.map(|path| (path.clone(), fs::read_to_string(actors().join(path)).unwrap())).collect()
    }
}
