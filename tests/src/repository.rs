//! The repository as files, and the programs built from it. Used by the tests that read the sources and by those that
//! start processes. It must not know what is looked for in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Folders that hold no sources of ours.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules", "__pycache__", "out", "corpus"];

/// A text file of the repository.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path from the root, with `/` between the parts.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// Returns the folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Reads every text file of the repository, sorted by path; files that are not UTF-8 are left out.
///
/// # Errors
///
/// If a folder or file cannot be read.
pub fn sources() -> io::Result<Vec<Source>> {
    let mut found = Vec::new();
    read_folder(&root(), "", &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn read_folder(folder: &Path, prefix: &str, found: &mut Vec<Source>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
            read_folder(&entry.path(), &format!("{path}/"), found)?;
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            found.push(Source { path, text });
        }
    }
    Ok(())
}

/// Asks cargo for the facts about the workspace, as JSON.
///
/// # Errors
///
/// If cargo cannot be started, ends badly, or answers something else than JSON.
pub fn metadata(args: &[&str]) -> io::Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .args(args)
        .current_dir(root())
        .output()?;
    if !out.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    serde_json::from_slice(&out.stdout).map_err(io::Error::other)
}

/// Returns where cargo puts a program of this workspace: beside the test that runs now.
///
/// # Errors
///
/// If the program has not been built; `cargo build --workspace` builds it.
pub fn program(name: &str) -> io::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/debug/deps/it-0123… → target/debug/NAME
    let folder = test.ancestors().nth(2).unwrap_or(&test);
    let program = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    if program.is_file() {
        return Ok(program);
    }
    let message = format!("{} is not built: cargo build --workspace", program.display());
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}
