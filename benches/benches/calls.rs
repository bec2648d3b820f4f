//! What does the SDK cost around the ring? Two workers and an engine in this process: finding a function among ten
//! thousand, and a whole call from one thread to another. Between processes, `ringway bench` measures.

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::{Function, Message, Sampler, WaitMode, Worker};
use ringway_engine::{Engine, Otlp};

/// Functions in the catalog.
const FUNCTIONS: usize = 10_000;

/// 64 bytes, the same in memory and in an archive.
#[derive(
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
struct Words {
    words: [u64; 8],
}

fn calls(criterion: &mut Criterion) {
    let address = format!("@ringway-benches-{}", std::process::id());
    let engine = Engine::builder().address(&address).otlp(Otlp::Off).start().expect("an engine starts");
    let attach = |name: &str| {
        let builder = Worker::builder(name).address(&address).wait_mode(WaitMode::Balanced);
        builder.sampler(Sampler::never()).connect().expect("a worker attaches")
    };
    let (caller, callee) = (attach("caller"), attach("callee"));
    let others =
        (0..FUNCTIONS).map(|at| Function::raw(&format!("other::f{at}"), |_, _| Ok(Message::empty())));
    let typed = Function::typed::<Words, Words>("bench::typed", |_, request| request.to_value());
    callee.register_all(others.chain([typed.inline()]).collect()).expect("functions are registered");
    caller.wait_for("bench::typed", std::time::Duration::from_secs(20)).expect("functions show up");

    let mut at = 0;
    criterion.bench_function("find_one_of_10000_functions", |bencher| {
        let names: Vec<String> = (0..FUNCTIONS).map(|at| format!("other::f{at}")).collect();
        bencher.iter(|| {
            at = (at + 1) % FUNCTIONS;
            caller.handle(&names[at]).replicas()
        });
    });
    let words = Words { words: [7; 8] };
    let function = caller.function::<Words, Words>("bench::typed");
    criterion.bench_function("call_by_handle_between_two_threads", |bencher| {
        bencher.iter(|| function.call(&words).expect("the call succeeds"));
    });
    criterion.bench_function("call_by_name_between_two_threads", |bencher| {
        bencher.iter(|| caller.trigger::<Words, Words>("bench::typed", &words).expect("the call succeeds"));
    });
    caller.shut_down();
    callee.shut_down();
    drop(engine);
}

criterion_group!(all, calls);
criterion_main!(all);
