//! The functions of the store itself, which only whoever has it open can do: a backup while everything runs, and a look
//! at every byte. It must not know what is kept.

use std::path::PathBuf;
use std::sync::Arc;

use ringway::{CallError, Failure, Function, Worker};
use ringway_store::{Embedded, backup};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a backup goes.
#[derive(Debug, Deserialize, JsonSchema)]
struct BackupRequest {
    /// A file, by its whole path; one of that name is replaced when the new one is whole.
    path: PathBuf,
}

/// What a backup holds.
#[derive(Debug, Serialize, JsonSchema)]
struct BackupAnswer {
    path: PathBuf,
    /// The commit that it shows.
    revision: u64,
    entries: u64,
    /// How many blobs; one that is damaged is left out.
    blobs: u64,
}

/// Nothing is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
struct Nothing {}

/// What a look at everything found.
#[derive(Debug, Serialize, JsonSchema)]
struct VerifyAnswer {
    /// What is damaged; empty if all is well.
    damage: Vec<String>,
}

fn ended() -> Failure {
    Failure::with_code("STORE_CLOSED", "the store is being closed: start the engine again")
}

/// The worker `store`. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Keeper {
    worker: Worker,
    /// The functions have it only during a call: a worker that has ended may keep them a moment longer.
    _store: Arc<Embedded>,
}

impl Keeper {
    pub(crate) fn start(address: &str, store: Arc<Embedded>) -> Result<Self, CallError> {
        let worker =
            Worker::builder("store").address(address).description("the store of this engine").connect()?;
        let (lent, look) = (Arc::downgrade(&store), Arc::downgrade(&store));
        let started = Self { worker, _store: store };
        let back_up = move |_: &ringway::Context, request: BackupRequest| {
            if !request.path.is_absolute() {
                let text = format!(
                    "wanted a whole path, found {}: the engine runs in another folder",
                    request.path.display()
                );
                return Err(Failure::invalid(text));
            }
            let store = lent.upgrade().ok_or_else(ended)?;
            let taken = backup::backup(&store, &request.path)
                .map_err(|error| Failure::with_code("BACKUP_ERROR", error.to_string()))?;
            let backup::Backup { revision, entries, blobs } = taken;
            Ok(BackupAnswer { path: request.path, revision, entries, blobs })
        };
        let verify = move |_: &ringway::Context, _: Nothing| {
            let look = look.upgrade().ok_or_else(ended)?;
            Ok(VerifyAnswer { damage: look.verify().iter().map(|damage| format!("{damage:?}")).collect() })
        };
        started.worker.register_all(vec![
            Function::json("store::backup", back_up)
                .pooled()
                .description("Writes everything as of now to a file, while commits go on"),
            Function::json("store::verify", verify)
                .pooled()
                .description("Compares both copies of everything that is stored, while commits go on"),
        ])?;
        Ok(started)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // A backup is replaced when it is whole, so one that is cut short does no harm.
        self.worker.drain(std::time::Duration::from_secs(5));
        self.worker.shut_down();
    }
}
