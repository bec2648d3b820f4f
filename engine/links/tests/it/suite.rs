//! What engines that see each other promise, whatever they see each other through: a suite that each way to link engines runs,
//! this crate's and those of others, which take this file in as it is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway::{CallOptions, ErrorCode, Function, Message, Worker};
use ringway_engine::{Engine, Otlp};
use serde_json::json;

/// Longer than anything here takes; a test that waits for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An engine alone.
pub(crate) fn engine() -> Engine {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = format!("@ringway-suite-{}-{number}", std::process::id());
    Engine::builder().address(address).otlp(Otlp::Off).start().unwrap()
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A way to have engines see each other.
pub(crate) trait Fabric {
    /// What an engine has of it.
    type Joined;

    /// What failures say.
    fn name(&self) -> String;

    /// Has an engine see those that are there, and be seen by them.
    fn join(&self, engine: &Engine, others: &[&Host<Self::Joined>]) -> Self::Joined;

    /// Cuts an engine off, waits until that was seen, and has it be there as before.
    fn cut_and_heal(&self, host: &mut Host<Self::Joined>, before: Self::Joined, seen: impl FnOnce());
}

/// An engine and what it sees others through; none while it is cut off.
pub(crate) struct Host<J> {
    pub(crate) joined: Option<J>,
    pub(crate) engine: Engine,
}

pub(crate) fn host<F: Fabric>(fabric: &F, others: &[&Host<F::Joined>]) -> Host<F::Joined> {
    let engine = engine();
    let joined = Some(fabric.join(&engine, others));
    Host { joined, engine }
}

impl<J> Host<J> {
    pub(crate) fn worker(&self, name: &str) -> Worker {
        Worker::builder(name).address(self.engine.address()).connect().unwrap()
    }
}

pub(crate) fn wait_for(worker: &Worker, function: &str) {
    worker.wait_for(function, Duration::from_secs(20)).unwrap();
}

pub(crate) fn workers_of_linked_engines_call_each_other(fabric: &impl Fabric) {
    let first = host(fabric, &[]);
    let second = host(fabric, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    b.register(Function::json("b::triple", |_, number: u64| Ok(number * 3))).unwrap();
    b.register(Function::raw("b::echo", |_, request| Ok(Message::bytes(request.body())))).unwrap();
    wait_for(&a, "b::triple");
    wait_for(&b, "a::double");
    for number in 0..200u64 {
        assert_eq!(
            a.trigger_json("b::triple", &json!(number)).unwrap(),
            json!(number * 3),
            "{}",
            fabric.name()
        );
        assert_eq!(b.trigger_json("a::double", &json!(number)).unwrap(), json!(number * 2));
    }
    // Worker to worker through two engines, of which neither serves it.
    let caller = first.worker("caller");
    wait_for(&caller, "b::echo");
    let bytes = vec![7; 5_000_000];
    assert_eq!(caller.handle("b::echo").call(&Message::bytes(&bytes)).unwrap().body(), bytes);
    // The catalog is live in both directions.
    b.unregister("b::triple").unwrap();
    until("an unregistered function is gone everywhere", || {
        a.trigger_json("b::triple", &json!(1)).is_err_and(|error| error.code == ErrorCode::NotFound)
    });
    drop(b);
    until("a worker that left is gone everywhere", || {
        a.catalog().workers.iter().all(|worker| worker.name != "b")
    });
}

pub(crate) fn local_replicas_are_called_before_far_ones_and_far_ones_when_there_is_no_other(
    fabric: &impl Fabric,
) {
    let first = host(fabric, &[]);
    let second = host(fabric, &[&first]);
    let serve = |worker: &Worker, text: &'static str| {
        worker.register(Function::json("who::am_i", move |_, _: serde_json::Value| Ok(text))).unwrap();
    };
    let (near, far, caller) = (first.worker("near"), second.worker("far"), first.worker("caller"));
    serve(&far, "far");
    wait_for(&caller, "who::am_i");
    assert_eq!(caller.trigger_json("who::am_i", &json!(0)).unwrap(), json!("far"));
    serve(&near, "near");
    until("the near replica is known", || caller.handle("who::am_i").replicas() == 2);
    for _ in 0..50 {
        assert_eq!(caller.trigger_json("who::am_i", &json!(0)).unwrap(), json!("near"), "{}", fabric.name());
    }
    drop(near);
    until("the far one serves again", || {
        caller.trigger_json("who::am_i", &json!(0)).is_ok_and(|answer| answer == json!("far"))
    });
}

pub(crate) fn three_engines_in_a_ring_see_everything_once(fabric: &impl Fabric) {
    let first = host(fabric, &[]);
    let second = host(fabric, &[&first]);
    let third = host(fabric, &[&first, &second]);
    let hosts = [&first, &second, &third];
    let workers: Vec<Worker> = hosts.iter().map(|host| host.worker("worker")).collect();
    for (number, worker) in workers.iter().enumerate() {
        let id = format!("at::host_{number}");
        worker.register(Function::json(&id, move |_, _: serde_json::Value| Ok(number))).unwrap();
    }
    for worker in &workers {
        for number in 0..3 {
            let id = format!("at::host_{number}");
            wait_for(worker, &id);
            assert_eq!(worker.handle(&id).replicas(), 1, "{}", fabric.name());
            assert_eq!(worker.trigger_json(&id, &json!(0)).unwrap(), json!(number));
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    for worker in &workers {
        let functions = worker.catalog().functions;
        let at = functions.iter().filter(|function| function.id.as_str().starts_with("at::")).count();
        assert_eq!(at, 3, "nothing goes round in circles: {}", fabric.name());
    }
}

pub(crate) fn a_cut_link_heals_and_both_catalogs_are_whole_again<F: Fabric>(fabric: &F) {
    let mut first = host(fabric, &[]);
    let second = host(fabric, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    a.register(Function::json("a::double", |_, number: u64| Ok(number * 2))).unwrap();
    b.register(Function::json("b::triple", |_, number: u64| Ok(number * 3))).unwrap();
    wait_for(&a, "b::triple");
    wait_for(&b, "a::double");
    for round in 0..5 {
        let before = first.joined.take().unwrap();
        fabric.cut_and_heal(&mut first, before, || {
            until("what was behind the link is gone", || {
                b.trigger_json("a::double", &json!(1)).is_err_and(|error| error.code == ErrorCode::NotFound)
            });
        });
        wait_for(&a, "b::triple");
        wait_for(&b, "a::double");
        assert_eq!(
            b.trigger_json("a::double", &json!(round)).unwrap(),
            json!(round * 2),
            "{}",
            fabric.name()
        );
        assert_eq!(a.trigger_json("b::triple", &json!(round)).unwrap(), json!(round * 3));
    }
}

pub(crate) fn streams_go_both_ways(fabric: &impl Fabric) {
    let first = host(fabric, &[]);
    let second = host(fabric, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    b.register(Function::stream("b::double", |_, _, numbers, doubled| {
        let mut count = 0u64;
        while let Some(number) = numbers.recv()? {
            let number: u64 = serde_json::from_slice(number.body())?;
            doubled.send(Message::json(&(number * 2))?)?;
            count += 1;
        }
        Message::json(&count)
    }))
    .unwrap();
    wait_for(&a, "b::double");
    let mut stream = a.handle("b::double").stream(&Message::empty(), &CallOptions::new()).unwrap();
    for number in 0..2000u64 {
        stream.send(Message::bytes(number.to_string().as_bytes())).unwrap();
        let doubled = stream.recv().unwrap().unwrap();
        assert_eq!(doubled.body(), (number * 2).to_string().as_bytes(), "{}", fabric.name());
    }
    stream.finish();
    assert!(stream.recv().unwrap().is_none());
    assert_eq!(stream.end().unwrap().body(), b"2000");
}

pub(crate) fn payloads_of_all_sizes_go_both_ways(fabric: &impl Fabric) {
    let first = host(fabric, &[]);
    let second = host(fabric, &[&first]);
    let (a, b) = (first.worker("a"), second.worker("b"));
    for (worker, id) in [(&a, "a::echo"), (&b, "b::echo")] {
        worker.register(Function::raw(id, |_, request| Ok(Message::bytes(request.body())))).unwrap();
    }
    wait_for(&a, "b::echo");
    wait_for(&b, "a::echo");
    for len in [0, 10, 1000, 100_000, 20_000_000] {
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for (caller, id) in [(&a, "b::echo"), (&b, "a::echo")] {
            let answer = caller.handle(id).call(&Message::bytes(&bytes)).unwrap();
            assert!(answer.body() == bytes, "{} bytes by {}", len, fabric.name());
        }
    }
}
