//! `ringway backup`: everything durable in one file, and back. A running engine takes its own backup, since it has the
//! store; what is restored goes into a folder that no engine has yet.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use ringway::{CallOptions, ErrorCode};
use ringway_store::backup::{self, Backup};
use ringway_store::{Embedded, OpenError, Options};
use serde_json::{Value, json};

use crate::arguments::Place;
use crate::connection::{Connection, Tracing};
use crate::failure::Failure;
use crate::output;
use crate::output::words::several;

/// How long an engine may write at a backup.
const WRITE_TIME_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write everything as of now to a file: what a running engine has, or a folder that no engine uses
    Create {
        /// The file; one of that name is replaced when the new one is whole. Only its owner can read it
        file: PathBuf,
        /// The folder of an engine that does not run
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a backup to its end and check it
    Verify {
        /// The file
        file: PathBuf,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a store of a backup, in a folder that is new or empty
    Restore {
        /// The file
        file: PathBuf,
        /// The folder, for `ringway up --data FOLDER`
        #[arg(long, value_name = "FOLDER")]
        data: PathBuf,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(place: &Place, command: &BackupCommand) -> Result<ExitCode, Failure> {
    match command {
        BackupCommand::Create { file, data: Some(folder), json } => {
            if !folder.is_dir() {
                return Err(Failure::not_found(format_args!("there is no folder {}", folder.display())));
            }
            let opened = Embedded::open_existing(folder, Options::default());
            let (store, report) = opened.map_err(|error| match error {
                OpenError::NoStore { .. } => Failure::not_found(error),
                _ => Failure::error(error),
            })?;
            for damage in &report.damage {
                output::note(&format!("warning: {damage}"));
            }
            tell("holds", file, backup::backup(&store, file).map_err(Failure::error)?, *json)?;
        }
        BackupCommand::Create { file, data: None, json } => {
            let answer = of_engine(place, file)?;
            let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
            let [revision, entries, blobs] = ["revision", "entries", "blobs"].map(number);
            let taken = Backup { revision, entries, blobs };
            tell("holds", file, taken, *json)?;
        }
        BackupCommand::Verify { file, json } => {
            tell("is whole and holds", file, backup::check(file).map_err(Failure::error)?, *json)?;
        }
        BackupCommand::Restore { file, data, json } => {
            let restored = backup::restore(file, data, &Options::default()).map_err(Failure::error)?;
            tell("now holds", data, restored, *json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the running engine write a file.
fn of_engine(place: &Place, file: &Path) -> Result<Value, Failure> {
    let path = std::path::absolute(file)?;
    let connection = Connection::open(place, Tracing::Environment)
        .map_err(|failure| failure.hint("`--data FOLDER` takes a backup of an engine that does not run"))?;
    let options = CallOptions::new().timeout(WRITE_TIME_MAX);
    let request = json!({ "path": path });
    connection.worker.trigger_json_with("store::backup", &request, &options).map_err(|error| {
        let missing = error.code == ErrorCode::NotFound;
        let failure = Failure::from(error);
        if missing {
            failure.hint("this engine runs without its built-in workers and keeps nothing")
        } else {
            failure
        }
    })
}

fn tell(what: &str, path: &Path, found: Backup, as_json: bool) -> Result<(), Failure> {
    let Backup { revision, entries, blobs } = found;
    if as_json {
        return output::json(
            &json!({ "path": path, "revision": revision, "entries": entries, "blobs": blobs }),
        );
    }
    let count = several(usize::try_from(entries).unwrap_or(usize::MAX), "entry");
    let blobs = match usize::try_from(blobs).unwrap_or(usize::MAX) {
        0 => String::new(),
        some => format!(" and {}", several(some, "blob")),
    };
    output::text(&format!("{} {what} {count}{blobs} as of revision {revision}\n", path.display()))
}
