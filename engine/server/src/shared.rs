//! What the engine's threads share: the catalog to ask, the store of traces, counters, and the way to tell the control
//! thread something. Listings read the catalog under a read lock, so a question never waits for a socket.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use mio::Waker;
use parking_lot::{Mutex, RwLock};
use ringway_engine_core::{Core, Event};
use ringway_protocol::CallError;
use ringway_protocol::control::Change;
use ringway_protocol::ids::WorkerId;
use ringway_telemetry::{ClockAnchor, Collector};

use crate::counters::Counters;
use crate::relay::InFlight;

/// What the control thread is told by the rest of the engine.
#[derive(Debug)]
pub(crate) enum Command {
    /// Something happened that is not from a socket.
    Event(Box<Event>),
    /// As [`Command::Event`]; the sender hears once all that follows from it is queued.
    Settle(Box<Event>, SyncSender<()>),
    /// Accept nobody any more, and remove the sockets' files.
    CloseListeners,
    /// End.
    Stop,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine_id: WorkerId,
    pub(crate) core: RwLock<Core>,
    pub(crate) collector: Arc<Mutex<Collector>>,
    pub(crate) counters: Counters,
    pub(crate) started_ns: u64,
    /// How many bindings want to hear of the catalog's changes.
    pub(crate) watchers: AtomicUsize,
    /// Where changes go for them.
    pub(crate) changes: Mutex<Option<Sender<Vec<Change>>>>,
    /// Calls that are being passed on between zones.
    pub(crate) relayed: InFlight,
    /// Who waits for the answer of a kept binding's provider, by the binding.
    pub(crate) settling: Mutex<HashMap<String, SyncSender<Option<CallError>>>>,
    commands: Sender<Command>,
    waker: Waker,
}

impl Shared {
    /// Returns what the threads share, and the control thread's end of the commands.
    pub(crate) fn new(
        engine_id: WorkerId,
        core: Core,
        collector: Collector,
        waker: Waker,
    ) -> (Arc<Self>, Receiver<Command>) {
        let (commands, receiver) = channel();
        let shared = Self {
            engine_id,
            core: RwLock::new(core),
            collector: Arc::new(Mutex::new(collector)),
            counters: Counters::default(),
            started_ns: now_ns(),
            watchers: AtomicUsize::new(0),
            changes: Mutex::new(None),
            relayed: InFlight::default(),
            settling: Mutex::default(),
            commands,
            waker,
        };
        (Arc::new(shared), receiver)
    }

    /// Tells the control thread something. Nothing happens once it has ended.
    pub(crate) fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            let woken: io::Result<()> = self.waker.wake();
            if let Err(error) = woken {
                tracing::error!(%error, "cannot wake the control thread");
            }
        }
    }

    /// Has the control thread take in an event, and waits until it has. Says no where that thread has ended.
    pub(crate) fn settle(&self, event: Event) -> bool {
        let (done, settled) = sync_channel(1);
        self.tell(Command::Settle(Box::new(event), done));
        settled.recv().is_ok()
    }
}

/// The engine's clock: `CLOCK_MONOTONIC`, nanoseconds.
pub(crate) fn now_ns() -> u64 {
    ringway_ipc::sys::event::monotonic_ns()
}

/// The two clocks now.
pub(crate) fn clock_anchor() -> ClockAnchor {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ClockAnchor { monotonic_ns: now_ns(), unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX) }
}
