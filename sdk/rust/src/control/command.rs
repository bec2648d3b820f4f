//! What other threads ask of the control thread, and the box in which they leave it. It must not know how the
//! requests are carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;

use parking_lot::{Mutex, RwLock};
use ringway_ipc::channel::Channel;
use ringway_protocol::control::RequestId;
use ringway_protocol::{CallError, ErrorCode, WorkerId};

use super::registrations::{RegistrationDone, Wanted};
use super::timers::Timers;

/// Called once with the outcome, on the control thread.
pub(crate) type Done<T> = Box<dyn FnOnce(Result<T, CallError>) + Send>;

/// A request.
pub(super) enum Command {
    Register {
        request: RequestId,
        wanted: Wanted,
        deadline_ns: u64,
        done: RegistrationDone,
    },
    Connect {
        to: WorkerId,
        deadline_ns: u64,
        done: Done<Arc<Channel>>,
    },
    Forget(Arc<Channel>),
    /// A provider's answer.
    Bound {
        binding: String,
        error: Option<CallError>,
    },
    Draining,
    Goodbye,
    Stop,
}

impl Command {
    /// Ends a request that nobody will carry out.
    pub(super) fn fail(self, error: CallError) {
        match self {
            Self::Register { done, .. } => done(Err(error)),
            Self::Connect { done, .. } => done(Err(error)),
            Self::Forget(_) | Self::Bound { .. } | Self::Draining | Self::Goodbye | Self::Stop => {}
        }
    }
}

/// What the thread does at a time.
pub(super) enum Due {
    /// Runs somebody's task.
    Task(Box<dyn FnOnce() + Send>),
    /// Gives up waiting for an answer to a registration.
    Registration(RequestId),
    /// Gives up one wait for a channel.
    Connect { to: WorkerId, waiter: u64 },
    /// Gives up a channel whose other end does not introduce itself.
    Opening(usize),
    /// Sends the records that wait for a link.
    Telemetry,
}

/// What the control thread and its handles share.
pub(super) struct Shared {
    /// None once the thread is gone.
    inbox: Mutex<Option<Vec<Command>>>,
    pub(super) timers: Timers<Due>,
    pub(super) attached: AtomicBool,
    pub(super) thread: RwLock<Option<ThreadId>>,
    next_request: AtomicU64,
    waker: mio::Waker,
}

impl Shared {
    pub(super) fn new(waker: mio::Waker) -> Self {
        Self {
            inbox: Mutex::new(Some(Vec::new())),
            timers: Timers::new(),
            attached: AtomicBool::new(false),
            thread: RwLock::new(None),
            next_request: AtomicU64::new(1),
            waker,
        }
    }

    pub(super) fn next_request(&self) -> RequestId {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// Leaves a request. Without a thread it ends at once, with an error.
    pub(super) fn ask(&self, command: Command) {
        let mut inbox = self.inbox.lock();
        match inbox.as_mut() {
            Some(commands) => {
                let first = commands.is_empty();
                commands.push(command);
                drop(inbox);
                if first {
                    self.wake();
                }
            }
            None => {
                drop(inbox);
                command.fail(closed());
            }
        }
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the control thread");
        }
    }

    pub(super) fn take_commands(&self) -> Vec<Command> {
        self.inbox.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes no more requests, and returns those that nobody has seen.
    pub(super) fn close(&self) -> Vec<Command> {
        self.inbox.lock().take().unwrap_or_default()
    }

    pub(super) fn on_control_thread(&self) -> bool {
        *self.thread.read() == Some(std::thread::current().id())
    }
}

/// The error of everything that is asked of a worker which has left.
pub(super) fn closed() -> CallError {
    CallError::new(ErrorCode::EngineUnavailable, "this worker has left the engine; connect a new one")
}
