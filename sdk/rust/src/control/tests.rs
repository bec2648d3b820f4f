//! The control thread against a small engine in another thread, and against the lack of one.

use std::collections::VecDeque;
use std::process::{Child, Command as Process};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use ringway_ipc::channel::Role;
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::{Header, Inline};
use ringway_protocol::FunctionId;
use ringway_protocol::control::{ChannelEnd, EngineMessage, FunctionSpec, GoneCause, WorkerMessage};

use super::fake_engine::{FakeEngine, Mind};
use super::*;

const LONG: Duration = Duration::from_secs(20);

/// What the thread said.
#[derive(Debug)]
enum Said {
    Attached { again: bool },
    Catalog(u64),
    Changes(u64),
    Detached,
    Callee(Arc<Channel>, bool, String),
    Closed(CloseReason),
    Permissions(WorkerId, WorkerId, bool),
    Revoked(WorkerId, WorkerId),
}

#[derive(Default)]
struct Listener {
    said: Mutex<VecDeque<Said>>,
    kept: Mutex<Vec<KeptChannel>>,
}

impl Listener {
    fn say(&self, said: Said) {
        self.said.lock().push_back(said);
    }

    /// Waits for the next thing that `pick` wants; what comes before it is dropped.
    fn next<T>(&self, what: &str, pick: impl Fn(Said) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            while let Some(said) = { self.said.lock().pop_front() } {
                if let Some(found) = pick(said) {
                    return found;
                }
            }
            assert!(begun.elapsed() < LONG, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn closed(&self) -> CloseReason {
        self.next("a closed channel", |said| match said {
            Said::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn detached(&self) {
        self.next("the engine's end", |said| matches!(said, Said::Detached).then_some(()));
    }

    fn attached_again(&self) {
        self.next("an attach", |said| matches!(said, Said::Attached { again: true }).then_some(()));
    }

    fn callee(&self) -> Arc<Channel> {
        self.next("a callee's channel", |said| match said {
            Said::Callee(channel, ..) => Some(channel),
            _ => None,
        })
    }
}

impl Events for Listener {
    fn attached(&self, welcome: &Welcome, again: bool) {
        assert!(welcome.catalog.workers.is_empty());
        self.say(Said::Attached { again });
    }
    fn catalog(&self, catalog: Catalog) {
        self.say(Said::Catalog(catalog.revision));
    }
    fn changes(&self, revision: u64, _changes: &[Change]) {
        self.say(Said::Changes(revision));
    }
    fn detached(&self, _reason: &str) {
        self.say(Said::Detached);
    }
    fn callee_channel(
        &self,
        channel: Arc<Channel>,
        page: Option<PermissionView>,
        name: String,
        zone: String,
    ) {
        assert_eq!(zone, "default");
        self.say(Said::Callee(channel, page.is_some_and(|page| page.allows(1) && !page.allows(2)), name));
    }
    fn channel_closed(&self, channel: &Arc<Channel>, reason: CloseReason) {
        assert_eq!(channel.close_reason(), Some(reason));
        self.say(Said::Closed(reason));
    }
    fn permissions(&self, caller: WorkerId, callee: WorkerId, view: PermissionView) {
        self.say(Said::Permissions(caller, callee, view.allows(1)));
    }
    fn revoked(&self, caller: WorkerId, callee: WorkerId, _error: CallError) {
        self.say(Said::Revoked(caller, callee));
    }
    fn trigger_bind(&self, binding: TriggerSpec, _owner: Option<WorkerId>, answer: BindAnswer) {
        if binding.id == "bad" {
            answer.send(Err(CallError::invalid_registration("bad")));
        }
    }
    fn trigger_accepted(&self, _id: &str) {}
    fn trigger_refused(&self, _id: &str, _error: CallError) {}
    fn trigger_unbind(&self, _id: &str) {}
    fn shutdown(&self, _reason: &str, _drain: Duration) {}
    fn kept_channels(&self) -> Vec<KeptChannel> {
        self.kept.lock().clone()
    }
}

fn new_address() -> String {
    format!("@ringway-test-{:016x}", crate::sampler::random_u64())
}

fn config(address: &str, worker: u64) -> ControlConfig {
    let worker_id = WorkerId::new(worker);
    ControlConfig {
        address: ControlAddress::explicit(address),
        destination: None,
        hello: Hello::new(worker_id, "test", std::process::id()),
        telemetry: None,
        channel: ChannelConfig {
            channel: 0,
            worker,
            peer_worker: 0,
            worker_bell: Doorbell::new().unwrap(),
            slot_count: 16,
            segment_bytes_max: 1 << 30,
            barrier_registered: false,
            barrier_before_sleep: false,
        },
        attach_timeout: LONG,
        wait_for_engine: false,
        reconnect: true,
    }
}

struct Attached {
    control: Control,
    listener: Arc<Listener>,
    id: WorkerId,
}

fn attach(address: &str, worker: u64) -> Attached {
    attach_with(config(address, worker)).unwrap()
}

fn attach_with(config: ControlConfig) -> Result<Attached, CallError> {
    let id = config.hello.worker_id;
    let listener = Arc::new(Listener::default());
    let weak: Weak<Listener> = Arc::downgrade(&listener);
    let control = Control::start(config, weak)?;
    Ok(Attached { control, listener, id })
}

fn functions(names: &[&str]) -> Register {
    let spec = |name: &&str| FunctionSpec::new(FunctionId::new(name).unwrap(), 1);
    Register { functions: names.iter().map(spec).collect(), ..Register::default() }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> ErrorCode {
    outcome.unwrap_err().code
}

#[test]
fn an_attach_is_told_before_its_catalog() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let worker = attach(&address, 7);
    assert!(worker.control.is_attached());
    let said: Vec<Said> = worker.listener.said.lock().drain(..).collect();
    assert!(matches!(said[..], [Said::Attached { again: false }, Said::Catalog(5)]), "{said:?}");
    let hello = engine.mind.lock().hellos[0].clone();
    assert!(!hello.reattach && hello.worker_id == worker.id);
}

#[test]
fn a_refusal_is_the_error() {
    let address = new_address();
    let refuse = Some(CallError::forbidden("attach", "test"));
    let _engine = FakeEngine::start_with(&address, Mind { refuse, ..Mind::default() });
    assert_eq!(code(attach_with(config(&address, 7)).map(drop)), ErrorCode::Forbidden);
}

#[test]
fn without_an_engine_the_error_says_what_to_do() {
    let address = new_address();
    let error = attach_with(config(&address, 7)).map(drop).unwrap_err();
    assert_eq!(error.code, ErrorCode::EngineUnavailable);
    for part in [&*address, "named by the program", "`ringway up`", "ringway_engine::Engine"] {
        assert!(error.message.contains(part), "{part} is missing: {}", error.message);
    }
}

#[test]
fn a_silent_engine_is_none() {
    let address = new_address();
    let _engine = FakeEngine::start_with(&address, Mind { silent: true, ..Mind::default() });
    let config = ControlConfig { attach_timeout: Duration::from_millis(50), ..config(&address, 7) };
    assert_eq!(code(attach_with(config).map(drop)), ErrorCode::EngineUnavailable);
}

#[test]
fn a_first_attach_may_wait_for_the_engine() {
    let address = new_address();
    let late = {
        let address = address.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            FakeEngine::start(&address)
        })
    };
    let worker = attach_with(ControlConfig { wait_for_engine: true, ..config(&address, 7) }).unwrap();
    let _engine = late.join().unwrap();
    assert!(worker.control.is_attached());
}

#[test]
fn a_new_engine_hears_of_everything_once() {
    let address = new_address();
    let refused_ids = vec!["a::refused".to_owned()];
    let engine = FakeEngine::start_with(&address, Mind { refused_ids, ..Mind::default() });
    let worker = attach(&address, 7);
    let results = worker.control.register(functions(&["a::one", "a::refused", "a::gone"]), LONG).unwrap();
    let outcomes: Vec<_> = results.iter().map(|result| result.outcome).collect();
    use ringway_protocol::control::RegistrationOutcome::{Refused, Registered};
    assert_eq!(outcomes, [Registered, Refused, Registered]);
    worker.control.register(functions(&["a::two"]), LONG).unwrap();
    let gone = Unregister { functions: vec![FunctionId::new("a::gone").unwrap()], ..Unregister::default() };
    worker.control.unregister(gone, LONG).unwrap();
    worker.control.draining();
    engine.wait("draining", |mind| mind.count("draining") == 1);
    for round in 1..=2 {
        // Only one engine listens at a time.
        engine.mind.lock().drop.push(worker.id);
        worker.listener.detached();
        worker.listener.attached_again();
        // Heard before the connection is dropped again: what was not read by then is lost with it.
        engine.wait("a replay", |mind| {
            mind.registered().len() == 2 + round && mind.count("draining") == 1 + round
        });
    }
    assert_eq!(engine.mind.lock().registered()[2..], [["a::one", "a::two"], ["a::one", "a::two"]]);
    assert!(engine.mind.lock().hellos[1..].iter().all(|hello| hello.reattach));
    drop(engine);
    worker.listener.detached();
    let engine = FakeEngine::start(&address);
    worker.listener.attached_again();
    engine.wait("a replay", |mind| !mind.registered().is_empty());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(engine.mind.lock().registered(), [["a::one", "a::two"]]);
}

#[test]
fn a_registration_waits_for_the_next_engine() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let worker = Arc::new(attach(&address, 7));
    drop(engine);
    worker.listener.detached();
    assert!(!worker.control.is_attached());
    let late = worker.control.register(functions(&["a::late"]), Duration::from_millis(20));
    assert_eq!(code(late), ErrorCode::EngineUnavailable);
    let waiting = Arc::clone(&worker);
    let waiting = std::thread::spawn(move || waiting.control.register(functions(&["a::one"]), LONG));
    std::thread::sleep(Duration::from_millis(50));
    let engine = FakeEngine::start(&address);
    assert_eq!(waiting.join().unwrap().unwrap()[0].id, "a::one");
    assert_eq!(engine.mind.lock().registered(), [["a::one"]], "what was given up is not registered");
}

#[test]
fn two_workers_get_a_channel() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let channel = a.control.connect(b.id, 0).unwrap();
    assert_eq!((channel.role(), channel.peer_worker()), (Role::Caller, 8));
    let permissions = a.listener.next("permissions", |said| match said {
        Said::Permissions(caller, callee, allowed) => Some((caller, callee, allowed)),
        _ => None,
    });
    assert_eq!(permissions, (a.id, b.id, true));
    let served = b.listener.next("a channel", |said| match said {
        Said::Callee(channel, allowed, name) => {
            assert!(allowed && name == "caller");
            Some(channel)
        }
        _ => None,
    });
    assert_eq!((served.id(), served.role(), served.peer_worker()), (channel.id(), Role::Callee, 7));
    channel.send(&Header { invocation: 42, ..Header::default() }, &Inline::default()).unwrap();
    let mut inline = Inline::default();
    let header = served.try_lead().unwrap().poll(&mut inline).unwrap().unwrap();
    assert_eq!(header.invocation, 42);
    assert!(Arc::ptr_eq(&channel, &a.control.connect(b.id, 0).unwrap()));
    let absent = a.control.connect(WorkerId::new(99), 0);
    assert_eq!(code(absent), ErrorCode::NotFound);
    assert_eq!(engine.mind.lock().count("connect"), 2);
}

#[test]
fn all_who_ask_at_once_get_the_same_channel() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..20 {
        let sender = sender.clone();
        a.control.connect_async(b.id, 0, Box::new(move |outcome| sender.send(outcome).unwrap()));
    }
    let channels: Vec<_> = (0..20).map(|_| outcomes.recv_timeout(LONG).unwrap().unwrap()).collect();
    assert!(channels.iter().all(|channel| Arc::ptr_eq(channel, &channels[0])));
    assert_eq!(engine.mind.lock().count("connect"), 1);
}

#[test]
fn a_hang_up_closes_the_channel_and_the_next_one_is_new() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let channel = a.control.connect(b.id, 0).unwrap();
    let served = b.listener.callee();
    served.close(CloseReason::Local);
    b.control.forget(&served);
    assert_eq!(a.listener.closed(), CloseReason::Goodbye);
    assert_eq!(channel.close_reason(), Some(CloseReason::Goodbye));
    engine.wait("news of the end", |mind| mind.count("disconnected") == 1);
    let next = a.control.connect(b.id, 0).unwrap();
    assert!(!Arc::ptr_eq(&channel, &next) && next.close_reason().is_none());
}

#[test]
fn the_old_channels_end_does_not_undo_the_new_one() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let channel = a.control.connect(b.id, 0).unwrap();
    channel.close(CloseReason::Ring);
    let next = a.control.connect(b.id, 0).unwrap();
    assert!(!Arc::ptr_eq(&channel, &next));
    a.control.forget(&channel);
    a.control.draining();
    engine.wait("everything", |mind| mind.count("draining") == 1);
    let mind = engine.mind.lock();
    let order: Vec<_> = mind.heard.iter().map(WorkerMessage::name).filter(|name| *name != "hello").collect();
    assert_eq!(order, ["connect", "disconnected", "connect", "draining"]);
}

/// A process that stands in for a peer.
struct Peer(Child);

impl Peer {
    fn start() -> Self {
        Self(Process::new("sleep").arg("600").spawn().unwrap())
    }
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only where the test has killed it already.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_dead_process_closes_its_channels_with_and_without_an_engine() {
    let address = new_address();
    let mut peer = Peer::start();
    let process = Some(peer.0.id());
    let engine = FakeEngine::start_with(&address, Mind { process, ..Mind::default() });
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let channel = a.control.connect(b.id, 0).unwrap();
    let served = b.listener.callee();
    drop(engine);
    a.listener.detached();
    assert_eq!((channel.close_reason(), served.close_reason()), (None, None), "a dead engine closes nothing");
    let begun = Instant::now();
    peer.kill();
    assert_eq!((a.listener.closed(), b.listener.closed()), (CloseReason::PeerGone, CloseReason::PeerGone));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(channel.close_reason(), Some(CloseReason::PeerGone));
}

#[test]
fn kept_channels_are_in_the_next_greeting() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let a = attach(&address, 7);
    let kept = KeptChannel { peer: WorkerId::new(8), end: ChannelEnd::Callee };
    a.listener.kept.lock().push(kept);
    drop(engine);
    a.listener.detached();
    let engine = FakeEngine::start(&address);
    a.listener.attached_again();
    assert_eq!(engine.mind.lock().hellos[0].channels, [kept]);
}

#[test]
fn a_wish_for_a_channel_outlives_an_engine() {
    let address = new_address();
    let engine = FakeEngine::start_with(&address, Mind { ignore_connects: true, ..Mind::default() });
    let (a, b) = (Arc::new(attach(&address, 7)), attach(&address, 8));
    let asking = Arc::clone(&a);
    let to = b.id;
    let asking = std::thread::spawn(move || asking.control.connect(to, 0));
    engine.wait("a request", |mind| mind.count("connect") == 1);
    let deadline = now_ns() + 20_000_000;
    assert_eq!(code(a.control.connect(b.id, deadline)), ErrorCode::DeadlineExceeded);
    drop(engine);
    a.listener.detached();
    b.listener.detached();
    let deadline = now_ns() + 1_000_000;
    assert_eq!(code(a.control.connect(b.id, deadline)), ErrorCode::EngineUnavailable);
    // The callee may come back after the caller: then the engine does not know it yet, and says so.
    let _engine = FakeEngine::start(&address);
    let outcome = asking.join().unwrap();
    assert!(
        outcome.as_ref().is_ok_and(|channel| channel.peer_worker() == 8)
            || code(outcome) == ErrorCode::NotFound
    );
}

#[test]
fn a_revoked_channel_is_closed_after_the_news() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let channel = a.control.connect(b.id, 0).unwrap();
    let error = CallError::forbidden("all", "a");
    engine.say(a.id, EngineMessage::Revoked { caller: a.id, callee: b.id, error });
    a.listener.next("the news", |said| {
        matches!(said, Said::Revoked(from, to) if (from, to) == (a.id, b.id)).then_some(())
    });
    assert_eq!(a.listener.closed(), CloseReason::Local);
    assert!(channel.close_reason().is_some());
    assert_eq!(b.listener.closed(), CloseReason::Goodbye);
}

#[test]
fn a_view_that_missed_a_change_attaches_again() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let a = attach(&address, 7);
    let gone = || vec![Change::WorkerGone { id: WorkerId::new(3), cause: GoneCause::Died }];
    engine.say(a.id, EngineMessage::CatalogChange { revision: 6, changes: gone() });
    a.listener.next("a change", |said| matches!(said, Said::Changes(6)).then_some(()));
    engine.say(a.id, EngineMessage::CatalogChange { revision: 8, changes: gone() });
    a.listener.detached();
    a.listener.attached_again();
    a.listener.next("a catalog", |said| matches!(said, Said::Catalog(5)).then_some(()));
}

#[test]
fn a_provider_answers_for_its_triggers() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let a = attach(&address, 7);
    for id in ["good", "bad"] {
        let binding = TriggerSpec::new(id, "cron", FunctionId::new("a::b").unwrap());
        engine.say(a.id, EngineMessage::TriggerBind { binding, owner: None });
    }
    engine.wait("two answers", |mind| mind.count("trigger_bound") == 2);
    let refused = |message: &WorkerMessage| match message {
        WorkerMessage::TriggerBound { binding, error } => Some((binding.clone(), error.is_some())),
        _ => None,
    };
    let answers: Vec<_> = engine.mind.lock().heard.iter().filter_map(refused).collect();
    assert_eq!(answers, [("good".to_owned(), false), ("bad".to_owned(), true)]);
}

#[test]
fn a_goodbye_reaches_the_engine_and_ends_everything() {
    let address = new_address();
    let engine = FakeEngine::start(&address);
    let a = attach(&address, 7);
    a.control.goodbye();
    engine.wait("a goodbye", |mind| mind.count("goodbye") == 1);
    assert!(!a.control.is_attached());
    assert_eq!(code(a.control.register(functions(&["a::b"]), LONG)), ErrorCode::EngineUnavailable);
    assert_eq!(code(a.control.connect(WorkerId::new(8), 0)), ErrorCode::EngineUnavailable);
}

#[test]
fn without_reconnect_a_lost_engine_is_an_error() {
    let address = new_address();
    let engine = FakeEngine::start_with(&address, Mind { ignore_connects: true, ..Mind::default() });
    let a = Arc::new(attach_with(ControlConfig { reconnect: false, ..config(&address, 7) }).unwrap());
    let asking = Arc::clone(&a);
    let asking = std::thread::spawn(move || asking.control.connect(WorkerId::new(8), 0));
    engine.wait("a request", |mind| mind.count("connect") == 1);
    drop(engine);
    assert_eq!(code(asking.join().unwrap()), ErrorCode::EngineUnavailable);
    assert_eq!(code(a.control.register(functions(&["a::b"]), LONG)), ErrorCode::EngineUnavailable);
}

fn timer(control: &Control, in_ms: u64, name: &'static str, sender: &mpsc::Sender<&'static str>) -> TimerId {
    let sender = sender.clone();
    control.schedule(now_ns() + in_ms * 1_000_000, Box::new(move || sender.send(name).unwrap()))
}

fn fired(receiver: &Receiver<&'static str>) -> &'static str {
    receiver.recv_timeout(LONG).unwrap()
}

#[test]
fn timers_run_in_order_unless_cancelled() {
    let address = new_address();
    let _engine = FakeEngine::start(&address);
    let a = attach(&address, 7);
    let (sender, receiver) = mpsc::channel();
    timer(&a.control, 60, "last", &sender);
    let cancelled = timer(&a.control, 20, "cancelled", &sender);
    timer(&a.control, 40, "second", &sender);
    timer(&a.control, 10, "first", &sender);
    a.control.cancel_timer(cancelled);
    assert_eq!([fired(&receiver), fired(&receiver), fired(&receiver)], ["first", "second", "last"]);
    timer(&a.control, 0, "at once", &sender);
    assert_eq!(fired(&receiver), "at once");
}

#[test]
fn the_thread_cannot_wait_for_itself() {
    let address = new_address();
    let _engine = FakeEngine::start(&address);
    let a = Arc::new(attach(&address, 7));
    let (sender, receiver) = mpsc::channel();
    let inside = Arc::clone(&a);
    let task = move || sender.send(inside.control.connect(WorkerId::new(8), 0).map(drop)).unwrap();
    a.control.schedule(0, Box::new(task));
    assert_eq!(code(receiver.recv_timeout(LONG).unwrap()), ErrorCode::Busy);
}

/// How often the control threads of this process gave up their processors.
fn switches() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\tringway-control") {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.unwrap().trim().parse::<u64>().unwrap();
        }
    }
    sum
}

#[test]
fn an_idle_thread_sleeps() {
    let address = new_address();
    let _engine = FakeEngine::start(&address);
    let (a, b) = (attach(&address, 7), attach(&address, 8));
    let _channel = a.control.connect(b.id, 0).unwrap();
    let _served = b.listener.callee();
    let (sender, _receiver) = mpsc::channel();
    let far = timer(&a.control, 600_000, "far", &sender);
    a.control.cancel_timer(far);
    std::thread::sleep(Duration::from_millis(200));
    let before = switches();
    std::thread::sleep(Duration::from_millis(500));
    // Other tests of this process may have control threads of their own, which nextest avoids.
    if std::env::var_os("NEXTEST").is_some() {
        assert_eq!(switches() - before, 0, "wake-ups in half a second");
    }
}
