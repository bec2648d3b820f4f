//! The control thread of a worker: one thread that attaches to the engine and attaches again when it comes back, keeps
//! registrations, opens channels, watches the peers of all channels, and runs timers. The rest of the SDK asks it
//! through [`Control`] and hears from it through [`Events`]. It must not know what frames and calls are.
//!
//! The engine may die and come back at any time; channels stay, and a peer's death is noticed by its socket and its
//! process without any engine. When nothing happens the thread sleeps in one poll without a time limit.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_ipc::channel::{Channel, ChannelConfig, CloseReason};
use ringway_ipc::clock::now_ns;
use ringway_ipc::permission::PermissionView;
use ringway_protocol::control::{
    Catalog, Change, Hello, KeptChannel, Register, RegistrationResult, TriggerSpec, Unregister, Welcome,
};
use ringway_protocol::{CallError, ErrorCode, WorkerId};

use crate::address::ControlAddress;
use crate::telemetry::Telemetry;

mod answer;
mod command;
mod link;
mod peers;
mod registrations;
mod remote;
mod run;
mod stream;
mod timers;

mod channels;
mod incoming;

use command::{Command, Due, Shared, closed};
use registrations::Wanted;
use run::Run;

pub use answer::BindAnswer;
pub(crate) use command::Done;
pub(crate) use remote::Destination;
pub(crate) use timers::TimerId;

/// What the control thread tells the rest of the SDK. Called on that thread, one at a time and in the order in which
/// things happened, so an implementation must be quick and must not wait for anything the thread would have to do.
pub(crate) trait Events: Send + Sync + 'static {
    /// The worker is attached. The catalog of `welcome` is empty; it follows by itself.
    fn attached(&self, welcome: &Welcome, again: bool);
    /// The whole catalog, at each attach.
    fn catalog(&self, catalog: Catalog);
    /// Changes of the catalog since the last revision.
    fn changes(&self, revision: u64, changes: &[Change]);
    /// The engine is gone. Channels stay.
    fn detached(&self, reason: &str);
    /// Another worker opened a channel to this one.
    fn callee_channel(
        &self,
        channel: Arc<Channel>,
        permissions: Option<PermissionView>,
        caller_name: String,
        zone: String,
    );
    /// A channel is closed, in either role: by hang-up, by the death of its peer, by goodbye, or because one end broke
    /// the protocol. It may be a channel that nobody took after [`Control::connect`] gave up.
    fn channel_closed(&self, channel: &Arc<Channel>, reason: CloseReason);
    /// A channel's permission page: for the caller when the channel opens, for both ends after the engine came back.
    fn permissions(&self, caller: WorkerId, callee: WorkerId, view: PermissionView);
    /// Policy allows a channel no longer. [`Events::channel_closed`] follows.
    fn revoked(&self, caller: WorkerId, callee: WorkerId, error: CallError);
    /// Watch for this, and say whether that can be done.
    fn trigger_bind(&self, binding: TriggerSpec, owner: Option<WorkerId>, answer: BindAnswer);
    /// Watch for it no longer.
    fn trigger_unbind(&self, id: &str);
    /// The provider of a trigger type watches for a binding of this worker.
    fn trigger_accepted(&self, id: &str);
    /// The provider of a trigger type refused a binding of this worker, or left without an answer.
    fn trigger_refused(&self, id: &str, error: CallError);
    /// The engine stops.
    fn shutdown(&self, reason: &str, drain: Duration);
    /// The channels that are open, for the greeting of an engine that has come back.
    fn kept_channels(&self) -> Vec<KeptChannel>;
}

/// What the control thread needs to know.
#[derive(Debug)]
pub(crate) struct ControlConfig {
    /// Where the engine is.
    pub(crate) address: ControlAddress,
    /// The link to dial, if the engine is on another host.
    pub(crate) destination: Option<Destination>,
    /// The greeting; `reattach` and `channels` are filled in each time.
    pub(crate) hello: Hello,
    /// Spans and logs on their way to the engine.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    /// What this worker brings to every channel; channel and peer are filled in each time.
    pub(crate) channel: ChannelConfig,
    /// How long one attach may take.
    pub(crate) attach_timeout: Duration,
    /// The first attach waits for an engine that is not there yet, as long as one attach may take.
    pub(crate) wait_for_engine: bool,
    /// Attach again, forever, when the engine is gone.
    pub(crate) reconnect: bool,
}

/// A handle of the control thread. Dropping it ends the thread, and the engine sees the worker go.
pub(crate) struct Control {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("attached", &self.is_attached()).finish_non_exhaustive()
    }
}

impl Control {
    /// Starts the thread and waits until the worker is attached. `events` hears of that before this returns, so what it
    /// leads to must exist by now.
    ///
    /// # Errors
    /// `engine_unavailable` when no engine answers, or what the engine refused the worker with.
    pub(crate) fn start(config: ControlConfig, events: Weak<dyn Events>) -> Result<Self, CallError> {
        let failed = |error: std::io::Error| {
            CallError::new(ErrorCode::OutOfMemory, format!("cannot start the control thread: {error}"))
        };
        let (outcome, first) = mpsc::sync_channel(1);
        let run = Run::new(config, events, outcome).map_err(failed)?;
        let shared = run.shared();
        let thread = std::thread::Builder::new().name("ringway-control".to_owned());
        let thread = thread.spawn(move || run.run()).map_err(failed)?;
        let control = Self { shared, thread: Mutex::new(Some(thread)) };
        first.recv().unwrap_or_else(|_| Err(closed()))?;
        Ok(control)
    }

    /// Says whether the worker is attached at this moment.
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.attached.load(Ordering::Acquire)
    }

    /// Adds functions, trigger types and triggers, and waits for the engine's answer. What was accepted is registered
    /// again by itself whenever the engine comes back. Without an engine it waits for one.
    ///
    /// # Errors
    /// `engine_unavailable` or `deadline_exceeded` when the time is up.
    pub(crate) fn register(
        &self,
        register: Register,
        timeout: Duration,
    ) -> Result<Vec<RegistrationResult>, CallError> {
        self.registration(Wanted::Add(register), timeout)
    }

    /// Takes functions, trigger types and triggers back.
    ///
    /// # Errors
    /// As [`Control::register`].
    pub(crate) fn unregister(
        &self,
        unregister: Unregister,
        timeout: Duration,
    ) -> Result<Vec<RegistrationResult>, CallError> {
        self.registration(Wanted::TakeBack(unregister), timeout)
    }

    fn registration(&self, wanted: Wanted, timeout: Duration) -> Result<Vec<RegistrationResult>, CallError> {
        let deadline_ns = now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        let request = self.shared.next_request();
        self.wait(|done| Command::Register { request, wanted, deadline_ns, done })
    }

    /// Returns the channel to a worker, as its caller: the one that is open, or a new one. All who ask at the same time
    /// get the same one. `deadline_ns` is absolute, 0 for none.
    ///
    /// # Errors
    /// What the engine refused it with; `worker_gone` when the callee died meanwhile; `engine_unavailable` or
    /// `deadline_exceeded` when the time is up.
    pub(crate) fn connect(&self, to: WorkerId, deadline_ns: u64) -> Result<Arc<Channel>, CallError> {
        self.wait(|done| Command::Connect { to, deadline_ns, done })
    }

    /// As [`Control::connect`], without waiting: `done` is called on the control thread, or here if that is gone.
    #[cfg(test)]
    pub(crate) fn connect_async(&self, to: WorkerId, deadline_ns: u64, done: Done<Arc<Channel>>) {
        self.shared.ask(Command::Connect { to, deadline_ns, done });
    }

    fn wait<T: Send + 'static>(&self, command: impl FnOnce(Done<T>) -> Command) -> Result<T, CallError> {
        if self.shared.on_control_thread() {
            return Err(CallError::new(
                ErrorCode::Busy,
                "the control thread cannot wait for itself; ask from another thread",
            ));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = move |outcome| drop(sender.send(outcome));
        self.shared.ask(command(Box::new(done)));
        receiver.recv().unwrap_or_else(|_| Err(closed()))
    }

    /// Watches a channel no longer, because this side has closed it; no event follows. The engine is told.
    pub(crate) fn forget(&self, channel: &Arc<Channel>) {
        self.shared.ask(Command::Forget(Arc::clone(channel)));
    }

    /// Tells the engine that this worker takes no new calls.
    pub(crate) fn draining(&self) {
        self.shared.ask(Command::Draining);
    }

    /// Leaves the engine in peace and ends the thread; waits a second at most. Channels are the caller's to close.
    pub(crate) fn goodbye(&self) {
        self.shared.ask(Command::Goodbye);
        self.join();
    }

    /// Runs a task on the control thread at a time, `CLOCK_MONOTONIC` nanoseconds, or soon after. The task must be quick.
    /// When the thread ends first, the task is dropped without being run.
    pub(crate) fn schedule(&self, at_ns: u64, task: Box<dyn FnOnce() + Send>) -> TimerId {
        let (id, wake) = self.shared.timers.add(at_ns, Due::Task(task));
        if wake {
            self.shared.wake();
        }
        id
    }

    /// Drops a task that has not run. Costs no system call.
    pub(crate) fn cancel_timer(&self, id: TimerId) {
        drop(self.shared.timers.cancel(id));
    }

    fn join(&self) {
        // The last handle may be dropped by an event, on the thread itself; it ends by itself then.
        if !self.shared.on_control_thread()
            && let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.ask(Command::Stop);
        self.join();
    }
}

#[cfg(test)]
mod fake_engine;
#[cfg(test)]
mod tests;
