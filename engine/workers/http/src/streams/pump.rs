//! The body of a request on its way to a function, item by item, as fast as the function takes them. One that cannot be read
//! to its end ends the call: a function must not take a part for all. It must not know answers.

use std::time::Duration;

use http_body_util::BodyExt as _;
use ringway::{Message, StreamWriter};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Source;
use crate::body::{cut_short, too_large, too_slow};
use crate::problem::Problem;

/// Bytes of one item at most.
const ITEM_BYTES_MAX: usize = 64 << 10;

/// A body under way. Dropped, it is read no further.
#[derive(Debug)]
pub(crate) struct Pump {
    task: Option<JoinHandle<()>>,
    failure: Option<oneshot::Receiver<Box<Problem>>>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Pump {
    pub(crate) fn start(
        source: Source,
        writer: Option<StreamWriter>,
        bytes_max: u64,
        patience: Duration,
    ) -> Self {
        let Some(writer) = writer else { return Self { task: None, failure: None } };
        let (tell, failure) = oneshot::channel();
        let task = tokio::spawn(async move {
            if let Err(problem) = run(source, &writer, bytes_max, patience).await {
                // Told first, so that the end of the stream, which follows, is not taken for its end.
                let _nobody = tell.send(problem);
                // The call is ended by whoever was told; until then the stream stays open.
                tokio::time::sleep(patience).await;
            }
        });
        Self { task: Some(task), failure: Some(failure) }
    }

    /// Ready when the body could not be read to its end.
    pub(crate) async fn failed(&mut self) -> Box<Problem> {
        if let Some(failure) = &mut self.failure
            && let Ok(problem) = failure.await
        {
            return problem;
        }
        self.failure = None;
        std::future::pending().await
    }
}

async fn run(
    source: Source,
    writer: &StreamWriter,
    bytes_max: u64,
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let mut body = match source {
        Source::Whole(bytes) => {
            for item in bytes.chunks(ITEM_BYTES_MAX) {
                if writer.send_async(Message::bytes(item)).await.is_err() {
                    break;
                }
            }
            return Ok(());
        }
        Source::Coming(body) => body,
    };
    let mut received = 0;
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await.map_err(|_| too_slow(received))?;
        let Some(frame) = frame else { return Ok(()) };
        let Ok(data) = frame.map_err(|error| cut_short(&error))?.into_data() else { continue };
        received += data.len() as u64;
        if received > bytes_max {
            return Err(too_large(bytes_max));
        }
        for item in data.chunks(ITEM_BYTES_MAX) {
            // A function that takes no more is told no more; what it answers counts.
            if writer.send_async(Message::bytes(item)).await.is_err() {
                return Ok(());
            }
        }
    }
}
