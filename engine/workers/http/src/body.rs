//! The body of an answer, whole or as it comes, and what is held until it has been sent; and reading the body of a request,
//! within limits. It must not know what is in them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::problem::{Code, Problem};

/// The error of a body, whoever made it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body must come at least this fast, in bytes for each second, on top of the time that it may take anyway.
const RATE_MIN: u64 = 16 << 10;

type Streamed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

/// The body of an answer.
pub(crate) struct Body {
    kind: Kind,
    /// Dropped when everything was handed over, or nobody wants it any more.
    held: Vec<Box<dyn std::any::Any + Send>>,
}

enum Kind {
    Full(Bytes),
    Streamed(Streamed),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self.kind, Kind::Full(_)) { "Body(full)" } else { "Body(streamed)" })
    }
}

impl Body {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), held: Vec::new() }
    }

    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn streamed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { kind: Kind::Streamed(Box::pin(body.map_err(Into::into))), held: Vec::new() }
    }

    /// Keeps something until the body has been sent.
    pub(crate) fn hold(&mut self, held: impl Send + 'static) {
        self.held.push(Box::new(held));
    }

    /// Gives up what is kept.
    pub(crate) fn take_held(&mut self) -> Vec<Box<dyn std::any::Any + Send>> {
        std::mem::take(&mut self.held)
    }

    /// The bytes, if they are all there.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Full(bytes) => Some(bytes),
            Kind::Streamed(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Streamed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Streamed(body) => body.size_hint(),
        }
    }
}

/// Reads the whole body of a request, of so many bytes at most, and in due time.
///
/// # Errors
/// It is too long, too slow, or the client has gone.
pub(crate) async fn read(body: Incoming, bytes_max: u64, patience: Duration) -> Result<Bytes, Box<Problem>> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > bytes_max {
        tokio::spawn(drain(body));
        return Err(too_large(bytes_max));
    }
    let mut body = body;
    let (mut first, mut joined, mut received) = (Bytes::new(), BytesMut::new(), 0_u64);
    let begun = Instant::now();
    loop {
        let until = begun + patience + Duration::from_secs(received / RATE_MIN);
        let frame =
            tokio::time::timeout_at(until.into(), body.frame()).await.map_err(|_| too_slow(received))?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|error| cut_short(&error))?.into_data() else { continue };
        received += data.len() as u64;
        if received > bytes_max {
            tokio::spawn(drain(body));
            return Err(too_large(bytes_max));
        }
        if first.is_empty() && joined.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// Takes what a client goes on to send, for a while: one that is cut off while it sends loses the answer that says why.
async fn drain(mut body: Incoming) {
    const BYTES_MAX: usize = 8 << 20;
    const PATIENCE: Duration = Duration::from_secs(2);
    let _late = tokio::time::timeout(PATIENCE, async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > BYTES_MAX {
                break;
            }
        }
    })
    .await;
}

pub(crate) fn too_large(bytes_max: u64) -> Box<Problem> {
    let text = format!("the body is longer than the {bytes_max} bytes that this route takes");
    Problem::new(Code::PayloadTooLarge, text)
}

pub(crate) fn too_slow(received: u64) -> Box<Problem> {
    Problem::new(Code::BodyTimeout, format!("the body did not come in time; {received} bytes of it did"))
}

pub(crate) fn cut_short(error: &hyper::Error) -> Box<Problem> {
    Problem::new(Code::InvalidBody, format!("the body could not be read: {error}"))
}
