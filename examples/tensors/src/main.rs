//! A tensor handed from process to process without being copied.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "showing something is what an example is for")]

use std::time::Duration;

use ringway::protocol::header::DType;
use ringway::{Attachment, Failure, Function, HandlerResult, Message, Worker, payload_counters};
use ringway_example_stage::{Stage, until_told_to_leave};
use serde::{Deserialize, Serialize};

/// Rows and columns of the picture: 16 MiB of numbers.
const SIDE: usize = 2048;
/// The same as a tensor's shape says it.
const SHAPE: [u64; 2] = [SIDE as u64; 2];
/// Bytes of a number.
const NUMBER_BYTES: usize = size_of::<f32>();

/// What came of a picture.
#[derive(Serialize, Deserialize)]
struct Measured {
    least: f32,
    greatest: f32,
    mean: f64,
    /// Payload bytes lent and copied, by each worker on the way, the last one first.
    payload_bytes: Vec<(String, u64, u64)>,
}

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("gate") => serve_gate(&Worker::connect("gate")?),
        Some("meter") => serve_meter(&Worker::connect("meter")?),
        Some(other) => anyhow::bail!("wanted gate, meter or nothing, found {other}"),
        None => {
            let stage = Stage::open()?;
            let (_gate, _meter) = (stage.start("gate")?, stage.start("meter")?);
            take_picture(&Worker::builder("camera").address(stage.address()).connect()?)
        }
    }
}

/// Serves `picture::measure`, which reads every number where the camera wrote it.
fn serve_meter(worker: &Worker) -> anyhow::Result<()> {
    worker.register(Function::raw("picture::measure", |_, request| {
        let picture = picture(request.attachments())?;
        let mut measured = Measured {
            least: f32::MAX,
            greatest: f32::MIN,
            mean: 0.0,
            payload_bytes: vec![counters("meter")],
        };
        for number in numbers(picture.payload()) {
            measured.least = measured.least.min(number);
            measured.greatest = measured.greatest.max(number);
            measured.mean += f64::from(number);
        }
        measured.mean /= (SIDE * SIDE) as f64;
        Message::json(&measured)
    }))?;
    Ok(until_told_to_leave()?)
}

/// Serves `picture::check`, which forwards a picture that is bright enough.
fn serve_gate(worker: &Worker) -> anyhow::Result<()> {
    worker.register(Function::raw("picture::check", |context, request| {
        let picture = picture(request.attachments())?;
        if !numbers(picture.payload()).take(SIDE).any(|number| number > 0.1) {
            return Err(Failure::with_code("too_dark", "the first row is dark"));
        }
        // A clone is another hold on the same bytes. The camera gets its block back when the last hold is gone.
        let forwarded = Message::empty().attach(picture.clone());
        let reply = context.worker().handle("picture::measure").call(&forwarded)?;
        let mut measured: Measured = serde_json::from_slice(reply.body())?;
        measured.payload_bytes.push(counters("gate"));
        Message::json(&measured)
    }))?;
    Ok(until_told_to_leave()?)
}

fn take_picture(worker: &Worker) -> anyhow::Result<()> {
    for function in ["picture::check", "picture::measure"] {
        worker.wait_for(function, Duration::from_secs(10))?;
    }
    let check = worker.handle("picture::check");
    let call = |brightness: f32| -> anyhow::Result<Measured> {
        // Written into memory that others may read, before it is known who will.
        let mut loan = worker.loan(SIDE * SIDE * NUMBER_BYTES)?;
        for (place, number) in loan.chunks_exact_mut(NUMBER_BYTES).enumerate() {
            let column = place % SIDE;
            number.copy_from_slice(&(column as f32 / SIDE as f32 * brightness).to_ne_bytes());
        }
        let picture = Attachment::tensor(loan.freeze().into(), DType::F32, &SHAPE);
        let message = Message::empty().attach(picture.map_err(Failure::into_error)?);
        Ok(serde_json::from_slice(check.call(&message)?.body())?)
    };
    let mut measured = call(1.0)?;
    println!("least {:.3}, greatest {:.3}, mean {:.3}", measured.least, measured.greatest, measured.mean);
    measured.payload_bytes.push(counters("camera"));
    for (worker, lent, copied) in measured.payload_bytes.iter().rev() {
        println!("{worker:<7} lent {:>2} MiB, copied {copied} bytes", lent >> 20);
    }
    if let Err(error) = call(0.01) {
        println!("a dark one: {error}");
    }
    Ok(())
}

/// Takes the one tensor of a request.
fn picture(attachments: &[Attachment]) -> HandlerResult<&Attachment> {
    match attachments {
        [picture] if picture.dtype() == DType::F32 && picture.shape() == SHAPE => Ok(picture),
        _ => Err(Failure::invalid(format!("wanted one f32 tensor of shape {SHAPE:?}"))),
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (numbers, _none) = bytes.as_chunks::<NUMBER_BYTES>();
    numbers.iter().map(|number| f32::from_ne_bytes(*number))
}

fn counters(worker: &str) -> (String, u64, u64) {
    let counters = payload_counters();
    (worker.to_owned(), counters.lent_bytes, counters.copied_bytes)
}
