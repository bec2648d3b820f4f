//! What runs: the store, the workers over it, and the order of their beginning and end. It must not know which workers
//! there are.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use ringway_config::{EngineSettings, Settings};
use ringway_store::{Embedded, OpenError, OpenReport, Options, Store};

use crate::keeper::Keeper;
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
    store: Mutex<Option<Arc<Embedded>>>,
    report: OpenReport,
}

/// How a store is opened with these settings.
#[must_use]
pub fn store_options(settings: &EngineSettings) -> Options {
    let mut options = Options::default();
    if let Some(bytes) = settings.store.cache_bytes {
        options.cache_bytes = bytes;
    }
    if let Some(bytes) = settings.store.memory_bytes {
        options.memory_bytes = bytes;
    }
    options
}

impl Workers {
    /// Opens the store in a folder, makes it if there is none, and starts every worker that the settings want, at the
    /// engine that listens at an address. When this returns, their functions can be called.
    ///
    /// # Errors
    /// [`StartError`]; what had been started has ended again.
    pub fn start(address: &str, folder: &Path, settings: &Settings) -> Result<Self, StartError> {
        let opened = Embedded::open(folder, store_options(&settings.engine));
        let (store, report) =
            opened.map_err(|source| StartError::Store { folder: folder.to_owned(), source })?;
        for damage in &report.damage {
            tracing::error!(%damage, folder = %folder.display(), "something in the store was damaged");
        }
        let store = Arc::new(store);
        // From here on dropping it ends what was started.
        let workers = Self {
            running: Mutex::default(),
            keeper: Mutex::default(),
            store: Mutex::new(Some(Arc::clone(&store))),
            report,
        };
        let keeper = Keeper::start(address, Arc::clone(&store))
            .map_err(|reason| StartError::Worker { name: "store", reason: Box::new(reason) })?;
        *workers.keeper.lock() = Some(keeper);
        for row in rows() {
            let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
            if let Some(started) = (row.start)(address, shared, settings)? {
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

    /// Puts those settings into force that workers change while they run.
    pub fn apply(&self, settings: &Settings) {
        self.running.lock().iter().for_each(|worker| worker.apply(settings));
    }

    /// Ends everything, the last started first, and closes the store. A second call does nothing.
    pub fn shut_down(&self) {
        let mut running = std::mem::take(&mut *self.running.lock());
        while let Some(worker) = running.pop() {
            drop(worker);
        }
        drop(self.keeper.lock().take());
        let Some(store) = self.store.lock().take() else { return };
        match Arc::try_unwrap(store).map(Embedded::close) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store had failed before it was closed"),
            // A call that has not ended holds it; it closes with that.
            Err(_) => tracing::warn!("the store is still in use while the engine ends"),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shut_down();
    }
}
