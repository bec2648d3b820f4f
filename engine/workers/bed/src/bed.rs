//! Engine, store, clock, client and one worker over them. The tests of each worker wrap it, with the calls that are special
//! to theirs. It must not know what is tested.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway::{CallError, CallOptions, Failure, Message, StreamCall, Worker};
use ringway_engine::{Engine, Otlp};
use ringway_store::{Embedded, Metrics, Options, Scan, Store};
use ringway_worker_kit::Clock;
use serde_json::Value;

use crate::{NOW_MS, PATIENCE};

/// How a worker is started: at an address, over a store, by a clock.
type Start<W> = dyn Fn(&str, Arc<dyn Store>, Clock) -> W + Send + Sync;

/// What stands between the worker and the store.
type Wrap = dyn Fn(Arc<Embedded>) -> Arc<dyn Store> + Send + Sync;

/// What a test stands on. Fields are dropped in order: who calls leaves before who serves.
pub struct Bed<W> {
    /// Who calls.
    pub client: Worker,
    worker: Option<W>,
    store: Option<Arc<Embedded>>,
    /// The worker's clock: from the next start on, if it is replaced.
    pub clock: Clock,
    /// How the store is opened, from the next start on.
    pub options: Options,
    wrap: Box<Wrap>,
    start: Box<Start<W>>,
    name: &'static str,
    ready: String,
    /// Where the engine listens.
    pub address: String,
    _engine: Engine,
    folder: tempfile::TempDir,
}

impl<W> fmt::Debug for Bed<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = self.worker.is_some();
        f.debug_struct("Bed")
            .field("address", &self.address)
            .field("started", &started)
            .finish_non_exhaustive()
    }
}

impl<W> Bed<W> {
    /// Starts an engine and a client; the worker is started by [`Self::start`], after options, clock and wrap have been
    /// changed as wished. `name` is what the ids of the worker's functions begin with, and `ready` the last function that
    /// it registers, both without `::`.
    ///
    /// # Panics
    /// When anything cannot be had.
    #[must_use]
    pub fn new<E: fmt::Debug>(
        name: &'static str,
        ready: &str,
        start: impl Fn(&str, Arc<dyn Store>, Clock) -> Result<W, E> + Send + Sync + 'static,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-{name}-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(&address).otlp(Otlp::Off).start().unwrap();
        let client = Worker::builder("client").address(&address).connect().unwrap();
        Self {
            client,
            worker: None,
            store: None,
            clock: Clock::manual(NOW_MS),
            options: Options::default(),
            wrap: Box::new(|store| store),
            start: Box::new(move |address, store, clock| start(address, store, clock).unwrap()),
            name,
            ready: format!("{name}::{ready}"),
            address,
            _engine: engine,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// From the next start on this stands between the worker and the store.
    pub fn wrap(&mut self, wrap: impl Fn(Arc<Embedded>) -> Arc<dyn Store> + Send + Sync + 'static) {
        self.wrap = Box::new(wrap);
    }

    /// Opens the store and starts the worker.
    ///
    /// # Panics
    /// When the store is damaged or the worker does not come.
    pub fn start(&mut self) {
        self.start_after(|_| ());
    }

    /// Opens the store, has something done with it, and starts the worker over it.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_after(&mut self, meanwhile: impl FnOnce(&Embedded)) {
        let (store, report) = Embedded::open(self.folder(), self.options.clone()).unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
        meanwhile(&store);
        let store = Arc::new(store);
        self.store = Some(Arc::clone(&store));
        self.worker = Some((self.start)(&self.address, (self.wrap)(store), self.clock.clone()));
        self.client.wait_for(&self.ready, PATIENCE).unwrap();
    }

    /// Ends the worker and closes the store.
    ///
    /// # Panics
    /// As [`Self::end`].
    pub fn stop(&mut self) {
        drop(self.end());
    }

    /// Ends the worker, and gives the store.
    ///
    /// # Panics
    /// When somebody still has the store, or the functions stay.
    pub fn end(&mut self) -> Embedded {
        self.worker = None;
        // The threads of the worker have gone, and with them their hold on the store.
        let store = Arc::try_unwrap(self.store.take().unwrap()).expect("somebody still has the store");
        assert!(self.client.wait_until(PATIENCE, |catalog| {
            !catalog.functions.iter().any(|function| function.id.as_str() == self.ready)
        }));
        store
    }

    /// Ends the worker and closes the store, and starts both again.
    ///
    /// # Panics
    /// As [`Self::end`] and [`Self::start`].
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// The worker.
    ///
    /// # Panics
    /// While it is ended.
    #[must_use]
    pub fn worker(&self) -> &W {
        self.worker.as_ref().unwrap()
    }

    /// The store itself, whatever stands before it.
    ///
    /// # Panics
    /// While it is closed.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &**self.store.as_ref().unwrap()
    }

    /// What the store has counted.
    ///
    /// # Panics
    /// While it is closed.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.store.as_ref().unwrap().metrics()
    }

    /// Entries of a table.
    ///
    /// # Panics
    /// When the store cannot be read.
    #[must_use]
    pub fn count(&self, table: &str) -> usize {
        self.store().scan(&Scan::table(table)).unwrap().len()
    }

    /// Where the store is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Another worker of users.
    ///
    /// # Panics
    /// When it cannot attach.
    #[must_use]
    pub fn another(&self, name: &str) -> Worker {
        Worker::builder(name).address(&self.address).connect().unwrap()
    }

    /// Calls a function of the worker, named without what all begin with.
    ///
    /// # Errors
    /// What the worker says.
    pub fn try_call(&self, function: &str, request: Value) -> Result<Value, CallError> {
        self.client.trigger_json_with(&self.id(function), &request, &CallOptions::new().timeout(PATIENCE))
    }

    /// Calls a function of the worker that is certain to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn call(&self, function: &str, request: Value) -> Value {
        self.try_call(function, request.clone())
            .unwrap_or_else(|error| panic!("{function} of {request}: {error}"))
    }

    /// The user's code of a refusal, with the words in case it is not the one expected.
    ///
    /// # Panics
    /// When it is no refusal.
    #[must_use]
    pub fn refusal(&self, function: &str, request: Value) -> (String, CallError) {
        let error = self.try_call(function, request).unwrap_err();
        let code = error.user_code.clone().unwrap_or_else(|| error.code.as_str().to_owned());
        (code, error)
    }

    /// A call with streams.
    ///
    /// # Panics
    /// When it cannot be begun.
    #[must_use]
    pub fn open(&self, function: &str, request: Value) -> StreamCall {
        let request = Message::json(&request).map_err(Failure::into_error).unwrap();
        let options = CallOptions::new().timeout(PATIENCE);
        self.client.handle(&self.id(function)).stream(&request, &options).unwrap()
    }

    /// Waits until something holds that is certain to come.
    ///
    /// # Panics
    /// With these words when it does not come.
    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn id(&self, function: &str) -> String {
        format!("{}::{function}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use ringway::Function;

    use super::*;

    /// A bed on which nothing but a store and one function is.
    fn bed(keep: impl Fn(Arc<dyn Store>) + Send + Sync + 'static) -> Bed<Worker> {
        let mut bed = Bed::new("bed", "echo", move |address, store, _| {
            keep(store);
            let worker = Worker::builder("bed").address(address).connect()?;
            worker.register(Function::json("bed::echo", |_, said: Value| Ok(said)))?;
            Ok::<_, CallError>(worker)
        });
        bed.start();
        bed
    }

    #[test]
    fn a_worker_is_ended_and_started() {
        let mut bed = bed(drop);
        assert_eq!(bed.call("echo", Value::from(7)), 7);
        bed.stop();
        assert!(bed.try_call("echo", Value::Null).is_err());
        bed.start();
        assert_eq!(bed.call("echo", Value::from(8)), 8);
    }

    #[test]
    #[should_panic(expected = "somebody still has the store")]
    fn a_store_that_somebody_keeps_is_found() {
        let kept = std::sync::Mutex::new(Vec::new());
        bed(move |store| kept.lock().unwrap().push(store)).stop();
    }
}
