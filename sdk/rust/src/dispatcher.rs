//! The dispatcher: the thread of a worker that reads what callers publish.
//!
//! It visits the channels that are busy, spins a little when they fall quiet, and sleeps on the worker's doorbell.
//! Handlers that run inline run on it. When such a handler blocks in a nested call, the role passes to another thread,
//! so the worker goes on serving and mutually recursive calls cannot deadlock: the leader/followers pattern (Schmidt,
//! O'Ryan, Pyarali, Kircher and Buschmann, "Leader/Followers", 2000).

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use ringway_ipc::channel::Channel;
use ringway_ipc::clock::now_ns;
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::layout::ATTENTION_WORKER_BELL;
use ringway_ipc::nap::{self, Slept};
use ringway_ipc::waiter::{EAGER_POLLS, Expectation, SpinPolicy, Spun, WaitMode};

use crate::callee::{CalleeChannel, Polled, Server};
use crate::caller::CallerChannel;
use crate::links::Links;
use crate::worker::Inner;

/// Frames of one channel that are handled before the next channel has its turn.
const TURN: usize = 64;

/// How often the ring of the only busy channel is looked at before anything else is: a look is one load, and what is
/// between two delays what comes meanwhile.
const LOOKS_AT_ONE: u32 = 16;

/// Rounds over the busy channels before a spin reads the clock.
const EAGER_ROUNDS: u32 = EAGER_POLLS / LOOKS_AT_ONE;

/// Longest sleep. News comes with a bell; the bound limits what a peer that steals one can do.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Sleep while frames wait for room in a peer's ring.
const SLEEP_OVERFLOWING: Duration = Duration::from_micros(200);

/// How long a spin goes on before the doorbell is looked at: a channel that was quiet rings it.
const BELL_EVERY_NS: u64 = 20_000;

/// How many rounds over the busy channels go on before the doorbell is looked at: while one caller keeps this thread busy,
/// the others ring for it in vain. A look is a system call of 0.3 µs, which 64 calls share.
const BELL_EVERY_ROUNDS: u32 = 64;

/// Threads that may have handed the role over and still run their handler. Beyond that the role stays.
const THREADS_MAX: usize = 512;

/// How long a thread without the role waits to be given it.
const SPARE_IDLE: Duration = Duration::from_secs(10);

/// The state that every thread which may have the role shares.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) bell: Doorbell,
    /// Links to other hosts, whose bytes the thread with the role moves.
    pub(crate) links: Arc<Links>,
    policy: Arc<SpinPolicy>,
    callees: ArcSwap<Vec<Arc<CalleeChannel>>>,
    callers: ArcSwap<Vec<Arc<CallerChannel>>>,
    /// Channels whose caller has left, and how many frames may still be in each ring.
    ending: Mutex<Vec<(Arc<CalleeChannel>, u32)>>,
    /// Rises with every change of the two lists.
    version: AtomicU64,
    /// Names the thread that has the role: the one that began with this number.
    role: AtomicU64,
    stop: AtomicBool,
    spares: Mutex<Spares>,
    spare_wanted: Condvar,
    expected: Expectation,
}

#[derive(Debug, Default)]
struct Spares {
    idle: usize,
    threads: usize,
    wanted: Option<u64>,
}

thread_local! {
    static ROLE: RefCell<Option<(Weak<Inner>, u64)>> = const { RefCell::new(None) };
}

impl Dispatcher {
    pub(crate) fn new(bell: Doorbell, policy: Arc<SpinPolicy>) -> Self {
        Self {
            links: Links::new(bell.clone()),
            bell,
            policy,
            callees: ArcSwap::default(),
            callers: ArcSwap::default(),
            ending: Mutex::default(),
            version: AtomicU64::new(0),
            role: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            spares: Mutex::default(),
            spare_wanted: Condvar::new(),
            expected: Expectation::default(),
        }
    }

    pub(crate) fn callees(&self) -> Arc<Vec<Arc<CalleeChannel>>> {
        self.callees.load_full()
    }

    pub(crate) fn callers(&self) -> Arc<Vec<Arc<CallerChannel>>> {
        self.callers.load_full()
    }

    pub(crate) fn add_callee(&self, channel: &Arc<CalleeChannel>) {
        self.callees.rcu(|list| list.iter().cloned().chain([Arc::clone(channel)]).collect::<Vec<_>>());
        self.changed();
    }

    pub(crate) fn add_caller(&self, channel: &Arc<CallerChannel>) {
        self.callers.rcu(|list| list.iter().cloned().chain([Arc::clone(channel)]).collect::<Vec<_>>());
        self.changed();
    }

    /// Takes a closed channel off the lists and returns what it was.
    pub(crate) fn remove(
        &self,
        channel: &Arc<Channel>,
    ) -> (Option<Arc<CalleeChannel>>, Option<Arc<CallerChannel>>) {
        let callee = self.callees.load().iter().find(|other| Arc::ptr_eq(&other.channel, channel)).cloned();
        let caller = self.callers.load().iter().find(|other| Arc::ptr_eq(&other.channel, channel)).cloned();
        self.callees.rcu(|list| {
            list.iter().filter(|other| !Arc::ptr_eq(&other.channel, channel)).cloned().collect::<Vec<_>>()
        });
        self.callers.rcu(|list| {
            list.iter().filter(|other| !Arc::ptr_eq(&other.channel, channel)).cloned().collect::<Vec<_>>()
        });
        self.changed();
        (callee, caller)
    }

    /// Has the thread with the role act on what a caller had sent before it left.
    pub(crate) fn end(&self, channel: Arc<CalleeChannel>) {
        let frames = channel.channel.incoming_slots();
        self.ending.lock().push((channel, frames));
        self.changed();
    }

    /// The next channel whose caller has left and whose ring is not held. A ring is read once: whoever still writes to it
    /// is not followed.
    fn next_ending(&self) -> Option<Arc<CalleeChannel>> {
        let mut ending = self.ending.lock();
        let mut at = 0;
        while let Some((channel, frames)) = ending.get_mut(at) {
            if *frames == 0 {
                channel.channel.end_reading();
                ending.remove(at);
            } else if channel.is_held() {
                at += 1;
            } else {
                *frames -= 1;
                return Some(Arc::clone(channel));
            }
        }
        None
    }

    fn ended(&self, channel: &Arc<CalleeChannel>) {
        channel.channel.end_reading();
        self.ending.lock().retain(|(other, _)| !Arc::ptr_eq(other, channel));
    }

    /// Has the thread with the role look at every channel: one may be read again that was held.
    pub(crate) fn look_anew(&self) {
        self.changed();
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        self.bell.notify();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.notify();
        self.spare_wanted.notify_all();
    }

    /// Whether the worker has left.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Passes the role on. `false`: there is no thread to be had, and the caller keeps it.
    fn hand_over(&self, inner: &Arc<Inner>) -> bool {
        let mut spares = self.spares.lock();
        if spares.idle == 0 && spares.threads >= THREADS_MAX {
            return false;
        }
        let before = self.role.load(Ordering::Relaxed);
        let number = before + 1;
        // Before the other thread can look: it goes away again if it does not have the role.
        self.role.store(number, Ordering::Release);
        if spares.idle == 0 {
            let inner = Arc::clone(inner);
            let spawned = std::thread::Builder::new()
                .name("ringway-dispatch".into())
                .spawn(move || dispatch(&inner, number));
            if spawned.is_err() {
                self.role.store(before, Ordering::Release);
                return false;
            }
            spares.threads += 1;
        } else {
            spares.wanted = Some(number);
            self.spare_wanted.notify_one();
        }
        true
    }

    /// Waits to be given the role; `None` when this thread is not needed any more.
    fn wait_for_role(&self) -> Option<u64> {
        let mut spares = self.spares.lock();
        spares.idle += 1;
        loop {
            if let Some(number) = spares.wanted.take() {
                spares.idle -= 1;
                return Some(number);
            }
            let timed_out = self.spare_wanted.wait_for(&mut spares, SPARE_IDLE).timed_out();
            if spares.wanted.is_none() && (timed_out || self.stopped()) {
                spares.idle -= 1;
                spares.threads -= 1;
                return None;
            }
        }
    }
}

/// Starts the first dispatcher thread.
pub(crate) fn start(inner: &Arc<Inner>) -> std::io::Result<()> {
    inner.dispatcher.spares.lock().threads += 1;
    let worker = Arc::clone(inner);
    std::thread::Builder::new().name("ringway-dispatch".into()).spawn(move || dispatch(&worker, 0))?;
    Ok(())
}

/// Runs a wait that may be long. On the dispatcher's thread the role is passed on first; on a pool thread the pool is
/// told.
pub(crate) fn blocking<R>(wait: impl FnOnce() -> R) -> R {
    let role = ROLE.take();
    if let Some((inner, number)) = role {
        let handed_over = inner.upgrade().is_none_or(|inner| {
            inner.dispatcher.role.load(Ordering::Acquire) != number || inner.dispatcher.hand_over(&inner)
        });
        if !handed_over {
            ROLE.set(Some((inner, number)));
        }
    }
    crate::executor::blocking(wait)
}

fn dispatch(inner: &Arc<Inner>, mut number: u64) {
    if inner.policy.mode() == WaitMode::Latency
        && let Some(cpu) = inner.pin
    {
        // Refused where the core is not ours; the dispatcher then runs wherever it is put.
        let _refused = ringway_ipc::sys::process::pin_thread(&[cpu]);
    }
    loop {
        ROLE.set(Some((Arc::downgrade(inner), number)));
        Round::new(inner, number).run();
        ROLE.set(None);
        if inner.dispatcher.stopped() {
            inner.dispatcher.spares.lock().threads -= 1;
            return;
        }
        match inner.dispatcher.wait_for_role() {
            Some(next) => number = next,
            None => return,
        }
    }
}

/// One thread's time with the role.
struct Round<'a> {
    inner: &'a Arc<Inner>,
    dispatcher: &'a Dispatcher,
    number: u64,
    version: u64,
    callees: Arc<Vec<Arc<CalleeChannel>>>,
    callers: Arc<Vec<Arc<CallerChannel>>>,
    /// Channels that are polled; the others ring the bell.
    hot: Vec<Polled>,
    server: Server<'a>,
    woke_ns: u64,
    rounds: u32,
}

impl<'a> Round<'a> {
    fn new(inner: &'a Arc<Inner>, number: u64) -> Self {
        let dispatcher = &inner.dispatcher;
        Self {
            inner,
            dispatcher,
            number,
            version: u64::MAX,
            callees: Arc::default(),
            callers: Arc::default(),
            hot: Vec::new(),
            server: Server::new(inner),
            woke_ns: 0,
            rounds: 0,
        }
    }

    fn has_role(&self) -> bool {
        self.dispatcher.role.load(Ordering::Acquire) == self.number && !self.dispatcher.stopped()
    }

    fn refresh(&mut self) {
        let version = self.dispatcher.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            self.callees = self.dispatcher.callees();
            self.callers = self.dispatcher.callers();
            self.hot.retain(|polled| polled.callee.channel.close_reason().is_none());
            self.serve_ending();
            self.look_everywhere();
        }
    }

    /// Acts on what callers had sent before they left. Where a handler blocks, whoever gets the role goes on.
    fn serve_ending(&mut self) {
        while self.has_role()
            && let Some(channel) = self.dispatcher.next_ending()
        {
            if !channel.serve_last(&mut self.server) {
                self.dispatcher.ended(&channel);
            }
        }
    }

    /// Makes every channel hot that has news, or that was left polled by the thread that had the role before.
    fn look_everywhere(&mut self) {
        self.dispatcher.links.rung();
        for channel in self.callees.iter().filter(|channel| !channel.is_held()) {
            let Some(lead) = channel.try_lead() else { continue };
            if (lead.ready() || !lead.bell_asked())
                && !self.hot.iter().any(|polled| Arc::ptr_eq(&polled.callee, channel))
            {
                lead.stop_bell();
                self.hot.push(Polled::new(channel));
            }
        }
    }

    fn run(&mut self) {
        while self.has_role() {
            self.refresh();
            self.rounds = self.rounds.wrapping_add(1);
            if self.rounds.is_multiple_of(BELL_EVERY_ROUNDS) {
                let rung = self.dispatcher.bell.clear();
                if self.dispatcher.links.look() || rung {
                    self.look_everywhere();
                }
            }
            if self.serve() {
                continue;
            }
            if !self.has_role() {
                return;
            }
            self.wait();
        }
    }

    /// Handles what is there. Returns whether there was anything.
    fn serve(&mut self) -> bool {
        let mut worked = self.dispatcher.links.turn();
        if worked {
            // Frames that came over a link lie in rings now.
            self.look_everywhere();
        }
        let mut held = false;
        let looks = if self.hot.len() == 1 { LOOKS_AT_ONE } else { 1 };
        for at in 0..self.hot.len() {
            if self.hot[at].callee.is_held() {
                held = true;
                continue;
            }
            for _ in 0..TURN {
                if !self.hot[at].serve_one(&mut self.server, looks, self.woke_ns) {
                    break;
                }
                worked = true;
                self.woke_ns = 0;
                if !self.has_role() {
                    return true;
                }
            }
        }
        if held {
            // Whoever ends its hold has this thread look again.
            self.hot.retain(|polled| !polled.callee.is_held());
        }
        for caller in self.callers.iter() {
            if caller.has_tasks() {
                worked |= caller.serve();
            }
        }
        worked
    }

    fn ready(&self) -> bool {
        self.callees.iter().any(|callee| callee.ready())
            || self.callers.iter().any(|caller| caller.has_tasks() && caller.ready())
    }

    fn overflowing(&self) -> bool {
        let mut any = false;
        let channels = self.callees.iter().map(|callee| &callee.channel);
        for channel in channels.chain(self.callers.iter().map(|caller| &caller.channel)) {
            if channel.overflowing() {
                channel.flush();
                any |= channel.overflowing();
            }
        }
        any
    }

    /// Spins, serving what comes at once, then sleeps until there is something to do.
    fn wait(&mut self) {
        if self.dispatcher.bell.settle() {
            // Somebody of this process may have rung since the last look, for a change of the channels or to stop.
            return self.look_everywhere();
        }
        let policy = &self.dispatcher.policy;
        let expected = &self.dispatcher.expected;
        // With no channel to poll all news comes by the bell, and a spin could only be in vain.
        let links = self.dispatcher.links.are_there();
        let polled = links || !self.hot.is_empty() || self.callers.iter().any(|caller| caller.has_tasks());
        let mut spin_ns = if polled { policy.plan(expected.ns()) } else { 0 };
        let start = if spin_ns > 0 {
            match policy.spin_after(EAGER_ROUNDS, spin_ns.min(BELL_EVERY_NS), || self.serve_awake(links)) {
                Spun::AtOnce => return expected.learn(1_000),
                Spun::After(ns) => return expected.learn(ns),
                Spun::InVain => now_ns() - spin_ns.min(BELL_EVERY_NS),
            }
        } else {
            now_ns()
        };
        let planned = spin_ns;
        while spin_ns > BELL_EVERY_NS {
            if self.dispatcher.bell.clear() {
                self.look_everywhere();
                self.refresh();
                return;
            }
            if self.overflowing() {
                return;
            }
            spin_ns -= BELL_EVERY_NS;
            let spun =
                policy.spin_after(EAGER_ROUNDS, spin_ns.min(BELL_EVERY_NS), || self.serve_awake(links));
            if spun != Spun::InVain {
                return expected.learn(now_ns() - start);
            }
            if self.dispatcher.stopped() {
                return;
            }
        }
        policy.account(planned, Spun::InVain);
        self.sleep(start);
    }

    /// As [`Self::serve`], with a look at the sockets of links, if there are any: nothing else tells of them while this thread
    /// is awake.
    fn serve_awake(&mut self, links: bool) -> bool {
        if links && self.dispatcher.links.look() {
            self.look_everywhere();
            self.serve();
            return true;
        }
        self.serve()
    }

    /// The sleep handshake over every ring: ask on each, one fence for all, look at each again. Also where a request is
    /// open already: it may have been answered, and whoever answered it does not ring for it again.
    fn sleep(&mut self, start: u64) {
        let overflowing = self.overflowing();
        let mut busy = false;
        for callee in self.callees.iter().filter(|callee| !callee.is_held()) {
            match callee.try_lead() {
                Some(mut lead) => lead.post_request(ATTENTION_WORKER_BELL),
                None => busy = true,
            }
        }
        for caller in self.callers.iter() {
            // Where no task waits nothing is asked for; where a thread leads, it asks for the bell when it leaves.
            caller.post_request();
        }
        let links = self.dispatcher.links.are_there();
        if links {
            self.dispatcher.links.ask();
        }
        fence(Ordering::SeqCst);
        let timeout = if overflowing { SLEEP_OVERFLOWING } else { SLEEP_MAX };
        let news = || busy || self.ready() || self.dispatcher.stopped();
        let slept = if links {
            // Whoever publishes to this worker is a tunnel of this very thread, or a thread of this process whose ring a
            // link's end reads; neither needs a barrier.
            let slept = !news() && self.dispatcher.links.sleep(timeout);
            if slept { Slept::Rung } else { Slept::News }
        } else {
            nap::sleep(&self.dispatcher.bell, self.inner.barrier_before_sleep, timeout, news)
        };
        if slept == Slept::News {
            self.hot.iter().for_each(|polled| polled.callee.stop_bell());
            self.look_everywhere();
            return;
        }
        let now = now_ns();
        self.woke_ns = if slept == Slept::Rung { now } else { 0 };
        self.dispatcher.expected.learn(now.saturating_sub(start));
        self.hot.clear();
        if links {
            // What a link has brought is about to lie in rings that this thread looks at.
            self.callees.iter().for_each(|callee| callee.stop_bell());
            self.dispatcher.links.turn();
        }
        self.look_everywhere();
    }
}
