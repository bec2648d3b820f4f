//! For tests: an engine's side of the control socket, as small as can be. It says yes to everything unless told
//! otherwise, joins callers with callees, and remembers what it heard.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway_ipc::packet::{PacketListener, PacketStream};
use ringway_ipc::permission::PermissionPage;
use ringway_ipc::sys::process;
use ringway_protocol::control::{
    Catalog, EngineMessage, Hello, Limits, Register, RegistrationOutcome, RegistrationResult, Welcome,
    WorkerMessage,
};
use ringway_protocol::limits::PROTOCOL_VERSION;
use ringway_protocol::{CallError, WorkerId};

/// How the engine behaves, and what it heard.
#[derive(Default)]
pub(super) struct Mind {
    /// The answer to every greeting, if it is a refusal.
    pub(super) refuse: Option<CallError>,
    /// Greetings stay without an answer.
    pub(super) silent: bool,
    /// Ids that are refused.
    pub(super) refused_ids: Vec<String>,
    /// Requests for channels stay without an answer.
    pub(super) ignore_connects: bool,
    /// Stands in for every worker's process.
    pub(super) process: Option<u32>,
    pub(super) hellos: Vec<Hello>,
    pub(super) heard: Vec<WorkerMessage>,
    /// Messages to send, by worker.
    pub(super) say: Vec<(WorkerId, EngineMessage)>,
    /// Workers whose connection is to be closed.
    pub(super) drop: Vec<WorkerId>,
}

impl Mind {
    /// All that was asked to be registered, a list for each message.
    pub(super) fn registered(&self) -> Vec<Vec<String>> {
        let register = |message: &WorkerMessage| match message {
            WorkerMessage::Register(register) => Some(ids(register)),
            _ => None,
        };
        self.heard.iter().filter_map(register).collect()
    }

    pub(super) fn count(&self, name: &str) -> usize {
        self.heard.iter().filter(|message| message.name() == name).count()
    }
}

fn ids(register: &Register) -> Vec<String> {
    let functions = register.functions.iter().map(|item| item.id.to_string());
    let types = register.trigger_types.iter().map(|item| item.id.clone());
    functions.chain(types).chain(register.triggers.iter().map(|item| item.id.clone())).collect()
}

/// Ends with everything it holds when dropped, as a process would.
pub(super) struct FakeEngine {
    pub(super) mind: Arc<Mutex<Mind>>,
    stop: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeEngine {
    pub(super) fn start(address: &str) -> Self {
        Self::start_with(address, Mind::default())
    }

    pub(super) fn start_with(address: &str, mind: Mind) -> Self {
        let listener = PacketListener::bind(address).unwrap();
        let mind = Arc::new(Mutex::new(mind));
        let stop = Arc::new(Mutex::new(false));
        let (thread_mind, thread_stop) = (Arc::clone(&mind), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut server = Server {
                listener,
                mind: thread_mind,
                streams: Vec::new(),
                workers: HashMap::new(),
                next: 0,
                pages: Vec::new(),
            };
            while !*thread_stop.lock() {
                server.step();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { mind, stop, thread: Some(thread) }
    }

    pub(super) fn say(&self, to: WorkerId, message: EngineMessage) {
        self.mind.lock().say.push((to, message));
    }

    /// Waits until what it heard is as wanted.
    pub(super) fn wait(&self, what: &str, wanted: impl Fn(&Mind) -> bool) {
        let begun = Instant::now();
        while !wanted(&self.mind.lock()) {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "waited in vain for {what}: {:?}",
                self.mind.lock().heard
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        *self.stop.lock() = true;
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Server {
    listener: PacketListener,
    mind: Arc<Mutex<Mind>>,
    streams: Vec<Option<PacketStream>>,
    workers: HashMap<WorkerId, usize>,
    next: u64,
    pages: Vec<PermissionPage>,
}

impl Server {
    fn step(&mut self) {
        while let Some(stream) = self.listener.accept().unwrap() {
            self.streams.push(Some(stream));
        }
        for at in 0..self.streams.len() {
            while let Some(stream) = &mut self.streams[at] {
                match stream.receive() {
                    Ok(Some((text, fds))) => self.take(at, serde_json::from_slice(&text).unwrap(), fds),
                    Ok(None) => break,
                    Err(_) => self.streams[at] = None,
                }
            }
        }
        let (say, gone) = {
            let mut mind = self.mind.lock();
            (std::mem::take(&mut mind.say), std::mem::take(&mut mind.drop))
        };
        for (to, message) in say {
            self.send(self.workers[&to], &message, Vec::new());
        }
        for worker in gone {
            let at = self.workers[&worker];
            self.streams[at] = None;
        }
        for stream in &mut self.streams {
            if stream.as_mut().is_some_and(|stream| stream.flush().is_err()) {
                *stream = None;
            }
        }
    }

    fn send(&mut self, at: usize, message: &EngineMessage, fds: Vec<OwnedFd>) {
        let fds = fds.into_iter().map(Arc::new).collect();
        if let Some(stream) = &mut self.streams[at] {
            stream.queue(&serde_json::to_vec(message).unwrap(), fds).unwrap();
        }
    }

    fn take(&mut self, at: usize, message: WorkerMessage, mut fds: Vec<OwnedFd>) {
        let mind = Arc::clone(&self.mind);
        let mut mind = mind.lock();
        match &message {
            WorkerMessage::Hello(hello) => {
                mind.hellos.push((**hello).clone());
                self.workers.insert(hello.worker_id, at);
                if let Some(error) = mind.refuse.clone() {
                    self.send(at, &EngineMessage::Refused { error }, Vec::new());
                } else if !mind.silent {
                    self.send(at, &EngineMessage::Welcome(Box::new(welcome(hello.worker_id))), Vec::new());
                }
            }
            WorkerMessage::Register(register) => {
                let result = |id: String| {
                    if mind.refused_ids.contains(&id) {
                        RegistrationResult::refused(&id, CallError::registration_conflict(&id, "other"))
                    } else {
                        RegistrationResult::done(id, RegistrationOutcome::Registered)
                    }
                };
                let results = ids(register).into_iter().map(result).collect();
                self.send(at, &EngineMessage::Registered { request: register.request, results }, Vec::new());
            }
            WorkerMessage::Unregister(unregister) => {
                let result = |id: &ringway_protocol::FunctionId| {
                    RegistrationResult::done(id.to_string(), RegistrationOutcome::Unregistered)
                };
                let results = unregister.functions.iter().map(result).collect();
                self.send(
                    at,
                    &EngineMessage::Registered { request: unregister.request, results },
                    Vec::new(),
                );
            }
            WorkerMessage::Connect { request, to } if !mind.ignore_connects => {
                let socket = fds.pop().unwrap();
                self.join(at, *request, *to, socket, mind.process.unwrap_or_else(std::process::id));
            }
            WorkerMessage::Goodbye {} => self.streams[at] = None,
            _ => {}
        }
        mind.heard.push(message);
    }

    fn join(&mut self, caller_at: usize, request: u64, to: WorkerId, socket: OwnedFd, process: u32) {
        let Some(callee_at) = self.workers.get(&to).copied() else {
            let error = CallError::not_found("worker", &to.to_string());
            return self.send(caller_at, &EngineMessage::ConnectFailed { request, error }, Vec::new());
        };
        self.next += 1;
        let channel = self.next;
        let from = *self.workers.iter().find(|(_, at)| **at == caller_at).unwrap().0;
        let page = PermissionPage::new(|index| index == 1).unwrap();
        let page_fd = || page.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
        let pidfd = || process::pidfd_open(process).unwrap();
        let incoming =
            EngineMessage::Incoming { channel, from, name: "caller".to_owned(), zone: "default".to_owned() };
        self.send(callee_at, &incoming, vec![socket, pidfd(), page_fd()]);
        self.send(caller_at, &EngineMessage::Connected { request, channel }, vec![pidfd(), page_fd()]);
        self.pages.push(page);
    }
}

fn welcome(worker_id: WorkerId) -> Welcome {
    Welcome {
        worker_id,
        engine_id: WorkerId::new(1),
        epoch: 1,
        protocol: PROTOCOL_VERSION,
        engine_version: "0.0.0".to_owned(),
        engine_pid: std::process::id(),
        zone: "default".to_owned(),
        limits: Limits::default(),
        catalog: Catalog { revision: 5, ..Catalog::default() },
        time_ns: 0,
        unix_time_ms: 0,
    }
}
