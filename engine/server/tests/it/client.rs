//! A worker made by hand: says what it is told to say, waits for what is expected.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway_engine::{Engine, EngineBuilder, Otlp};
use ringway_ipc::packet::{PacketError, PacketStream};
use ringway_ipc::sys::event::{self, PollFd, PollFlags};
use ringway_protocol::control::{
    Catalog, CatalogFunction, CatalogWorker, Change, EngineMessage, FunctionSpec, Hello, Register,
    RegistrationOutcome, Welcome, WorkerMessage, WorkerStatus,
};
use ringway_protocol::{FunctionId, WorkerId};

/// Long enough for a loaded machine; nothing here is a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An address that no other test has. Tests run in processes of their own or in one.
pub(crate) fn address() -> String {
    format!("@ringway-engine-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An engine of this test alone.
pub(crate) fn engine() -> Engine {
    start(Engine::builder())
}

pub(crate) fn start(builder: EngineBuilder) -> Engine {
    builder.address(address()).otlp(Otlp::Off).start().unwrap()
}

/// A catalog that follows changes at a cost that does not grow with it.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) revision: u64,
    pub(crate) workers: BTreeMap<WorkerId, CatalogWorker>,
    pub(crate) functions: BTreeMap<(WorkerId, u32), CatalogFunction>,
}

impl View {
    fn new(catalog: &Catalog) -> Self {
        let functions = catalog
            .functions
            .iter()
            .filter(|function| !function.id.as_str().starts_with("engine::"))
            .map(|function| ((function.worker, function.index), function.clone()));
        let workers = catalog
            .workers
            .iter()
            .filter(|worker| worker.name != "engine")
            .map(|worker| (worker.id, worker.clone()));
        Self { revision: catalog.revision, workers: workers.collect(), functions: functions.collect() }
    }

    fn apply(&mut self, revision: u64, changes: &[Change]) {
        assert_eq!(revision, self.revision + changes.len() as u64, "a change is missing");
        self.revision = revision;
        for change in changes {
            match change {
                Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => {
                    self.workers.insert(worker.id, worker.clone());
                }
                Change::WorkerDraining { id } => {
                    if let Some(worker) = self.workers.get_mut(id) {
                        worker.status = WorkerStatus::Draining;
                    }
                }
                Change::WorkerGone { id, .. } => {
                    self.workers.remove(id);
                    self.functions.retain(|(worker, _), _| worker != id);
                }
                Change::FunctionAdded { function } => {
                    self.functions.insert((function.worker, function.index), function.clone());
                }
                Change::FunctionRemoved { worker, index, .. } => {
                    self.functions.remove(&(*worker, *index)).expect("it was there");
                }
                other => panic!("{other:?} is new"),
            }
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: PacketStream,
    pub(crate) id: WorkerId,
    pub(crate) catalog: View,
    next_request: u64,
}

impl Client {
    /// Connects and says nothing.
    pub(crate) fn connect(address: &str) -> Self {
        let id = WorkerId::new(u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed));
        let stream = PacketStream::connect(address).unwrap();
        Self { stream, id, catalog: View::default(), next_request: 1 }
    }

    /// Connects and attaches.
    pub(crate) fn attach(address: &str, name: &str) -> Self {
        let mut client = Self::connect(address);
        client.hello(name, Vec::new());
        client.welcome();
        client
    }

    pub(crate) fn hello(&mut self, name: &str, fds: Vec<Arc<OwnedFd>>) {
        let hello = Hello::new(self.id, name, std::process::id());
        self.say_with(&WorkerMessage::Hello(Box::new(hello)), fds);
    }

    pub(crate) fn welcome(&mut self) -> (Welcome, Vec<OwnedFd>) {
        let (message, fds) = self.hear_with();
        let EngineMessage::Welcome(welcome) = message else { panic!("{message:?} is no welcome") };
        self.catalog = View::new(&welcome.catalog);
        (*welcome, fds)
    }

    pub(crate) fn say(&mut self, message: &WorkerMessage) {
        self.say_with(message, Vec::new());
    }

    pub(crate) fn say_with(&mut self, message: &WorkerMessage, fds: Vec<Arc<OwnedFd>>) {
        self.say_raw(&serde_json::to_vec(message).unwrap(), fds);
    }

    pub(crate) fn say_raw(&mut self, bytes: &[u8], fds: Vec<Arc<OwnedFd>>) {
        self.stream.queue(bytes, fds).unwrap();
        let begun = Instant::now();
        while !self.stream.flush().unwrap() {
            self.wait(PollFlags::OUT, begun);
        }
    }

    fn wait(&self, flags: PollFlags, begun: Instant) {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let mut fds = [PollFd::new(&self.stream, flags)];
        assert!(event::poll(&mut fds, Some(left)).unwrap() > 0, "nothing came for {PATIENCE:?}");
    }

    /// Waits for the next message.
    pub(crate) fn hear_with(&mut self) -> (EngineMessage, Vec<OwnedFd>) {
        self.try_hear().expect("the engine hung up")
    }

    pub(crate) fn hear(&mut self) -> EngineMessage {
        self.hear_with().0
    }

    /// Waits for the next message or the end of the connection.
    pub(crate) fn try_hear(&mut self) -> Result<(EngineMessage, Vec<OwnedFd>), PacketError> {
        let begun = Instant::now();
        loop {
            if let Some((json, fds)) = self.stream.receive()? {
                let message: EngineMessage = serde_json::from_slice(&json).unwrap();
                if let EngineMessage::CatalogChange { revision, changes } = &message {
                    self.catalog.apply(*revision, changes);
                }
                return Ok((message, fds));
            }
            self.wait(PollFlags::IN, begun);
        }
    }

    /// Waits until the engine hangs up; returns what it said last, changes of the catalog apart.
    pub(crate) fn hear_the_end(&mut self) -> Option<EngineMessage> {
        let mut last = None;
        loop {
            match self.try_hear() {
                Ok((EngineMessage::CatalogChange { .. }, _)) => {}
                Ok((message, _)) => last = Some(message),
                Err(PacketError::HungUp | PacketError::Torn { .. }) => return last,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Hears messages, and applies them to the catalog, until `done`.
    pub(crate) fn until(&mut self, done: impl Fn(&View) -> bool) {
        while !done(&self.catalog) {
            self.hear();
        }
    }

    /// Registers functions with the indexes from 1, and waits for the answer.
    pub(crate) fn register(&mut self, functions: &[&str]) {
        let request = self.ask_to_register(functions);
        loop {
            if let EngineMessage::Registered { request: answered, results } = self.hear() {
                assert_eq!(answered, request);
                for result in results {
                    assert_eq!(result.outcome, RegistrationOutcome::Registered, "{result:?}");
                }
                return;
            }
        }
    }

    /// Asks to register functions and waits for nothing.
    pub(crate) fn ask_to_register(&mut self, functions: &[&str]) -> u64 {
        let request = self.request();
        let specs = functions.iter().zip(1..);
        let functions =
            specs.map(|(id, index)| FunctionSpec::new(FunctionId::new(id).unwrap(), index)).collect();
        self.say(&WorkerMessage::Register(Register { request, functions, ..Register::default() }));
        request
    }

    /// Takes messages, of which only the revision is read, until one has this revision.
    pub(crate) fn skim(&mut self, revision: u64) {
        #[derive(serde::Deserialize)]
        struct Revision {
            revision: Option<u64>,
        }
        let begun = Instant::now();
        loop {
            let Some((json, _)) = self.stream.receive().unwrap() else {
                self.wait(PollFlags::IN, begun);
                continue;
            };
            let message: Revision = serde_json::from_slice(&json).unwrap();
            if message.revision == Some(revision) {
                return;
            }
        }
    }

    pub(crate) fn request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    pub(crate) fn sees(&self, function: &str) -> bool {
        sees(&self.catalog, function)
    }
}

pub(crate) fn sees(catalog: &View, function: &str) -> bool {
    catalog.functions.values().any(|known| known.id.as_str() == function)
}
