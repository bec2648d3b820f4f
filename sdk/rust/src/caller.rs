//! The caller's end of a channel: publishing requests, waiting for replies.
//!
//! Whoever waits may lead: the first thread that needs a reply reads the ring, completes the others' calls on the way,
//! and when its own reply comes leaves the ring to the next. A synchronous call therefore needs no hand-off between
//! threads. Tasks that wait without a thread have the dispatcher read for them.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ringway_ipc::channel::{Channel, CloseReason, KIND_RELEASE, Lead, SendError};
use ringway_ipc::clock::now_ns;
use ringway_ipc::frame::{Header, Inline};
use ringway_ipc::layout::ATTENTION_WORKER_BELL;
use ringway_ipc::turns::{Turn, Turns};
use ringway_ipc::waiter::{EAGER_POLLS, Expectation, SpinPolicy, Spun};
use ringway_protocol::header::{Flags, Kind};
use ringway_protocol::{CallError, ErrorCode, InvocationId, Started, WorkerId};

use crate::memory::Memory;
use crate::pending::{Entry, Outcome, PendingTable, State};
use crate::stream::Inbox;
use crate::wire::{self, Received};

/// Longest sleep of a waiting thread. News always comes with a bell; the bound limits what a stolen one can cost.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// One channel towards a callee.
#[derive(Debug)]
pub(crate) struct CallerChannel {
    pub(crate) channel: Arc<Channel>,
    /// Where the payloads that are sent lie.
    pub(crate) memory: Memory,
    pending: PendingTable,
    policy: Arc<SpinPolicy>,
    turns: Turns<InvocationId>,
}

/// How a call ended whose reply, if it came, lies where the reader of the ring was told to put it. Small, because it is
/// handed through every layer of the quick way.
pub(crate) type Ended = Result<(), Box<CallError>>;

impl CallerChannel {
    pub(crate) fn new(channel: Arc<Channel>, policy: Arc<SpinPolicy>, memory: Memory) -> Self {
        Self { channel, memory, pending: PendingTable::new(), policy, turns: Turns::default() }
    }

    pub(crate) fn peer(&self) -> WorkerId {
        WorkerId::new(self.channel.peer_worker())
    }

    /// Calls in flight.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.pending.taken()
    }

    /// Takes an entry for a new call.
    #[inline]
    pub(crate) fn open(&self) -> Result<InvocationId, CallError> {
        self.pending.take()
    }

    pub(crate) fn entry(&self, invocation: InvocationId) -> Option<&Entry> {
        self.pending.find(invocation)
    }

    /// Publishes the request of an open call. While the ring is full it waits until the moment that `patience` gives (0:
    /// for ever), which is asked only then.
    #[inline]
    pub(crate) fn publish(
        &self,
        invocation: InvocationId,
        header: &Header,
        inline: &Inline,
        leases: wire::Leases,
        patience: impl FnOnce() -> u64,
    ) -> Result<(), CallError> {
        let entry = self.pending.find(invocation);
        if let Some(entry) = entry {
            entry.set_position(u64::MAX);
            entry.keep_leases(leases);
        }
        let sent = match self.channel.send(header, inline) {
            Err(SendError::Full) => self.publish_slowly(header, inline, patience()),
            sent => sent.map_err(send_error),
        };
        match (sent, entry) {
            (Ok(position), Some(entry)) => {
                entry.set_position(position);
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => {
                self.end_open(invocation);
                Err(error)
            }
        }
    }

    /// Publishes a frame that belongs to a call but has no entry of its own, or whose entry is published already.
    pub(crate) fn publish_more(
        &self,
        header: &Header,
        inline: &Inline,
        patience: impl FnOnce() -> u64,
    ) -> Result<(), CallError> {
        match self.channel.send(header, inline) {
            Err(SendError::Full) => self.publish_slowly(header, inline, patience()).map(drop),
            sent => sent.map(drop).map_err(send_error),
        }
    }

    #[cold]
    fn publish_slowly(&self, header: &Header, inline: &Inline, deadline_ns: u64) -> Result<u64, CallError> {
        let mut pause = Duration::from_micros(1);
        // Also on the dispatcher's thread, which hands its role over: the peer may leave our ring alone until what it runs
        // for us has ended, and that may be calling this worker.
        crate::dispatcher::blocking(|| {
            loop {
                // The peer may be waiting for room in *its* ring before it reads ours.
                if let Some(mut lead) = self.channel.try_lead() {
                    self.read_all(&mut lead, None, &mut Received::blank())?;
                    drop(lead);
                    self.hand_over();
                }
                match self.channel.send(header, inline) {
                    Err(SendError::Full) if deadline_ns == 0 || now_ns() < deadline_ns => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(1));
                    }
                    Err(SendError::Full) => {
                        let text = "the callee has not taken a request for the whole time allowed: it is overloaded or stuck";
                        return Err(CallError::new(ErrorCode::Busy, text));
                    }
                    sent => return sent.map_err(send_error),
                }
            }
        })
    }

    /// Gives an open call back that was never published.
    pub(crate) fn end_open(&self, invocation: InvocationId) {
        if let Some(entry) = self.pending.find(invocation) {
            if let Some(leases) = entry.take_leases() {
                wire::end_leases(&self.channel, &leases);
            }
            self.give_back(invocation);
        }
    }

    /// The quick way to wait: the reply comes while we look, and no clock is read. Gives the call's entry back if so.
    #[inline]
    pub(crate) fn wait_quickly(
        &self,
        invocation: InvocationId,
        expected: &Expectation,
        reply: &mut Received,
    ) -> Option<Ended> {
        if let Some(outcome) = self.poll_outcome(invocation) {
            return Some(kept(outcome, reply));
        }
        let mut lead = self.channel.try_lead()?;
        if lead.bell_asked() {
            lead.stop_bell();
        }
        let polls = if self.policy.plan_is_eager(expected.ns()) { EAGER_POLLS } else { 1 };
        let mut ended = None;
        for _ in 0..polls {
            match reply.poll(&mut lead) {
                Ok(false) => {}
                Ok(true) => {
                    ended = self.read(reply, Some(invocation));
                    if ended.is_some() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        drop(lead);
        if ended.is_some() {
            self.give_back(invocation);
        }
        self.hand_over();
        ended
    }

    /// Waits for the outcome of a call, at most until `deadline_ns` (0: for ever), when it is given up, and gives its
    /// entry back.
    #[cold]
    pub(crate) fn wait(&self, invocation: InvocationId, expected: &Expectation, deadline_ns: u64) -> Outcome {
        loop {
            if let Some(outcome) = self.wait_a_while(invocation, expected, deadline_ns) {
                return outcome;
            }
            let Some(entry) = self.pending.find(invocation) else { return Err(lost()) };
            if let Some(outcome) = self.give_up(invocation, entry) {
                return outcome;
            }
        }
    }

    /// Waits for the outcome of a call, at most until `until_ns` (0: for ever). `None`: not yet.
    #[cold]
    pub(crate) fn wait_a_while(
        &self,
        invocation: InvocationId,
        expected: &Expectation,
        until_ns: u64,
    ) -> Option<Outcome> {
        let start = now_ns();
        let outcome = crate::dispatcher::blocking(|| {
            loop {
                let Some(entry) = self.pending.find(invocation) else { return Some(Err(lost())) };
                if entry.is(State::Done) {
                    return Some(entry.take_outcome().unwrap_or_else(|| Err(lost())));
                }
                if until_ns != 0 && now_ns() >= until_ns {
                    return None;
                }
                let mut reply = Received::blank();
                let led = self.channel.try_lead().map(|mut lead| {
                    let done = || !entry.is(State::Waiting);
                    self.lead_until(&mut lead, invocation, expected, until_ns, done, &mut reply)
                });
                match led {
                    Some(Some(ended)) => return Some(ended.map(|()| reply).map_err(|error| *error)),
                    Some(None) => {}
                    None => self.follow(invocation, entry, expected, until_ns),
                }
                if self.channel.close_reason().is_some() && entry.is(State::Waiting) {
                    self.fail_all();
                }
            }
        });
        if outcome.is_some() {
            expected.learn(now_ns() - start);
            if self.pending.find(invocation).is_some() {
                self.give_back(invocation);
            }
        }
        self.hand_over();
        outcome
    }

    /// Reads the ring, or sleeps while another thread does, until `done` holds or for a while. For streams, whose items
    /// come without ending the call.
    pub(crate) fn wait_for_news(&self, invocation: InvocationId, done: impl Fn() -> bool) {
        let expected = Expectation::default();
        let until_ns = now_ns() + u64::try_from(SLEEP_MAX.as_nanos()).unwrap_or(u64::MAX);
        crate::dispatcher::blocking(|| {
            let Some(entry) = self.pending.find(invocation) else { return };
            let mut reply = Received::blank();
            let led = self.channel.try_lead().map(|mut lead| {
                let done = || done() || !entry.is(State::Waiting);
                self.lead_until(&mut lead, invocation, &expected, until_ns, done, &mut reply)
            });
            match led {
                // The reply itself: kept for whoever asks for it.
                Some(Some(ended)) => drop(entry.complete(ended.map(|()| reply).map_err(|error| *error))),
                Some(None) => {}
                None => self.follow(invocation, entry, &expected, until_ns),
            }
        });
        if self.channel.close_reason().is_some() {
            self.fail_all();
        }
        self.hand_over();
    }

    /// Abandons a call whose time is up, unless it is done already.
    fn give_up(&self, invocation: InvocationId, entry: &Entry) -> Option<Outcome> {
        if !entry.abandon() {
            return None;
        }
        self.send_cancel(invocation);
        Some(Err(out_of_time()))
    }

    fn send_cancel(&self, invocation: InvocationId) {
        let header =
            Header { invocation: invocation.to_u64(), kind: Kind::Cancel.to_u8(), ..Header::default() };
        let _closed_means_over = self.channel.send_or_keep(&header, &Inline::default());
    }

    /// Gives a call up before its end: its handler is told, its reply will be dropped.
    pub(crate) fn abandon(&self, invocation: InvocationId) {
        let Some(entry) = self.pending.find(invocation) else { return };
        if entry.abandon() {
            self.send_cancel(invocation);
        } else if entry.is(State::Done) {
            drop(entry.take_outcome());
            self.give_back(invocation);
        }
    }

    /// Reads the ring until the call's reply comes, `done` holds, the time is up or the channel is closed.
    fn lead_until(
        &self,
        lead: &mut Lead<'_>,
        invocation: InvocationId,
        expected: &Expectation,
        until_ns: u64,
        done: impl Fn() -> bool,
        reply: &mut Received,
    ) -> Option<Ended> {
        if lead.bell_asked() {
            lead.stop_bell();
        }
        loop {
            match self.read_all(lead, Some(invocation), reply) {
                Ok(Some(ended)) => return Some(ended),
                Ok(None) if !done() && self.channel.close_reason().is_none() => {}
                _ => return None,
            }
            let spin_ns = self.policy.plan(expected.ns());
            let spun = self.policy.spin(spin_ns, || lead.ready() || done());
            self.policy.account(spin_ns, spun);
            if spun != Spun::InVain {
                continue;
            }
            let left = time_left(until_ns)?;
            // Before asking; what was rung for meanwhile is looked at below, after asking.
            let _woken_before = self.channel.own_bell().settle();
            let _how = lead.sleep(left, || done() || self.channel.close_reason().is_some());
            lead.stop_bell();
        }
    }

    /// Waits while another thread reads the ring.
    fn follow(&self, invocation: InvocationId, entry: &Entry, expected: &Expectation, deadline_ns: u64) {
        let spin_ns = self.policy.plan(expected.ns());
        let spun = self.policy.spin(spin_ns, || !entry.is(State::Waiting) || self.channel.leads_free());
        self.policy.account(spin_ns, spun);
        let Some(left) = time_left(deadline_ns) else { return };
        if spun != Spun::InVain {
            return;
        }
        entry.register_thread();
        let waits = || entry.is(State::Waiting) && self.channel.close_reason().is_none();
        self.turns.follow(self, invocation, waits, || std::thread::park_timeout(left));
    }

    /// After leading: somebody else must read the ring if somebody waits.
    #[inline]
    pub(crate) fn hand_over(&self) {
        self.turns.hand_over(self);
    }

    /// Asks for the dispatcher's bell without a fence of its own, where tasks wait and nobody leads. Before each sleep.
    pub(crate) fn post_request(&self) {
        self.turns.post_request(self);
    }

    /// Reads all that is there, for the dispatcher. Returns whether there was anything.
    pub(crate) fn serve(&self) -> bool {
        let open = self.turns.serve(self);
        if open == Some(false) {
            self.fail_all();
        }
        open.is_some()
    }

    /// Whether tasks wait here, so that the dispatcher must read the ring.
    #[inline]
    pub(crate) fn has_tasks(&self) -> bool {
        self.turns.has_tasks()
    }

    /// Takes the outcome if the call is done, and gives its entry back.
    pub(crate) fn poll_outcome(&self, invocation: InvocationId) -> Option<Outcome> {
        let entry = self.pending.find(invocation)?;
        if !entry.is(State::Done) {
            return None;
        }
        let outcome = entry.take_outcome();
        self.give_back(invocation);
        outcome
    }

    /// Has `waker` woken when the call is done. The call counts as waited for by a task from the first time on.
    pub(crate) fn watch_by_task(&self, invocation: InvocationId, waker: &Waker, first: bool) {
        if let Some(entry) = self.pending.find(invocation) {
            entry.register_task(waker);
        }
        if first {
            self.turns.task_came(self);
        }
        if self.channel.close_reason().is_some() {
            self.fail_all();
        }
    }

    /// A task no longer waits.
    pub(crate) fn task_left(&self) {
        self.turns.task_left();
    }

    /// Acts on every frame that is there; returns early when it was the reply to `mine`, which then lies in `place`.
    fn read_all(
        &self,
        lead: &mut Lead<'_>,
        mine: Option<InvocationId>,
        place: &mut Received,
    ) -> Result<Option<Ended>, CallError> {
        loop {
            match place.poll(lead) {
                Ok(true) => {
                    if let Some(ended) = self.read(place, mine) {
                        return Ok(Some(ended));
                    }
                }
                Ok(false) => return Ok(None),
                Err(reason) => return Err(wire::closed(reason)),
            }
        }
    }

    /// Acts on a frame. Returns how `mine` ended, if this was its end.
    #[inline]
    fn read(&self, frame: &mut Received, mine: Option<InvocationId>) -> Option<Ended> {
        let kind = frame.header.kind;
        if kind == Kind::Reply.to_u8() || kind == Kind::Error.to_u8() {
            return self.read_reply(frame, mine);
        }
        self.read_other(frame);
        None
    }

    #[inline]
    fn read_reply(&self, frame: &mut Received, mine: Option<InvocationId>) -> Option<Ended> {
        let invocation = InvocationId::from_u64(frame.header.invocation);
        let Some(entry) = self.pending.find(invocation) else {
            self.channel.violation(CloseReason::Nonsense);
            return None;
        };
        // The reply implies the return of the request's payloads, unless the callee says that it holds some.
        if let Some(leases) = entry.take_leases()
            && frame.header.flags & Flags::HOLD.bits() == 0
        {
            wire::end_leases(&self.channel, &leases);
        }
        let is_error = frame.header.kind == Kind::Error.to_u8();
        let ended = match frame.resolve(&self.channel) {
            Ok(()) if is_error => Err(Box::new(read_error(frame))),
            Ok(()) => Ok(()),
            // It was answered, but the payload of the answer is out of reach with its owner.
            Err(reason) => Err(Box::new(gone(Started::Maybe, reason))),
        };
        if let Some(inbox) = entry.stream() {
            inbox.end(ended.as_ref().err().map(|error| CallError::clone(error)));
        }
        if mine == Some(invocation) && entry.is(State::Waiting) {
            return Some(ended);
        }
        self.complete(invocation, entry, ended.map(|()| frame.take()).map_err(|error| *error));
        None
    }

    /// Leaves the outcome of a call for whoever waits for it.
    fn complete(&self, invocation: InvocationId, entry: &Entry, outcome: Outcome) {
        if !entry.complete(outcome) {
            if entry.is(State::Abandoned) {
                self.give_back(invocation);
            } else {
                // Answered already, and its entry is its waiter's to give back.
                self.channel.violation(CloseReason::Nonsense);
            }
        }
    }

    #[cold]
    fn read_other(&self, frame: &mut Received) {
        match Kind::try_from(frame.header.kind) {
            Ok(Kind::Release) => {
                debug_assert_eq!(frame.header.kind, KIND_RELEASE, "the two crates agree");
                let _closed_if_false = self.channel.take_release(&frame.header, &frame.inline);
            }
            Ok(Kind::StreamData | Kind::StreamEnd | Kind::Credit) => {
                // Frames of a stream whose call was given up are dropped, their payloads returned.
                let invocation = InvocationId::from_u64(frame.header.invocation);
                let inbox = self.pending.find(invocation).and_then(Entry::stream);
                if frame.resolve(&self.channel).is_err() {
                    return;
                }
                let frame = frame.take();
                if let Some(inbox) = inbox
                    && inbox.take_frame(frame).is_err()
                {
                    self.channel.violation(CloseReason::Nonsense);
                }
            }
            _ => {
                self.channel.violation(CloseReason::Nonsense);
            }
        }
    }

    /// The channel is closed: every call in flight ends, exactly. Replies that came before the end still count.
    pub(crate) fn fail_all(&self) {
        let reason = self.channel.close_reason().unwrap_or(CloseReason::Local);
        let open = self.pending.close();
        loop {
            if let Some(mut lead) = self.channel.try_lead() {
                let _broken_ring_has_no_more = self.read_all(&mut lead, None, &mut Received::blank());
                break;
            }
            if open.iter().all(|invocation| {
                self.pending.find(*invocation).is_none_or(|entry| !entry.is(State::Waiting))
            }) {
                break;
            }
            self.channel.own_bell().notify();
            std::thread::yield_now();
        }
        for invocation in open {
            let Some(entry) = self.pending.find(invocation) else { continue };
            let position = entry.position();
            let started = position == u64::MAX || self.channel.was_consumed(position);
            let started = if started { Started::Maybe } else { Started::No };
            drop(entry.take_leases());
            if let Some(inbox) = entry.stream() {
                inbox.end(Some(gone(started, reason)));
            }
            if !entry.complete(Err(gone(started, reason))) && entry.is(State::Abandoned) {
                self.give_back(invocation);
            }
        }
    }

    /// Gives a call an inbox for the items that its callee streams.
    pub(crate) fn set_stream(&self, invocation: InvocationId, inbox: Arc<Inbox>) {
        if let Some(entry) = self.pending.find(invocation) {
            entry.set_stream(inbox);
        }
    }
}

/// Puts a reply that somebody else took off the ring where it was asked for.
#[cold]
pub(crate) fn kept(outcome: Outcome, reply: &mut Received) -> Ended {
    *reply = outcome.map_err(Box::new)?;
    Ok(())
}

fn time_left(deadline_ns: u64) -> Option<Duration> {
    if deadline_ns == 0 {
        return Some(SLEEP_MAX);
    }
    let left = deadline_ns.checked_sub(now_ns())?;
    Some(Duration::from_nanos(left).min(SLEEP_MAX))
}

pub(crate) fn out_of_time() -> CallError {
    let text = "no reply in the time allowed; allow more, or look where it went with `ringway traces`";
    CallError::new(ErrorCode::DeadlineExceeded, text)
}

fn lost() -> CallError {
    CallError::new(ErrorCode::Cancelled, "the call is no longer in flight")
}

fn send_error(error: SendError) -> CallError {
    match error {
        SendError::Closed(reason) if !reason.is_violation() => gone(Started::No, reason),
        SendError::Closed(reason) => wire::closed(reason),
        _ => CallError::new(ErrorCode::Busy, error.to_string()),
    }
}

fn gone(started: Started, reason: CloseReason) -> CallError {
    let mut error = wire::closed(reason);
    error.started = Some(started);
    error
}

fn read_error(received: &Received) -> CallError {
    serde_json::from_slice(received.body()).unwrap_or_else(|_| {
        let code = ErrorCode::from_status(received.header.function).unwrap_or(ErrorCode::HandlerError);
        CallError::new(code, "the callee sent no readable description")
    })
}

impl Turn for CallerChannel {
    type Key = InvocationId;
    type Lead<'a> = Lead<'a>;

    #[inline]
    fn try_lead(&self) -> Option<Lead<'_>> {
        self.channel.try_lead()
    }

    fn is_free(&self) -> bool {
        self.channel.leads_free()
    }

    fn dispatcher_asked(&self) -> bool {
        self.channel.asks_for_worker_bell()
    }

    fn ready(&self, lead: &Lead<'_>) -> bool {
        lead.ready()
    }

    fn bell_asked(&self, lead: &Lead<'_>) -> bool {
        lead.bell_asked()
    }

    fn post_request(&self, lead: &mut Lead<'_>) {
        lead.post_request(ATTENTION_WORKER_BELL);
    }

    fn ask_for_bell(&self, lead: &mut Lead<'_>) -> bool {
        lead.ask_for_bell(ATTENTION_WORKER_BELL)
    }

    fn drain(&self, lead: &mut Lead<'_>) -> bool {
        self.read_all(lead, None, &mut Received::blank()).is_ok()
    }

    fn wake(&self, follower: InvocationId) {
        if let Some(entry) = self.pending.find(follower) {
            entry.wake();
        }
    }
}

impl CallerChannel {
    /// Whether the dispatcher must stay awake for this ring; see [`Turns::has_news`].
    #[inline]
    pub(crate) fn ready(&self) -> bool {
        self.turns.has_news(self)
    }
}

impl CallerChannel {
    /// Has the dispatcher read the ring for a stream that is awaited without a thread, until its call ends.
    pub(crate) fn watch_stream(&self, invocation: InvocationId, waker: &Waker) {
        let Some(entry) = self.pending.find(invocation) else { return };
        let first = entry.claim_stream_task();
        if !first && !self.has_tasks() {
            return;
        }
        self.watch_by_task(invocation, waker, first);
    }

    /// Gives a call's entry back, and with it the dispatcher's duty to read for its stream.
    #[inline]
    fn give_back(&self, invocation: InvocationId) {
        if self.pending.give_back(invocation) {
            self.task_left();
        }
    }
}
