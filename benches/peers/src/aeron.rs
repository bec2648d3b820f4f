//! Aeron over shared memory (`aeron:ipc`), bare ping-pong: two streams, exclusive publications, claimed in place, both
//! processes polling. The media driver is a third process; on this path it only sets up and keeps the books, so it
//! sleeps between rounds instead of taking a core.

use std::ffi::CString;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::bail;
use ringway_bench::report::CaseResult;
use rusteron_client::{
    Aeron, AeronContext, AeronExclusivePublication, AeronImage, AeronSubscription, Handlers,
};
use rusteron_media_driver::testing::EmbeddedDriver;

use crate::harness::{Bench, SMALL, answer, check, poll, ready, relax, stamp, stop_flag};

/// The shared-memory transport.
const CHANNEL: &std::ffi::CStr = c"aeron:ipc";
/// Requests.
const ASK: i32 = 1001;
/// Responses.
const ANSWER: i32 = 1002;
/// How long either side waits for the other to be there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most messages taken by one poll.
const FRAGMENTS: usize = 10;

pub(crate) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    let driver = bench.start_unpinned(&["driver"])?;
    let callee = bench.start(&["echo", driver.said()])?;
    bench.pin_caller()?;
    let aeron = client(driver.said())?;
    let publication = publication(&aeron, ASK)?;
    let subscription = subscription(&aeron, ANSWER)?;
    let image = image(&subscription)?;
    let mut request = [0; SMALL];
    let case = bench.case("", SMALL, &[callee.pid(), driver.pid()], |sequence| {
        stamp(&mut request, sequence);
        publish(&publication, &request)?;
        let mut checked = None;
        poll(|| {
            image.poll_fn(|response, _| checked = Some(check(response, sequence)), FRAGMENTS)?;
            Ok(checked.take())
        })?
    });
    Ok(vec![case?])
}

pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    match arguments {
        [kind] if kind == "driver" => drive(),
        [kind, folder] if kind == "echo" => echo(folder),
        _ => bail!("wanted driver, or echo and the driver's folder"),
    }
}

fn drive() -> anyhow::Result<()> {
    let stop = stop_flag();
    let driver = EmbeddedDriver::launch_with(|context| {
        context.set_threading_mode(
            rusteron_media_driver::bindings::aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED,
        )?;
        context.set_shared_idle_strategy(c"sleep-ns")?;
        context.set_term_buffer_sparse_file(false)?;
        Ok(())
    })?;
    ready(driver.dir());
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn echo(folder: &str) -> anyhow::Result<()> {
    let stop = stop_flag();
    let aeron = client(folder)?;
    let publication = publication(&aeron, ANSWER)?;
    let subscription = subscription(&aeron, ASK)?;
    ready("");
    let image = image(&subscription)?;
    let mut failed = None;
    while !stop.load(Ordering::Relaxed) {
        let taken =
            image.poll_fn(|request, _| failed = publish(&publication, &answer(request)).err(), FRAGMENTS)?;
        if let Some(error) = failed.take() {
            return Err(error);
        }
        if taken == 0 {
            relax();
        }
    }
    Ok(())
}

fn client(folder: &str) -> anyhow::Result<Aeron> {
    let context = AeronContext::new()?;
    context.set_dir(&CString::new(folder)?)?;
    context.set_pre_touch_mapped_memory(true)?;
    let aeron = Aeron::new(&context)?;
    aeron.start()?;
    Ok(aeron)
}

fn publication(aeron: &Aeron, stream: i32) -> anyhow::Result<AeronExclusivePublication> {
    Ok(aeron.async_add_exclusive_publication(CHANNEL, stream)?.poll_blocking(PATIENCE)?)
}

fn subscription(aeron: &Aeron, stream: i32) -> anyhow::Result<AeronSubscription> {
    let adding = aeron.async_add_subscription(CHANNEL, stream, Handlers::NONE, Handlers::NONE)?;
    Ok(adding.poll_blocking(PATIENCE)?)
}

/// Waits until the other side publishes.
fn image(subscription: &AeronSubscription) -> anyhow::Result<AeronImage> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(image) = subscription.image_at_index(0) {
            return Ok(image);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("the other side never published")
}

/// Writes a message where the reader will find it, trying again while the stream is not ready for it.
fn publish(publication: &AeronExclusivePublication, message: &[u8]) -> anyhow::Result<()> {
    loop {
        match publication.try_claim_owned(message.len()) {
            Ok(mut claim) => {
                claim.data().copy_from_slice(message);
                claim.commit()?;
                return Ok(());
            }
            Err(error) if error.is_retryable() => relax(),
            Err(error) => return Err(error.into()),
        }
    }
}
