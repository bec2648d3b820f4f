//! What runs: the store, the workers over it, and the order of their beginning and end. It must not know which workers
//! there are.

use std::error::Error;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use ringway_config::Settings;
use ringway_store::{OpenError, OpenReport};

use crate::keeper::Keeper;
use crate::kept::Kept;
use crate::rows::{Running, rows};

/// Why the workers did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be opened.
    #[error("cannot open the store in {}: {source}", folder.display())]
    Store {
        /// Its folder.
        folder: PathBuf,
        /// Why, and what to do.
        source: OpenError,
    },
    /// The store on NATS cannot be opened.
    #[error("cannot open the store on NATS: {0}")]
    Nats(#[source] ringway_store_nats::OpenError),
    /// A worker did not start.
    #[error("cannot start the worker `{name}`: {reason}")]
    Worker {
        /// Its name.
        name: &'static str,
        /// Why.
        reason: Box<dyn Error + Send + Sync>,
    },
}

/// Everything that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Workers {
    /// In the order of their start.
    running: Mutex<Vec<Running>>,
    keeper: Mutex<Option<Keeper>>,
    store: Mutex<Option<Kept>>,
    report: OpenReport,
    place: String,
}

impl Workers {
    /// Opens the store that the settings ask for, in a folder or on NATS, makes it if there is none, and starts every worker
    /// that the settings want, at the engine that listens at an address. When this returns, their functions can be called.
    ///
    /// # Errors
    /// [`StartError`]; what had been started has ended again.
    pub fn start(address: &str, folder: &Path, settings: &Settings) -> Result<Self, StartError> {
        let (store, report, place) = Kept::open(folder, settings)?;
        for damage in &report.damage {
            tracing::error!(%damage, %place, "something in the store was damaged");
        }
        // From here on dropping it ends what was started.
        let workers = Self {
            running: Mutex::default(),
            keeper: Mutex::default(),
            store: Mutex::new(Some(store.clone())),
            report,
            place,
        };
        let keeper = Keeper::start(address, &store)
            .map_err(|reason| StartError::Worker { name: "store", reason: Box::new(reason) })?;
        *workers.keeper.lock() = Some(keeper);
        for row in rows() {
            if let Some(started) = (row.start)(address, store.shared(), settings)? {
                workers.running.lock().push(started);
            }
        }
        Ok(workers)
    }

    /// What was found when the store was opened.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Where everything durable is, in words.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Where this engine is found by others, and finds others, in words: a line for each. As of the start.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.running.lock().iter().flat_map(Running::words).cloned().collect()
    }

    /// Puts those settings into force that workers change while they run.
    pub fn apply(&self, settings: &Settings) {
        self.running.lock().iter().for_each(|worker| worker.apply(settings));
    }

    /// Ends everything, the last started first, and closes the store. A second call does nothing.
    pub fn shut_down(&self) {
        // A worker that ends waits for its commits, which are not to wait for a server that is away.
        self.store.lock().iter().for_each(Kept::hurry);
        let mut running = std::mem::take(&mut *self.running.lock());
        while let Some(worker) = running.pop() {
            drop(worker);
        }
        drop(self.keeper.lock().take());
        let Some(store) = self.store.lock().take() else { return };
        match store.close() {
            Ok(true) => {}
            Err(error) => tracing::error!(%error, "the store had failed before it was closed"),
            // A call that has not ended holds it; it closes with that.
            Ok(false) => tracing::warn!("the store is still in use while the engine ends"),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shut_down();
    }
}
