//! The loop of the control thread: waits, reads what came, carries out what was asked, runs what is due.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mio::{Poll, Token, Waker};
use ringway_ipc::clock::now_ns;
use ringway_protocol::control::WorkerMessage;
use ringway_protocol::{CallError, ErrorCode, WorkerId};

use super::channels::Channels;
use super::command::{Command, Due, Shared, closed};
use super::link::{Link, Stage};
use super::registrations::{RegistrationDone, Registrations, Wanted};
use super::remote::{Caller, Destination, Remote};
use super::stream::Stream;
use super::{ControlConfig, Events};

const ENGINE: Token = Token(0);
const WAKER: Token = Token(1);
/// How much news is taken from the system at a time.
const NEWS_MAX: usize = 256;
/// How often records go out over a link: those of so long a time travel together.
const TELEMETRY_EVERY: Duration = Duration::from_millis(5);
/// How long a goodbye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// All that the control thread has.
pub(super) struct Run {
    pub(super) poll: Poll,
    pub(super) shared: Arc<Shared>,
    pub(super) config: ControlConfig,
    events: Weak<dyn Events>,
    pub(super) link: Link,
    pub(super) registrations: Registrations,
    pub(super) channels: Channels,
    /// Where `start` waits; taken with the first outcome.
    first: Option<SyncSender<Result<(), CallError>>>,
    /// Until when the first attach may wait for an engine.
    first_by_ns: u64,
    pub(super) attached_before: bool,
    draining: bool,
    leave_by_ns: Option<u64>,
    stopped: bool,
    /// When records may be sent again over a link, and whether that is scheduled.
    telemetry_at_ns: u64,
    telemetry_due: bool,
}

impl Run {
    pub(super) fn new(
        config: ControlConfig,
        events: Weak<dyn Events>,
        first: SyncSender<Result<(), CallError>>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let first_by_ns = after(config.attach_timeout);
        Ok(Self {
            poll,
            shared: Arc::new(Shared::new(waker)),
            config,
            events,
            link: Link::new(ENGINE),
            registrations: Registrations::default(),
            channels: Channels::default(),
            first: Some(first),
            first_by_ns,
            attached_before: false,
            draining: false,
            leave_by_ns: None,
            stopped: false,
            telemetry_at_ns: 0,
            telemetry_due: false,
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn run(mut self) {
        *self.shared.thread.write() = Some(std::thread::current().id());
        let mut news = mio::Events::with_capacity(NEWS_MAX);
        while !self.stopped {
            self.look_after_link();
            if self.stopped {
                break;
            }
            let until_ns =
                self.shared.timers.sleep(self.link.due_ns().min(self.leave_by_ns.unwrap_or(u64::MAX)));
            let timeout = (until_ns != u64::MAX).then(|| sleep_time(until_ns));
            let polled = self.poll.poll(&mut news, timeout);
            self.shared.timers.wake();
            match polled {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(%error, "the control thread cannot wait");
                    break;
                }
                Err(_) => {}
                Ok(()) => news.iter().for_each(|event| self.take_news(event.token())),
            }
            for command in self.shared.take_commands() {
                self.carry_out(command);
            }
            while let Some(due) = self.shared.timers.take_due(now_ns()) {
                self.run_due(due);
            }
            self.flush();
        }
        self.end();
    }

    fn take_news(&mut self, token: Token) {
        match token {
            WAKER => {}
            ENGINE => {
                self.read_engine();
                self.send_telemetry();
            }
            other => self.channel_news(other),
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Register { request, wanted, deadline_ns, done } => {
                self.register(request, wanted, deadline_ns, done);
            }
            Command::Connect { to, deadline_ns, done } => self.connect(to, deadline_ns, done),
            Command::Forget(channel) => self.forget(&channel),
            Command::Bound { binding, error } => self.send(&WorkerMessage::TriggerBound { binding, error }),
            Command::Draining => {
                self.draining = true;
                self.send(&WorkerMessage::Draining {});
            }
            Command::Goodbye => {
                self.send(&WorkerMessage::Goodbye {});
                self.leave_by_ns = Some(if self.link.is_up() { after(GOODBYE_MAX) } else { 0 });
            }
            Command::Stop => self.stopped = true,
        }
    }

    fn run_due(&mut self, due: Due) {
        match due {
            Due::Task(task) => task(),
            Due::Registration(request) => {
                let attached = self.link.is_up();
                let error = self.time_is_up("registration", attached);
                self.registrations.expire(request, |_| error);
            }
            Due::Connect { to, waiter } => self.give_up_waiting(to, waiter),
            Due::Opening(key) => self.give_up_opening(key),
            Due::Telemetry => {
                self.telemetry_due = false;
                self.send_telemetry();
            }
        }
    }

    /// Tells the rest of the SDK, if it is still there.
    pub(super) fn tell<T>(&self, news: impl FnOnce(&dyn Events) -> T) -> Option<T> {
        self.events.upgrade().map(|events| news(&*events))
    }

    /// Sends a message that is of use only to the engine that is there now.
    pub(super) fn send(&mut self, message: &WorkerMessage) {
        if self.link.is_up() {
            self.link.send(message, Vec::new());
        }
    }

    fn register(&mut self, request: u64, wanted: Wanted, deadline_ns: u64, done: RegistrationDone) {
        if !self.config.reconnect && !self.link.is_up() {
            return done(Err(self.unavailable("the engine is gone, and this worker does not attach again")));
        }
        let shared = self.shared();
        let (timer, _) = shared.timers.add(deadline_ns, Due::Registration(request));
        let done = Box::new(move |outcome| {
            drop(shared.timers.cancel(timer));
            done(outcome);
        });
        if let Some(message) = self.registrations.ask(request, wanted, done, self.link.is_up()) {
            self.send(&message);
        }
    }

    /// Attaches when it is time to, and gives up an attach that takes too long.
    fn look_after_link(&mut self) {
        if self.leave_by_ns.is_some_and(|by| by <= now_ns()) {
            self.stopped = true;
        } else if self.link.due_ns() <= now_ns() {
            match self.link.stage {
                Stage::Down { .. } => self.attach(),
                Stage::Greeted { .. } => {
                    let problem = format!("no answer within {:?}", self.config.attach_timeout);
                    self.attach_failed(self.unavailable(problem));
                }
                Stage::Up { .. } => {}
            }
        }
    }

    fn attach(&mut self) {
        let mut hello = self.config.hello.clone();
        hello.reattach = self.attached_before;
        hello.channels = self.tell(Events::kept_channels).unwrap_or_default();
        let mut fds = Vec::new();
        let stream = match &self.config.destination {
            // Over a link, records travel as messages, and nothing rides with the greeting.
            Some(destination) => self.dial(destination.clone()),
            None => {
                let fd = self.config.telemetry.as_ref().and_then(|telemetry| telemetry.prepare());
                fds.extend(fd.map(Arc::new));
                Link::local(self.config.address.as_str())
            }
        };
        let answer_by_ns = after(self.config.attach_timeout);
        let address = self.config.address.as_str();
        let hello = WorkerMessage::Hello(Box::new(hello));
        let greeted = stream
            .and_then(|stream| self.link.greet(self.poll.registry(), stream, &hello, fds, answer_by_ns));
        match greeted {
            Ok(()) => self.flush(),
            Err(error)
                if self.attached_before || (self.config.wait_for_engine && now_ns() < self.first_by_ns) =>
            {
                tracing::debug!(%error, address, "no engine yet");
                self.link.drop_stream(self.poll.registry(), true);
            }
            Err(error) => self.attach_failed(self.unavailable(error)),
        }
    }

    fn dial(&self, destination: Destination) -> io::Result<Stream> {
        let caller = Caller {
            worker: self.own_id(),
            name: self.config.hello.name.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let timeout = self.config.attach_timeout;
        let remote = Remote::dial(destination, caller, self.config.channel.clone(), timeout)?;
        Ok(Stream::Remote(Box::new(remote)))
    }

    /// Sends records that wait, over a link; those of one moment together.
    pub(super) fn send_telemetry(&mut self) {
        let Some(telemetry) = self.config.telemetry.clone() else { return };
        if !self.link.is_up() {
            return;
        }
        if now_ns() < self.telemetry_at_ns {
            if !std::mem::replace(&mut self.telemetry_due, true) {
                let (_timer, _wake) = self.shared.timers.add(self.telemetry_at_ns, Due::Telemetry);
            }
            return;
        }
        if let Some(remote) = self.link.remote()
            && let Some(records) = telemetry.take_batch(remote.offset_ns())
        {
            remote.telemetry(records);
            self.telemetry_at_ns = after(TELEMETRY_EVERY);
        }
    }

    /// The engine answered the greeting.
    pub(super) fn attach_done(&mut self, revision: u64) {
        self.link.attached(revision);
        self.attached_before = true;
        self.shared.attached.store(true, Ordering::Release);
    }

    /// What the new engine must know. Sent after [`Events`] heard of the attach.
    pub(super) fn tell_engine_all(&mut self) {
        let request = self.shared.next_request();
        if let Some(message) = self.registrations.replay(request) {
            self.send(&message);
        }
        if self.draining {
            self.send(&WorkerMessage::Draining {});
        }
        self.ask_for_waiting_channels();
        self.report_first(Ok(()));
    }

    fn report_first(&mut self, outcome: Result<(), CallError>) {
        if let Some(first) = self.first.take() {
            // Whoever waits cannot have left before this.
            drop(first.send(outcome));
        }
    }

    /// An attach did not succeed: the first one ends the thread, a later one is tried again.
    pub(super) fn attach_failed(&mut self, error: CallError) {
        self.link.drop_stream(self.poll.registry(), self.attached_before && self.config.reconnect);
        if self.attached_before {
            tracing::debug!(%error, "cannot attach again yet");
        } else {
            self.report_first(Err(error));
            self.stopped = true;
        }
    }

    /// The engine is gone, or of no use any more.
    pub(super) fn detach(&mut self, reason: &str) {
        if !self.link.is_up() {
            return self.attach_failed(self.unavailable(reason));
        }
        self.link.drop_stream(self.poll.registry(), self.config.reconnect);
        self.shared.attached.store(false, Ordering::Release);
        if self.leave_by_ns.is_some() {
            self.stopped = true;
            return;
        }
        if let Some(telemetry) = &self.config.telemetry {
            telemetry.detach();
        }
        self.registrations.engine_gone();
        self.channels_lose_engine();
        if !self.config.reconnect {
            let error = self.unavailable(reason);
            self.registrations.fail_all(&error);
            self.fail_connecting(&error);
        }
        self.tell(|events| events.detached(reason));
    }

    fn flush(&mut self) {
        if let Err(error) = self.link.flush() {
            // What the engine said last, such as a refusal, may still be there.
            self.read_engine();
            if !matches!(self.link.stage, Stage::Down { .. }) {
                self.detach(&format!("cannot send to the engine: {error}"));
            }
        }
    }

    /// The error for whoever waits for an engine.
    pub(super) fn unavailable(&self, problem: impl std::fmt::Display) -> CallError {
        let address = &self.config.address;
        let message = format!(
            "no engine answers at `{address}` ({}; {problem}); start one with `ringway up`, or embed `ringway_engine::Engine`",
            address.origin()
        );
        CallError::new(ErrorCode::EngineUnavailable, message)
    }

    /// The error for whoever waited too long.
    pub(super) fn time_is_up(&self, what: &str, attached: bool) -> CallError {
        if attached {
            CallError::new(ErrorCode::DeadlineExceeded, format!("the {what} was not answered in time"))
        } else {
            self.unavailable(format_args!("the {what} waited for it in vain"))
        }
    }

    pub(super) fn own_id(&self) -> WorkerId {
        self.config.hello.worker_id
    }

    /// Ends everything that somebody waits for. Channels stay open: they belong to the rest of the SDK.
    fn end(mut self) {
        self.flush_last();
        let error = closed();
        self.report_first(Err(error.clone()));
        self.shared.attached.store(false, Ordering::Release);
        for command in self.shared.close() {
            command.fail(error.clone());
        }
        self.registrations.fail_all(&error);
        self.fail_connecting(&error);
        drop(self.shared.timers.take_all());
        self.link.drop_stream(self.poll.registry(), false);
    }

    fn flush_last(&mut self) {
        self.telemetry_at_ns = 0;
        self.send_telemetry();
        if let Err(error) = self.link.flush() {
            tracing::debug!(%error, "the engine was gone first");
        }
    }
}

/// Returns the time a while from now.
pub(super) fn after(duration: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns how long to sleep until a time. Rounded up to whole milliseconds by the system's call, which is late rather
/// than early.
fn sleep_time(until_ns: u64) -> Duration {
    Duration::from_nanos(until_ns.saturating_sub(now_ns()))
}
