//! What the processes of the hosts do: this program again, told a part by its environment, and what to do line by line. An
//! answer is a line that begins with `@`, a word and what follows it as JSON. It must not know networks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use ringway::protocol::naming;
use ringway::{
    CallOptions, Context, Credentials, Encoding, Function, Message, Sampler, TraceContext, Worker,
};
use ringway_access::key::PublicKey;
use ringway_access::tls::{ClientCertificates, ServerTls};
use ringway_access::{Doorkeeper, LinkAddress};
use ringway_engine::{Engine, Otlp};
use ringway_ipc::clock::now_ns;
use ringway_link::connection::Preparation;
use ringway_links::{Links, PeerSettings, Settings};
use ringway_store::{Embedded, Options};
use ringway_worker_queue::{Config, Queue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Names the variable that says who this process is.
pub(crate) const VARIABLE: &str = "RINGWAY_HOSTS_PART";
/// Names the variable that says how the network is shared, to workers as to engines.
pub(crate) const CONGESTION: &str = "RINGWAY_LINK_CONGESTION";
/// Where the engine of a host is. Each namespace has names of its own.
pub(crate) const ENGINE: &str = "@ringway-of-this-host";
/// How long a call of the load may take.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(4);
/// Threads of a worker that call somebody all the time.
const CALLERS: u64 = 2;
/// Functions that come and go.
const PASSING: u64 = 6;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Part {
    Engine {
        name: String,
        listen: String,
        certificate: String,
        key: String,
        issuer: String,
        peers: Vec<(String, PathBuf)>,
        /// Where its queue is, if it has one.
        queue: Option<PathBuf>,
    },
    Worker {
        name: String,
        address: String,
        credentials: Option<PathBuf>,
        /// Where the jobs are written down that it does, if it does any.
        journal: Option<PathBuf>,
        /// Whether it enqueues jobs.
        enqueues: bool,
    },
}

/// What became of the calls of a worker.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Calls {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) answered: u64,
    pub(crate) wrong: Vec<String>,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) longest_ms: u64,
}

/// Which function of which worker.
pub(crate) type Offer = (String, String);

/// Writes an answer with one call of the kernel, so that it is whole.
fn tell(word: &str, value: &impl Serialize) {
    let line = format!("\n@{word} {}\n", serde_json::to_string(value).unwrap());
    let _nobody_listens = std::io::stdout().write_all(line.as_bytes());
    let _nobody_listens = std::io::stdout().flush();
}

#[test]
fn plays_its_part() {
    // By itself this is no test: it is what the processes of the others run.
    let Ok(part) = std::env::var(VARIABLE) else { return };
    if let Ok(filter) = std::env::var("RINGWAY_LOG") {
        // What a run that failed is looked into by.
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
    }
    let orders = std::io::stdin().lock().lines().map_while(Result::ok);
    match serde_json::from_str(&part).unwrap() {
        Part::Engine { name, listen, certificate, key, issuer, peers, queue } => {
            let tls = ServerTls::from_pem(&certificate, &key, ClientCertificates::NotAsked).unwrap();
            let issuer: PublicKey = issuer.parse().unwrap();
            let all = || vec!["*".to_owned()];
            let peers = peers.into_iter().map(|(address, credentials)| PeerSettings {
                address: address.parse::<LinkAddress>().unwrap(),
                credentials: Some(credentials),
                offer: all(),
                call: all(),
            });
            let engine = Engine::builder().address(ENGINE).otlp(Otlp::Off).start().unwrap();
            let _queue = queue.map(|folder| {
                let (store, report) = Embedded::open(&folder, Options::default()).unwrap();
                assert!(report.damage.is_empty(), "{report:?}");
                let again =
                    json!({ "queue_configs": { "jobs": { "backoff_ms": 20, "max_retries": 100_000 } } });
                let config: Config = serde_json::from_value(again).unwrap();
                Queue::start(ENGINE, Arc::new(store), config).unwrap()
            });
            let settings = Settings {
                name,
                listen: Some(listen.parse().unwrap()),
                tls: Some(tls),
                doorkeeper: Arc::new(Doorkeeper::default().with_issuer(issuer)),
                peers: peers.collect(),
                offer: all(),
                connection: Preparation { congestion: std::env::var(CONGESTION).ok() },
                ..Settings::default()
            };
            let links = Links::start(ENGINE, settings).unwrap();
            tell("ready", &links.path().as_str());
            orders.for_each(|order| engine_hears(&engine, &links, &order));
        }
        Part::Worker { name, address, credentials, journal, enqueues } => {
            let mut builder = Worker::builder(&name).address(address).sampler(Sampler::always()).threads(16);
            builder = builder.default_timeout(Some(Duration::from_secs(60))).wait_for_engine();
            if let Some(path) = credentials {
                builder = builder.credentials(Credentials::from_file(&path).unwrap());
            }
            let busy = Busy::new(builder.connect().unwrap(), &name, journal);
            busy.start(enqueues);
            tell("ready", &busy.worker.id().to_string());
            orders.for_each(|order| busy.hears(&order));
        }
    }
    // The process ends with whoever started it, without waiting for calls that may be under way.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}

fn engine_hears(engine: &Engine, links: &Links, order: &str) {
    match order.split_once(' ').unwrap_or((order, "")) {
        ("status", _) => {
            let status = links.status().into_iter().map(|status| {
                json!({
                    "name": status.name, "is_engine": status.is_engine,
                    "offset_ns": status.distance.offset_ns, "round_trip_ns": status.distance.round_trip_ns,
                })
            });
            tell("status", &status.collect::<Vec<_>>());
        }
        ("trace", id) => {
            let collector = engine.collector();
            let collector = collector.lock();
            let record = collector.store().trace(id.parse().unwrap());
            let spans = record.into_iter().flat_map(|record| record.spans).map(|span| {
                json!({
                    "span": span.span_id.to_string(), "parent": span.parent_id.map(|id| id.to_string()),
                    "kind": format!("{:?}", span.kind), "name": &*span.name, "worker": span.worker.name,
                    "start_ns": span.start_ns, "end_ns": span.end_ns,
                })
            });
            tell("trace", &spans.collect::<Vec<_>>());
        }
        _ => panic!("no such order: {order}"),
    }
}

/// A worker that serves, calls, and has functions come and go.
struct Busy {
    worker: Worker,
    name: String,
    /// What it serves all the time.
    lasting: Vec<String>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Nobody begins a call while this is set.
    held: AtomicBool,
    /// No function comes or goes.
    still: AtomicBool,
    calls: Mutex<Calls>,
    under_way: Mutex<u64>,
    fewer: Condvar,
    passing: Mutex<BTreeSet<u64>>,
    jobs: Mutex<BTreeSet<u64>>,
    next_job: AtomicU64,
}

impl Busy {
    fn new(worker: Worker, name: &str, journal: Option<PathBuf>) -> Self {
        let state = Arc::new(State::default());
        state.held.store(true, Ordering::Relaxed);
        state.still.store(true, Ordering::Relaxed);
        let id = |what: &str| format!("{name}::{what}");
        let own = name.to_owned();
        let mut functions = vec![
            Function::raw(&id("echo"), |_, request| Ok(Message::bytes(request.body()))),
            Function::raw(&id("hash"), |_, request| {
                Ok(Message::bytes(blake3::hash(request.body()).as_bytes()))
            })
            .pooled(),
            Function::raw(&id("bytes"), |context: &Context, request| {
                let wanted: [u8; 8] = request.body().try_into().unwrap();
                let mut loan = context.worker().loan(usize::try_from(u64::from_le_bytes(wanted)).unwrap())?;
                fill(&mut loan);
                Ok(Message::from_loan(Encoding::Bytes, loan))
            })
            .pooled(),
            Function::stream(&id("stream"), |_, request, input, output| {
                while let Some(item) = input.recv()? {
                    output.send(item)?;
                }
                Ok(request)
            }),
            Function::json("who::am_i", {
                let own = own.clone();
                move |_, _: Value| Ok(own.clone())
            }),
            Function::json(&id("hop"), move |context: &Context, mut way: Vec<String>| {
                let mut passed = vec![own.clone()];
                if !way.is_empty() {
                    let next = way.remove(0);
                    let rest = context.worker().trigger_json(&next, &json!(way))?;
                    passed.extend(serde_json::from_value::<Vec<String>>(rest).unwrap_or_default());
                }
                Ok(passed)
            })
            .pooled(),
        ];
        if let Some(path) = journal {
            let file = File::options().create(true).append(true).open(path).unwrap();
            functions.push(Function::json("jobs::do", move |_, number: u64| {
                (&file).write_all(format!("{number}\n").as_bytes()).unwrap();
                Ok(Value::Null)
            }));
        }
        let mut lasting: Vec<String> =
            ["echo", "hash", "bytes", "stream", "hop"].iter().map(|what| id(what)).collect();
        lasting.push("who::am_i".to_owned());
        lasting.extend((functions.len() > lasting.len()).then(|| "jobs::do".to_owned()));
        worker.register_all(functions).unwrap();
        Self { worker, name: name.to_owned(), lasting, state }
    }

    fn start(&self, enqueues: bool) {
        self.state.next_job.store(u64::from(std::process::id()) << 24, Ordering::Relaxed);
        for seed in 0..CALLERS {
            let (worker, state) = (self.worker.clone(), Arc::clone(&self.state));
            let mut dice = Dice(u64::from(std::process::id()) << 8 | seed);
            std::thread::spawn(move || {
                loop {
                    state.call(|| one_call(&worker, &mut dice));
                }
            });
        }
        let (worker, state, name) = (self.worker.clone(), Arc::clone(&self.state), self.name.clone());
        std::thread::spawn(move || {
            let mut dice = Dice(u64::from(std::process::id()));
            loop {
                state.pass(&worker, &name, dice.next() % PASSING);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        if enqueues {
            let (worker, state) = (self.worker.clone(), Arc::clone(&self.state));
            std::thread::spawn(move || {
                loop {
                    state.call(|| enqueue(&worker, &state));
                }
            });
        }
    }

    fn hears(&self, order: &str) {
        match order.split_once(' ').unwrap_or((order, "")) {
            ("go", _) => {
                self.state.still.store(false, Ordering::SeqCst);
                self.state.held.store(false, Ordering::SeqCst);
            }
            ("still", _) => {
                self.state.still.store(true, Ordering::SeqCst);
                // Waits for a change that is being made.
                tell("still", &self.own());
            }
            ("hold", _) => tell("hold", &self.state.hold()),
            ("catalog", _) => tell("catalog", &self.offers()),
            ("jobs", _) => tell("jobs", &*self.state.jobs.lock().unwrap()),
            ("wait", id) => tell("wait", &self.worker.wait_for(id, Duration::from_secs(60)).is_ok()),
            ("big", words) => {
                let (to, bytes) = words.split_once(' ').unwrap();
                tell("big", &self.big(to, bytes.parse().unwrap()));
            }
            ("trace", way) => tell("trace", &self.trace(way)),
            ("call", id) => {
                tell("call", &self.worker.trigger_json(id, &Value::Null).map_err(|e| e.to_string()).ok());
            }
            ("replicas", id) => tell("replicas", &self.worker.handle(id).replicas()),
            _ => panic!("no such order: {order}"),
        }
    }

    /// What this worker serves.
    fn own(&self) -> Vec<Offer> {
        let passing = self.state.passing.lock().unwrap();
        let passing = passing.iter().map(|number| format!("{}::passing_{number}", self.name));
        let id = self.worker.id().to_string();
        self.lasting.iter().cloned().chain(passing).map(|function| (function, id.clone())).collect()
    }

    /// Which functions of which workers are in the catalog, as often as they are.
    fn offers(&self) -> Vec<Offer> {
        let catalog = self.worker.catalog();
        let offered = catalog.functions.iter().filter(|function| {
            let id = function.id.as_str();
            !naming::is_reserved(id) && !["queue", "iii"].contains(&naming::first_segment(id))
        });
        offered.map(|function| (function.id.to_string(), function.worker.to_string())).collect()
    }

    /// Sends many bytes and fetches as many.
    fn big(&self, to: &str, bytes: u64) -> Value {
        let mut loan = self.worker.loan(usize::try_from(bytes).unwrap()).unwrap();
        fill(&mut loan);
        let hash = *blake3::hash(&loan).as_bytes();
        let options = CallOptions::new().timeout(Duration::from_secs(300));
        let begun = Instant::now();
        let there = self.worker.handle(&format!("{to}::hash"));
        let there = there.call_with(&Message::from_loan(Encoding::Bytes, loan), &options).unwrap();
        let sent = begun.elapsed();
        let begun = Instant::now();
        let back = self.worker.handle(&format!("{to}::bytes"));
        let back = back.call_with(&Message::bytes(&bytes.to_le_bytes()), &options).unwrap();
        let fetched = begun.elapsed();
        let right = there.body() == hash && blake3::hash(back.body()).as_bytes() == &hash;
        json!({ "right": right, "sent_ms": sent.as_secs_f64() * 1e3, "fetched_ms": fetched.as_secs_f64() * 1e3 })
    }

    /// Goes a way of functions in one trace.
    fn trace(&self, way: &str) -> Value {
        let mut way: Vec<String> = way.split(' ').map(str::to_owned).collect();
        let first = way.remove(0);
        let (high, low) = (u64::from(std::process::id()), now_ns());
        let trace_id = format!("{high:016x}{low:016x}").parse().unwrap();
        let parent = TraceContext { trace_id, span_id: format!("{low:016x}").parse().unwrap(), flags: 1 };
        let options = CallOptions::new().parent(parent);
        let passed = self.worker.trigger_json_with(&first, &json!(way), &options).unwrap();
        json!({ "trace": parent.trace_id.to_string(), "root": parent.span_id.to_string(), "passed": passed })
    }
}

impl State {
    fn call(&self, call: impl FnOnce() -> Result<Option<String>, ringway::CallError>) {
        if self.held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
            return;
        }
        *self.under_way.lock().unwrap() += 1;
        self.calls.lock().unwrap().begun += 1;
        let begun = Instant::now();
        let outcome = call();
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap();
        {
            let mut calls = self.calls.lock().unwrap();
            calls.ended += 1;
            calls.longest_ms = calls.longest_ms.max(took_ms);
            match &outcome {
                Ok(None) => calls.answered += 1,
                Ok(Some(wrong)) => calls.wrong.push(wrong.clone()),
                Err(error) => {
                    let started = error.started.map_or(String::new(), |started| format!(" {started:?}"));
                    *calls.failed.entry(format!("{}{started}", error.code.as_str())).or_default() += 1;
                }
            }
        }
        *self.under_way.lock().unwrap() -= 1;
        self.fewer.notify_all();
        // Calls that fail at once must not keep the machine busy, and two cores have other hosts to serve.
        std::thread::sleep(Duration::from_millis(if outcome.is_ok() { 3 } else { 10 }));
    }

    /// Has nobody begin a call, waits until all have ended, and says what became of them.
    fn hold(&self) -> Calls {
        self.held.store(true, Ordering::SeqCst);
        // Who saw it unset has begun by now or begins in a moment.
        std::thread::sleep(Duration::from_millis(5));
        let until = Instant::now() + Duration::from_secs(60);
        let mut under_way = self.under_way.lock().unwrap();
        while *under_way > 0 && Instant::now() < until {
            under_way = self.fewer.wait_timeout(under_way, Duration::from_millis(100)).unwrap().0;
        }
        drop(under_way);
        self.calls.lock().unwrap().clone()
    }

    /// Has a function come, or go if it is there.
    fn pass(&self, worker: &Worker, name: &str, number: u64) {
        let mut passing = self.passing.lock().unwrap();
        if self.still.load(Ordering::SeqCst) {
            return;
        }
        let id = format!("{name}::passing_{number}");
        if passing.remove(&number) {
            // The engine may be dead: then there is nothing to take back, and the next attach names what is left.
            let _dead = worker.unregister(&id);
        } else {
            let function = Function::raw(&id, |_, request| Ok(Message::bytes(request.body())));
            if worker.register(function).is_ok() {
                passing.insert(number);
            }
        }
    }
}

/// Calls somebody somewhere; says what was wrong with the answer, if anything was.
fn one_call(worker: &Worker, dice: &mut Dice) -> Result<Option<String>, ringway::CallError> {
    let options = CallOptions::new().timeout(CALL_MAX);
    let catalog = worker.catalog();
    let callable = catalog.functions.iter().map(|function| function.id.as_str());
    let callable: Vec<&str> = callable
        .filter(|id| id.ends_with("::echo") || id.ends_with("::stream") || id.contains("::passing_"))
        .collect();
    let Some(id) = callable.get(usize::try_from(dice.next()).unwrap_or(0) % callable.len().max(1)) else {
        let name = worker.trigger_json_with("who::am_i", &Value::Null, &options)?;
        return Ok((!name.is_string()).then(|| format!("who::am_i said {name}")));
    };
    let bytes = [16, 16, 16, 3_000, 40_000, 700_000][usize::try_from(dice.next() % 6).unwrap_or(0)];
    let byte = u8::try_from(dice.next() % 256).unwrap_or(0);
    if !id.ends_with("::stream") {
        let body = vec![byte; bytes];
        let answer = worker.handle(id).call_with(&Message::from_vec(Encoding::Bytes, body), &options)?;
        let found = answer.body();
        let strange = found.iter().position(|found| *found != byte);
        let right = found.len() == bytes && strange.is_none();
        return Ok((!right).then(|| {
            let at = strange.map(|at| (at, found[at], found.iter().filter(|found| **found != byte).count()));
            format!("{id}: sent {bytes} x {byte}, got {}; the first other, and how many: {at:?}", found.len())
        }));
    }
    let mut stream = worker.handle(id).stream(&Message::bytes(b"end"), &options)?;
    for number in 0..5u64 {
        stream.send(Message::bytes(&number.to_le_bytes()))?;
    }
    stream.finish();
    for number in 0..5u64 {
        match stream.recv()? {
            Some(item) if item.body() == number.to_le_bytes() => {}
            Some(item) => return Ok(Some(format!("{id}: item {number} is {:?}", item.body()))),
            None => {
                let end = stream.end().map(|end| end.body().to_vec());
                return Ok(Some(format!("{id}: over before item {number}, with {end:?}")));
            }
        }
    }
    if let Some(item) = stream.recv()? {
        return Ok(Some(format!("{id}: a sixth item, {:?}", item.body())));
    }
    let end = stream.end()?;
    Ok((end.body() != b"end").then(|| format!("{id}: ended with {:?}", end.body())))
}

fn enqueue(worker: &Worker, state: &State) -> Result<Option<String>, ringway::CallError> {
    let number = state.next_job.fetch_add(1, Ordering::Relaxed);
    let request = json!({ "queue": "jobs", "function_id": "jobs::do", "data": number });
    worker.trigger_json_with("queue::enqueue", &request, &CallOptions::new().timeout(CALL_MAX))?;
    state.jobs.lock().unwrap().insert(number);
    Ok(None)
}

/// Bytes that are not alike anywhere.
fn fill(bytes: &mut [u8]) {
    blake3::Hasher::new().finalize_xof().fill(bytes);
}

/// Random choices (`SplitMix64`).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
