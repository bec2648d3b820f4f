//! A connection that is not waited for without end. One without a request for too long is closed: it is idle, or its client
//! sends the head of a request byte by byte, or never begins one. One that takes nothing that is written for too long is
//! closed too. It looks at the clock now and then, by one timer, so that it costs requests next to nothing. It must not know
//! HTTP.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

/// What goes on over a connection.
#[derive(Debug)]
pub(super) struct Activity {
    requests: AtomicUsize,
    /// When the last request ended, in milliseconds since `begun`.
    ended_ms: AtomicU64,
    begun: Instant,
    is_upgraded: AtomicBool,
    /// What the request held that the connection was given over for.
    held: Mutex<Vec<Box<dyn Any + Send>>>,
    /// Its place among those that may be, which is free when it has gone, whoever looked after it last.
    _place: OwnedSemaphorePermit,
}

/// A request that goes on.
#[derive(Debug)]
pub(super) struct Active(Arc<Activity>);

impl Activity {
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        Self {
            requests: AtomicUsize::new(0),
            ended_ms: AtomicU64::new(0),
            begun: Instant::now(),
            is_upgraded: AtomicBool::new(false),
            held: Mutex::default(),
            _place: place,
        }
    }

    pub(super) fn begin(self: &Arc<Self>) -> Active {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Active {
    /// From now on others look after this connection, which holds what its request held for as long as it is there.
    pub(super) fn upgraded(&self, held: Vec<Box<dyn Any + Send>>) {
        self.0.is_upgraded.store(true, Ordering::Relaxed);
        *self.0.held.lock() = held;
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.ended_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream with patience.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    activity: Arc<Activity>,
    idle_max: Duration,
    stalled_max: Duration,
    /// When it is looked whether the connection is idle.
    look: Pin<Box<Sleep>>,
    /// When a write that cannot go on is given up.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>, idle_max: Duration, stalled_max: Duration) -> Self {
        let look = Box::pin(tokio::time::sleep(idle_max));
        Self { stream, activity, idle_max, stalled_max, look, stalled: None }
    }

    /// Whether the connection has been idle too long; has the task woken when it may have been.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        while self.look.as_mut().poll(cx).is_ready() {
            let busy = self.activity.requests.load(Ordering::Relaxed) > 0
                || self.activity.is_upgraded.load(Ordering::Relaxed)
                || self.stalled.is_some();
            let since =
                self.activity.begun + Duration::from_millis(self.activity.ended_ms.load(Ordering::Relaxed));
            let next = if busy { Instant::now() + self.idle_max } else { since + self.idle_max };
            if next <= Instant::now() {
                return true;
            }
            self.look.as_mut().reset(next);
        }
        false
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.stalled.take().is_some() {
                // Until now it was busy, if slowly.
                self.activity.ended_ms.store(self.activity.now_ms(), Ordering::Relaxed);
            }
            return polled;
        }
        let stalled_max = self.stalled_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stalled_max)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(late("the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn late(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        // Also when something came: who sends byte by byte is not waited for either.
        if this.is_idle(cx) {
            return Poll::Ready(Err(late("no request came")));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(cx, polled)
    }
}
