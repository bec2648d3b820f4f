//! Ringway itself: a typed call by handle through an embedded engine, both workers in `latency` mode, so that both poll.
//! Calls are not traced. The engine is a part of the caller's process; its threads sleep, since it is not on the path.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, bail};
use ringway::{Encoding, Function, Message, Sampler, TypedHandle, WaitMode, Worker};
use ringway_bench::machine::pin_all_threads;
use ringway_bench::report::CaseResult;
use ringway_engine::{Engine, Otlp};
use rkyv::{Archive, Deserialize, Serialize};

use crate::harness::{Bench, LARGE, SMALL, answer, check, ready, stamp, stop_flag};

/// Takes and returns a [`Small`].
const TYPED: &str = "peers::typed";
/// Takes bytes of any length.
const BYTES: &str = "peers::bytes";
/// How long the callee's functions may take to show up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A small request or response: the same 64 bytes that the others send.
#[derive(
    Debug,
    Clone,
    Copy,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
struct Small {
    words: [u64; SMALL / 8],
}

impl Small {
    fn request(sequence: u64) -> Self {
        Self { words: [sequence, 0, 0, 0, 0, 0, 0, sequence] }
    }

    /// As [`answer`] for bytes: the request's two ends in front.
    fn answer(first: u64, last: u64) -> Self {
        Self { words: [first, last, 0, 0, 0, 0, 0, 0] }
    }
}

type Echo = TypedHandle<Small, Small>;

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    let address = format!("@ringway-peers-{}", std::process::id());
    let engine = Engine::builder().address(&address).otlp(Otlp::Off).start()?;
    let cpu = if bench.pinned { bench.options.cpus.callee.to_string() } else { "any".to_owned() };
    // The callee pins itself once it has attached: a worker counts the processors that it may use.
    let callee = bench.start_unpinned(&[&address, &cpu])?;
    let worker = attach(&address, "peers-caller")?;
    worker.wait_for(TYPED, PATIENCE)?;
    worker.handle(TYPED).bind()?;
    bench.pin_caller()?;
    let echo: Echo = worker.function(TYPED);
    let cases = [
        small(bench, &echo, callee.pid()),
        in_flight(bench, &echo, callee.pid()),
        large(bench, &worker, callee.pid()),
    ];
    worker.shut_down();
    drop(callee);
    engine.shutdown(PATIENCE);
    cases.into_iter().collect()
}

fn attach(address: &str, name: &str) -> anyhow::Result<Worker> {
    let builder = Worker::builder(name).address(address).wait_mode(WaitMode::Latency);
    Ok(builder.sampler(Sampler::never()).connect()?)
}

fn small(bench: &Bench<'_>, echo: &Echo, callee: u32) -> anyhow::Result<CaseResult> {
    bench.case("", SMALL, &[callee], |sequence| check_small(&echo.call(&Small::request(sequence))?, sequence))
}

/// Many calls under way from one thread.
fn in_flight(bench: &Bench<'_>, echo: &Echo, callee: u32) -> anyhow::Result<CaseResult> {
    let pipeline = RefCell::new(echo.pipeline());
    bench.in_flight(
        &[callee],
        |sequence| Ok(pipeline.borrow_mut().submit(&Small::request(sequence))?),
        |(), sequence| {
            let reply = pipeline.borrow_mut().recv().context("nothing is in flight")??;
            check_small(&reply, sequence)
        },
    )
}

fn check_small(reply: &ringway::Reply<Small>, sequence: u64) -> anyhow::Result<()> {
    let words = reply.archived().context("the response is no archive")?.words;
    if (words[0].to_native(), words[1].to_native()) == (sequence, sequence) {
        return Ok(());
    }
    bail!("wanted the response to request {sequence}, found {words:?}")
}

/// The loan comes back with the response and is used again, so after the warm-up no page is touched for the first time.
fn large(bench: &Bench<'_>, worker: &Worker, callee: u32) -> anyhow::Result<CaseResult> {
    let handle = worker.handle(BYTES);
    bench.case("", LARGE, &[callee], |sequence| {
        let mut request = worker.loan(LARGE)?;
        stamp(&mut request, sequence);
        let reply = handle.call(&Message::from_loan(Encoding::Bytes, request))?;
        check(reply.body(), sequence)
    })
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let [address, cpu] = arguments else { bail!("wanted an address and a processor") };
    let stop = stop_flag();
    let worker = attach(address, "peers-callee")?;
    let typed = Function::typed::<Small, Small>(TYPED, |_, request| {
        Ok(Small::answer(request.words[0].to_native(), request.words[7].to_native()))
    });
    let bytes = Function::raw(BYTES, |_, request| Ok(Message::bytes(&answer(request.body()))));
    worker.register_all(vec![typed.inline(), bytes.inline()])?;
    if let Ok(cpu) = cpu.parse() {
        pin_all_threads(cpu)?;
    }
    ready("");
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.shut_down();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Small;
    use crate::harness::{SMALL, answer, check, stamp};

    fn bytes(small: &Small) -> Vec<u8> {
        small.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_bytes_are_those_of_the_others() {
        let mut request = [0; SMALL];
        stamp(&mut request, 7);
        assert_eq!(bytes(&Small::request(7)), request);
        assert_eq!(bytes(&Small::answer(7, 8))[..8], answer(&request)[..8]);
        check(&bytes(&Small::answer(7, 7)), 7).unwrap();
        assert!(check(&bytes(&Small::answer(7, 8)), 7).is_err());
    }
}
