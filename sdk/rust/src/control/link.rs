//! The connection to the engine: connecting, greeting, sending, and when to try again. It must not know what the
//! messages after the greeting mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use ringway_ipc::clock::now_ns;
use ringway_ipc::packet::PacketStream;
use ringway_protocol::control::{EngineMessage, WorkerMessage};

use super::remote::Remote;
use super::stream::{ReadError, Stream};
use crate::sampler::random_u64;

/// The pause before the second attempt to attach again; it doubles from one to the next.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause. Where there is no way to the engine's host an attempt fails at once, and this is how late the return of
/// the network may be noticed.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Where the connection stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// None; tried again at a time, or never.
    Down { next_ns: Option<u64> },
    /// Greeted; the answer is due by a time.
    Greeted { stream: Stream, since_ns: u64, answer_by_ns: u64 },
    /// Attached, with the revision of the catalog.
    Up { stream: Stream, revision: u64 },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) stage: Stage,
    token: Token,
    failures: u32,
}

impl Link {
    /// Makes a link that connects at once.
    pub(super) const fn new(token: Token) -> Self {
        Self { stage: Stage::Down { next_ns: Some(0) }, token, failures: 0 }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    const fn stream(&mut self) -> Option<&mut Stream> {
        match &mut self.stage {
            Stage::Down { .. } => None,
            Stage::Greeted { stream, .. } | Stage::Up { stream, .. } => Some(stream),
        }
    }

    /// Returns when something is to be done about the link; `u64::MAX` for never.
    pub(super) const fn due_ns(&self) -> u64 {
        match self.stage {
            Stage::Down { next_ns: Some(at) } => at,
            Stage::Greeted { answer_by_ns, .. } => answer_by_ns,
            Stage::Down { next_ns: None } | Stage::Up { .. } => u64::MAX,
        }
    }

    /// Connects to the engine of this host. May wait while the engine's queue of connections is full.
    pub(super) fn local(address: &str) -> io::Result<Stream> {
        PacketStream::connect(address).map(|stream| Stream::Local(Box::new(stream)))
    }

    /// Sends the greeting over a new connection.
    pub(super) fn greet(
        &mut self,
        registry: &Registry,
        mut stream: Stream,
        hello: &WorkerMessage,
        fds: Vec<Arc<OwnedFd>>,
        answer_by_ns: u64,
    ) -> io::Result<()> {
        let fd = stream.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), self.token, Interest::READABLE | Interest::WRITABLE)?;
        let queued = stream.send(hello, fds);
        self.stage = Stage::Greeted { stream, since_ns: now_ns(), answer_by_ns };
        queued
    }

    /// The link, if the engine is on another host.
    pub(super) fn remote(&mut self) -> Option<&mut Remote> {
        match self.stream() {
            Some(Stream::Remote(remote)) => Some(remote),
            _ => None,
        }
    }

    /// The greeting was answered.
    pub(super) fn attached(&mut self, revision: u64) {
        self.failures = 0;
        let down = Stage::Down { next_ns: None };
        if let Stage::Greeted { stream, .. } = std::mem::replace(&mut self.stage, down) {
            self.stage = Stage::Up { stream, revision };
        }
    }

    /// Closes the connection, to be tried again after a pause if `again`.
    pub(super) fn drop_stream(&mut self, registry: &Registry, again: bool) {
        if let Some(stream) = self.stream() {
            let fd = stream.as_fd().as_raw_fd();
            if let Err(error) = registry.deregister(&mut SourceFd(&fd)) {
                tracing::debug!(%error, "cannot take the control socket out of the wait set");
            }
        }
        // An attempt that waited for long has had its pause.
        let since_ns = if let Stage::Greeted { since_ns, .. } = self.stage { since_ns } else { now_ns() };
        let next_ns = again.then(|| since_ns + self.pause_ns());
        self.stage = Stage::Down { next_ns };
    }

    /// The next pause: doubled each time, a quarter more or less, so that many workers do not come back at once.
    fn pause_ns(&mut self) -> u64 {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        let pause = u64::try_from(doubled.as_nanos()).unwrap_or(u64::MAX);
        pause - pause / 4 + random_u64() % (pause / 2)
    }

    /// Appends a message to what goes out with the next flush. Without a connection it is dropped: whoever must know is
    /// told again at the next attach.
    pub(super) fn send(&mut self, message: &WorkerMessage, fds: Vec<Arc<OwnedFd>>) {
        let Some(stream) = self.stream() else { return };
        if let Err(error) = stream.send(message, fds) {
            tracing::warn!(%error, message = message.name(), "cannot send a message to the engine");
        }
    }

    /// Sends as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.stream() {
            Some(stream) => stream.flush(),
            None => Ok(()),
        }
    }

    /// Reads the next message, if one is there.
    pub(super) fn receive(&mut self) -> Result<Option<(EngineMessage, Vec<OwnedFd>)>, ReadError> {
        let Some(stream) = self.stream() else { return Ok(None) };
        stream.receive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_second() {
        let mut link = Link::new(Token(0));
        for expected in [10, 20, 40, 80, 160, 320, 500, 500, 500, 500, 500, 500] {
            let (expected, found) = (expected * 1_000_000, link.pause_ns());
            assert!((expected * 3 / 4..=expected * 5 / 4).contains(&found), "{found} instead of {expected}");
        }
    }
}
