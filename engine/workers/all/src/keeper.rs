//! The functions of the store itself, which only whoever has it open can do: a backup while everything runs, and a look
//! at every byte. It must not know what is kept.

use std::path::PathBuf;

use ringway::{CallError, Failure, Function, HandlerResult, Worker};
use ringway_store::backup;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kept::{Kept, WeakKept};

/// Where a backup goes.
#[derive(Debug, Deserialize, JsonSchema)]
struct BackupRequest {
    /// A file, by its whole path; one of that name is replaced when the new one is whole. Only the engine's user can read
    /// it.
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

/// The worker `store`. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Keeper {
    worker: Worker,
}

impl Keeper {
    pub(crate) fn start(address: &str, store: &Kept) -> Result<Self, CallError> {
        let worker =
            Worker::builder("store").address(address).description("the store of this engine").connect()?;
        let started = Self { worker };
        // The worker's threads let its functions go some time after it has left; the store is to be closed by then.
        let (backed_up, looked_at) = (store.weak(), store.weak());
        let back_up = move |_: &ringway::Context, request: BackupRequest| {
            if !request.path.is_absolute() {
                let text = format!(
                    "wanted a whole path, found {}: the engine runs in another folder",
                    request.path.display()
                );
                return Err(Failure::invalid(text));
            }
            let taken = backup::backup(&*open(&backed_up)?.shared(), &request.path)
                .map_err(|error| Failure::with_code("BACKUP_ERROR", error.to_string()))?;
            let backup::Backup { revision, entries, blobs } = taken;
            Ok(BackupAnswer { path: request.path, revision, entries, blobs })
        };
        let verify = move |_: &ringway::Context, _: Nothing| {
            let damage = open(&looked_at)?
                .verify()
                .map_err(|error| Failure::with_code("VERIFY_ERROR", error.to_string()))?;
            Ok(VerifyAnswer { damage: damage.iter().map(ToString::to_string).collect() })
        };
        started.worker.register_all(vec![
            Function::json("store::backup", back_up)
                .pooled()
                .description("Writes everything as of now to a file, while commits go on"),
            Function::json("store::verify", verify)
                .pooled()
                .description("Looks at every byte that is stored, in all its copies, while commits go on"),
        ])?;
        Ok(started)
    }
}

/// The store, as long as it is not being closed.
fn open(store: &WeakKept) -> HandlerResult<Kept> {
    store
        .upgrade()
        .ok_or_else(|| Failure::with_code("LEAVING", "the store is being closed: call again when it is back"))
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // A backup is replaced when it is whole, so one that is cut short does no harm.
        self.worker.drain(std::time::Duration::from_secs(5));
        self.worker.shut_down();
    }
}
